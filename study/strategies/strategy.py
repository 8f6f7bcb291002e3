"""What every strategy offers: cells to run, and a place for their records."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from study.cells import Cell
from study.store.ledger import Record


class Waiting:
    """The cells that wait to be handed out, in their order, and those that are out."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self._cells = deque(cells)
        self._out: set[str] = set()

    def __bool__(self) -> bool:
        """Whether a cell waits."""
        return bool(self._cells)

    def add(self, cell: Cell) -> None:
        """Lets a cell wait behind the others."""
        self._cells.append(cell)

    def next(self) -> Cell | None:
        """The first of them, which is out from now on; None when none waits."""
        if not self._cells:
            return None
        cell = self._cells.popleft()
        self._out.add(cell.cell_id)
        return cell

    def back(self, cell_id: str) -> None:
        """Takes a cell as told; it must be out."""
        self._out.remove(cell_id)

    def is_over(self) -> bool:
        """Whether no cell waits and none is out."""
        return not self._cells and not self._out


class Strategy(Protocol):
    """What executors and the driver need to know of a grid or a search."""

    resumed: list[Record]
    """Records of this study's cells that were finished before it started."""

    def ask(self) -> Cell | None:
        """The next cell; None when there is nothing to hand out now (for good, when no cell is running)."""

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out."""

    def done(self) -> bool:
        """Whether every cell handed out has been told and no further one will come."""

    def total(self) -> int | None:
        """Cells of the whole study, those that were finished before included."""

    def label(self, cell: Cell) -> str:
        """How the study calls the cell's variant."""

    def cell_ids(self) -> list[str]:
        """The cells known to belong to the study so far, for its manifest."""

    def notes(self) -> list[str]:
        """Sentences for the end of the run, such as how many variants were too large."""
