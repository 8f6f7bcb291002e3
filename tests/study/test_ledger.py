"""The ledger survives kills at any byte, two drivers, missing files and numbers that JSON does not know."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from effort import calls_of
from filelock import Timeout
from patience import HANG

from analysis.records.ledger import read_records
from study.store.ledger import Ledger, plain_json
from study.store.lock import file_lock

ROOT = Path(__file__).resolve().parents[2]
PROBABILITIES = {"test_probabilities": np.array([[0.25, 0.75]], np.float32), "test_ids": np.array(["a"])}


def record(cell_id="a1", status="done", **more):
    return {"cell_id": cell_id, "status": status, **more}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def test_an_untouched_ledger_is_empty_and_makes_no_folder(ledger):
    assert ledger.records() == {} == ledger.finished()
    assert not ledger.folder.exists()


def test_a_record_comes_back_with_its_probabilities(ledger):
    written = ledger.append(record(test={"macro_f1": np.float32(0.5)}, seed=np.int64(3)), PROBABILITIES)
    assert written["probabilities"] == "probabilities/a1.npz"
    assert Ledger(ledger.folder).finished() == {"a1": written}
    assert written["test"] == {"macro_f1": 0.5} and written["seed"] == 3
    arrays = ledger.probabilities("a1")
    assert arrays["test_probabilities"].dtype == np.float32 and arrays["test_ids"].tolist() == ["a"]


def test_a_record_without_probabilities_says_so(ledger):
    assert ledger.append(record(), {})["probabilities"] is None
    assert set(ledger.finished()) == {"a1"}


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_only_done_counts_as_finished(ledger, status):
    ledger.append(record(status=status))
    assert ledger.finished() == {} and set(ledger.records()) == {"a1"}


def test_a_later_line_replaces_a_failure_but_no_failure_replaces_a_finished_cell(ledger):
    ledger.append(record(status="failed", n=1))
    ledger.append(record(status="stopped", n=2))
    assert ledger.records()["a1"]["n"] == 2
    ledger.append(record(status="done", n=3))
    ledger.append(record(status="failed", n=4))
    assert ledger.records()["a1"]["n"] == 3 == Ledger(ledger.folder).records()["a1"]["n"]
    ledger.append(record(status="done", n=5))
    assert ledger.records()["a1"]["n"] == 5


def test_nan_and_infinity_become_null(ledger):
    ledger.append(record(test={"macro_f1": float("nan"), "values": (float("inf"), np.float64("-inf"), 1.0)}))
    line = ledger.records_path.read_text()
    assert json.loads(line, parse_constant=pytest.fail)["test"] == {"macro_f1": None, "values": [None, None, 1.0]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record(cell_id=None), "record.cell_id must be letters and digits, got None"),
        (record(cell_id="../x"), "record.cell_id must be letters and digits, got '../x'"),
        (record(status="ok"), "record.status must be one of done, failed, stopped, got 'ok'"),
        (record(extra={1: 2}), "record.extra must have strings as keys, got 1"),
        (record(extra=[{"x": {3}}]), "record.extra[0].x must be a JSON value, got set"),
    ],
)
def test_what_is_no_record_is_refused_and_leaves_nothing(ledger, bad, message):
    with pytest.raises(ValueError) as error:
        ledger.append(bad)
    assert str(error.value) == message
    assert not ledger.records_path.exists()


def test_probabilities_must_be_plain_arrays(ledger):
    with pytest.raises(ValueError, match=r"probabilities\.ids must be a plain array, got ndarray of objects"):
        ledger.append(record(), {"ids": np.array([None, "a"], dtype=object)})
    assert not ledger.records_path.exists()


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("probabilities/b2.npz", (record("b2"), {"noise": np.random.default_rng(0).random(9999)})),
        ("records.jsonl", (record("b2", note="x" * 9999), None)),
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing_behind(ledger, name, entry):
    ledger.append(record("a1"), PROBABILITIES)
    before = {path: path.read_bytes() for path in ledger.folder.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(OSError) as caught:
            ledger.append(*entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(ledger.folder / name) in str(caught.value)
    assert {path: path.read_bytes() for path in ledger.folder.rglob("*") if path.is_file()} == before
    ledger.append(record("b2"), PROBABILITIES)
    assert list(Ledger(ledger.folder).finished()) == ["a1", "b2"]


def test_a_torn_last_line_is_ignored_at_every_byte_and_never_harms_the_next_append(ledger):
    ledger.append(record("a1"))
    whole = ledger.records_path.read_bytes()
    ledger.append(record("b2", note="ß"))
    both = ledger.records_path.read_bytes()
    for cut in range(len(whole), len(both)):
        ledger.records_path.write_bytes(both[:cut])
        fresh = Ledger(ledger.folder)
        complete = cut == len(both) - 1
        assert set(fresh.records()) == ({"a1", "b2"} if complete else {"a1"})
        assert [str(ledger.records_path) in text for text in fresh.warnings] == [True] * (
            len(whole) < cut and not complete
        )
        fresh.append(record("c3"))
        expected = {"a1", "c3"} | ({"b2"} if complete else set())
        assert set(fresh.records()) == expected == set(Ledger(ledger.folder).records())
        assert ledger.records_path.read_bytes().count(b"\n") == len(expected)


def test_a_torn_line_longer_than_a_block_is_cut(ledger):
    ledger.append(record("a1"))
    with ledger.records_path.open("ab") as file:
        file.write(b'{"cell_id": "b2", "note": "' + b"x" * 200_000)
    ledger.append(record("c3"))
    assert set(Ledger(ledger.folder).records()) == {"a1", "c3"}
    assert ledger.records_path.stat().st_size < 1000


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b'{"cell_id": 3, "status": "done"}', b'{"cell_id": "a"}', b""])
def test_a_corrupt_line_in_the_middle_is_named(ledger, line):
    ledger.append(record("a1"))
    with ledger.records_path.open("ab") as file:
        file.write(line + b"\n")
    ledger.append(record("b2"))
    for _ in range(2):
        with pytest.raises(ValueError) as error:
            ledger.records()
        assert str(error.value) == f"{ledger.records_path}: line 2 must be a record, got {line.decode()!r}"


def test_a_finished_cell_whose_probabilities_are_gone_runs_again(ledger):
    ledger.append(record("a1"), PROBABILITIES)
    ledger.append(record("b2"), PROBABILITIES)
    (ledger.probabilities_folder / "a1.npz").unlink()
    assert set(ledger.finished()) == {"b2"}
    ledger.finished()
    assert len(ledger.warnings) == 1 and "a1.npz" in ledger.warnings[0]


def test_new_lines_of_another_driver_are_seen(ledger):
    ledger.append(record("a1"))
    assert set(ledger.records()) == {"a1"}
    Ledger(ledger.folder).append(record("b2"))
    assert set(ledger.records()) == {"a1", "b2"}


def test_two_drivers_share_a_store(tmp_path):
    code = (
        "import sys, numpy as np\nfrom study.store.ledger import Ledger\nledger = Ledger(sys.argv[1])\n"
        "for i in range(60):\n"
        "    record = {'cell_id': f'{sys.argv[2]}{i}', 'status': 'done', 'pad': 'x' * 5000}\n"
        "    ledger.append(record, {'test_ids': np.arange(3)})\n"
    )
    drivers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=ROOT) for name in ("a", "b")]
    assert [driver.wait(HANG) for driver in drivers] == [0, 0]
    expected = {f"{name}{i}" for name in ("a", "b") for i in range(60)}
    assert set(Ledger(tmp_path).finished()) == expected


def test_kill_loses_nothing_that_append_returned(tmp_path):
    code = (
        "import sys, numpy as np\nfrom study.store.ledger import Ledger\nledger = Ledger(sys.argv[1])\n"
        "for i in range(10**6):\n"
        "    ledger.append({'cell_id': f'c{i}', 'status': 'done', 'pad': 'x' * 100000}, {'test_ids': np.arange(3)})\n"
        "    print(i, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        for _ in range(5):
            driver.stdout.readline()
        os.kill(driver.pid, signal.SIGKILL)
        said = 5 + len(driver.stdout.read().splitlines())
    ledger = Ledger(tmp_path)
    assert len(ledger.finished()) in (said, said + 1)
    ledger.append(record("after"))
    assert set(ledger.finished()) == {f"c{i}" for i in range(len(ledger.finished()) - 1)} | {"after"}


def test_a_lock_ends_with_its_holder_though_a_child_of_his_lives_on(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from study.store.lock import file_lock\n"
        "lock = file_lock(Path(sys.argv[1])); lock.acquire()\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(10**6)"
    )
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(Timeout):
                file_lock(path).acquire(blocking=False)
            holder.kill()
            holder.wait()
            with file_lock(path).acquire(timeout=HANG):
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
    assert path.exists()


def test_a_thousand_cells_are_resumed_at_once(ledger, monkeypatch):
    curve = [{"epoch": i, "train_loss": 0.1 * i, "val_macro_f1": 0.5} for i in range(30)]
    lines = [json.dumps(record(f"c{i}", curves=curve, probabilities=f"probabilities/c{i}.npz")) for i in range(1000)]
    ledger.probabilities_folder.mkdir(parents=True)
    ledger.records_path.write_text("".join(line + "\n" for line in lines))
    for i in range(1000):
        (ledger.probabilities_folder / f"c{i}.npz").touch()
    # Each line is read once, and no array is looked into.
    monkeypatch.setattr(np, "load", None)
    found = []
    effort = calls_of(lambda: found.append(Ledger(ledger.folder).finished()))
    assert len(found[0]) == 1000 and 1000 < effort < 100 * 1000


def test_manifests_are_kept_by_hash(ledger):
    ledger.write_manifest("f00", {"name": "x", "question": "why?", "contrasts": ()})
    ledger.write_manifest("f00", {"name": "x", "question": "why not?", "contrasts": ()})
    (path,) = ledger.studies_folder.iterdir()
    assert path.name == "f00.json"
    assert json.loads(path.read_text()) == {"name": "x", "question": "why not?", "contrasts": []}


def test_the_reader_of_the_analysis_agrees(ledger):
    identity = {
        "variant_id": "v",
        "recipe_id": "r",
        "variant": {},
        "recipe": {},
        "dataset": "d",
        "data_fingerprint": "f",
        "seed": 0,
        "numerics_version": 1,
        "error": {"type": "X", "message": "y"},
    }
    ledger.append(record("a1", "failed", **identity))
    ledger.append(record("b2", "stopped", **identity))
    ledger.append(record("a1", "stopped", **identity))
    with ledger.records_path.open("ab") as file:
        file.write(b'{"cell')
    records, torn = read_records(ledger.folder)
    assert {r["cell_id"]: r for r in records} == ledger.records() and torn == 1 == len(ledger.warnings)


def test_plain_json_keeps_booleans_and_texts():
    assert plain_json({"a": True, "b": np.bool_(False), "c": "x", "d": None, "e": 2**70}, "x") == {
        "a": True,
        "b": False,
        "c": "x",
        "d": None,
        "e": 2**70,
    }
