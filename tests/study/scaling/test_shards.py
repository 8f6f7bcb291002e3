"""Shards and merged stores: each cell once, with the results that a single launch gives, wherever it ran."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger

from analysis.records.launches import merged_launches
from analysis.records.ledger import read_records
from study.file.reading import load_study
from study.launch import main
from study.merge import main as merge
from study.planning.inputs import read_inputs
from study.planning.plan import make_plan
from study.store.ledger import Ledger

FILE = """\
question: Does the share of the scan matter?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
axes: {split_ratio: [0.5, 0.75, 1]}
seeds: [0, 1]
datasets: [phantom_ct]
recipe: {epochs: 1, batch_size: 50}
contrasts:
  - {name: all scan, baseline: {split_ratio: 0.5}, against: {split_ratio: 1}, metric: macro_auc_ovr, margin: 0.01}
"""
# When, where and with what a cell ran; all else in a record is its result.
TIMES = ("started", "finished", "seconds", "train_seconds", "images_per_second")
OWN = (*TIMES, "peak_bytes", "machine", "versions", "commit")
QUIET = ("study.yaml", "--tracking-uri", "none", "--no-report")


# Axes in ranges, and no contrasts, are what a search takes.
SEARCHED = ("--set", "axes={split_ratio: {low: 0.25, high: 0.75, step: 0.25}}", "--set", "contrasts=[]")


def status_of(arguments):
    """The exit status of a launch, also where the parser ends it."""
    with pytest.raises(SystemExit) as end:
        sys.exit(main(arguments))
    return end.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with study.yaml, and stores of it: whole, first and second (its shards), and merged."""
    here = tmp_path_factory.mktemp("shards")
    (here / "study.yaml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for store, options in {"whole": [], "first": ["--shard", "1/2"], "second": ["--shard", "2/2"]}.items():
            assert main([*QUIET, "--executor", "inline", "--store", store, *options]) == 0
        assert merge(["first", "second", "--into", "merged"]) == 0
    return here


def results(store):
    """What every cell of a store found out, and its probabilities."""
    found = {}
    for record in read_records(store).records:
        name = record["probabilities"]
        with np.load(store / "ledger" / name) as arrays:
            kept = {key: (arrays[key].dtype.str, arrays[key].shape, arrays[key].tobytes()) for key in arrays.files}
        found[record["cell_id"]] = ({key: value for key, value in record.items() if key not in OWN}, kept)
    return found


# On Ray slowly, for its start: that it gives the same metrics, tests/study/test_executors.py looks at each time.
@pytest.mark.parametrize("workers", [0, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2))])
def test_records_are_the_same_in_process_on_ray_and_in_merged_shards(folder, monkeypatch, workers):
    monkeypatch.chdir(folder)
    store = folder / (f"ray{workers}" if workers else "merged")
    if workers:
        assert main([*QUIET, "--executor", "ray", "--workers", str(workers), "--store", store.name]) == 0
    here, there = results(folder / "whole"), results(store)
    assert len(here) == 6 and there == here


def test_shards_share_the_cells_and_every_variant(folder):
    parts = [set(results(folder / name)) for name in ("first", "second")]
    assert [len(part) for part in parts] == [3, 3] and not parts[0] & parts[1]
    study = load_study(folder / "study.yaml")
    refs, ledger = read_inputs(study).refs, Ledger(folder / "nothing")
    plans = [make_plan(study, refs, ledger, (number, 2)) for number in (1, 2)]
    assert [set(plan.cells) for plan in plans] == parts
    # One variant's two seeds are in two shards; more seeds leave a cell where it is.
    assert all(len({cell.variant.variant_id for cell in plan.cells.values()}) == 3 for plan in plans)
    longer = load_study(folder / "study.yaml", seeds="0,1,2")
    assert set(make_plan(longer, refs, ledger, (1, 2)).cells) >= parts[0]
    assert all(plan.ids == tuple(make_plan(study, refs, ledger).cells) for plan in plans)


def test_a_shard_of_a_tuned_study_takes_whole_variants(folder):
    axes = {"recipe_axes": "{learning_rate: [0.001, 0.002]}", "tuning_seeds": "[7]"}
    study = load_study(folder / "study.yaml", settings=axes)
    refs, ledger = read_inputs(study).refs, Ledger(folder / "nothing")
    plans = [make_plan(study, refs, ledger, (number, 2)) for number in (1, 2)]
    kinds = [{cell.variant.variant_id for cell in plan.trials.values()} for plan in plans]
    assert [len(kind) for kind in kinds] == [2, 1] and not kinds[0] & kinds[1]
    assert [plan.total for plan in plans] == [2 * (2 + 2), 2 + 2]
    assert sum(plan.total for plan in plans) == make_plan(study, refs, ledger).total


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "0/2"], "argument --shard: must be I/N with I from 1 to N, such as 1/4, got 0/2"),
        (["--shard", "3/2"], "argument --shard: must be I/N with I from 1 to N, such as 1/4, got 3/2"),
        (["--shard", "7/7"], "--shard must be of at most 6 parts, got 7/7"),
        (
            ["--shard", "1/2", "--set", "strategy={name: random, trials: 2, objectives: [macro_f1]}", *SEARCHED],
            "--shard must go with strategy: grid, got random",
        ),
    ],
)
def test_a_wrong_shard_is_refused(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    assert status_of([*QUIET, "--executor", "inline", "--store", "none", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_merged_store_is_complete_and_merging_again_changes_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in (folder / "merged").rglob("*") if path.is_file()}
    assert merge(["first", "second", "first", "--into", "merged"]) == 0
    assert "6 cells, 0 of them new, 9 records in more than one store" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (folder / "merged").rglob("*") if path.is_file()} == before
    launches = (folder / "merged/ledger/launches.jsonl").read_text().splitlines()
    assert len(launches) == 1 and json.loads(launches[0])["seen"] == []
    shutil.copytree(folder / "merged", tmp_path / "again")
    assert main([*QUIET, "--executor", "inline", "--store", str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert "6 cells, 6 done already" in out and "all scan: " in out
    assert len((tmp_path / "again/ledger/launches.jsonl").read_text().splitlines()) == 1


def changed(store, change):
    """Changes the last record of a store in place, and returns its id."""
    path = store / "ledger" / "records.jsonl"
    *lines, last = path.read_text().splitlines()
    record = json.loads(last)
    change(record)
    path.write_text("\n".join([*lines, json.dumps(record)]) + "\n")
    return record["cell_id"]


def test_different_results_of_a_cell_are_named_and_stop_the_merger(tmp_path, capsys):
    design = Design(datasets=("alpha",), seeds=(0, 1), images=9)
    for name in ("one", "two"):
        write_ledger(tmp_path / name, design)
    cell = changed(tmp_path / "two", lambda record: record["test"].update(macro_f1=0.125))
    into = str(tmp_path / "all")
    command = [str(tmp_path / "one"), str(tmp_path / "two"), "--into", into]
    assert merge(command) == 1
    error = capsys.readouterr().err
    assert f"conflict: cell {cell} (" in error and "seed 1): test.macro_f1 is " in error and " and 0.125 in " in error
    assert "got 1 cell with different ones; nothing was written" in error and not Path(into).exists()
    assert merge([*command, "--first"]) == 0
    kept = {record["cell_id"]: record for record in read_records(Path(into)).records}
    assert kept[cell]["test"]["macro_f1"] != 0.125 and len(kept) == 6
    # Times, machine and versions are no result, and other probabilities are.
    changed(tmp_path / "one", lambda record: record.update(seconds=1e9, machine={}, versions={}))
    assert merge([str(tmp_path / "one"), "--into", into]) == 0
    path = tmp_path / "one" / "ledger" / "probabilities" / f"{cell}.npz"
    with np.load(path) as arrays:
        np.savez(path, **{name: arrays[name] + arrays[name].dtype.type(1) for name in arrays.files})
    assert merge([str(tmp_path / "one"), "--into", into]) == 1
    assert "its probabilities differ" in capsys.readouterr().err


def test_a_finished_cell_wins_over_a_failed_one_whatever_the_order(tmp_path, capsys):
    write_ledger(tmp_path / "good", Design(datasets=("alpha",), seeds=(0,), images=9))
    failed = {("baseline", "alpha", 0)}
    write_ledger(tmp_path / "bad", Design(datasets=("alpha",), seeds=(0,), images=9, failed=failed))
    for place, stores in enumerate([("good", "bad"), ("bad", "good")]):
        into = tmp_path / str(place)
        assert merge([*(str(tmp_path / name) for name in stores), "--into", str(into)]) == 0
        assert [record["status"] for record in read_records(into).records] == ["done"] * 3
        assert len(Ledger(into / "ledger").finished()) == 3
    assert merge([str(tmp_path / "nothing"), "--into", str(tmp_path / "x")]) == 2
    assert "nothing: must be a ledger" in capsys.readouterr().err
    assert merge([str(into), "--into", str(into)]) == 2
    assert "--into must be a folder of its own" in capsys.readouterr().err


def launch_at(time, seen=(), recipe="r", study="s"):
    data = {"ct": {"fingerprint": "f", "source_key": "ct"}}
    return {
        "time": time,
        "study_hash": study,
        "recipe_id": recipe,
        "seeds": [0],
        "data": data,
        "asked": [["a", "b", "macro_f1"]],
        "seen": list(seen),
    }


def test_launches_are_merged_in_the_order_of_events_and_no_look_is_washed_away():
    record = {"variant_id": "a", "dataset": "ct", "data_fingerprint": "f", "status": "done"}
    records = [
        {**record, "cell_id": "early", "finished": "2026-01-01T10:00:00+00:00"},
        {**record, "cell_id": "late", "finished": "2026-01-01T12:00:00+00:00"},
        {**record, "cell_id": "other", "variant_id": "c", "finished": "2026-01-01T10:00:00+00:00"},
    ]
    one = [launch_at("2026-01-01T11:00:00+00:00", ["x"])]
    two = [launch_at("2026-01-01T09:00:00+00:00", recipe="q"), launch_at("2026-01-01T11:30:00+00:00", ["y"])]
    merged = merged_launches([one, two], records)
    assert [(each["recipe_id"], each["time"][11:13]) for each in merged] == [("q", "09"), ("r", "11")]
    # Both stores' own, and what had finished in any; neither what came later nor what nobody asked about.
    assert [each["seen"] for each in merged] == [[], ["x", "y", "early"]]
    assert merged_launches([merged, one, two], records) == merged
