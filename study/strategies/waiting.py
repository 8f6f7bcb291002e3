"""What is still to be handed out of a study, and what is out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from study.cells import Cell


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
