"""One launch of a study, from its cells to the closing table. Only here are records written, by the driver alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medmamba_variants.config import VariantConfig
from study.cells import Cell
from study.closing import (
    Conclusion,
    conclude,
    failure_lines,
    for_tracking,
    front_lines,
    place_lines,
    summarise,
    table_lines,
)
from study.definition import Study
from study.executors import Asked, cores, ray_is_installed, run_inline, run_ray
from study.ledger import Ledger, open_ledger
from study.plan import Costs, Inputs, describe, read_inputs, unreachable
from study.progress import Progress, Status, say, shown
from study.strategies import Search, Strategy, make_strategy
from study.tracking import StudyTags, Tracker

Record = dict[str, Any]
Probabilities = dict[str, np.ndarray]

# Below this, starting Ray takes longer than it saves.
CELLS_WORTH_RAY = 5
# Small variants leave most of a GPU idle; what one cell takes when nobody says otherwise.
DEFAULT_GPU_SHARE = 0.25
# After an interrupt a person waits for the prompt; the next launch logs what is missing.
SECONDS_TO_LOG = 300.0
SECONDS_TO_LOG_WHEN_INTERRUPTED = 15.0

DEFAULT_STORE = Path("mlruns")


@dataclass(frozen=True)
class Options:
    """Where and how cells run; nothing here changes a result. Paths are absolute.

    `executor` None: chosen by what there is to run; `workers` None: one a core; `gpus_per_cell` None: a quarter where
    there is a GPU to use; `tracking_uri` None: no tracking; `limit`: end after so many cells, without verdicts;
    `report`: whether verdicts come with a page.
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


def dry_run(study: Study, options: Options) -> None:
    """Prints what a launch would do; writes nothing.

    Raises ValueError, after the plan, for a study whose confirmatory contrasts cannot reach their own α.
    """
    inputs, costs = _checked(study, options)
    ledger = open_ledger(options.store)
    plan = study.plan(ledger, inputs.refs)
    executor = choose_executor(options, plan.cells - (plan.done or 0))
    workers = 1 if executor == "inline" else options.workers or max(1, cores() // options.threads)
    lines = describe(study, inputs, costs, ledger, options.store, options.device, options.threads, workers)
    say("\n".join([*lines, f"executor: {executor}"]))
    problem = unreachable(study)
    if problem is not None:
        raise ValueError(problem)


def launch(study: Study, options: Options, command: str) -> int:
    """Runs what is missing of a study and prints its closing table.

    Returns the exit status: 0, 1 when a cell failed, 130 when interrupted. `command` is what the user typed, told as
    the way to go on. Raises ValueError for what must be mended before anything runs.
    """
    inputs, costs = _checked(study, options)
    with _writing(options.store):
        (options.store / "ledger").mkdir(parents=True, exist_ok=True)
    ledger = open_ledger(options.store)
    shared = study.study_hash if study.is_grid else f"{study.name}-{study.search_hash(inputs.refs)}"
    with _only_driver(ledger, study, shared):
        strategy = make_strategy(study, inputs.refs, ledger, options.store, costs.macs)
        driver = Driver(study, ledger, strategy, options)
        ledger.write_manifest(study.study_hash, study.manifest(strategy.cell_ids()))
        say(driver.headline())
        # Worth running all the same: data sets are added, and a reader wants what there is. Verdicts carry the mark.
        problem = None if options.limit is not None else unreachable(study)
        if problem is not None:
            say(f"note: {problem}; verdicts will be exploratory")
        try:
            try:
                with shown(driver.status, study.name) as progress:
                    driver.begin(progress)
                    _run(strategy, driver, options)
                    driver.check()
            finally:
                # A search knows only now what its cells are.
                ledger.write_manifest(study.study_hash, study.manifest(strategy.cell_ids()))
            return driver.close()
        except KeyboardInterrupt:
            # A second interrupt only ends the wait for the tracker.
            with suppress(KeyboardInterrupt):
                driver.abandon()
            say(f"interrupted: {driver.status.done} finished cells are kept in {ledger.records_path}")
            say(f"the same command goes on from there: {command}")
            return 130
        except BaseException:
            driver.abandon()
            raise


def _checked(study: Study, options: Options) -> tuple[Inputs, Costs]:
    """Data sets and costs of a study that can run. Raises ValueError for what must be mended before anything runs."""
    from study.devices import resolved_device

    if options.address is None:  # a cluster's devices are not this machine's
        resolved_device(options.device)
    study.check_source()
    inputs = read_inputs(study)
    costs = Costs(study, inputs)
    costs.check()
    return inputs, costs


class Driver:
    """The one process that writes: takes outcomes from an executor to ledger, tracker and screen."""

    def __init__(self, study: Study, ledger: Ledger, strategy: Strategy, options: Options) -> None:
        self.study = study
        self.ledger = ledger
        self.strategy = strategy
        self.options = options
        self.status = Status(total=self._total())
        self.failed = 0
        self._adopted = 0
        self._progress: Progress | None = None
        self._tracker: Tracker | None = None
        self._adopt()

    def headline(self) -> str:
        """What is about to happen, in a line."""
        total = self.strategy.total()
        done = f", {len(self.strategy.resumed)} done already" if self.strategy.resumed else ""
        cut = "" if self.options.limit is None else f"; a smoke test of {self.options.limit} of them"
        return f"{self.study.name}: {'?' if total is None else total} cells{done}{cut}; store {self.options.store}"

    def begin(self, progress: Progress) -> None:
        """Starts the tracker, which makes its database while the workers start, and hands it what is done already."""
        self._progress = progress
        if self.options.tracking_uri is not None:
            tags = StudyTags(self.study.name, self.study.study_hash, self.study.question)
            tracker = Tracker(self.options.tracking_uri, self.options.store, tags, progress.note)
            tracker.start()
            # Not before it runs: an interrupt in between would wait for what was never started.
            self._tracker = tracker
            for record in self.strategy.resumed:
                self._track(record, self._label(record))

    def started(self, cell: Cell) -> None:
        """A worker has begun this cell."""
        assert self._progress is not None
        self._progress.started(cell.cell_id, self.strategy.label(cell), cell.data.name, cell.seed)

    def ended(self, cell: Cell, record: Record, probabilities: Probabilities) -> Record:
        """Writes the record, tells everyone, and returns it as written."""
        assert self._progress is not None
        label = self.strategy.label(cell)
        origin = {"study": self.study.name, "study_hash": self.study.study_hash}
        origin |= {"contrasts_hash": self.study.contrasts_hash, "variant_label": label}
        kept = self.ledger.append({**record, **origin}, probabilities)
        self.failed += kept["status"] == "failed"
        self._adopt()
        self._progress.ended(label, kept)
        self._track(kept, label)
        return kept

    def check(self) -> None:
        """Raises ValueError, with the reasons, where a search has ended without a single variant to train."""
        if not self.strategy.cell_ids():
            why = "; ".join(self.strategy.notes())
            raise ValueError(f"{self.study.path}: the search must find a variant to train, got none: {why}")

    def abandon(self) -> None:
        """Ends the tracker's run without a summary, soon."""
        if self._tracker is not None:
            self._tracker.close("KILLED", self._counts(), SECONDS_TO_LOG_WHEN_INTERRUPTED)

    def close(self) -> int:
        """Prints the closing table, the verdicts and the places, ends the tracker's run; returns the exit status."""
        ids = self.strategy.cell_ids()
        records = self.ledger.records()
        table = summarise(self.study, self.ledger)
        say("\n".join(["", *table_lines(table)]))
        if self._tracker is not None:
            self._tracker.summarise(for_tracking(table, records))
        lines = []
        if isinstance(self.strategy, Search) and self.options.limit is None:
            lines += front_lines(self.strategy.front())
        lines += [*self.strategy.notes(), *self.ledger.warnings, *failure_lines(self.study, records, ids)]
        end = Conclusion()
        if self.options.limit is None:
            say("\nmaking the verdicts" + (" and the report …" if self.options.report else " …"))
            end = conclude(self.study, self.ledger, self.options.store, self.options.report)
        lines += [*end.lines, ""]
        lines += place_lines(self.options.store, self.ledger, end.page, self.options.tracking_uri, DEFAULT_STORE)
        say("\n".join(lines))
        if self._tracker is not None and not self._tracker.close(
            "FAILED" if self.failed else "FINISHED", self._counts(), SECONDS_TO_LOG
        ):
            say("warning: MLflow is still taking records; the next launch of this study logs what is missing")
        return 1 if self.failed else 0

    def _adopt(self) -> None:
        """Counts finished cells of earlier launches, which a search learns of as it goes, and the total."""
        for record in self.strategy.resumed[self._adopted :]:
            label = self._label(record)
            self._track(record, label)
            if self.options.limit is None:
                self.status.adopt(label, record)
        self._adopted = len(self.strategy.resumed)
        self.status.total = self._total()

    def _total(self) -> int | None:
        total, limit = self.strategy.total(), self.options.limit
        return total if limit is None or total is None else min(total, limit)

    def _label(self, record: Record) -> str:
        return self.study.label(VariantConfig.from_dict(record["variant"]))

    def _track(self, record: Record, label: str) -> None:
        if self._tracker is not None:
            name = record.get("probabilities")
            self._tracker.log(record, label, [self.ledger.folder / name] if name else [])

    def _counts(self) -> dict[str, int]:
        return {"cells_done": self.status.done, "cells_failed": self.failed}


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
        """Passes the record on."""
        self._running -= 1
        self._strategy.tell(record)

    def done(self) -> bool:
        """Whether enough cells have been told, or all there are."""
        return not self._running and (not self._left or self._strategy.done())


def choose_executor(options: Options, to_run: int) -> str:
    """ "inline" or "ray": the one asked for, else Ray where there are cells enough and cores to share them."""
    if options.executor == "ray" and not ray_is_installed():
        raise ValueError("--executor ray must have ray installed, got no such package (pip install 'ray[tune]')")
    if options.executor is not None:
        return options.executor
    if options.address is not None:
        return "ray"
    several = (options.workers or cores() // options.threads) > 1
    return "ray" if several and to_run >= CELLS_WORTH_RAY and ray_is_installed() else "inline"


def run_here(cell: Cell, device: str, threads: int) -> tuple[Record, Probabilities]:
    """`run_cell`, imported where it runs: a driver that only hands out cells needs no training code."""
    from study.train import run_cell

    return run_cell(cell, device=device, threads=threads)


def _run(strategy: Strategy, driver: Driver, options: Options) -> None:
    total = strategy.total() or 0
    chosen: Asked = strategy if options.limit is None else First(strategy, options.limit)
    if chosen.done():
        return
    run = partial(run_here, device=options.device, threads=options.threads)
    to_run = min(total - len(strategy.resumed), options.limit or total)
    if choose_executor(options, to_run) == "inline":
        run_inline(chosen, run, driver)
        return
    share = options.gpus_per_cell
    if share is None:
        share = DEFAULT_GPU_SHARE if options.device != "cpu" and _has_gpu() else 0.0
    run_ray(
        chosen,
        run,
        driver,
        workers=options.workers,
        threads=options.threads,
        gpus_per_cell=share,
        address=options.address,
    )


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


@contextmanager
def _writing(store: Path) -> Iterator[None]:
    """Tells what the system refuses in the store as one line."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{store}: the store must be a folder to write to, got {error.strerror}") from None


@contextmanager
def _only_driver(ledger: Ledger, study: Study, what: str) -> Iterator[None]:
    """Keeps a second launch of the same study out of the store: it would run every cell again.

    `what` names what both would share: searches that differ in their trials alone share their proposals. The lock
    ends with the process, however it ends.
    """
    with _writing(ledger.folder.parent):
        lock = (ledger.folder / f".{what}.lock").open("a+")
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{ledger.folder}: another launch of {study.name} must end first, got process {file.read() or '?'}"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
