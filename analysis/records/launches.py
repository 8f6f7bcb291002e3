"""Register of launches, `launches.jsonl` in a ledger: what each declared, and which cells had finished before.

A manifest is written anew at every launch of its study, and a record names the study that ran it first. The register
keeps the order of events: a line is appended at a launch, before any of its cells runs. `asked`: (baseline, against,
metric) of every contrast; `data`: fingerprint and source of each data set by name; `seen`: ids of the cells of these
variants that had finished on these data (of that name, content or source), by whatever recipe, seeds or study.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.records.schema import Record, shortened

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


def concerns(launch: Mapping[str, Any], record: Record) -> bool:
    """Whether a record is of a variant that a launch asks about, on its data (of that name, content or source)."""
    contents = {data["fingerprint"] for data in launch["data"].values()}
    sources = {data["source_key"] for data in launch["data"].values()}
    return any(record["variant_id"] in question[:2] for question in launch["asked"]) and (
        record["dataset"] in launch["data"]
        or record["data_fingerprint"] in contents
        or (record.get("source_key") or record["dataset"]) in sources
    )


def merged_launches(registers: Sequence[Sequence[Launch]], records: Iterable[Record]) -> list[Launch]:
    """The register of a ledger that is made of several, in the order of events.

    Of launches that declare the same, in whichever ledgers, the first counts; it had seen what any of them had. And a
    launch may have seen what had finished before it in another ledger: `records` are those of all of them.
    """
    events: list[tuple[str, int, int, Launch]] = []
    for number, register in enumerate(registers):
        latest = ""
        for place, launch in enumerate(register):
            # A ledger's own order stands, whatever its clock said.
            latest = max(latest, str(launch.get("time", "")))
            events.append((latest, number, place, launch))
    finished = [record for record in records if record["status"] == "done" and record.get("finished")]
    merged: list[Launch] = []
    times: list[str] = []
    for time, *_, launch in sorted(events, key=lambda event: event[:3]):
        same = next((index for index, earlier in enumerate(merged) if declares_alike(earlier, launch)), None)
        if same is None:
            merged.append(dict(launch))
            times.append(time)
        else:
            merged[same] = {**merged[same], "seen": list(dict.fromkeys([*merged[same]["seen"], *launch["seen"]]))}
    for index, (launch, time) in enumerate(zip(merged, times, strict=True)):
        before = [r["cell_id"] for r in finished if r["finished"] < time and concerns(launch, r)]
        merged[index] = {**launch, "seen": list(dict.fromkeys([*launch["seen"], *before]))}
    return merged


def parsed_launch(line: bytes) -> Launch | None:
    """The launch in a line of a register; None where it is none."""
    try:
        launch = json.loads(line)
    except ValueError:
        return None
    if not isinstance(launch, dict) or not all(isinstance(launch.get(key), kind) for key, kind in NEEDED.items()):
        return None
    return launch
