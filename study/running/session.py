"""Launch of a study, from its cells to the closing table. Records are written only here, by the driver alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from analysis.audits import notices
from analysis.records.schema import Record
from analysis.records.sources import told
from analysis.words import counted
from study.audit.kept import short_audits
from study.declaration.definition import Study
from study.executors.choice import First, Options, choose_executor, has_gpu, run_here
from study.executors.inline import Asked, cores, run_inline
from study.executors.ray_tune import run_ray
from study.planning.costs import Costs
from study.planning.inputs import Inputs, read_inputs
from study.planning.plan import make_plan
from study.planning.racing import race_manifest
from study.planning.reach import unreachable
from study.planning.register import compared_before, launch_of
from study.planning.starts import starts_told
from study.planning.tuning import tuning_manifest
from study.running.driver import Driver
from study.store.ledger import Ledger, open_ledger
from study.store.lock import file_lock
from study.strategies.racing import Racing
from study.strategies.search import make_strategy
from study.strategies.strategy import Strategy
from study.strategies.tuned import Tuned
from study.telling.dry_run import describe
from study.telling.progress import say, shown

# The share of a GPU that a cell takes by default: small variants leave most of it idle.
DEFAULT_GPU_SHARE = 0.25


def dry_run(study: Study, options: Options) -> None:
    """Prints what a launch of a study would do; writes nothing.

    Raises ValueError, after the plan, for a study whose confirmatory contrasts cannot reach their own α.
    """
    inputs, costs = _checked(study, options)
    ledger = open_ledger(options.store)
    plan = make_plan(study, inputs.refs, ledger, options.shard)
    executor = choose_executor(options, plan.total - len(plan.done()))
    workers = 1 if executor == "inline" else options.workers or max(1, cores() // options.threads)
    audits = short_audits(inputs.refs, options.store, keep=False)
    found = notices(audits, study.source_keys(inputs.refs))
    lines = describe(plan, inputs, found, costs, ledger, options.store, options.device, options.threads, workers)
    say("\n".join([*lines, f"executor: {executor}", *starts_told(study, inputs.infos)]))
    if options.keep is not None:
        _tell_bare(plan.done())
    problem = unreachable(study, inputs.refs)
    if problem is not None:
        raise ValueError(problem)


def launch(study: Study, options: Options, command: str) -> int:
    """Runs the missing cells of a study and prints its closing table.

    Returns the exit status: 0, 1 when a cell failed, 130 when interrupted. `command` is what the user typed, which is
    shown as the way to resume. Raises ValueError for what must be fixed before anything runs.
    """
    inputs, costs = _checked(study, options)
    starts = starts_told(study, inputs.infos)
    with _writing(options.store):
        (options.store / "ledger").mkdir(parents=True, exist_ok=True)
    ledger = open_ledger(options.store)
    shared = study.study_hash if study.is_grid else f"{study.name}-{study.search_hash(inputs.refs)}"
    if options.shard is not None:
        shared += "-shard-{}-of-{}".format(*options.shard)
    with _only_driver(ledger, study, shared):
        plan = make_plan(study, inputs.refs, ledger, options.shard)
        strategy = make_strategy(plan, options.store, costs.macs)
        driver = Driver(study, ledger, strategy, options)
        before = compared_before(study, inputs.refs, ledger) if options.limit is None else ""
        if study.contrasts:
            ledger.register(launch_of(study, inputs.refs, ledger))
        say(driver.headline())
        for name, info in inputs.infos.items():
            for note in info.notes:
                say(f"note: {name}: {note}")
        audits = short_audits(inputs.refs, options.store, keep=True)
        keep_manifest = partial(_keep_manifest, ledger, study, strategy, inputs, audits)
        keep_manifest()
        if before:
            say(f"note: {before}")
        beyond = costs.beyond_tolerance()
        if beyond:
            say(f"note: {beyond}")
        keys = study.source_keys(inputs.refs)
        counted_once = told(study.datasets, keys)
        if counted_once:
            say(f"note: {counted_once}")
        for notice in notices(audits, keys):
            say(f"note: {notice.line}")
        for line in starts:
            say(line)
        if options.keep is not None and study.is_grid:
            _tell_bare(strategy.resumed)
        # Worth running all the same: data sets may be added later, and readers want what there is. Verdicts say so.
        problem = None if options.limit is not None else unreachable(study, inputs.refs)
        if problem is not None:
            say(f"note: {problem}; verdicts will be exploratory")
        try:
            try:
                with shown(driver.status, study.name) as progress:
                    driver.begin(progress)
                    _run(strategy, driver, options)
                    if options.limit is None or study.tuning is None:
                        driver.check()
                if options.keep is not None and not study.is_grid:
                    # Only now does a search know which of its cells were finished before.
                    _tell_bare(strategy.resumed)
            except BaseException:
                # What went wrong is to be told, not what a full disk then makes of the manifest.
                with suppress(OSError):
                    keep_manifest()
                raise
            # Only now does a search know its cells.
            keep_manifest()
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


def _tell_bare(finished: list[Record]) -> None:
    """Says in one line how many finished cells have no weights, which no launch can keep afterwards."""
    bare = sum(not record.get("weights") for record in finished)
    if bare:
        say(
            f"note: {counted(bare, 'finished cell')} without weights: --keep weights keeps those of cells that run now "
            "(in another --store all run again)"
        )


def _keep_manifest(ledger: Ledger, study: Study, strategy: Strategy, inputs: Inputs, audits: Mapping[str, Any]) -> None:
    """Writes the study's manifest with the cells that its strategy knows by now."""
    tuned = tuning_manifest(study, strategy.choices) if isinstance(strategy, Tuned) else None
    raced = race_manifest(strategy.race) if isinstance(strategy, Racing) else None
    manifest = study.manifest(strategy.cell_ids(), inputs.refs, audits, tuned, raced)
    ledger.write_manifest(study.study_hash, manifest)


def _checked(study: Study, options: Options) -> tuple[Inputs, Costs]:
    """Data sets and costs of a study that can run. Raises ValueError for what must be fixed before anything runs."""
    from study.training.devices import resolved_device

    if options.address is None:  # A cluster's devices are not this machine's.
        resolved_device(options.device)
    study.check_source()
    inputs = read_inputs(study)
    costs = Costs(study, inputs.infos)
    costs.check()
    return inputs, costs


def _run(strategy: Strategy, driver: Driver, options: Options) -> None:
    total = strategy.total() or 0
    chosen: Asked = strategy if options.limit is None else First(strategy, options.limit)
    if chosen.done():
        return
    run = partial(run_here, device=options.device, threads=options.threads, checkpoints=driver.checkpoints)
    if options.keep is not None:
        run = partial(run, keep=options.keep)
    to_run = min(total - len(strategy.resumed), options.limit or total)
    if choose_executor(options, to_run) == "inline":
        run_inline(chosen, run, driver)
        return
    share = options.gpus_per_cell
    if share is None:
        share = DEFAULT_GPU_SHARE if options.device != "cpu" and has_gpu() else 0.0
    run_ray(
        chosen,
        run,
        driver,
        workers=options.workers,
        threads=options.threads,
        gpus_per_cell=share,
        address=options.address,
        tell=driver.tell,
    )


@contextmanager
def _writing(store: Path) -> Iterator[None]:
    """Context that turns the system's errors about the store into one line."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{store}: the store must be a folder to write to, got {error.strerror}") from None


@contextmanager
def _only_driver(ledger: Ledger, study: Study, what: str) -> Iterator[None]:
    """Keeps a second launch of the same study out of the store: it would run every cell again.

    `what` names what both would share: searches that differ only in the number of trials share their proposals. The
    lock ends with the process, however that ends.
    """
    path = ledger.folder / f".{what}.lock"
    with _writing(ledger.folder.parent):
        try:
            # Whoever asks for the study's status holds the lock for a moment.
            held = file_lock(path).acquire(timeout=0.1)
        except Timeout:
            raise ValueError(
                f"{ledger.folder}: another launch of {study.name} must end first, got process {path.read_text() or '?'}"
            ) from None
    with held:
        path.write_text(str(os.getpid()))
        yield
