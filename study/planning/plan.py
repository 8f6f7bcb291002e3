"""Plan of a study: its cells by id, and which of them its store already holds. Made once per command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.records.schema import Record
from study.cells import Cell, DataRef
from study.definition import Study
from study.store.ledger import Ledger


@dataclass(frozen=True)
class Plan:
    """The plan of a study: its cells, and those already finished or failed.

    cells: every cell of a grid by its id, in the study's order; empty for a search, whose cells are not known yet.
    finished: the finished cells of the whole ledger by id, since a search may yet ask for any of them. failed: the ids
    of the plan's cells whose record is a failure.
    """

    study: Study
    refs: Mapping[str, DataRef]
    cells: Mapping[str, Cell]
    finished: Mapping[str, Record]
    failed: frozenset[str]

    @property
    def total(self) -> int:
        """The number of cells of the whole study, done ones included; a search counts all variants it may accept."""
        study = self.study
        return len(self.cells) if study.is_grid else study.strategy.trials * len(study.seeds) * len(study.datasets)

    def done(self) -> list[Record]:
        """The records of the plan's cells that are finished."""
        return [self.finished[cell_id] for cell_id in self.cells if cell_id in self.finished]

    def left(self) -> list[Cell]:
        """The plan's cells still to run, including those that failed before."""
        return [cell for cell_id, cell in self.cells.items() if cell_id not in self.finished]


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
    cells = {cell.cell_id: cell for cell in study.cells(refs)} if study.is_grid else {}
    failed = frozenset(cell_id for cell_id in cells if records.get(cell_id, {}).get("status") == "failed")
    return Plan(study, refs, cells, finished, failed)
