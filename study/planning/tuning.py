"""Equal tuning: every variant gets the best of the same recipes, chosen on validation, before its own seeds run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from analysis.records.schema import Record
from medmamba_variants.networks import Network
from study.declaration.cells import Cell, DataRef
from study.declaration.definition import Study


@dataclass(frozen=True)
class Choice:
    """A variant's recipe, by its place among those tried, and the mean validation metric of each (None: one failed)."""

    place: int
    scores: tuple[float | None, ...]


def tuning_cells(study: Study, variant: Network, refs: Mapping[str, DataRef]) -> list[list[Cell]]:
    """The cells of a variant that its tuning runs, one list for each recipe; empty lists where nothing is tuned."""
    if study.tuning is None:
        return []
    names = study.tuning.datasets or study.datasets
    return [
        [Cell(variant, recipe, refs[name], seed) for seed in study.tuning.seeds for name in names]
        for recipe in study.tuning.recipes
    ]


def choose(study: Study, cells: list[list[Cell]], records: Mapping[str, Record]) -> Choice | None:
    """The recipe with the highest mean validation metric over data sets and tuning seeds; of equals the first.

    cells: of one variant, from `tuning_cells`. records: those that are in, by cell id. A recipe without a metric on
    some cell is out. None where every recipe is.
    """
    assert study.tuning is not None
    scores = tuple(_mean([records.get(cell.cell_id) for cell in tried], study.tuning.metric) for tried in cells)
    known = [score for score in scores if score is not None]
    return Choice(scores.index(max(known)), scores) if known else None


def _mean(records: list[Record | None], metric: str) -> float | None:
    values = [
        None if record is None or record["status"] != "done" else record["validation"].get(metric) for record in records
    ]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def tuning_manifest(study: Study, choices: Mapping[str, Choice]) -> dict[str, Any] | None:
    """What was tried and chosen, by variant id, as plain JSON values for the manifest; None where nothing is tuned."""
    if study.tuning is None:
        return None
    settings = study.tuning.settings()
    chosen = {
        variant_id: {
            "recipe": settings[choice.place],
            "recipe_id": study.tuning.recipes[choice.place].recipe_id,
            "scores": list(choice.scores),
        }
        for variant_id, choice in choices.items()
    }
    return {**study.tuning.to_dict(), "tried": settings, "choices": chosen}
