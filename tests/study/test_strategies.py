"""Grids and searches: what is handed out, in which order, what Optuna is told, and what a kill leaves to do."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from medmamba_variants.config import PRESETS, VariantConfig
from study.declaration.cells import DataRef
from study.file.reading import load_study
from study.planning.plan import make_plan
from study.store.ledger import Ledger
from study.strategies.proposals import next_axis, variant_of
from study.strategies.samplers import SAMPLERS, _stretched
from study.strategies.search import count_finished, front_of, make_strategy

ROOT = Path(__file__).resolve().parents[2]
GRID = {
    "question": "q?",
    "base": "nano",
    "axes": {"split_ratio": [0, 0.25, 0.5]},
    "seeds": [0, 1],
    "datasets": ["a", "b"],
}
SEARCH = {
    **GRID,
    "axes": {
        "split_ratio": {"low": 0, "high": 1, "step": 0.125},
        "fusion": ["shuffle", "concat", "conv1x1"],
        "d_state": {"low": 2, "high": 16, "log": True},
        "scan_directions": ["cross4", ["rows"]],
        "dims": [[32, 64, 128], [16, 32, 64]],
    },
    "strategy": {"name": "nsga2", "trials": 6, "seed": 3, "population": 4, "objectives": ["macro_f1", "macs"]},
}


def search(name="nsga2", **changes):
    """A search's file content for a sampler; changes of the strategy, or of the file where a key is one of its own."""
    strategy = {**SEARCH["strategy"], "name": name}
    if not name.startswith("nsga"):
        del strategy["population"]
    if name == "gp":
        strategy["startup"] = 3
    top = {key: value for key, value in changes.items() if key in ("axes", "seeds", "datasets", "recipe", "variant")}
    return {**SEARCH, **top, "strategy": strategy | {k: v for k, v in changes.items() if k not in top}}


class Store:
    """A study, its ledger and how its cells end."""

    def __init__(self, folder, values):
        self.folder = Path(folder)
        self.path = self.folder / "x.yaml"
        self.ledger = Ledger(self.folder / "ledger")
        self.change(values)

    def change(self, values):
        self.path.write_text(yaml.safe_dump(values))
        self.study = load_study(self.path)
        self.refs = {name: DataRef(name, f"content of {name}", {}) for name in self.study.datasets}

    def plan(self):
        return make_plan(self.study, self.refs, Ledger(self.folder / "ledger"))

    def strategy(self):
        return make_strategy(self.plan(), self.folder, macs)

    def run(self, strategy=None, outcome=None, cells=None, workers=1):
        """The cells handed out until the end, or until `cells` of them are in; one more is then left running."""
        strategy = strategy or self.strategy()
        handed, running = [], []
        while not strategy.done():
            while len(running) < workers and (cell := strategy.ask()) is not None:
                handed.append(cell)
                running.append(cell)
            if not running:
                assert strategy.done()
                break
            if cells is not None and len(handed) > cells:
                break
            cell = running.pop(0)
            strategy.tell(self.ledger.append(record(cell, outcome)))
        return handed

    def trials(self):
        storage = JournalStorage(JournalFileBackend(str(self.folder / "optuna" / "x.journal")))
        names = [found.study_name for found in storage.get_all_studies()]
        return optuna.load_study(storage=storage, study_name=names[-1]).trials


def macs(variant: VariantConfig, dataset: str) -> float:
    return sum(variant.dims) * (1 + (variant.split_ratio or 0)) + 10 * (dataset == "b")


def quality(cell) -> float:
    """Some number that depends on variant, data set and seed."""
    share = cell.variant.split_ratio or 0
    return 0.8 - (share - 0.4) ** 2 + 0.01 * cell.seed + 0.1 * (cell.data.name == "b") + 0.001 * cell.variant.d_state


def record(cell, outcome=None):
    found = {
        "cell_id": cell.cell_id,
        "status": "done",
        "validation": {"macro_f1": quality(cell)},
        "test": {"macro_f1": 0.0},
    }
    return {**found, **((outcome and outcome(cell)) or {})}


@pytest.fixture
def store(tmp_path):
    return lambda values: Store(tmp_path, values)


@pytest.fixture
def few(monkeypatch):
    """A search gives up after few proposals that bring nothing."""
    monkeypatch.setattr("study.strategies.search.BARREN_LIMIT", 20)


# Grids


def test_a_grid_hands_out_every_cell_once_in_the_studys_order(store):
    made = store(GRID)
    strategy = made.strategy()
    handed = made.run(strategy)
    assert [cell.cell_id for cell in handed] == [cell.cell_id for cell in made.study.cells(made.refs)]
    assert strategy.total() == 12 == len(strategy.cell_ids()) and strategy.notes() == []
    assert strategy.label(handed[2]) == "baseline"


def test_a_grid_waits_for_what_runs(store):
    strategy = store({**GRID, "seeds": [0], "datasets": ["a"]}).strategy()
    cells = [strategy.ask() for _ in range(3)]
    assert strategy.ask() is None and not strategy.done()
    for cell in cells:
        strategy.tell(record(cell))
    assert strategy.done() and strategy.ask() is None


def test_the_same_grid_again_runs_what_is_missing_or_failed(store):
    made = store(GRID)
    bad = [cell.cell_id for cell in made.study.cells(made.refs)][1]
    first = made.run(outcome=lambda cell: {"status": "failed"} if cell.cell_id == bad else None, cells=5)
    assert [cell.cell_id for cell in first].count(bad) == 1
    strategy = made.strategy()
    assert len(strategy.resumed) == 4 and strategy.total() == 12
    again = [cell.cell_id for cell in made.run(strategy)]
    assert again[0] == bad and len(again) == 8
    assert made.run() == [] and made.strategy().done()


def test_data_sets_of_equal_content_are_refused(store):
    made = store(GRID)
    made.refs["b"] = DataRef("b", "content of a", {})
    with pytest.raises(ValueError) as error:
        made.strategy()
    assert str(error.value) == f"{made.path}: datasets must differ in content, got a and b, which are equal"


def test_a_grid_never_imports_optuna():
    code = "import sys, study.strategies.search; print('optuna' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "False"


# Searches


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_trains_as_many_distinct_variants_as_asked(store, name):
    made = store(search(name))
    strategy = made.strategy()
    assert strategy.total() == 24 and not strategy.done()
    handed = made.run(strategy)
    variants = list(dict.fromkeys(cell.variant.variant_id for cell in handed))
    assert len(variants) == 6 and len({cell.cell_id for cell in handed}) == 24 == strategy.total()
    # One variant after the other, each on all seeds and data sets.
    assert [cell.variant.variant_id for cell in handed] == [variant for variant in variants for _ in range(4)]
    assert [(cell.seed, cell.data.name) for cell in handed[:4]] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert sorted(strategy.cell_ids()) == sorted(cell.cell_id for cell in handed)


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_optuna_is_told_validation_means_and_macs(store, name):
    made = store(search(name))
    handed = made.run()
    for trial in made.trials():
        assert trial.state == TrialState.COMPLETE
        cells = [cell for cell in handed if cell.variant == variant_of(made.study, trial.params)]
        by_data = [[quality(cell) for cell in cells if cell.data.name == data] for data in ("a", "b")]
        assert trial.values[0] == pytest.approx(fmean(fmean(values) for values in by_data))
        assert trial.values[1] == pytest.approx(fmean(macs(cells[0].variant, data) for data in ("a", "b")))
        assert trial.user_attrs["variant"]["id"] == cells[0].variant.variant_id


def test_metrics_are_maximised_and_macs_minimised(store):
    made = store(search("random", trials=12, objectives=["macro_f1", "ece", "macs"]))
    strategy = made.strategy()
    both = {"validation": {"macro_f1": 0.5, "ece": 0.1}}
    made.run(strategy, lambda cell: both)
    assert [made.study.label(variant) for variant in front_of(made.plan(), made.folder)] == [
        label for label, _ in strategy.front()
    ]
    smallest = min(trial.values[2] for trial in made.trials())
    assert {values["macs"] for _, values in strategy.front()} == {smallest}
    storage = JournalStorage(JournalFileBackend(str(made.folder / "optuna" / "x.journal")))
    directions = [str(direction.name) for direction in storage.get_study_directions(0)]
    assert directions == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


def test_the_front_is_the_best_variant_where_there_is_one_objective(store):
    made = store(search("tpe", trials=8, objectives=["macro_f1"]))
    strategy = made.strategy()
    handed = made.run(strategy)
    means = {}
    for cell in handed:
        means.setdefault(cell.variant, []).append(quality(cell))
    best = max(means, key=lambda variant: fmean(means[variant]))
    ((label, values),) = strategy.front()
    assert front_of(made.plan(), made.folder) == [best]
    assert label == best.label(made.study.base) and values["macro_f1"] == pytest.approx(fmean(means[best]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_variants_above_max_macs_never_train(store, name):
    made = store(search(name, max_macs=250))
    strategy = made.strategy()
    handed = made.run(strategy)
    assert len({cell.variant for cell in handed}) == 6
    assert max(macs(cell.variant, data) for cell in handed for data in ("a", "b")) <= 250
    rejected = [trial for trial in made.trials() if "rejected" in trial.user_attrs]
    assert rejected and {trial.state for trial in rejected} == {TrialState.PRUNED}
    assert {trial.user_attrs["rejected"] for trial in rejected} == {"more than max_macs (250)"}
    assert strategy.notes()[0] == f"{len(rejected)} proposals were rejected before training: more than max_macs (250)"


@pytest.mark.usefixtures("few")
def test_the_largest_data_set_counts_against_max_macs(store):
    axes = {"dims": [[32, 64, 128]]}
    on_a, on_b = (macs(VariantConfig.from_dict({}, base="nano"), data) for data in ("a", "b"))
    assert on_a < on_b
    assert store(search("random", axes=axes, max_macs=(on_a + on_b) / 2)).strategy().ask() is None
    assert store(search("random", axes=axes, max_macs=on_b)).strategy().ask() is not None


@pytest.mark.usefixtures("few")
def test_a_search_that_can_accept_nothing_ends(store):
    made = store(search("random", max_macs=1))
    strategy = made.strategy()
    assert strategy.ask() is None and strategy.done() and strategy.total() == 0
    assert strategy.notes() == [
        "20 proposals were rejected before training: more than max_macs (1)",
        "the search ended 6 variants early: 20 proposals in a row brought no new variant",
    ]
    before = len(made.trials())
    assert made.strategy().done() and len(made.trials()) == before


def test_what_makes_no_network_is_rejected_with_its_reason(store):
    axes = {"shuffle_groups": [2, 3], "d_state": [2, 4, 8]}
    made = store(search("random", axes=axes, trials=3))
    handed = made.run()
    assert {cell.variant.shuffle_groups for cell in handed} == {2}
    reasons = {trial.user_attrs.get("rejected") for trial in made.trials()} - {None}
    assert reasons == {"dims must be divisible by shuffle_groups=3, got dims[0]=32"}


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_a_repeated_proposal_takes_over_the_result(store, name):
    made = store(search(name, axes={"split_ratio": [0, 0.25, 0.5, 1]}, trials=4, seeds=[0], seed=4))
    strategy = made.strategy()
    handed = made.run(strategy)
    assert len(handed) == 8 == len({cell.cell_id for cell in handed})
    trials = made.trials()
    assert len(trials) > 4, "this seed must repeat a variant before it finds the last"
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    values = {}
    for trial in trials:
        values.setdefault(trial.params["split_ratio"], set()).add(tuple(trial.values))
    assert {len(found) for found in values.values()} == {1}
    repeats = len(trials) - 4
    assert strategy.notes() == [f"{repeats} proposals repeated an earlier variant and took over its result"]


@pytest.mark.usefixtures("few")
def test_a_used_up_space_ends_the_search(store):
    made = store(search("random", axes={"split_ratio": [0, 1]}, trials=5, seeds=[0], datasets=["a"]))
    strategy = made.strategy()
    assert len(made.run(strategy)) == 2 == strategy.total()
    assert strategy.notes()[-1] == ("the search ended 3 variants early: 20 proposals in a row brought no new variant")


def test_a_repeat_of_a_variant_still_running_waits_for_it(store):
    axes = {"split_ratio": [0, 0.25, 0.5, 1]}
    made = store(search("random", axes=axes, trials=4, seed=4, seeds=[0], datasets=["a"]))
    strategy = made.strategy()
    cells = [strategy.ask() for _ in range(4)]
    assert strategy.ask() is None and not strategy.done()
    assert len(made.trials()) > 4, "this seed must repeat a variant before it finds the last"
    assert {trial.state for trial in made.trials()} == {TrialState.RUNNING}
    for cell in cells:
        strategy.tell(made.ledger.append(record(cell)))
    assert {trial.state for trial in made.trials()} == {TrialState.COMPLETE} and strategy.done()


ENDS = [
    ({"status": "failed"}, TrialState.FAIL, "1 of 4 cells failed"),
    ({"status": "stopped"}, TrialState.PRUNED, "1 of 4 cells stopped"),
    ({"validation": {"macro_f1": None}}, TrialState.FAIL, "validation macro_f1 is not a number (b, seed 1)"),
    ({"validation": {"macro_f1": float("nan")}}, TrialState.FAIL, "validation macro_f1 is not a number (b, seed 1)"),
    ({"validation": {}}, TrialState.FAIL, "validation macro_f1 is not a number (b, seed 1)"),
]


@pytest.mark.parametrize(("end", "state", "reason"), ENDS)
@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_a_variant_without_a_result_is_closed(store, name, end, state, reason):
    made = store(search(name, trials=3))
    first = made.strategy().ask().variant
    handed = made.run(
        made.strategy(),
        lambda cell: end if cell.variant == first and (cell.data.name, cell.seed) == ("b", 1) else None,
    )
    assert len({cell.variant for cell in handed}) == 3 and len(handed) == 12
    trials = made.trials()
    assert [trial.state for trial in trials if trial.user_attrs.get("reason") == reason] == [state]
    assert all(trial.values is None for trial in trials if trial.state != TrialState.COMPLETE)
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) >= 2


@pytest.mark.parametrize("status", ["failed", "stopped"])
@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_failed_cells_of_a_search_run_again_once_a_command(store, name, status):
    made = store(search(name, trials=3))
    first = made.run(outcome=lambda cell: {"status": status} if cell.seed == 1 else None)
    assert {trial.state for trial in made.trials()} == {TrialState.FAIL if status == "failed" else TrialState.PRUNED}
    again = made.run(outcome=lambda cell: {"status": status} if cell.data.name == "b" else None)
    assert {cell.cell_id for cell in again} == {cell.cell_id for cell in first if cell.seed == 1}
    assert len(again) == 6
    third = made.run()
    assert {cell.cell_id for cell in third} == {c.cell_id for c in first if c.seed == 1 and c.data.name == "b"}
    complete = [trial for trial in made.trials() if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs["retry_of"] for trial in complete) == [0, 1, 2]
    for trial in complete:
        cells = [cell for cell in first if cell.variant == variant_of(made.study, trial.params)]
        assert trial.values[0] == pytest.approx(fmean(quality(cell) for cell in cells))
    count = len(made.trials())
    assert made.run() == [] and len(made.trials()) == count


@pytest.mark.parametrize("name", ["random", "quasi_random", "tpe", "nsga2"])
def test_a_search_can_be_prolonged(tmp_path, name):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    made = Store(tmp_path / "parts", search(name, trials=3))
    first = made.run()
    made.change(search(name, trials=6))
    strategy = made.strategy()
    assert len(strategy.resumed) == 12
    more = made.run(strategy)
    whole = Store(tmp_path / "whole", search(name, trials=6)).run()
    assert [cell.cell_id for cell in first + more] == [cell.cell_id for cell in whole]


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_workers_side_by_side_share_no_cell(store, name):
    made = store(search(name, trials=8, seeds=[0]))
    strategy = made.strategy()
    handed = made.run(strategy, workers=5)
    assert len({cell.cell_id for cell in handed}) == 16 == len(handed) and strategy.done()
    assert {trial.state for trial in made.trials()} == {TrialState.COMPLETE}


# Determinism and resumption


def proposals(cells):
    return list(dict.fromkeys(cell.variant.variant_id for cell in cells))


@pytest.mark.parametrize("name", ["random", "quasi_random", "tpe", "nsga2"])
def test_proposals_follow_the_studys_seed_alone(tmp_path, name):
    found = []
    for number, seed in enumerate((3, 3, 4)):
        np.random.seed(number)
        random.seed(number)
        (tmp_path / str(number)).mkdir()
        found.append(proposals(Store(tmp_path / str(number), search(name, seed=seed)).run()))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_search_proposes_what_an_uninterrupted_one_would(tmp_path, name):
    values = search(name, trials=8, max_macs=330, seeds=[0])
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = [cell.cell_id for cell in Store(tmp_path / "whole", values).run()]
    cut = Store(tmp_path / "cut", values)
    pieces = []
    for cells in (0, 1, 3, 2, 4, None):
        handed = [cell.cell_id for cell in cut.run(cells=cells)]
        # The last one was left running, and must come again.
        pieces += handed if cells is None else handed[:-1]
    assert pieces == whole
    assert [t.state for t in cut.trials()] == [t.state for t in Store(tmp_path / "whole", values).trials()]


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_a_journal_cut_anywhere_is_taken_up(tmp_path, name):
    axes = {"split_ratio": {"low": 0, "high": 1}, "dims": SEARCH["axes"]["dims"]}
    made = Store(tmp_path, search(name, axes=axes, trials=2, seeds=[0], datasets=["a"], max_macs=300, seed=1))
    whole = made.run()
    assert any("rejected" in trial.user_attrs for trial in made.trials())
    journal = tmp_path / "optuna" / "x.journal"
    content = journal.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in sorted({0, *ends, *(end - 7 for end in ends)}):
        journal.write_bytes(content[:cut])
        strategy = made.strategy()
        assert made.run(strategy) == [], f"cut at {cut}: finished cells must not run again"
        assert sorted(strategy.cell_ids()) == sorted(cell.cell_id for cell in whole)
        assert {trial.state for trial in made.trials()} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
        assert sum("reason" in trial.user_attrs for trial in made.trials()) <= 1


@pytest.mark.parametrize("line", [b'{"op_code": 4, "gar', b"\0\0", b"", b"[]", b"7"])
def test_a_garbled_line_of_a_journal_is_named(store, line):
    made = store(search("tpe", trials=2))
    made.run()
    journal = made.folder / "optuna" / "x.journal"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([*lines[:3], line, *lines[3:], b""]))
    for read in (made.strategy, lambda: count_finished(made.plan(), made.folder)):
        with pytest.raises(ValueError, match=f"{journal}: line 4 must be an entry of Optuna's journal"):
            read()
    journal.unlink()
    assert made.run() == []


def test_a_finished_trial_whose_records_are_gone_runs_its_cells_again(store):
    made = store(search("tpe", trials=2))
    first = made.run()
    made.ledger.records_path.unlink()
    made.ledger = Ledger(made.ledger.folder)
    assert {cell.cell_id for cell in made.run()} == {cell.cell_id for cell in first}
    assert len(made.trials()) == 2


def test_kill_9_loses_no_cell_and_repeats_none(tmp_path):
    made = Store(tmp_path, search("nsga2", trials=400, seeds=[0], datasets=["a"]))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_strategies import *\n"
        "made = Store(sys.argv[2], yaml.safe_load(open(sys.argv[2] + '/x.yaml')))\n"
        "strategy = made.strategy()\n"
        "while (cell := strategy.ask()) is not None:\n"
        "    print(cell.cell_id, flush=True)\n"
        "    strategy.tell(made.ledger.append(record(cell)))\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    started: list[str] = []
    for _ in range(2):
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            seen = [driver.stdout.readline().strip() for _ in range(4)]
            os.kill(driver.pid, signal.SIGKILL)
            seen += driver.stdout.read().split()
        assert set(started[:-1]).isdisjoint(seen)
        started += seen
    finished = set(Ledger(tmp_path / "ledger").finished())
    assert finished <= set(started)
    made.change(search("nsga2", trials=len(set(started)) + 2, seeds=[0], datasets=["a"]))
    last = {cell.cell_id for cell in made.run()}
    assert finished.isdisjoint(last)
    assert len(finished | last) == len(set(started)) + 2
    assert not [trial for trial in made.trials() if trial.state == TrialState.RUNNING]


def test_a_killed_drivers_lock_does_not_block(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from study.store.lock import file_lock\n"
        "file_lock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(10**6)"
    )
    made = Store(tmp_path, search("random", trials=1, seeds=[0], datasets=["a"]))
    (tmp_path / "optuna").mkdir()
    arguments = [sys.executable, "-c", code, str(tmp_path / "optuna" / "x.journal.lock")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    assert len(made.run()) == 1


def test_another_content_or_recipe_starts_another_search(store):
    made = store(search("random", trials=2))
    first = {cell.cell_id for cell in made.run()}
    made.refs = {name: DataRef(name, f"new {name}", {}) for name in made.refs}
    assert len(made.run()) == 8
    made.change(search("random", trials=2, recipe={"epochs": 1}))
    assert len(made.run()) == 8
    made.change(search("random", trials=2))
    assert made.run() == [] and set(made.strategy().cell_ids()) == first


def test_finished_cells_of_a_search_are_counted_without_a_trace(store):
    made = store(search("tpe", trials=3, max_macs=330))

    def count():
        return count_finished(made.plan(), made.folder)

    assert count() == 0 and not (made.folder / "optuna").exists()
    made.run(cells=5)
    journal = made.folder / "optuna" / "x.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "tor')
    before = journal.read_bytes()
    assert count() == 5 and journal.read_bytes() == before
    made.run()
    assert count() == 12
    made.change(search("tpe", trials=3, max_macs=331))
    assert count() == 0


# From parameters to variants


def test_an_axis_that_is_dead_at_a_point_is_left_out(store):
    study = store(search("tpe")).study
    params = {"fusion": '"concat"', "d_state": 4, "scan_directions": '["rows"]', "dims": "[16, 32, 64]"}
    expected = VariantConfig.from_dict({"split_ratio": 0, "dims": [16, 32, 64]}, base="nano")
    assert variant_of(study, {**params, "split_ratio": 0.0}) == expected
    all_scan = VariantConfig.from_dict(
        {"split_ratio": 1, "d_state": 4, "scan_directions": ["rows"], "dims": [16, 32, 64]}, base="nano"
    )
    assert variant_of(study, {**params, "split_ratio": 1.0}) == all_scan
    assert variant_of(study, {**params, "split_ratio": 0.5}).fusion == "concat"


def test_a_trial_chooses_only_what_lives_in_the_order_of_the_file(store):
    # As YAML sorts them: d_state before what decides whether it lives, dims at its place.
    axes = {"d_state": [2, 4], "dims": [[16, 32, 64]], "fusion": ["shuffle", "concat"], "split_ratio": [0, 0.5, 1]}
    axes |= {"shuffle_groups": [2, 4]}
    made = store(search("random", axes=axes, trials=20, seeds=[0], datasets=["a"]))
    made.run()
    seen = Counter()
    for trial in made.trials():
        chosen, ratio = list(trial.params), json.loads(trial.params["split_ratio"])
        expected = ["dims", "split_ratio"]
        expected += ["d_state"] if ratio else []
        expected += ["fusion"] if ratio == 0.5 else []
        expected += ["shuffle_groups"] if trial.params.get("fusion") == '"shuffle"' else []
        assert sorted(chosen) == sorted(expected) and chosen[:2] == ["dims", "split_ratio"]
        seen[len(chosen)] += 1
    assert len(seen) > 2
    assert count_finished(made.plan(), made.folder) == len(made.ledger.finished())
    # What an older version wrote, who chose dead axes too, is taken up as whole.
    assert next_axis(made.study, {name: json.dumps(values[0]) for name, values in axes.items()}) is None


def test_every_value_of_a_range_can_be_proposed(store):
    axes = {"split_ratio": {"low": 0, "high": 1, "step": 0.5}, "d_state": {"low": 2, "high": 4}}
    made = store(search("random", axes=axes, trials=7, seeds=[0], datasets=["a"]))
    variants = {cell.variant for cell in made.run()}
    assert {variant.split_ratio for variant in variants} == {0, 0.5, 1}
    assert {variant.d_state for variant in variants if variant.split_ratio} == {2, 3, 4}
    assert len(variants) == 7


def test_a_step_proposes_the_variant_that_a_file_names(store):
    axes = {"drop_path_rate": {"low": 0.1, "high": 0.9, "step": 0.1}}
    made = store(search("random", axes=axes, trials=9, seeds=[0], datasets=["a"]))
    named = {VariantConfig.from_dict({"drop_path_rate": tenths / 10}, base="nano") for tenths in range(1, 10)}
    assert {cell.variant for cell in made.run()} == named


@pytest.mark.parametrize(("name", "random_until"), [("nsga2", 4), ("tpe", 10)])
def test_samplers_learn_from_what_they_are_told(tmp_path, name, random_until):
    found = {}
    for sampler in ("random", name):
        (tmp_path / sampler).mkdir()
        made = Store(tmp_path / sampler, search(sampler, trials=14, seeds=[0], datasets=["a"]))
        made.run()
        found[sampler] = [trial.params for trial in made.trials()]
    assert found["random"][:random_until] == found[name][:random_until]
    assert found["random"][:14] != found[name][:14]


# Samplers beyond Optuna's first three, constraints, and points to start from


def test_quasi_random_points_fill_a_space_evenly(store):
    """Of 16 points in a row every half, quarter and eighth of a scrambled Sobol sequence holds the same number."""
    axes = {"drop_path_rate": {"low": 0, "high": 0.8}, "d_state": [2, 4, 8, 16]}
    made = store(search("quasi_random", axes=axes, trials=16, seeds=[0], datasets=["a"]))
    made.run()
    params = [trial.params for trial in made.trials()]
    eighths = Counter(int(found["drop_path_rate"] / 0.1) for found in params)
    assert eighths == dict.fromkeys(range(8), 2) and set(Counter(p["d_state"] for p in params).values()) == {4}
    both = Counter((p["drop_path_rate"] < 0.4, p["d_state"]) for p in params)
    assert set(both.values()) == {2} and len(both) == 8


def test_a_share_of_a_range_is_taken_on_its_scale():
    whole, real = optuna.distributions.IntDistribution, optuna.distributions.FloatDistribution
    assert [_stretched(share, whole(2, 8, step=2)) for share in (0.0, 0.24, 0.26, 0.99)] == [2, 2, 4, 8]
    assert _stretched(0.5, real(1e-4, 1e-2, log=True)) == pytest.approx(1e-3)
    assert _stretched(0.25, real(0.0, 2.0)) == 0.5 and _stretched(0.9, real(0.0, 1.0, step=0.5)) == 1.0
    counts = Counter(_stretched(share, whole(2, 16, log=True)) for share in np.linspace(0, 1, 3000, endpoint=False))
    assert set(counts) == set(range(2, 17)) and counts[2] > counts[3] > counts[16] > 0


def test_every_trial_under_a_limit_is_told_how_far_it_is_beyond_it(store):
    made = store(search("tpe", max_macs=250, trials=5))
    made.run()
    for trial in made.trials():
        most = max(macs(variant_of(made.study, trial.params), data) for data in ("a", "b"))
        assert trial.constraints == {"max_macs": pytest.approx(most / 250 - 1)}
        assert (trial.constraints["max_macs"] > 0) == ("rejected" in trial.user_attrs)


def test_what_makes_no_network_is_no_feasible_trial(store):
    made = store(search("random", axes={"shuffle_groups": [2, 3], "d_state": [2, 4, 8]}, trials=3))
    made.run()
    for trial in made.trials():
        assert trial.constraints == ({"network": 1.0} if "rejected" in trial.user_attrs else {})


def test_a_constraint_that_a_kill_prevented_is_proposed_again(tmp_path, monkeypatch):
    values = search("random", max_macs=330, seeds=[0])
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = [cell.cell_id for cell in Store(tmp_path / "whole", values).run()]
    made = Store(tmp_path / "cut", values)
    strategy = made.strategy()
    with monkeypatch.context() as patch:
        patch.setattr(strategy, "_constrain", lambda trial: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            strategy.ask()
    assert [cell.cell_id for cell in made.run()] == whole


def test_a_search_starts_from_presets_and_points(tmp_path):
    start = ["nano", {"fusion": "concat", "split_ratio": 0.25, "d_state": 3}]
    values = search("random", seeds=[0], start=start)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    made = Store(tmp_path / "whole", values)
    assert made.study.strategy.start[0] == {
        "split_ratio": 0.5,
        "fusion": "shuffle",
        "d_state": 8,
        "scan_directions": PRESETS["nano"].scan_directions,
        "dims": (32, 64, 128),
    }
    handed = made.run()
    first, second = list(dict.fromkeys(cell.variant for cell in handed))[:2]
    assert first == PRESETS["nano"]
    assert (second.fusion, second.split_ratio, second.d_state) == ("concat", 0.25, 3)
    assert made.study.strategy.to_dict()["start"][1] == {"fusion": "concat", "split_ratio": 0.25, "d_state": 3}
    # Cut after each of them, it goes on as it would have.
    cut = Store(tmp_path / "cut", values)
    pieces = []
    for cells in (0, 1, 1, None):
        ids = [cell.cell_id for cell in cut.run(cells=cells)]
        pieces += ids if cells is None else ids[:-1]
    assert pieces == [cell.cell_id for cell in handed]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (["nono"], "strategy.start[0] must be one of"),
        ([{"expand": 2}], "strategy.start[0].expand must be one of axes (d_state, "),
        (
            [{"split_ratio": 0.3}],
            "strategy.start[0].split_ratio must be a value that axes.split_ratio searches, got 0.3",
        ),
        ([{"fusion": "attention"}], "strategy.start[0].fusion must be a value that axes.fusion searches"),
    ],
)
def test_a_start_outside_the_space_is_refused(store, start, words):
    with pytest.raises(ValueError) as caught:
        store(search("tpe", start=start))
    assert words in str(caught.value) and "\n" not in str(caught.value)
