"""The grid: every cell of a study whose variants are all known before it runs."""

from __future__ import annotations

from collections.abc import Mapping

from study.cells import Cell, DataRef
from study.definition import Study
from study.store.ledger import Ledger, Record
from study.strategies.waiting import Waiting


class Grid:
    """Every cell of a grid that the ledger does not hold as finished, in the study's order."""

    def __init__(self, study: Study, refs: Mapping[str, DataRef], ledger: Ledger) -> None:
        finished = ledger.finished()
        cells = list(study.cells(refs))
        self.study = study
        self._ids = [cell.cell_id for cell in cells]
        self.resumed = [finished[cell_id] for cell_id in self._ids if cell_id in finished]
        self._waiting = Waiting(cell for cell, cell_id in zip(cells, self._ids) if cell_id not in finished)

    def ask(self) -> Cell | None:
        """The next cell, None when all are handed out."""
        return self._waiting.next()

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out; a failed one is not tried again in this run."""
        self._waiting.back(record["cell_id"])

    def done(self) -> bool:
        """Whether every cell has been handed out and told."""
        return self._waiting.is_over()

    def total(self) -> int | None:
        """Cells of the grid, finished ones included."""
        return len(self._ids)

    def label(self, cell: Cell) -> str:
        """The variant's label in the grid."""
        return self.study.label(cell.variant)

    def cell_ids(self) -> list[str]:
        """All cells of the grid."""
        return list(self._ids)

    def notes(self) -> list[str]:
        """Nothing: a grid runs as written."""
        return []
