"""Choice of an executor: this process or Ray, whichever was requested or is faster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.records.schema import Record
from study.declaration.cells import Cell
from study.executors.inline import Asked, Probabilities, cores
from study.executors.ray_tune import ray_is_installed
from study.store.checkpoints import Checkpoints

# Below this, starting Ray takes longer than it saves.
CELLS_WORTH_RAY = 5


@dataclass(frozen=True)
class Options:
    """Options of a launch: where and how cells run, which never changes a result. Paths are absolute.

    `executor` None: chosen by what there is to run; `workers` None: one per core; `gpus_per_cell` None: a quarter where
    there is a GPU to use; `tracking_uri` None: no tracking; `limit`: end after that many cells, without verdicts;
    `report`: whether a report accompanies the verdicts; `keep`: "weights", for those of each cell that runs;
    `checkpoint_every`: seconds between two checkpoints of a cell under way, 0 for none; `shard`: (number, count), to
    run that part of the study alone, without verdicts.
    """

    store: Path
    executor: str | None = None
    workers: int | None = None
    gpus_per_cell: float | None = None
    address: str | None = None
    tracking_uri: str | None = None
    device: str = "auto"
    threads: int = 1
    limit: int | None = None
    report: bool = True
    keep: str | None = None
    checkpoint_every: float = 120.0
    shard: tuple[int, int] | None = None


class First:
    """The first cells of a strategy, for a smoke test."""

    def __init__(self, strategy: Asked, limit: int) -> None:
        self._strategy = strategy
        self._left = limit
        self._running = 0

    def ask(self) -> Cell | None:
        """The strategy's next cell while there are cells left to hand out."""
        cell = self._strategy.ask() if self._left else None
        if cell is not None:
            self._left -= 1
            self._running += 1
        return cell

    def tell(self, record: Record) -> None:
        """Passes the record on to the strategy."""
        self._running -= 1
        self._strategy.tell(record)

    def done(self) -> bool:
        """Whether enough records have come back, or all that there will be."""
        return not self._running and (not self._left or self._strategy.done())


def choose_executor(options: Options, to_run: int) -> str:
    """The executor, "inline" or "ray": as requested, else Ray where there are enough cells and cores to share them."""
    if options.executor == "ray" and not ray_is_installed():
        raise ValueError("--executor ray must have ray installed, got no such package (pip install 'ray[tune]')")
    if options.executor is not None:
        return options.executor
    if options.address is not None:
        return "ray"
    several = (options.workers or cores() // options.threads) > 1
    return "ray" if several and to_run >= CELLS_WORTH_RAY and ray_is_installed() else "inline"


def run_here(
    cell: Cell,
    device: str,
    threads: int,
    keep: str | None = None,
    checkpoints: Checkpoints | None = None,
    micro_batch: int | None = None,
) -> tuple[Record, Probabilities]:
    """Calls `run_cell`, imported where it runs: a driver that only hands out cells needs no training code."""
    if keep is not None:
        from study.training.keeping import run_and_keep

        return run_and_keep(cell, device=device, threads=threads, checkpoints=checkpoints, micro_batch=micro_batch)
    from study.training.cell import run_cell

    return run_cell(cell, device=device, threads=threads, checkpoints=checkpoints, micro_batch=micro_batch)


def has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
