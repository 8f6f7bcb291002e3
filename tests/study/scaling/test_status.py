"""The board of a study, its heat map, and its status from another terminal, against numbers worked out by hand."""

import io
import json
import math
import re

import pytest
from filelock import FileLock
from ledger_fixture import Design, write_ledger
from scipy import stats

from study import launch
from study.running import session
from study.status import main
from study.store.ledger import Ledger
from study.telling.board import Board
from study.telling.heat import heat_lines, heat_table
from study.telling.progress import Progress, Running, Status, best_text, failures_text, live_view
from study.telling.seen import lines, see

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def record_of(cell_id, dataset="ct", seed=0, value=0.5, status="done", **more):
    validation = {"macro_f1": value} if status == "done" else {}
    return {"cell_id": cell_id, "dataset": dataset, "seed": seed, "status": status, "validation": validation, **more}


def board_of(*cells, **known):
    board = Board(**known)
    for number, (label, dataset, seed, value) in enumerate(cells):
        board.add(label, record_of(str(number), dataset, seed, value, source_key={"ct2": "ct"}.get(dataset)))
    return board


def by_t(values):
    """Student's interval for a mean, by scipy."""
    mean, error = sum(values) / len(values), stats.sem(values)
    return stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)


def test_the_interval_of_the_best_is_over_sources_else_over_seeds():
    one = board_of(("a", "ct", 0, 0.5), ("a", "ct", 1, 0.6), ("a", "ct", 2, 0.55), ("b", "ct", 0, 0.4))
    best = one.best()
    assert (best.label, best.cells, best.over) == ("a", 3, "seeds")
    assert (best.low, best.high) == pytest.approx(by_t([0.5, 0.6, 0.55]))
    # Two files of one source are averaged before anything is counted.
    two = board_of(("a", "ct", 0, 0.5), ("a", "ct2", 0, 0.7), ("a", "mri", 0, 0.64), ("a", "mri", 1, 0.66))
    best = two.best()
    assert (best.over, best.cells) == ("sources", 4) and best.value == pytest.approx((0.5 + 0.7 + 0.64 + 0.66) / 4)
    low, high = by_t([0.6, 0.65])
    assert (best.low, best.high) == pytest.approx((max(0, low), min(1, high)))
    alone = board_of(("a", "ct", 0, 0.5)).best()
    assert (alone.low, alone.high) == (None, None) and best_text(board_of(("a", "ct", 0, 0.5))).endswith(
        "0.500, n = 1)"
    )
    assert "[0.426, 0.674] over seeds, n = 3" in best_text(one)


def test_a_cell_that_ended_again_counts_once():
    board = Board(["a"], ["ct"], 2)
    board.add("a", record_of("x", status="failed", error={"type": "ValueError", "message": "no"}))
    assert failures_text(board) == "1 (ValueError); the last: a · ct · seed 0: ValueError: no"
    assert board.missing() == [("a", "ct")] and "0/2 – ✗1" in heat_lines(board)[-1]
    board.add("a", record_of("x", value=0.25))
    assert failures_text(board) == "" and heat_lines(board)[-1].endswith("1/2 0.250")
    for number in range(3):
        board.add("b", record_of(f"y{number}", status="failed", error={"type": "OSError", "message": "disk"}))
    assert failures_text(board).startswith("3 (OSError × 3); the last: b")


def test_the_time_to_go_is_that_of_such_cells():
    status = Status(total=6, board=Board(["a", "b"], ["ct", "mri"], 2))
    for cell_id, label, dataset, seconds in (("1", "a", "ct", 2.0), ("2", "b", "ct", 8.0), ("3", "a", "mri", 20.0)):
        status.adopt(label, record_of(cell_id, dataset, seconds=seconds))
    status.total = 8
    # a on ct 2, b on ct 8, a on mri 20, and twice b on mri, of which only its data set is known.
    assert status.eta(0.0) == pytest.approx(2 + 8 + 20 + 20 + 20)
    status.start("4", Running("b", "mri", 0, 0.0))
    assert status.eta(5.0) == pytest.approx(2 + 8 + 20 + 20 + (20 - 5))


def test_a_heat_map_of_many_variants_shows_the_best_and_shades_by_data_set():
    board = Board([f"v{number:02}" for number in range(30)], ["ct", "mri"], 1)
    for number in range(30):
        board.add(f"v{number:02}", record_of(f"c{number}", "ct", value=number / 30))
        board.add(f"v{number:02}", record_of(f"m{number}", "mri", value=0.9))
    text = heat_lines(board)
    assert text[0].split() == ["ct", "mri"] and text[2].split()[0] == "v14" and text[-1] == "and 14 more variants"
    table = heat_table(board)
    shades = [cell.style for cell in table.columns[1].cells]
    assert len(set(shades)) == 3 and shades[-1] == "black on #4292c6"
    assert len({cell.style for cell in table.columns[2].cells}) == 1
    assert heat_lines(Board()) == [] and heat_table(Board()) is None


def test_the_live_view_has_the_map_and_the_failures_and_no_trial_in_what_is_best():
    from rich.console import Console

    status = Status(total=5, board=Board(["half", "quarter"], ["ct"], 2))
    progress = Progress(status, type("Silent", (), {"changed": lambda *_, **__: None, "note": lambda *_: None})())
    progress.ended("quarter", record_of("t", seed=9, value=0.99), judged=False)
    progress.ended("half", record_of("a", value=0.5))
    progress.ended("half", record_of("b", seed=1, status="failed", error={"type": "ValueError", "message": "odd"}))
    console = Console(file=io.StringIO(), width=120)
    console.print(live_view(status, "study", 0.0))
    text = console.file.getvalue()
    assert "half (validation macro-F1 0.500, n = 1)" in text and "0.990" not in text
    assert (status.done, status.trials) == (2, 1)
    assert re.search(r"half\s+1/2 0\.500 ✗1", text) and re.search(r"quarter\s+0/2 –", text)
    assert re.search(r"failures +1 \(ValueError\); the last: half · ct · seed 1: ValueError: odd", text)


@pytest.fixture
def store(tmp_path):
    """A store with a study of two data sets and two seeds, of which one cell is missing and one has failed."""
    design = Design(
        datasets=("alpha", "beta"),
        seeds=(0, 1),
        images=12,
        missing={("baseline", "beta", 1)},
        failed={("split_ratio=1", "alpha", 0)},
    )
    write_ledger(tmp_path, design)
    return tmp_path


def test_the_status_of_a_study_is_told_from_another_terminal(store, capsys):
    assert main(["split_ratio", "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    assert "10 of 12 cells done, no launch is running" in out and "to go: 2 cells, about " in out
    records = [r for r in Ledger(store / "ledger").records().values() if r["status"] == "done"]
    mine = [
        r["validation"]["macro_f1"] for r in records if r["variant_label"] == "baseline" and r["dataset"] == "alpha"
    ]
    assert re.search(rf"^baseline +2/2 {math.fsum(mine) / 2:.3f} +1/2 ", out, re.MULTILINE)
    assert re.search(r"^split_ratio=1 +1/2 0\.\d{3} ✗1 ", out, re.MULTILINE)
    assert "\nfailed: 1 (" in out and "\nbest so far: " in out
    (manifest,) = (store / "ledger" / "studies").iterdir()
    with FileLock(store / "ledger" / f".{manifest.stem}.lock"):
        assert see(manifest.stem, store).running
    assert not see(manifest.stem, store).running
    assert main(["other", "--store", str(store)]) == 2
    assert "STUDY must have been launched into this store, got other (it holds: split_ratio)" in capsys.readouterr().err


def test_cells_at_a_time_are_those_that_ran_beside_each_other(store):
    path = store / "ledger" / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for number, record in enumerate(records):
        minute = number // 2
        times = {"started": f"2026-01-01T00:{minute:02}:00+00:00", "finished": f"2026-01-01T00:{minute:02}:59+00:00"}
        record |= {**times, "seconds": 60.0}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    seen = see("split_ratio", store)
    assert seen.at_a_time == pytest.approx(len(records) * 60 / (6 * 60 - 1), rel=0.1)
    assert any("about 65 s with 1.8 cells at a time as of late" in line for line in lines(seen))


TUNED = """\
question: Does the share of the scan matter?
base: nano
axes: {split_ratio: [0.5, 1]}
seeds: [0, 1]
datasets: [phantom_ct]
recipe: {epochs: 1}
recipe_axes: {learning_rate: [0.001, 0.002]}
tuning_seeds: [7]
"""


def test_a_tuned_study_tells_its_trials_apart(tmp_path, monkeypatch, capsys):
    """Trials are the better ones here: neither a launch nor the status may call one of them best."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(TUNED)

    def run(cell, **_):
        from analysis.metrics import METRICS
        from study.training.cell import failed_record

        value = 0.9 if cell.seed == 7 else 0.3
        metrics = {**dict.fromkeys(METRICS, value), "per_class": [{}, {}, {}]}
        done = {"status": "done", "error": None, "classes": ["a", "b", "c"], "seconds": 1.0}
        cost = {"params": 1, "macs": 1, "flops": 2}
        return {**failed_record(cell, ValueError()), **done, "cost": cost, "validation": metrics, "test": metrics}, {}

    monkeypatch.setattr(session, "run_here", run)
    command = ["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", "--store", "store"]
    assert launch.main(command) == 0
    out = capsys.readouterr().out
    assert re.search(r"8 of 8 cells done; best so far \S+ \(validation macro-F1 0\.300 \[", out)
    assert main(["study.yaml", "--store", "store"]) == 0
    out = capsys.readouterr().out
    assert "8 of 8 cells done, 4 trials of the tuning among those that ended" in out
    assert "0.300 [0.300, 0.300] over seeds, n = 2" in out and "0.900" not in out
