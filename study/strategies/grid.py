"""Grid strategy: every cell of a study whose variants are all known before it runs."""

from __future__ import annotations

from analysis.records.schema import Record
from study.declaration.cells import Cell
from study.planning.plan import Plan
from study.strategies.waiting import Waiting


class Grid:
    """The strategy of a grid: every unfinished cell of its plan, in the study's order."""

    def __init__(self, plan: Plan) -> None:
        self.study = plan.study
        self.resumed = plan.done()
        self._total = len(plan.cells)
        self._ids = list(plan.ids)
        self._waiting = Waiting(plan.left())

    def ask(self) -> Cell | None:
        """The next cell; None when all are handed out."""
        return self._waiting.next()

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out; a failed cell is not tried again in this run."""
        self._waiting.back(record["cell_id"])

    def done(self) -> bool:
        """Whether every cell has been handed out and its record has come back."""
        return self._waiting.is_over()

    def total(self) -> int | None:
        """The number of cells of the grid, or of its shard, finished ones included."""
        return self._total

    def label(self, cell: Cell) -> str:
        """The label of a cell's variant in the grid."""
        return self.study.label(cell.variant)

    def cell_ids(self) -> list[str]:
        """The ids of all cells of the grid, other shards' too."""
        return list(self._ids)

    def notes(self) -> list[str]:
        """Always empty: a grid runs as written."""
        return []
