"""Register of launches, `launches.jsonl` in a ledger: what each declared, and which cells had finished before.

A manifest is written anew at every launch of its study, and a record names the study that ran it first. The register
keeps the order of events: a line is appended at a launch, before any of its cells runs. `asked`: (baseline, against,
metric) of every contrast; `data`: fingerprint and source of each data set by name; `seen`: ids of the cells of these
variants that had finished on these data (of that name, content or source), by whatever recipe, seeds or study.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.records.schema import shortened

LAUNCHES = "launches.jsonl"
Launch = dict[str, Any]
NEEDED: dict[str, type] = {
    "study_hash": str,
    "recipe_id": str,
    "seeds": list,
    "data": dict,
    "asked": list,
    "seen": list,
}


def read_launches(folder: Path) -> list[Launch]:
    """The launches of a ledger in their order; none where it keeps no register, as ledgers from before it do not.

    A last line that a kill left half-written does not count: its launch ran nothing. Raises ValueError naming file and
    line for any other that is not a launch.
    """
    path = folder / LAUNCHES
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate([*lines, tail], start=1):
        launch = parsed_launch(line)
        if launch is not None:
            found.append(launch)
        elif number <= len(lines):
            came = shortened(line.decode(errors="replace"))
            raise ValueError(f"{path}: line {number} must be a launch, got {came}")
    return found


def declares_alike(launch: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two launches declare the same: of such, the first one counts, and no other needs a line."""
    return all(launch.get(key) == other.get(key) for key in {*launch, *other} - {"seen", "time"})


def parsed_launch(line: bytes) -> Launch | None:
    """The launch in a line of a register; None where it is none."""
    try:
        launch = json.loads(line)
    except ValueError:
        return None
    if not isinstance(launch, dict) or not all(isinstance(launch.get(key), kind) for key, kind in NEEDED.items()):
        return None
    return launch
