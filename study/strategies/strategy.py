"""What every strategy offers: cells to run, and a place for their records."""

from __future__ import annotations

from typing import Protocol

from analysis.records.schema import Record
from study.cells import Cell


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
