"""The Ray executor, which runs cells on Ray Tune's workers. The only file that imports ray.

Like the inline executor it drives a strategy by ask and tell, hands every outcome to the caller in this process, and
goes on when a cell fails or its worker dies. Nothing here writes to the store but a worker its cell's checkpoint.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from analysis.records.schema import Record
from analysis.words import LONGEST_REASON, shortened
from study.executors.address import check_reachable
from study.executors.guard import Guard, reaping
from study.executors.inline import Asked, Probabilities, Run, Watcher, attempt, cores, failure_of
from study.executors.kills import MemoryKills
from study.store.lock import file_lock

# One cell's probabilities are a few hundred kilobytes; Ray's default would reserve a third of the memory.
OBJECT_STORE_BYTES = 256 * 2**20
TEMPORARY_PREFIX = "medmamba-ray-"
LOCK_NAME = "lock"
# Bytes of a socket's path, and of what Ray and this file put after the folder for temporary files.
LONGEST_SOCKET = 107
LONGEST_BELOW = len(f"/{TEMPORARY_PREFIX}12345678/ray/session_2000-01-01_00-00-00_123456_1234567/sockets/plasma_store")

# Read by Ray when it is imported or started; values set by the user stay.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # An interrupt must reach launch.py as KeyboardInterrupt; Tune's own handler would only end the loop.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # Ray prints the death of a worker on standard output; the record has it, and the output belongs to progress.py.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    # The new reporter prints a banner at any verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Under `uv run` Ray would pack the project and have each worker make its environment anew, which never ends where
    # there is no network. The environment that the command runs in is the right one.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


class WorkerDiedError(RuntimeError):
    """The process that ran a cell ended before the cell did."""


def ray_is_installed() -> bool:
    """Whether the ray executor is available; does not import ray."""
    from importlib.util import find_spec

    return find_spec("ray") is not None


def run_ray(
    strategy: Asked,
    run: Run,
    watcher: Watcher,
    *,
    workers: int | None = None,
    threads: int = 1,
    gpus_per_cell: float = 0.0,
    address: str | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Runs the strategy's cells on Ray Tune, at most `workers` at a time (None: what fits), each on `threads` cores.

    `run` must pickle; it is sent to the workers once. Records and probabilities come back through Ray's object store,
    so a cluster needs no shared folder. Without `address` a local cluster is started, and stopped at the end. Must be
    called in the main thread. Raises ValueError when the cluster cannot be reached or has no room for a single cell.
    Where a part of Ray itself dies, `tell` gets a line, from another thread, and this process ends.
    """
    with _ray(address, cores() if workers is None else workers * threads) as temporary:
        room = _room(threads, gpus_per_cell)
        resources = {"cpu": threads, "gpu": gpus_per_cell}
        with Guard(_own_parts(), temporary, tell) as guard:
            at_a_time = room if workers is None else workers
            _tune(strategy, run, watcher, at_a_time, resources, temporary, guard.started)


def _tune(
    strategy: Asked,
    run: Run,
    watcher: Watcher,
    workers: int,
    resources: dict[str, float],
    temporary: Path,
    begun: Callable[[], None],
) -> None:
    from ray import tune
    from ray.tune.experiment import Trial
    from ray.tune.search import Searcher

    class CellTrial(tune.Trainable):
        """A Tune trial that runs one cell; its process stays for the next cell, with imports and loaded data."""

        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cell, micro_batch = new_config["cell"], new_config["micro_batch"]
            self.run = run if micro_batch is None else partial(run, micro_batch=micro_batch)
            return True

        def step(self) -> dict[str, Any]:
            return {"done": True, "outcome": attempt(self.run, self.cell)}

    class KeptHere:
        """Base of objects that Tune must not write into its snapshot: they hold the driver's files and threads."""

        def __reduce__(self) -> tuple[type, tuple[()]]:
            return object, ()

    class StrategySearch(KeptHere, Searcher):
        """A Tune searcher that hands out the strategy's cells; `Collector` gets the outcomes and why a worker died."""

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
            if again:
                return again.popleft()
            if strategy.done():
                return str(Searcher.FINISHED)
            cell = strategy.ask()
            return None if cell is None else {"cell": cell, "micro_batch": None}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            pass

        # The ledger survives a kill; Tune's own snapshots hold nothing of ours.
        def save(self, checkpoint_path: str) -> None:
            pass

        def restore(self, checkpoint_path: str) -> None:
            pass

    class Collector(KeptHere, tune.Callback):
        """A Tune callback that passes outcomes to the watcher and the strategy, in the driver."""

        # Tune calls these with exactly these names; its own signatures also take any others.

        def __init__(self) -> None:
            self.fault: Exception | None = None
            self.ended: set[str] = set()

        def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial) -> None:  # type: ignore[override]
            begun()
            # Who watches a cell does not see that it is tried again.
            if trial.config["micro_batch"] is None:
                watcher.started(trial.config["cell"])

        def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any]) -> None:  # type: ignore[override]
            # Removed from the result, or Tune would keep all probabilities and write them into its snapshots.
            self.end(trial, *result.pop("outcome"))

        def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial) -> None:  # type: ignore[override]
            # A worker that crashes after its cell has ended loses nothing.
            if trial.trial_id in self.ended:
                return
            fault, cell = _worker_fault(trial), trial.config["cell"]
            at_a_time = trial.config["micro_batch"] or cell.recipe.batch_size
            if kills.explain(fault) and at_a_time > 1:
                # The strategy is told nothing: to it the cell is still under way.
                again.append({"cell": cell, "micro_batch": at_a_time // 2})
            else:
                self.end(trial, failure_of(cell, fault), {})

        def end(self, trial: Trial, record: Record, probabilities: Probabilities) -> None:
            self.ended.add(trial.trial_id)
            count = trial.config["micro_batch"]
            if count is not None:
                note = f"its worker was killed for want of memory, tried again with {count} images at a time"
                record = record | {"notes": [note, *record.get("notes", [])]}
            try:
                strategy.tell(watcher.ended(trial.config["cell"], record, probabilities))
            except Exception as error:
                # Tune would pass on text in place of the exception.
                self.fault = error
                raise

    again: deque[dict[str, Any]] = deque()
    kills = MemoryKills()
    collector = Collector()
    tuner = tune.Tuner(
        tune.with_resources(CellTrial, resources),
        tune_config=tune.TuneConfig(
            search_alg=StrategySearch(),
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(temporary),
            verbose=0,
            callbacks=[collector],
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        raise (collector.fault or error) from None


def _worker_fault(trial: Any) -> BaseException:
    """The error that made a trial fail outside its cell, with Ray's whole report as its cause."""
    cause = _reported(trial)
    original = getattr(cause, "cause", None)
    if isinstance(original, Exception):
        return original
    # The sentences in the middle say what happened; ids come before them, general advice after.
    reason = str(cause)
    for mark in ("Worker exit detail:", "because "):
        if mark in reason:
            reason = reason.partition(mark)[2].partition("Some common causes")[0]
            break
    fault = WorkerDiedError(
        f"the worker must live until its cell ends, but it crashed or was killed: {_one_line(reason)}"
    )
    fault.__cause__ = cause
    return fault


def _reported(trial: Any) -> Exception:
    """Ray's own exception, or its text where Tune kept no more."""
    if trial.pickled_error_file is not None:
        # Written by Tune in this process, into this run's own folder.
        return pickle.loads(Path(trial.pickled_error_file).read_bytes())
    if trial.error_file is None:
        return RuntimeError("Ray gave no reason")
    return RuntimeError(Path(trial.error_file).read_text().partition("\n")[2])


def _one_line(text: str) -> str:
    return shortened(" ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()), LONGEST_REASON)


@contextmanager
def _ray(address: str | None, cpus: int) -> Iterator[Path]:
    """Context with Ray initialised and a temporary folder for what Tune insists on writing; both go at the end."""
    if address is not None and address != "auto":
        check_reachable(address)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address is None:
        # Without a token file Ray refuses to start a cluster; a local one listens on loopback only.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with _temporary_folder() as temporary, reaping(temporary):
        try:
            _initialise(address, cpus, temporary)
            # Ray has replaced them with handlers that end the process with a dump of addresses.
            for number, handler in heard.items():
                if handler is not None:
                    signal.signal(number, handler)
            logging.getLogger("ray").setLevel(logging.CRITICAL)
            yield temporary
        finally:
            ray.shutdown()


def _own_parts() -> dict[str, Callable[[], bool]]:
    """The parts of Ray that this process started, by name, and whether each still lives; none of a cluster's."""
    from ray._private import worker

    node = getattr(worker, "_global_node", None)
    started = getattr(node, "all_processes", {})
    names = {"raylet": "Ray's raylet", "gcs_server": "Ray's control store (gcs_server)"}
    return {name: partial(_lives, started[kind][0].process) for kind, name in names.items() if started.get(kind)}


def _lives(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def _initialise(address: str | None, cpus: int, temporary: Path) -> None:
    import ray

    if address is not None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = _one_line(str(error))
            raise ValueError(f"--address must name a running Ray cluster, got {address!r}: {reason}") from error
        return
    try:
        # From the main thread only: processes started by Ray die with the thread that started them.
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(temporary / "ray"),
        )
    except Exception as error:  # Ray raises a bare Exception where its processes do not start in time.
        raise ValueError(
            f"a local Ray cluster must start, which a busy machine may not allow in time (--executor inline does "
            f"without one), got {_one_line(str(error))}"
        ) from error


def _room(threads: int, gpus_per_cell: float) -> int:
    """The number of cells that fit on the cluster at a time. Raises ValueError when not even one does."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = 0
    for node in nodes:
        shares = [node.get("CPU", 0) / threads]
        if gpus_per_cell:
            shares.append(node.get("GPU", 0) / gpus_per_cell)
        fitting += int(min(shares) + 1e-6)
    if not fitting:
        most = [max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")]
        raise ValueError(
            f"a cell must fit on one node of the Ray cluster, got {threads} CPUs and {gpus_per_cell:g} GPUs a cell "
            f"where the largest node has {most[0]:g} and {most[1]:g}"
        )
    return fitting


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A temporary folder, removed at the end, or by the next driver if this one is killed."""
    _remove_left_over()
    homes = [home for home in _homes() if os.access(home, os.W_OK)]
    if not homes:
        raise ValueError(
            f"TMPDIR must be a folder to write to with a path of at most {LONGEST_SOCKET - LONGEST_BELOW} characters, "
            f"since Ray keeps sockets there (or go with --executor inline), got {tempfile.gettempdir()}"
        )
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=homes[0]))
    try:
        with file_lock(folder / LOCK_NAME):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _homes() -> list[str]:
    """Folders for temporary files whose paths are short enough for Ray's sockets: TMPDIR first."""
    found = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"])
    return [home for home in found if len(os.fsencode(home)) + LONGEST_BELOW <= LONGEST_SOCKET and Path(home).is_dir()]


def _remove_left_over() -> None:
    """Removes the temporary folders of killed drivers: a running one holds the lock in its folder."""
    for folder in [folder for home in _homes() for folder in Path(home).glob(f"{TEMPORARY_PREFIX}*")]:
        lock = folder / LOCK_NAME
        if not lock.exists():
            continue
        with suppress(OSError), file_lock(lock).acquire(blocking=False):
            shutil.rmtree(folder, ignore_errors=True)
