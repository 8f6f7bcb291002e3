"""The view in MLflow: what is logged, once; what a kill left; and that no fault of MLflow's reaches the study."""

import copy
import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from threading import Event

import pytest
from patience import HANG, until

from study.store.database import absolute_uri, default_uri
from study.store.tracking import StudyTags, Tracker, VariantSummary, _View

STUDY = StudyTags("split_ratio", "0123456789abcdef", "Does the share matter?")
EPOCHS = 3


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """An empty database: making one takes seconds, copying it nothing."""
    store = tmp_path_factory.mktemp("template")
    # Under another name, for an experiment keeps the folder of its artifacts.
    track(store, [], study=StudyTags("template", "f" * 16, "Nothing?"))
    client = make_client(store)
    client.delete_experiment(client.get_experiment_by_name("template").experiment_id)
    return store / "mlflow.db"


@pytest.fixture
def store(tmp_path, template):
    shutil.copy(template, tmp_path / "mlflow.db")
    return tmp_path


def track(store, jobs, status="FINISHED", study=STUDY, uri=None):
    """Runs a tracker over (method, arguments) and returns the lines it warned with."""
    warnings = []
    tracker = Tracker(uri or default_uri(store), store, study, warnings.append)
    tracker.start()
    for name, arguments in jobs:
        getattr(tracker, name)(*arguments)
    assert tracker.close(status, {"cells_done": len(jobs)}, timeout=HANG)
    return warnings


def make_record(seed=0, status="done", finished="2026-11-01T10:01:00+00:00"):
    curves = [
        {"epoch": epoch, "train_loss": 1.0 / (epoch + 1), "val_macro_f1": 0.1 * epoch, "learning_rate": 1e-3}
        for epoch in range(EPOCHS)
    ]
    results = {
        "curves": curves,
        "best_epoch": 1,
        "validation": {"macro_f1": 0.6, "per_class": [{"f1": 0.6}]},
        "test": {"macro_f1": 0.5, "macro_auc_ovr": None, "ece": float("inf"), "missing_classes": []},
        "cost": {"params": 1000, "macs": 20000, "flops": 40000},
        "images_per_second": 12.5,
        "peak_bytes": 10**7,
    }
    return {
        "cell_id": f"cell{seed}",
        "variant_id": "0123456789ab",
        "recipe_id": "r",
        "variant": {"d_state": 8, "dims": [16, 32], "depths": [1, 1]},
        "recipe": {"epochs": EPOCHS, "flip": "none"},
        "dataset": "ct",
        "seed": seed,
        "status": status,
        "error": {"type": "ValueError", "message": "no"} if status == "failed" else None,
        "seconds": 3.0,
        "started": "2026-11-01T10:00:00+00:00",
        "finished": finished,
    } | (results if status == "done" else {})


def make_summary(mean=0.5):
    numbers = {"avg.macro_f1": mean, "low.macro_f1": None, "n_cells": 2.0}
    return VariantSummary("0123456789ab", "half", {"d_state": 8}, numbers, "seeds")


def make_client(store):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=default_uri(store))


def find_runs(store, kind=None):
    client = make_client(store)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.kind = '{kind}'" if kind else "")
    return sorted(runs, key=lambda run: run.info.run_name)


def test_a_study_is_a_parent_with_a_run_for_each_cell_and_variant(store, tmp_path):
    file = tmp_path / "cell0.npz"
    file.write_bytes(b"scores")
    jobs = [("log", (make_record(0), "half", [file])), ("log", (make_record(1, "failed"), "half"))]
    assert track(store, [*jobs, ("summarise", ([make_summary()],))], "FAILED") == []

    (parent,) = find_runs(store, "study")
    assert (parent.info.run_name, parent.info.status) == ("split_ratio", "FAILED")
    assert parent.data.tags["study_hash"] == STUDY.study_hash
    assert parent.data.tags["mlflow.note.content"] == "Does the share matter?"
    done, failed = find_runs(store, "cell")
    for run in (done, failed):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["dataset"] == "ct"
        assert run.data.params["variant"] == "half"
    assert (done.info.run_name, done.info.status) == ("half · ct · seed 0", "FINISHED")
    assert (failed.info.run_name, failed.info.status) == ("half · ct · seed 1", "FAILED")
    assert failed.data.tags["error"] == "ValueError: no"
    # Every axis is a parameter, the defaults too, so that all runs have the same columns.
    assert done.data.params["axis.d_state"] == "8"
    assert json.loads(done.data.params["axis.dims"]) == [16, 32]
    assert "axis.d_conv" in done.data.params
    assert done.data.params["recipe.epochs"] == str(EPOCHS)
    expected = {
        "test.macro_f1": 0.5,
        "validation.macro_f1": 0.6,
        "cost.macs": 20000,
        "seconds": 3.0,
        "train_loss": pytest.approx(1 / EPOCHS),
    }
    for name, value in expected.items():
        assert done.data.metrics[name] == value
    # Undefined and infinite numbers are left out: MLflow would store 1.8e308.
    assert not {"test.macro_auc_ovr", "test.ece"} & set(done.data.metrics)
    assert done.info.end_time - done.info.start_time == 60_000

    client = make_client(store)
    curve = client.get_metric_history(done.info.run_id, "val_macro_f1")
    assert [(point.step, point.value) for point in curve] == [(e, 0.1 * e) for e in range(EPOCHS)]
    assert [artifact.path for artifact in client.list_artifacts(done.info.run_id)] == ["cell0.npz", "record.json"]
    kept = json.loads(Path(client.download_artifacts(done.info.run_id, "record.json")).read_text())
    assert kept["cell_id"] == "cell0"
    assert (store / "artifacts" / "split_ratio").is_dir()

    (summary,) = find_runs(store, "summary")
    assert summary.info.run_name == "summary · half"
    assert summary.data.metrics == {"avg.macro_f1": 0.5, "n_cells": 2.0}
    assert summary.data.tags["interval_over"] == "seeds"


def test_a_resumed_study_keeps_its_parent_and_logs_nothing_twice(store):
    first = [("log", (make_record(0), "half")), ("log", (make_record(1, "failed"), "half"))]
    track(store, [*first, ("summarise", ([make_summary(0.5)],))])
    again = make_record(1, "done", "2026-11-01T11:00:00+00:00")
    second = [("log", (make_record(0), "half")), ("log", (again, "half")), ("summarise", ([make_summary(0.6)],))]
    track(store, second)
    track(store, second)

    (parent,) = find_runs(store, "study")
    assert parent.info.status == "FINISHED"
    # The cell that failed and then ran has both its runs; the one that was done has one.
    statuses = [(run.info.run_name, run.info.status) for run in find_runs(store, "cell")]
    assert sorted(statuses) == [
        ("half · ct · seed 0", "FINISHED"),
        ("half · ct · seed 1", "FAILED"),
        ("half · ct · seed 1", "FINISHED"),
    ]
    (summary,) = find_runs(store, "summary")
    assert summary.data.metrics["avg.macro_f1"] == 0.6


def test_another_study_of_the_store_is_left_alone(store):
    other = StudyTags("split_ratio", "fedcba9876543210", "The same file with other seeds?")
    track(store, [("log", (make_record(0), "half"))])
    track(store, [("log", (make_record(0), "half"))], study=other)
    parents = find_runs(store, "study")
    assert {run.data.tags["study_hash"] for run in parents} == {STUDY.study_hash, other.study_hash}
    assert len({run.info.experiment_id for run in parents}) == 1
    assert len(find_runs(store, "cell")) == 2


def test_views_show_the_study_launched_last_under_a_name(store):
    for study_hash in ("0" * 16, STUDY.study_hash):
        study = StudyTags(STUDY.name, study_hash, STUDY.question)
        assert track(store, [("log", (make_record(), "a")), ("summarise", ([make_summary()],))], study=study) == []
    client = make_client(store)
    experiment = client.get_experiment_by_name(STUDY.name)
    for name, kind in (("cells", "cell"), ("variants", "summary")):
        chosen = json.loads(experiment.tags[f"mlflow.sharedViewState.{name}"])["searchFilter"]
        (run,) = client.search_runs([experiment.experiment_id], chosen)
        assert (run.data.tags["kind"], run.data.tags["study_hash"]) == (kind, STUDY.study_hash)


def test_a_store_that_has_moved_keeps_its_files_in_one_place(store, tmp_path):
    file = tmp_path / "a.npz"
    file.write_bytes(b"PK")
    track(store, [("log", (make_record(seed=0), "plain", [file]))])
    moved = store.with_name(f"{store.name} moved")
    store.rename(moved)
    assert track(moved, [("log", (make_record(seed=1), "plain", [moved / "a.npz"]))]) == []
    assert not store.exists()
    client = make_client(moved)
    experiment = client.get_experiment_by_name("split_ratio")
    cells = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
    assert len(cells) == 2
    for run in cells:
        assert {found.path for found in client.list_artifacts(run.info.run_id)} == {"a.npz", "record.json"}


def test_runs_that_a_kill_left_open_are_closed_and_their_cells_logged_anew(store):
    track(store, [("log", (make_record(0), "half"))])
    client = make_client(store)
    (parent,), (cell,) = find_runs(store, "study"), find_runs(store, "cell")
    client.update_run(parent.info.run_id, status="RUNNING")
    client.update_run(cell.info.run_id, status="RUNNING")
    track(store, [("log", (make_record(0), "half"))])
    (parent,), (again,) = find_runs(store, "study"), find_runs(store, "cell")
    assert parent.info.status == "FINISHED"
    assert again.info.run_id != cell.info.run_id and again.info.status == "FINISHED"
    assert client.get_run(cell.info.run_id).info.status == "KILLED"


def test_an_experiment_that_was_deleted_comes_back(store):
    track(store, [])
    client = make_client(store)
    client.delete_experiment(client.get_experiment_by_name("split_ratio").experiment_id)
    assert track(store, [("log", (make_record(0), "half"))]) == []
    assert len(find_runs(store, "cell")) == 1


def test_a_database_that_was_not_made_to_its_end_is_made_anew(tmp_path, monkeypatch):
    import sqlalchemy

    def die(engine):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE evaluation_datasets (x INTEGER)"))
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.db.utils._initialize_tables", die)
        (warning,) = track(tmp_path, [("log", (make_record(0), "half"))])
    assert "(killed)" in warning
    # What a kill leaves behind, unlike an error.
    (tmp_path / ".mlflow.db.making-1").mkdir()
    assert track(tmp_path, [("log", (make_record(0), "half"))]) == []
    assert len(find_runs(tmp_path, "cell")) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.lock", "artifacts"}


def test_long_curves_pass_mlflows_batch_limit(store):
    record = make_record(0)
    record["curves"] = [{"epoch": e, "train_loss": 1.0, "val_loss": 2.0} for e in range(1200)]
    assert track(store, [("log", (record, "half"))]) == []
    (run,) = find_runs(store, "cell")
    history = make_client(store).get_metric_history(run.info.run_id, "val_loss")
    assert sorted(point.step for point in history) == list(range(1200))


def test_a_server_that_is_down_costs_one_warning(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    jobs = [("log", (make_record(seed), "half")) for seed in range(5)]
    (warning,) = track(store, jobs, uri="http://127.0.0.1:9")
    assert warning.startswith("warning: MLflow at http://127.0.0.1:9 does not take the records (")
    assert warning.endswith("the next launch of this study logs what is missing")
    assert "\n" not in warning


def test_a_fault_in_one_record_does_not_stop_the_others(store):
    broken = copy.deepcopy(make_record(0))
    broken["variant"] = {"no_such_axis": 1}
    (warning,) = track(store, [("log", (broken, "half")), ("log", (make_record(1), "half"))])
    assert "no_such_axis" in warning
    assert [run.info.run_name for run in find_runs(store, "cell") if run.info.status == "FINISHED"] == [
        "half · ct · seed 1"
    ]
    # The run that was begun for the broken one is closed by the next launch.
    track(store, [])
    assert all(run.info.status == "FINISHED" for run in find_runs(store))


def test_logging_does_not_hold_the_driver_up(store, monkeypatch):
    logged, go_on = _View.log, Event()

    def log(self, record, label, files):
        assert go_on.wait(HANG)
        logged(self, record, label, files)

    monkeypatch.setattr(_View, "log", log)
    tracker = Tracker(default_uri(store), store, STUDY, print)
    tracker.start()
    for seed in range(3):
        tracker.log(make_record(seed), "half")
    # Here before the first record is in the view: a driver that waited for one would wait for ever.
    assert find_runs(store, "cell") == []
    go_on.set()
    assert tracker.close("FINISHED", {}, timeout=HANG)
    assert len(find_runs(store, "cell")) == 3


def test_close_gives_up_on_a_server_that_hangs(store, monkeypatch):
    go_on = Event()
    monkeypatch.setattr(_View, "log", lambda self, record, label, files: go_on.wait(HANG))
    tracker = Tracker(default_uri(store), store, STUDY, print)
    tracker.start()
    tracker.log(make_record(0), "half")
    assert not tracker.close("KILLED", {}, timeout=0.2)
    # Let the thread end: pytest would otherwise find its database open.
    go_on.set()
    tracker._thread.join(HANG)


def test_uris_of_databases_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///my.db") == f"sqlite:///{tmp_path}/my.db"
    for uri in ("sqlite:////elsewhere/my.db", "http://host:5000", "sqlite:///:memory:"):
        assert absolute_uri(uri) == uri


def test_the_pages_of_a_store_open_on_loopback(store):
    track(store, [("log", (make_record(0), "half"))])
    command = [sys.executable, "-m", "study.ui", "--store", str(store), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first, *links = [server.stdout.readline() for _ in range(3)]
        address = next(word for word in first.split() if word.startswith("http://127.0.0.1:"))
        number = make_client(store).get_experiment_by_name("split_ratio").experiment_id
        for link, view in zip(links, ("cells", "variants"), strict=True):
            page = f"{address}/#/experiments/{number}/runs?viewStateShareKey={view}"
            assert link.split() == ["split_ratio:", view, page]
        body = json.dumps({"filter": "name = 'split_ratio'", "max_results": 5}).encode()
        found = _ask(server, f"{address}/api/2.0/mlflow/experiments/search", body)
        assert [experiment["name"] for experiment in found["experiments"]] == ["split_ratio"]
        assert "<title>MLflow</title>" in _ask(server, address)
    finally:
        server.terminate()
        server.communicate(timeout=HANG)


def _ask(server, url, body=None):
    """The answer of a server that may still be starting: parsed JSON, or text."""
    found = []

    def answered():
        assert server.poll() is None, server.stderr.read()
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=HANG) as answer:
                found.append(answer.read().decode())
        except urllib.error.URLError:
            return False
        return True

    until(answered, lambda: "the server did not answer")
    return json.loads(found[0]) if body else found[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "nowhere"], "error: nowhere: the store must hold mlflow.db, which the first launch makes"),
        (["--port", "99999999"], "error: --port must be a free port, got 99999999"),
    ],
)
def test_nothing_to_open_is_one_line(store, monkeypatch, capsys, arguments, message):
    from study.ui import main

    monkeypatch.chdir(store)
    (store / "mlruns").mkdir()
    shutil.copy(store / "mlflow.db", store / "mlruns")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1
