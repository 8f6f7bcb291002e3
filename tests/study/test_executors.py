"""Executors: what runs where, and what becomes of cells that fail and workers that die."""

import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import Timeout
from patience import HANG, until

from medmamba_variants.config import VariantConfig
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.executors.inline import attempt, cores, run_inline
from study.executors.ray_tune import TEMPORARY_PREFIX, _remove_left_over, _temporary_folder, run_ray
from study.store.lock import file_lock

TINY = VariantConfig.from_dict({"depths": [1, 1], "dims": [8, 16], "d_state": 2})
QUICK = Recipe(epochs=1, batch_size=50)
RAISES, DIES, HUNGRY, LAST = 3, 5, 7, 8
BEGUN = time.time()


def make_cells(count):
    from study.data import open_source

    spec = {"kind": "phantom"}
    info = open_source(spec).describe("phantom_ct")
    return [Cell(TINY, QUICK, DataRef("phantom_ct", info.fingerprint, spec), seed) for seed in range(count)]


class Listed:
    """A strategy that hands out a list."""

    def __init__(self, cells):
        self.left = list(cells)
        self.running = set()
        self.told = {}

    def ask(self):
        if not self.left:
            return None
        cell = self.left.pop(0)
        self.running.add(cell.cell_id)
        return cell

    def tell(self, record):
        self.running.remove(record["cell_id"])
        self.told[record["cell_id"]] = record

    def done(self):
        return not self.left and not self.running


class Seen:
    """A watcher that keeps what it is told, in order."""

    def __init__(self):
        self.events = []
        self.records = {}
        self.arrays = {}
        self.most_running = 0
        self._running = 0

    def started(self, cell):
        self.events.append(("started", cell.seed))
        self._running += 1
        self.most_running = max(self.most_running, self._running)

    def ended(self, cell, record, probabilities):
        self._running -= 1
        self.events.append(("ended", cell.seed))
        self.records[cell.seed] = record
        self.arrays[cell.seed] = probabilities
        return {**record, "kept": True}


def make_run(vmstat=None):
    """A run function that pickles by value, as workers cannot import this file: most cells train for real."""

    def run(cell, micro_batch=None):
        from study.training.cell import run_cell

        if cell.seed == 7 and vmstat and (micro_batch is None or micro_batch > 20):
            # As the kernel kills a worker that wants too much memory, once another's death was looked at.
            time.sleep(2)
            vmstat.write_text(f"nr_free_pages 12\noom_kill {1000 - (micro_batch or 100)}\n")
            os.kill(os.getpid(), signal.SIGKILL)

        if cell.seed == 3:
            raise ValueError("no such luck")
        if cell.seed == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        record, probabilities = run_cell(cell, device="cpu", threads=1, micro_batch=micro_batch)
        return record | {"pid": os.getpid()}, probabilities

    return run


def test_inline_runs_every_cell_in_order_and_tells_what_was_kept():
    cells, seen = make_cells(3), Seen()
    strategy = Listed(cells)
    run_inline(strategy, lambda cell: ({"cell_id": cell.cell_id, "status": "done"}, {}), seen)
    assert seen.events == [(what, seed) for seed in range(3) for what in ("started", "ended")]
    assert [record["kept"] for record in strategy.told.values()] == [True] * 3


def test_a_cell_that_raises_becomes_a_failed_record():
    (cell,) = make_cells(1)

    def run(cell):
        raise ZeroDivisionError("by nought")

    record, probabilities = attempt(run, cell)
    assert (record["cell_id"], record["status"], probabilities) == (cell.cell_id, "failed", {})
    assert record["error"]["type"] == "ZeroDivisionError"
    assert record["error"]["message"] == "by nought"
    assert "in run" in record["error"]["traceback"]


def test_an_interrupt_is_no_failed_cell():
    def run(cell):
        raise KeyboardInterrupt

    seen = Seen()
    with pytest.raises(KeyboardInterrupt):
        run_inline(Listed(make_cells(2)), run, seen)
    assert seen.events == [("started", 0)]


def test_a_strategy_that_waits_while_nothing_runs_is_a_bug():
    class Stuck(Listed):
        def done(self):
            return False

    with pytest.raises(AssertionError, match="must hand out a cell"):
        run_inline(Stuck([]), None, Seen())


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    """Nine cells on two Ray workers, one raising, one killing its worker, one without memory: (watcher, strategy)."""
    seen, strategy = Seen(), Listed(make_cells(LAST + 1))
    vmstat = tmp_path_factory.mktemp("proc") / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 3\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("study.executors.kills.VMSTAT", vmstat)
        run_ray(strategy, make_run(vmstat), seen, workers=2)
    return seen, strategy


def test_a_cell_whose_worker_was_killed_for_want_of_memory_is_tried_again_at_half(on_ray):
    record = on_ray[0].records[HUNGRY]
    assert record["status"] == "done" and record["micro_batch"] == 12
    assert record["recipe"]["batch_size"] == 50
    assert record["notes"] == ["its worker was killed for want of memory, tried again with 12 images at a time"]
    assert on_ray[1].told[record["cell_id"]]["kept"]


def test_ray_runs_every_cell_two_at_a_time(on_ray):
    seen, strategy = on_ray
    assert sorted(seen.records) == list(range(LAST + 1))
    assert len(strategy.told) == LAST + 1 and strategy.done()
    assert seen.most_running == 2
    good = [record for record in seen.records.values() if record["status"] == "done"]
    assert len(good) == LAST - 1
    # Two workers, and others in place of the one that died and of those killed for want of memory.
    assert len({record["pid"] for record in good}) <= 5
    assert os.getpid() not in {record["pid"] for record in good}


def test_a_cell_that_raises_on_a_worker_fails_with_its_own_error(on_ray):
    error = on_ray[0].records[RAISES]["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no such luck")
    assert "no such luck" in error["traceback"] and "in run" in error["traceback"]


def test_a_worker_that_dies_costs_its_cell_and_no_other(on_ray):
    record = on_ray[0].records[DIES]
    assert record["status"] == "failed"
    assert record["error"]["type"] == "WorkerDiedError"
    message = record["error"]["message"]
    assert message.startswith("the worker must live until its cell ends, but it crashed or was killed: ")
    assert "\n" not in message and len(message) < 500
    assert record["seed"] == DIES


def test_metrics_are_bit_identical_in_this_process_and_on_ray(on_ray):
    from study.training.cell import run_cell

    for seed in (0, LAST):
        here, arrays = run_cell(make_cells(LAST + 1)[seed], device="cpu", threads=1)
        there = on_ray[0].records[seed]
        for name in ("validation", "test", "curves", "best_epoch", "cost"):
            assert there[name] == here[name]
        for name, array in arrays.items():
            np.testing.assert_array_equal(on_ray[0].arrays[seed][name], array)


def test_ray_leaves_nothing_behind(on_ray):
    import ray

    assert not ray.is_initialized()
    # A folder of another process, not yet locked or about to go, is looked at again.
    until(lambda: not _left_over(), lambda: f"left behind: {_left_over()}")
    assert not any("ray::" in line for line in _children())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "--address must name a running Ray cluster, got '127.0.0.1:1': "),
        ("ray://somewhere:10001", "--address must be auto or HOST:PORT of a Ray cluster, got 'ray://somewhere:10001'"),
        ("somewhere", "--address must be auto or HOST:PORT of a Ray cluster, got 'somewhere'"),
        ("127.0.0.1:99999999", "--address must name a running Ray cluster, got '127.0.0.1:99999999': "),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(address, message):
    with pytest.raises(ValueError) as error:
        run_ray(Listed([]), make_run(), Seen(), address=address)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_something_else_that_listens_at_the_address_is_told_at_once():
    """A web server, such as Ray's dashboard, answers in HTTP/1."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"127.0.0.1:{server.server_port}"
        with pytest.raises(ValueError, match=f"got '{address}', where something else listens .Ray's own port is 6379"):
            run_ray(Listed([]), make_run(), Seen(), address=address)
    finally:
        server.shutdown()
        server.server_close()


def test_cores_are_those_of_affinity_and_of_the_containers_quota(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    assert cores() == 2
    monkeypatch.setattr("joblib.cpu_count", lambda: 128)
    assert cores() == 64


def test_temporary_files_lie_in_tmpdir_where_its_path_is_short_enough(tmp_path, monkeypatch):
    short = tempfile.mkdtemp(prefix="t", dir="/tmp")
    try:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with _temporary_folder() as folder:
            assert folder.parent == Path(short)
        # Ray's sockets lie 86 characters below it.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with _temporary_folder() as folder:
            assert len(str(folder.parent)) < 18
        monkeypatch.setattr(os, "access", lambda *_: False)
        told = r"TMPDIR must be a folder to write to .* go with --executor inline"
        with pytest.raises(ValueError, match=told), _temporary_folder():
            pass
    finally:
        shutil.rmtree(short)


@pytest.mark.slow
def test_a_running_cluster_is_joined_and_left_running(tmp_path):
    port = _free_port()
    folder = tempfile.mkdtemp(prefix="rc", dir="/tmp")
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    head = subprocess.Popen(
        [*command, "--include-dashboard=false", f"--temp-dir={folder}"],
        env=quiet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        seen = Seen()
        with pytest.raises(ValueError, match="a cell must fit on one node of the Ray cluster, got 64 CPUs"):
            run_ray(Listed(make_cells(1)), make_run(), seen, threads=64, address=f"127.0.0.1:{port}")
        run_ray(Listed(make_cells(2)), make_run(), seen, address=f"127.0.0.1:{port}")
        assert [record["status"] for record in seen.records.values()] == ["done", "done"]
        assert head.poll() is None
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(HANG)
        shutil.rmtree(folder, ignore_errors=True)


def test_folders_of_killed_drivers_are_removed_and_those_of_living_ones_stay():
    # A driver that is killed while it holds its folder.
    code = (
        "import os, study.executors.ray_tune as e\nwith e._temporary_folder() as f:\n print(f, flush=True); os._exit(9)"
    )
    dead = Path(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    assert dead.name.startswith(TEMPORARY_PREFIX) and dead.is_dir()
    with _temporary_folder() as living:
        _remove_left_over()
        assert living.is_dir() and not dead.exists()
    assert not living.exists()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port):
    def open_():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=HANG).close()
        except OSError:
            return False
        return True

    until(open_, lambda: "the cluster did not start")


def _left_over():
    """Folders of drivers that have begun since these tests were started, and hold them no longer."""
    return [path for path in Path("/tmp").glob(f"{TEMPORARY_PREFIX}*") if _is_new(path) and not _is_locked(path)]


def _is_new(folder):
    try:
        return folder.stat().st_mtime > BEGUN
    except FileNotFoundError:
        return False


def _is_locked(folder):
    try:
        with file_lock(folder / "lock").acquire(blocking=False):
            return False
    except Timeout:
        return True


def _children():
    """Command lines of this process's descendants."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    family, found = {str(os.getpid())}, []
    for _ in range(5):
        for pid, parent, *command in rows:
            if parent in family and pid not in family:
                family.add(pid)
                found.append(" ".join(command))
    return found
