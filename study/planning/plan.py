"""Plan of a study: its cells by id, and which of them its store already holds. Made once per command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.records.schema import Record
from study.declaration.cells import Cell, DataRef
from study.declaration.definition import Study
from study.planning.tuning import choose, tuning_cells
from study.store.ledger import Ledger


@dataclass(frozen=True)
class Plan:
    """The plan of a study: its cells, and those already finished or failed.

    cells: every cell of a grid by its id, in the study's order; empty for a search, whose cells are not known yet; of a
    tuned grid those of variants whose recipe is chosen. trials: the cells of the tuning, if any.
    finished: the finished cells of the whole ledger by id, since a search may yet ask for any of them. failed: the ids
    of the plan's cells whose record is a failure.
    """

    study: Study
    refs: Mapping[str, DataRef]
    cells: Mapping[str, Cell]
    finished: Mapping[str, Record]
    failed: frozenset[str]
    trials: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of cells of the whole study, done ones included; a search counts all variants it may accept."""
        study = self.study
        variants = len(study.variants()) if study.is_grid else study.strategy.trials
        return len(self.trials) + variants * len(study.seeds) * len(study.datasets)

    def done(self) -> list[Record]:
        """The records of the plan's cells that are finished."""
        return [self.finished[cell_id] for cell_id in (*self.trials, *self.cells) if cell_id in self.finished]

    def left(self) -> list[Cell]:
        """The plan's cells still to run, including those that failed before."""
        known = {**self.trials, **self.cells}
        return [cell for cell_id, cell in known.items() if cell_id not in self.finished]


def make_plan(study: Study, refs: Mapping[str, DataRef], ledger: Ledger) -> Plan:
    """The plan of a study as its ledger stands. `refs` has an entry for each of its data sets.

    Raises ValueError when two data sets have the same content: their cells would be one.
    """
    owners: dict[str, str] = {}
    for name in study.datasets:
        earlier = owners.setdefault(refs[name].fingerprint, name)
        if earlier != name:
            raise ValueError(
                f"{study.path}: datasets must differ in content, got {earlier} and {name}, which are equal"
            )
    finished, records = ledger.finished(), ledger.records()
    trials: dict[str, Cell] = {}
    if study.tuning is not None:
        cells, trials = _tuned(study, refs, finished)
    else:
        cells = {cell.cell_id: cell for cell in study.cells(refs)} if study.is_grid else {}
    failed = frozenset(i for i in (*trials, *cells) if records.get(i, {}).get("status") == "failed")
    return Plan(study, refs, cells, finished, failed, trials)


def _tuned(
    study: Study, refs: Mapping[str, DataRef], finished: Mapping[str, Record]
) -> tuple[dict[str, Cell], dict[str, Cell]]:
    """The cells of variants whose recipe can be chosen already, and all trials: seeds outermost, then data sets."""
    assert study.tuning is not None
    cells: dict[str, Cell] = {}
    trials: dict[str, Cell] = {}
    by_variant = [tuning_cells(study, variant, refs) for _, variant in study.variants()]
    for side_by_side in zip(*(row for rows in by_variant for row in rows)):
        trials |= {cell.cell_id: cell for cell in side_by_side}
    for (_, variant), tried in zip(study.variants(), by_variant):
        if all(cell.cell_id in finished for row in tried for cell in row):
            choice = choose(study, tried, finished)
            if choice is not None:
                recipe = study.tuning.recipes[choice.place]
                cells |= {cell.cell_id: cell for cell in study.cells_of(variant, refs, recipe)}
    return cells, trials
