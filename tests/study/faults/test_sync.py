"""MLflow's server away: the study goes on, a line says what to run, and that fills MLflow from the ledger."""

import pytest
from command_fixture import folder, lines_of
from patience import HANG

from study import sync
from study.launch import main
from study.store.database import default_uri
from study.store.lock import file_lock
from study.store.tracking import StudyTags, Tracker

__all__ = ["folder"]


def runs_of(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(folder / "mlruns"))
    experiments = [one.experiment_id for one in client.search_experiments()]
    return client, client.search_runs(experiments, "tags.kind != 'summary'")


def start_another(folder):
    """A launch of another study in this store, as far as MLflow sees it."""
    faults = []
    tracker = Tracker(default_uri(folder / "mlruns"), folder / "mlruns", StudyTags("b", "b" * 16, "?"), faults.append)
    tracker.start()
    assert tracker.close("FINISHED", {}, HANG) and not faults


def test_a_study_without_its_server_is_filled_in_afterwards(folder, capsys):
    one = ["study.yaml", "--executor", "inline", "--no-report", "--set", "recipe.epochs=1", "--seeds", "0"]
    assert main([*one, "--tracking-uri", "http://127.0.0.1:1"]) == 0
    out = capsys.readouterr().out
    (warning,) = [line for line in out.splitlines() if "does not take the records" in line]
    assert f"`python -m study.sync --store {folder}/mlruns`" in warning
    assert sync.main(["--tracking-uri", "http://127.0.0.1:1"]) == 1
    assert "does not take the records" in capsys.readouterr().out
    for _ in range(2):
        assert sync.main([]) == 0
        assert capsys.readouterr().out.endswith("has 2 cells\n")
    client, runs = runs_of(folder)
    by_kind = {kind: [run for run in runs if run.data.tags["kind"] == kind] for kind in ("study", "cell")}
    assert {run.data.tags["cell_id"] for run in by_kind["cell"]} == {line["cell_id"] for line in lines_of(folder)}
    assert len(by_kind["cell"]) == 2 and {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.params["variant"] for run in by_kind["cell"]} == {
        line["variant_label"] for line in lines_of(folder)
    }

    # A driver that is killed leaves its run under way; the next launch, of whatever study, closes it.
    (parent,) = by_kind["study"]
    client.update_run(parent.info.run_id, status="RUNNING")
    with file_lock(folder / "mlruns" / "ledger" / f".{parent.data.tags['study_hash']}.lock"):
        start_another(folder)
        assert client.get_run(parent.info.run_id).info.status == "RUNNING"
        assert sync.main([]) == 0 and "a launch of it is under way" in capsys.readouterr().out
    start_another(folder)
    assert client.get_run(parent.info.run_id).info.status == "KILLED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--store", "none"], "must be a ledger"), (["nothing", "--store", "mlruns"], "must be a ledger")],
)
def test_a_store_without_a_study_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert sync.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
