"""A launch from the command line to the closing table: what it prints, writes and refuses, and what a kill costs."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from patience import HANG, until

import study.explain
from analysis.power import detectable_difference, pilot_spread
from analysis.records.ledger import load_ledger, read_records
from analysis.records.manifests import load_manifest
from study.file.reading import load_study
from study.launch import _tracking_uri, main
from study.planning.costs import Costs
from study.planning.estimate import estimate
from study.planning.inputs import read_inputs
from study.planning.plan import make_plan
from study.running import driver, session
from study.store.ledger import Ledger
from study.store.views import VIEWS
from study.telling import closing

FILE = """\
question: Does the share of the scan matter?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
axes: {split_ratio: [0.5, 1]}
seeds: [0, 1]
datasets: [phantom_ct]
recipe: {epochs: 1, batch_size: 50}
contrasts:
  - {name: all scan, baseline: {split_ratio: 0.5}, against: {split_ratio: 1}, metric: macro_auc_ovr, margin: 0.01}
"""
SEARCH = (
    FILE.partition("axes:")[0]
    + "axes: {split_ratio: {low: 0.25, high: 0.75, step: 0.25}}\n"
    + "strategy: {name: random, trials: 2, objectives: [macro_f1, macs]}\n"
    + "seeds: [0]\ndatasets: [phantom_ct]\nrecipe: {epochs: 1, batch_size: 50}\n"
)
ROOT = Path(__file__).resolve().parents[2]
CELLS = 4
CONTRAST = (
    "{name: all scan, baseline: {split_ratio: 0.5}, against: {split_ratio: 1}, metric: macro_auc_ovr, margin: 0.01}"
)
TWO_CONTRASTS = f"[{CONTRAST}, {CONTRAST.replace('all', 'no').replace('1}, m', '0}, m')}]"
# One data set cannot carry a confirmatory contrast.
EXPLORATORY = ("--set", f"contrasts=[{CONTRAST[:-1]}, kind: exploratory}}]")
TOO_DEEP = "{depths: [1, 1, 1, 1], dims: [8, 16, 24, 32], patch_size: 4, odd_maps: truncate}"
MARK = "MEDMAMBA_TEST_FOLDER"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with study.yaml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    return tmp_path


def launch(*arguments):
    """The exit status of a launch in this process without tracking, and without the seconds that a report takes."""
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", *arguments])


def stored(folder, store="mlruns"):
    return read_records(folder / store)[0]


def lines_of(folder, store="mlruns"):
    path = folder / store / "ledger" / "records.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def fail_at(monkeypatch, seed, error):
    """Makes the cells of a seed raise instead of running."""
    real = session.run_here

    def run(cell, device, threads, **more):
        if cell.seed == seed:
            raise error
        return real(cell, device, threads)

    monkeypatch.setattr(session, "run_here", run)


def test_help_is_instant():
    command = [sys.executable, "-X", "importtime", "-m", "study.launch", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    text = run.stdout
    # Next to nothing is imported: what takes a tenth of a second or more is one of these.
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert {"argparse", "study"} <= imported
    assert not imported & {"torch", "ray", "mlflow", "optuna", "numpy", "pandas", "scipy", "numba", "sklearn"}
    assert len(run.stderr.splitlines()) < 300
    options = "--dry-run --smoke --datasets --data-root --seeds --set --executor --workers --gpus-per-cell --address"
    for option in f"{options} --store --tracking-uri --device --threads".split():
        assert option in text


def test_a_study_runs_to_its_table_and_the_same_command_runs_nothing_more(folder, capsys):
    assert launch() == 0
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    assert "0 of 4 cells done" in out and "4 of 4 cells done" in out
    table = out[out.index("variant ") :]
    assert "macro-F1  95 % interval  macro-AUC  95 % interval  parameters" in re.sub(" {3,}", "  ", table)
    for label in ("baseline", "split_ratio=1"):
        assert re.search(rf"^{re.escape(label)}\s+0\.\d{{3}}  \[0\.\d{{3}}, [01]\.\d{{3}}\]", table, re.MULTILINE)
    assert "t over 2 seeds on one data set" in table
    assert f"ledger  {folder}/mlruns/ledger/records.jsonl" in table
    line = next(line for line in table.splitlines() if line.startswith("  all scan: "))
    assert re.search(r"macro-AUC [+−]0\.\d{3} \[.*\] over seeds and test images, p ", line)
    assert "1 data set, 2 seeds, 120 test images, 1.55 × the MACs" in line
    assert "  exploratory: a difference in general cannot reach α = 0.05 with 1 data set " in table
    assert "report  " not in table and not (folder / "mlruns" / "reports").exists()

    records = stored(folder)
    assert [record["status"] for record in records] == ["done"] * CELLS
    assert {record["study"] for record in records} == {"study"}
    assert {record["variant_label"] for record in records} == {"baseline", "split_ratio=1"}
    for record in records:
        assert (folder / "mlruns" / "ledger" / record["probabilities"]).is_file()
        assert record["study_hash"] and record["contrasts_hash"]
    manifest = load_manifest(folder / "mlruns", "study")
    assert sorted(manifest["cell_ids"]) == sorted(record["cell_id"] for record in records)

    before = lines_of(folder)
    assert launch() == 0
    out = capsys.readouterr().out
    assert "4 cells, 4 done already" in out
    assert "0 of 4 cells" not in out
    assert lines_of(folder) == before
    # More seeds: only the new ones run.
    assert launch("--seeds", "0,1,2") == 0
    assert lines_of(folder)[:CELLS] == before and len(lines_of(folder)) == CELLS + 2


def test_a_launch_ends_with_a_page_and_survives_without_one(folder, capsys, monkeypatch):
    command = ["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--seeds", "0"]
    assert main(command) == 0
    out = capsys.readouterr().out
    page = Path(re.search(r"^report  (.*)$", out, re.MULTILINE).group(1))
    assert page.parent.parent == folder / "mlruns" / "reports"
    assert "all scan" in page.read_text(encoding="utf-8")
    verdict = next(line for line in out.splitlines() if line.startswith("  all scan: "))

    def fail(*arguments, **options):
        raise RuntimeError("no\nroom")

    with monkeypatch.context() as patch:
        patch.setattr("analysis.report.write.write_report", fail)
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "warning: the report was not written (RuntimeError: no room); once that is mended: " in out
        assert f"--store {folder}/mlruns\n" in out and "report  " not in out
        assert verdict in out, "the verdicts do not go with the page"
        patch.setattr(closing, "decide_all", fail)
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "warning: no verdicts (RuntimeError: no room)\n" in out and "baseline " in out
        # A failed cell still decides the status.
        fail_at(patch, 1, ValueError("no"))
        assert main([*command[:-1], "0,1"]) == 1


def test_a_failed_cell_is_told_and_alone_runs_again(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, 0, RuntimeError("the disk\nis on fire"))
        assert launch() == 1
    out = capsys.readouterr().out
    assert "failed: baseline · phantom_ct · seed 0: RuntimeError: the disk is on fire" in out
    assert "2 cells failed; the same command runs them again:" in out
    assert "1 of 2" in out, "the table says how many cells a mean leaves out"
    failed = [record for record in stored(folder) if record["status"] == "failed"]
    assert len(failed) == 2
    assert "in run" in failed[0]["error"]["traceback"]

    done = {record["cell_id"] for record in stored(folder)} - {record["cell_id"] for record in failed}
    assert launch() == 0
    assert "4 cells, 2 done already" in capsys.readouterr().out
    again = [json.loads(line)["cell_id"] for line in lines_of(folder)[CELLS:]]
    assert sorted(again) == sorted(record["cell_id"] for record in failed)
    assert not done & set(again)
    assert [record["status"] for record in stored(folder)] == ["done"] * CELLS


def test_a_study_without_a_usable_cell_still_ends_with_a_table(folder, capsys, monkeypatch):
    fail_at(monkeypatch, 0, ValueError("no"))
    assert launch("--seeds", "0") == 1
    out = capsys.readouterr().out
    assert re.search(r"^baseline\s+–", out, re.MULTILINE)
    assert "nan" not in out


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, 1, KeyboardInterrupt())
        assert launch("--set", "recipe.flip=none") == 130
    out = capsys.readouterr().out
    assert f"interrupted: 2 finished cells are kept in {folder}/mlruns/ledger/records.jsonl" in out
    command = "python -m study.launch study.yaml --tracking-uri none --executor inline --no-report"
    assert out.rstrip().endswith(f"{command} --set recipe.flip=none")
    assert len(lines_of(folder)) == 2
    assert launch("--set", "recipe.flip=none") == 0
    assert len(lines_of(folder)) == CELLS


def test_an_interrupt_of_the_verdicts_says_what_is_done(folder, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "conclude", interrupt)
    # Impatience with the tracker must not change what is told.
    monkeypatch.setattr(driver.Driver, "abandon", interrupt)
    assert launch() == 130
    captured = capsys.readouterr()
    assert f"interrupted: 4 finished cells are kept in {folder}/mlruns/ledger/records.jsonl\n" in captured.out
    assert "the same command goes on from there: python -m study.launch study.yaml" in captured.out
    assert captured.err == ""
    monkeypatch.setattr(session, "read_inputs", interrupt)
    assert launch() == 130
    error = capsys.readouterr().err
    assert error == "interrupted; finished cells are kept, and the same command goes on from there\n"


def test_a_fault_of_the_driver_is_no_cells_fault(folder, capsys, monkeypatch):
    def append(self, record, probabilities=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "append", append)
    assert launch() == 2
    error = capsys.readouterr().err
    assert error == "error: [Errno 28] No space left on device\n"


def test_overrides_reach_the_cells(folder):
    options = ["--seeds", "7", "--datasets", "phantom_mri", "--set", "recipe.epochs=2", "--set", "axes.split_ratio=[1]"]
    assert launch(*options, "--set", "contrasts=[]", "--store", "elsewhere/store") == 0
    (record,) = stored(folder, "elsewhere/store")
    assert (record["seed"], record["dataset"], record["recipe"]["epochs"]) == (7, "phantom_mri", 2)
    assert len(record["curves"]) == 2


def test_files_of_ones_own_are_found_by_data_root(folder):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 20), ("test", 20)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 100, (count, 28, 20)) + 100 * labels[:, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None].astype(np.int64)}
    (folder / "data").mkdir()
    np.savez(folder / "data" / "mine.npz", **arrays)
    assert launch("--data-root", "data", "--datasets", "mine", "--seeds", "0") == 0
    assert {record["dataset"] for record in stored(folder)} == {"mine"}


def test_a_dry_run_tells_the_plan_and_writes_nothing(folder, capsys):
    told = ("--set", "hypothesis=It does.", "--set", "caveat=Small.")
    assert launch("--dry-run", "--seeds", "0,1,2", *EXPLORATORY, *told) == 0
    out = capsys.readouterr().out
    assert out.startswith("study: Does the share of the scan matter?\nhypothesis: It does.\ncaveat: Small.\nfile ")
    assert re.search(r"^split_ratio=1\s+[\d.]+ k\s+[\d.]+ k$", out, re.MULTILINE)
    assert "cells: 2 variants × 3 seeds × 1 data set = 6; 0 done already, 6 to run" in out
    assert "phantom_ct" in out and "28×28×1" in out
    assert "contrasts over 1 data set: the smallest p of a signed-rank test is 1 (α = 0.05, correction holm)" in out
    # One contrast: 2 · ½^n ≤ .05 from n = 6 on.
    assert "all scan: split_ratio=1 against baseline, macro-AUC, margin 0.01: p ≥ 1: cannot reach α, " in out
    assert "which takes 6 data sets" in out
    assert re.search(r"time: about .* \(6 cells of .*guessed from a timed training step, MACs × images", out)
    assert not (folder / "mlruns").exists()


def test_a_dry_run_refuses_what_cannot_reach_its_own_alpha_and_a_launch_marks_it(folder, capsys):
    assert launch("--dry-run", "--seeds", "0") == 2
    captured = capsys.readouterr()
    assert captured.err == (
        f"error: {folder}/study.yaml: confirmatory contrasts must be able to reach α = 0.05, got 'all scan' with a "
        "smallest p of 1 on 1 data set (takes 6 data sets, or level: these data sets, or kind: exploratory)\n"
    )
    assert "cells: 2 variants × 1 seed × 1 data set = 2" in captured.out, "the plan is told all the same"
    six = "phantom_ct,phantom_mri,phantom_xray,phantom_fundus,phantom_sparse,phantom_texture"
    capsys.readouterr()
    assert launch("--dry-run", "--seeds", "0", "--datasets", six) == 0
    # All six must point one way: each does with a probability of .8^(1/6), from 1.79 standard deviations on.
    assert "  found with 80 % power: a difference of 1.8 of its standard deviations over data sets\n" in (
        capsys.readouterr().out
    )
    two = [{"axes.split_ratio": "[0.5, 1, 0]"}, {"contrasts": TWO_CONTRASTS}]
    settings = [f"--set={key}={value}" for pair in two for key, value in pair.items()]
    capsys.readouterr()
    assert launch("--dry-run", "--seeds", "0", "--datasets", six, *settings) == 2
    error = capsys.readouterr().err
    assert (
        "'all scan' and 1 more with a smallest p of 0.0625 on 6 data sets, holm over the 2 of family primary" in error
    )
    assert "(takes 7 data sets, or level: these data sets, or kind: exploratory)" in error
    # Benjamini–Hochberg reaches α on six, but not for one contrast of two alone.
    assert launch("--dry-run", "--seeds", "0", "--datasets", six, *settings, "--set", "correction=bh") == 0
    told = "  found with 80 % power: no difference of one contrast alone (family of 2)\n"
    assert told in capsys.readouterr().out
    assert launch("--seeds", "0") == 0
    out = capsys.readouterr().out
    assert (
        "note: " in out
        and "on 1 data set (takes 6 data sets, or level: these data sets, or kind: exploratory); verdicts will be expl"
        in out
    )
    assert "(exploratory)" in out[out.index("  all scan: ") :]


def test_a_dry_run_plans_by_the_spread_of_a_pilot(folder, capsys):
    three = ["--datasets", "phantom_ct,phantom_mri,phantom_xray", "--set", "alpha=0.3"]
    assert launch("--seeds", "0", *three) == 0
    capsys.readouterr()
    spread = pilot_spread(load_ledger(folder / "mlruns"), "macro_auc_ovr")
    for seeds in ("0", "0,1"):
        assert launch("--dry-run", "--seeds", seeds, *three) == 0
        told = re.search(r"in macro-AUC of about (\S+) by the spread of cells done", capsys.readouterr().out)
        expected = detectable_difference(spread, 3, len(seeds.split(",")), alpha=0.3)
        assert float(told[1]) == pytest.approx(expected, rel=0.06)


def test_a_dry_run_counts_what_is_done_and_takes_its_time_from_it(folder, capsys, monkeypatch):
    fail_at(monkeypatch, 1, ValueError("no"))
    assert launch() == 1
    capsys.readouterr()
    before = lines_of(folder)
    assert launch("--dry-run", *EXPLORATORY) == 0
    out = capsys.readouterr().out
    assert "= 4; 2 done already, 2 to run (2 failed before and will run again)" in out
    assert "measured: 2 cells of this recipe and data in the ledger" in out
    assert lines_of(folder) == before
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert launch() == 0
    capsys.readouterr()
    assert launch("--dry-run", *EXPLORATORY) == 0
    assert "time: nothing is left to run" in capsys.readouterr().out


def test_estimates_use_the_same_variant_then_its_rate_then_a_guess(folder):
    assert launch("--seeds", "0", "--set", "axes.split_ratio=[0.5]", "--set", "contrasts=[]") == 0
    study_ = load_study("study.yaml")
    inputs = read_inputs(study_)
    costs, ledger = Costs(study_, inputs.infos), Ledger(folder / "mlruns" / "ledger")
    plan = make_plan(study_, inputs.refs, ledger)
    (record,) = stored(folder)
    cells = plan.cells.values()
    halves = [cell for cell in cells if cell.variant.variant_id == record["variant_id"]]
    whole = next(cell for cell in cells if cell.variant.variant_id != record["variant_id"])
    same = estimate(plan, halves, inputs.infos, costs, "cpu", 1)
    assert same.seconds == pytest.approx(2 * record["seconds"])
    other = estimate(plan, [whole], inputs.infos, costs, "cpu", 1)
    ratio = costs.macs(whole.variant, "phantom_ct") / record["cost"]["macs"]
    assert other.seconds == pytest.approx(record["seconds"] * ratio)
    longer = load_study("study.yaml", settings={"recipe.epochs": "5"})
    plan = make_plan(longer, inputs.refs, ledger)
    guess = estimate(plan, plan.left(), inputs.infos, Costs(longer, inputs.infos), "cpu", 1)
    assert guess.basis.startswith("guessed") and guess.seconds > 0


def test_a_smoke_test_runs_two_cells_of_one_epoch_apart_from_the_store(folder, capsys):
    for setting in ("recipe.warmup_epochs=0", "recipe={epochs: 3, warmup_epochs: 0}"):
        assert launch("--smoke", "--set", setting) == 0
        assert "a smoke test of 2 of them" in capsys.readouterr().out
        records = stored(folder, "mlruns/smoke")
        assert len(records) == 2 and len(lines_of(folder, "mlruns/smoke")) == 2
        assert {len(record["curves"]) for record in records} == {1}
    assert lines_of(folder) == []


def test_a_search_runs_and_goes_on(folder, capsys):
    (folder / "study.yaml").write_text(SEARCH)
    assert launch("--dry-run") == 0
    assert "random search of 2 variants over split_ratio" in capsys.readouterr().out
    assert launch() == 0
    out = capsys.readouterr().out
    assert "2 of 2 cells done" in out and "no other variant beats" in out
    before = lines_of(folder)
    assert launch() == 0
    assert lines_of(folder) == before
    assert "2 of 2 cells done" in capsys.readouterr().out


def test_a_search_without_a_variant_says_why(folder, capsys, monkeypatch):
    (folder / "study.yaml").write_text(SEARCH)
    monkeypatch.setattr("study.strategies.search.BARREN_LIMIT", 20)
    # The second launch proposes nothing and must know all the same.
    for _ in range(2):
        assert launch("--set", "strategy.max_macs=10") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert "study.yaml: the search must find a variant to train, got none: 20 proposals were rejected " in error
        assert "more than max_macs (10); the search ended 2 variants early" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml"),
        (["study.yaml", "--set", "recipe.epohcs=3"], "did you mean"),
        (["study.yaml", "--set", "recipe.epochs"], "--set must be KEY=VALUE, got 'recipe.epochs'"),
        (["study.yaml", "--set", "alpha=0.1", "--set", "alpha=0.2"], "--set must name a key once, got alpha twice"),
        (["study.yaml", "--seeds", "1,1"], "--seeds"),
        (["study.yaml", "--datasets", "phantom_cat"], "phantom_cat"),
        (["study.yaml", "--data-root", "nowhere", "--datasets", "busi"], "nowhere"),
        (["study.yaml", "--data-root", "."], "source.root must be left out where no data set uses it, got "),
        (["study.yaml", "--executor", "inline", "--workers", "2"], "--workers must be left out with --executor inline"),
        (["study.yaml", "--workers", "0"], "must be at least 1, got 0"),
        (["study.yaml", "--store", "why?"], "--store must be a path without ? and %"),
        (["study.yaml", "--store", "a%41"], "--store must be a path without ? and %"),
        (["study.yaml", "--store", "study.yaml"], "study.yaml: the store must be a folder to write to, got Not"),
        (["study.yaml", "--executor", "dask"], "invalid choice"),
        (["study.yaml", "--dry-run", "--smoke"], "not allowed with"),
        ([], "required: FILE"),
        (["study.yaml", "--device", "banana"], "the device must be auto, cpu, cuda or cuda:N, got 'banana'"),
        (["study.yaml", "--device", "cuda:99", "--dry-run"], "the device cuda:99 must be in this machine, which has"),
        (
            ["study.yaml", "--set", "recipe.image_budget=.inf"],
            "image_budget must be a whole number from 0 to 1000000000000, got inf",
        ),
        (["study.yaml", "--set", "recipe.epochs=.nan"], "epochs must be a whole number from 1 to 100000, got nan"),
        (["study.yaml", "--set", f"recipe.epochs={'9' * 400}"], "must hold a number of at most 300 digits, got 400"),
        (["study.yaml", "--set", f"axes={'[' * 3000}"], "--set axes must be a YAML value, got one nested too deeply"),
        # 28 pixels become 7, 3, 1 and then none.
        (
            ["study.yaml", "--set", f"variant={TOO_DEEP}"],
            "variant baseline on phantom_ct: every stage must keep a pixel",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_runs(folder, capsys, arguments, message):
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert not (folder / "mlruns").exists()


def test_a_record_that_lacks_a_field_stops_before_anything_runs(folder, capsys, monkeypatch):
    assert launch("--seeds", "0", *EXPLORATORY) == 0
    path = folder / "mlruns" / "ledger" / "records.jsonl"
    whole, *others = path.read_text().splitlines()
    record = json.loads(whole)
    del record["variant"]
    path.write_text("\n".join([json.dumps(record), *others, ""]))
    monkeypatch.setattr(session, "run_here", None)
    explain = ["study.yaml", "--variant", "baseline", "--dataset", "phantom_ct", "--seed", "0"]
    for run in (launch, lambda: launch("--dry-run"), lambda: study.explain.main(explain)):
        capsys.readouterr()
        assert run() == 2
        problem = capsys.readouterr().err
        assert problem == f"error: {path}: line 1: record.variant must be dict, got no such key\n"


def test_a_launch_goes_to_its_end_whatever_becomes_of_its_output(folder, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    for streams in (dict.fromkeys(("stdin", "stdout", "stderr")), {"stdout": narrow}):
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            assert launch("--seeds", "0") == 0
            for name in [name for name, stream in streams.items() if stream is None]:
                getattr(sys, name).close()
    narrow.seek(0)
    assert "making the verdicts ?" in narrow.read()
    assert [record["status"] for record in stored(folder)] == ["done", "done"]


def test_a_second_launch_of_the_same_study_is_refused(folder, capsys, monkeypatch):
    seen = []

    def run(cell, device, threads, **more):
        seen.append(launch())
        seen.append(launch("--seeds", "5", "--dry-run", *EXPLORATORY))
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_here", run)
    assert launch() == 130
    assert seen == [2, 0]
    error = capsys.readouterr().err
    assert f"another launch of study must end first, got process {os.getpid()}" in error


def test_a_second_launch_of_a_search_is_refused_whatever_its_trials(folder, capsys, monkeypatch):
    (folder / "study.yaml").write_text(SEARCH)
    seen = []

    def run(cell, device, threads, **more):
        seen.append(launch("--set", "strategy.trials=3"))
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_here", run)
    assert launch() == 130
    assert seen == [2]
    assert f"another launch of study must end first, got process {os.getpid()}" in capsys.readouterr().err


def test_tracking_that_fails_loses_no_record(folder, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    command = [
        "study.yaml",
        "--executor",
        "inline",
        "--no-report",
        "--seeds",
        "0",
        "--tracking-uri",
        "http://127.0.0.1:9",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("warning: MLflow at http://127.0.0.1:9 does not take the records") == 1
    assert "MLflow  http://127.0.0.1:9" in out
    assert [record["status"] for record in stored(folder)] == ["done"] * 2


def test_a_store_has_its_database_and_every_cell_in_it(folder, capsys):
    assert main(["study.yaml", "--executor", "inline", "--no-report", "--seeds", "0"]) == 0
    assert "look    python -m study.ui\n" in capsys.readouterr().out
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert Counter(run.data.tags["kind"] for run in runs) == {"study": 1, "cell": 2, "summary": 2}
    assert {run.info.status for run in runs} == {"FINISHED"}
    # What the prepared pages show must be there.
    kinds = {"cells": "cell", "variants": "summary"}
    for name, view in VIEWS.items():
        run = next(run for run in runs if run.data.tags["kind"] == kinds[name])
        found = {f"metrics.`{key}`" for key in run.data.metrics} | {f"params.`{key}`" for key in run.data.params}
        wanted = {column for column in view["selectedColumns"] if column.startswith(("metrics", "params"))}
        undefined = {column for column in wanted if ".`low." in column or ".`high." in column}
        assert wanted - undefined <= found and len(wanted - undefined) > 3
    assert set(os.listdir(folder)) == {"study.yaml", "mlruns"}
    assert {name for name in os.listdir(folder / "mlruns") if name[0] != "."} == {"mlflow.db", "artifacts", "ledger"}


def listen():
    """What a process does before its program: in the background of a shell SIGINT is ignored, and would be there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# A launch that never gets to the end of its third cell.
STUCK = """\
import sys, time
from study import launch
from study.running import session
begun, run = [], session.run_here

def run_here(cell, device, threads, **more):
    begun.append(cell)
    return time.sleep(10**6) if len(begun) == 3 else run(cell, device, threads)

session.run_here = run_here
sys.exit(launch.main(sys.argv[1:]))
"""


def start(folder, *arguments, program=("-m", "study.launch")):
    """A launch of its own process; its output goes to a file."""
    command = [sys.executable, *program, "study.yaml", "--tracking-uri", "none", "--no-report", *arguments]
    marked = {**os.environ, MARK: str(folder), "PYTHONPATH": str(ROOT)}

    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            command, cwd=folder, env=marked, stdout=out, stderr=subprocess.STDOUT, preexec_fn=listen
        )


def wait_for_lines(folder, count, process):
    def there():
        assert process.poll() is None, (folder / "out.txt").read_text()
        return len(lines_of(folder)) >= count

    until(there, (folder / "out.txt").read_text)


def workers_of(folder):
    """Ray workers of launches that `start` began for this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (process / "cmdline").read_text(), (process / "environ").read_text()
        except OSError:
            continue
        if name.startswith("ray::") and "Agent" not in name and f"{MARK}={folder}\0" in environment:
            found.append(name)
    return found


def check_killed_and_resumed(folder, arguments, workers, **how):
    process = start(folder, *arguments, **how)
    wait_for_lines(folder, 2, process)
    assert len(workers_of(folder)) == workers
    process.kill()
    process.wait(HANG)
    until(lambda: not workers_of(folder), lambda: f"workers outlived their driver: {workers_of(folder)}")
    before = lines_of(folder)
    finished = {record["cell_id"] for record in map(json.loads, before) if record["status"] == "done"}
    assert len(finished) == len(before)
    resumed = start(folder, *arguments)
    assert resumed.wait(HANG) == 0, (folder / "out.txt").read_text()
    after = lines_of(folder)
    assert after[: len(before)] == before, "no record is lost"
    counts = Counter(json.loads(line)["cell_id"] for line in after)
    assert set(counts.values()) == {1}, "no finished cell runs again"
    assert finished < set(counts)
    return counts


def test_a_killed_driver_goes_on_where_it_was(folder):
    arguments = ["--executor", "inline"]
    assert len(check_killed_and_resumed(folder, arguments, workers=0, program=("-c", STUCK))) == CELLS


@pytest.mark.slow
def test_a_killed_driver_of_ray_goes_on_where_it_was_and_its_workers_end(folder):
    arguments = ["--executor", "ray", "--workers", "2", "--set", "recipe.epochs=10", "--seeds", "0,1,2,3"]
    assert len(check_killed_and_resumed(folder, arguments, workers=2)) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_launch_cleanly(folder, number):
    process = start(folder, "--executor", "inline", "--set", "recipe.epochs=2000")
    until(lambda: "cells done" in (folder / "out.txt").read_text(), lambda: "nothing has begun")
    time.sleep(0.5)
    process.send_signal(number)
    # Where it meets an exec, as of a dataclass, Python ends as SIGINT ends it, which a shell tells as 130 too.
    assert process.wait(HANG) in (130, -signal.SIGINT)
    text = (folder / "out.txt").read_text()
    assert "Traceback" not in text
    assert "the same command goes on from there: python -m study.launch study.yaml" in text


@pytest.mark.parametrize(
    "interrupted",
    [
        "exec('raise KeyboardInterrupt')",
        "signal.raise_signal(signal.SIGINT)",
        "signal.raise_signal(signal.SIGTERM)",
        "swallow(signal.SIGINT)",
    ],
)
def test_a_signal_amid_an_import_ends_a_launch_cleanly(folder, interrupted):
    (folder / "interrupted.py").write_text(
        "import signal, sys, study.launch as launch\n"
        "def swallow(number):\n"
        "    try: signal.raise_signal(number)\n"
        "    except KeyboardInterrupt: raise ImportError('half a module') from None\n"
        f"launch._launch = lambda *_: {interrupted}\n"
        "sys.exit(launch.main(['study.yaml']))"
    )
    command = [sys.executable, "-m", "interrupted"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=listen)
    # A KeyboardInterrupt that leaves an exec, as dataclasses are made, lets Python end as the signal ends it, which a
    # shell tells as 130 too.
    assert run.returncode in (130, -signal.SIGINT) and run.stdout == ""
    assert run.stderr == "interrupted; finished cells are kept, and the same command goes on from there\n"


@pytest.mark.slow
def test_a_signal_ends_a_launch_with_ray_cleanly(folder):
    process = start(folder, "--executor", "ray", "--workers", "1", "--set", "recipe.epochs=5", "--seeds", "0,1,2,3,4,5")
    # By then Ray has been started, with whatever it does to signals.
    until(lambda: "\n1 of" in (folder / "out.txt").read_text(), lambda: "nothing has begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG) == 130
    text = (folder / "out.txt").read_text()
    assert "SIGTERM received" not in text and "Traceback" not in text
    assert "the same command goes on from there" in text


def test_the_study_file_is_read_where_the_command_stands(folder, capsys):
    shutil.move(folder / "study.yaml", folder / "other name.yaml")
    assert main(["other name.yaml", "--dry-run", "--executor", "inline", *EXPLORATORY]) == 0
    assert f"file {folder}/other name.yaml" in capsys.readouterr().out


def test_mlflows_address_in_the_environment_is_the_default_one(tmp_path, monkeypatch):
    store = tmp_path / "store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert _tracking_uri(None, store) == "http://127.0.0.1:5000"
    assert _tracking_uri("none", store) is None
    assert _tracking_uri("sqlite:////x.db", store) == "sqlite:////x.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert _tracking_uri(None, store) == f"sqlite:///{store}/mlflow.db"
