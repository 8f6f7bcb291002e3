"""The inline executor, which runs cells one after the other in this process, and what both executors share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import numpy as np

from analysis.records.schema import Record
from study.declaration.cells import Cell

Probabilities = dict[str, np.ndarray]
Outcome = tuple[Record, Probabilities]
# From a cell to its outcome; after a worker without memory enough also called with `micro_batch`.
Run = Callable[..., Outcome]


class Asked(Protocol):
    """The part of a strategy that an executor needs."""

    def ask(self) -> Cell | None:
        """The next cell, or None when there is nothing to hand out at present."""

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out."""

    def done(self) -> bool:
        """Whether no further cell will come."""


class Watcher(Protocol):
    """An observer of cells, called always in the driver's main thread."""

    def started(self, cell: Cell) -> None:
        """A worker has begun this cell."""

    def ended(self, cell: Cell, record: Record, probabilities: Probabilities) -> Record:
        """Takes a cell's outcome and returns the record as kept."""


def attempt(run: Run, cell: Cell) -> Outcome:
    """The outcome of `run(cell)`; an exception becomes a failed record. A keyboard interrupt passes."""
    try:
        return run(cell)
    except Exception as error:
        return failure_of(cell, error), {}


def run_inline(strategy: Asked, run: Run, watcher: Watcher) -> None:
    """Runs the strategy's cells one after the other in this process."""
    while not strategy.done():
        cell = strategy.ask()
        if cell is None:
            # Nothing runs, so nothing can change what the strategy knows: it would wait for ever.
            assert strategy.done(), "a strategy that is not done must hand out a cell when none is running"
            return
        watcher.started(cell)
        record, probabilities = attempt(run, cell)
        strategy.tell(watcher.ended(cell, record, probabilities))


def cores() -> int:
    """The number of cores that this process may use: by its affinity, and by the quota of its container."""
    from joblib import cpu_count

    return max(1, min(len(os.sched_getaffinity(0)), cpu_count()))


def failure_of(cell: Cell, error: BaseException) -> Record:
    from study.training.cell import failed_record

    return failed_record(cell, error)
