"""Interface of strategies, which hand out cells and take their records."""

from __future__ import annotations

from typing import Protocol

from analysis.records.schema import Record
from study.declaration.cells import Cell


class Strategy(Protocol):
    """The interface of a grid or a search for executors and the driver."""

    resumed: list[Record]
    """Records of this study's cells that were finished before it started."""

    def ask(self) -> Cell | None:
        """The next cell; None when there is nothing to hand out at present (or ever again, if no cell is running)."""

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out."""

    def done(self) -> bool:
        """Whether the records of all cells handed out have come back and no further cell will follow."""

    def total(self) -> int | None:
        """The number of cells of the whole study, including those finished before."""

    def label(self, cell: Cell) -> str:
        """The study's label for a cell's variant."""

    def cell_ids(self) -> list[str]:
        """The ids of cells known so far to belong to the study, for its manifest."""

    def notes(self) -> list[str]:
        """Sentences for the end of the run, such as how many variants were too large."""
