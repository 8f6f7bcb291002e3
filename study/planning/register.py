"""What a launch declares, for the register of its ledger: the questions of its contrasts, and what had been seen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from analysis.records.launches import concerns, read_launches
from analysis.verdicts.looks import Look, Records, Today, asked_at_launches, seen_by, told
from analysis.words import listed
from study.declaration.cells import NUMERICS_VERSION, DataRef
from study.declaration.definition import Study
from study.store.ledger import Ledger


def compared_before(study: Study, refs: Mapping[str, DataRef], ledger: Ledger) -> str:
    """Which contrasts had been looked at on these data with some of these seeds; empty where none had.

    By another recipe or another content of a file: with the study's own, verdicts say what was added or left out.
    """
    contents = {name: ref.fingerprint for name, ref in refs.items()}
    keys = {name: ref.source_key for name, ref in refs.items()}
    pairs = frozenset((name, seed) for name in study.datasets for seed in study.seeds)
    recipes = frozenset(_recipe_ids(study))
    today = Today(pairs, (recipes, recipes), frozenset([NUMERICS_VERSION]), contents, keys)
    launches = read_launches(ledger.folder)
    records = Records(ledger.records().values())
    named: list[str] = []
    looks: dict[tuple[str, str], Look] = {}
    for contrast in study.contrasts:
        question = (contrast.baseline.variant_id, contrast.against.variant_id, contrast.metric)
        askings = asked_at_launches(launches, question, today)
        first = next((asking for asking in askings if asking.pairs == pairs), None)
        again = seen_by(first, records.looks(*question[:2], today), today).again
        if again:
            named.append(contrast.name)
            looks |= {look.cells: look for look in again}
    if not named:
        return ""
    return (
        f"compared before on these data with some of these seeds: {told(list(looks.values()), today)} "
        f"({listed(named)}); verdicts will be exploratory, fresh seeds would tell"
    )


def _recipe_ids(study: Study) -> list[str]:
    """The recipes under which cells of a study may be judged: its own, and those that its tuning may choose."""
    tuned = () if study.tuning is None else study.tuning.recipes
    return list(dict.fromkeys([study.recipe.recipe_id, *(recipe.recipe_id for recipe in tuned)]))


def launch_of(study: Study, refs: Mapping[str, DataRef], ledger: Ledger) -> dict[str, Any]:
    """The line of a launch in `launches.jsonl`, made before any of its cells runs (see `analysis.records.launches`)."""
    launch: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "study": study.name,
        "study_hash": study.study_hash,
        "contrasts_hash": study.contrasts_hash,
        "recipe_id": study.recipe.recipe_id,
        **({} if study.tuning is None else {"recipes": _recipe_ids(study)}),
        "seeds": list(study.seeds),
        "data": {
            name: {"fingerprint": refs[name].fingerprint, "source_key": refs[name].source_key}
            for name in study.datasets
        },
        "asked": [[c.baseline.variant_id, c.against.variant_id, c.metric] for c in study.contrasts],
    }
    done = ((cell_id, record) for cell_id, record in ledger.records().items() if record["status"] == "done")
    return {**launch, "seen": [cell_id for cell_id, record in done if concerns(launch, record)]}
