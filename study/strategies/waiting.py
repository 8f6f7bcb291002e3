"""Queue of a study's cells: those still to be handed out, and those that are out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from study.declaration.cells import Cell


class Waiting:
    """A queue of cells to be handed out, in order, which also tracks those that are out."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self._cells = deque(cells)
        self._out: set[str] = set()

    def __bool__(self) -> bool:
        """Whether any cell waits."""
        return bool(self._cells)

    def add(self, cell: Cell) -> None:
        """Adds a cell to the end of the queue."""
        self._cells.append(cell)

    def next(self) -> Cell | None:
        """The first waiting cell, which is out from now on; None when none waits."""
        if not self._cells:
            return None
        cell = self._cells.popleft()
        self._out.add(cell.cell_id)
        return cell

    def back(self, cell_id: str) -> None:
        """Marks a cell as back; it must be out."""
        self._out.remove(cell_id)

    def is_over(self) -> bool:
        """Whether no cell waits and none is out."""
        return not self._cells and not self._out
