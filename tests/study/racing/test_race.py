"""A race: blocks in order, who is dropped when, the same decisions after a kill, and what page and dry run say."""

import json

import numpy as np
import pytest
import yaml

from analysis.across.racing import level_at, look_times
from analysis.records.ledger import load_ledger
from analysis.records.manifests import load_manifest
from study.declaration.cells import DataRef
from study.file.reading import load_study
from study.launch import main
from study.planning.plan import make_plan
from study.planning.racing import blocks_in_order
from study.store.ledger import Ledger
from study.strategies.search import make_strategy

RACE = {
    "question": "q?",
    "base": "nano",
    "axes": {"d_state": [2, 4, 6, 8, 10, 12]},
    "strategy": {"name": "racing", "alpha": 0.2, "seed": 1},
    "seeds": [0, 1, 2],
    "datasets": ["a", "b", "c", "d"],
}


def quality(cell) -> float:
    """Falls with d_state, by far more than what a block adds to it at random."""
    draw = np.random.default_rng([cell.variant.d_state, cell.seed, ord(cell.data.name[0])])
    return 0.9 - 0.05 * cell.variant.d_state / 2 + 0.004 * draw.standard_normal()


def record(cell, value=None):
    validation = {"macro_auc_ovr": quality(cell) if value is None else value}
    return {"cell_id": cell.cell_id, "status": "done", "validation": validation, "test": {"macro_auc_ovr": 0.0}}


class Store:
    """A race, its ledger, and the cells that it hands out."""

    def __init__(self, folder, **changes):
        path = folder / "race.yaml"
        path.write_text(yaml.safe_dump({**RACE, **changes}))
        self.folder, self.study = folder, load_study(path)
        self.refs = {name: DataRef(name, f"content of {name}", {}) for name in self.study.datasets}

    def strategy(self):
        return make_strategy(make_plan(self.study, self.refs, Ledger(self.folder / "ledger")), self.folder)

    def run(self, strategy=None, cells=None, workers=1, make=record):
        """What is handed out until the end, or until `cells` are in; of several workers the last one ends first."""
        strategy, ledger = strategy or self.strategy(), Ledger(self.folder / "ledger")
        handed, running = [], []
        while not strategy.done() and (cells is None or len(handed) - len(running) < cells):
            while len(running) < workers and (cell := strategy.ask()) is not None:
                handed.append(cell)
                running.append(cell)
            strategy.tell(ledger.append(make(running.pop())))
        return handed


def decisions(strategy):
    return [(drop.variant_id, drop.blocks, drop.leader) for drop in strategy.race.dropped]


def test_blocks_come_in_rounds_over_all_sources_in_an_order_of_the_seed(tmp_path):
    study = Store(tmp_path, sources={"a": "one", "b": "one"}).study
    refs = {name: DataRef(name, name, {}) for name in study.datasets}
    blocks = blocks_in_order(study, refs)
    assert len(blocks) == 9 == len(set(blocks))
    for turn in range(3):
        assert {names for _, names in blocks[3 * turn : 3 * turn + 3]} == {("a", "b"), ("c",), ("d",)}
    other = Store(tmp_path, strategy={"name": "racing", "seed": 2}, sources={"a": "one", "b": "one"}).study
    assert blocks_in_order(other, refs) != blocks == blocks_in_order(study, refs)


def test_who_is_behind_is_dropped_and_runs_no_further_cell(tmp_path):
    made = Store(tmp_path)
    strategy = made.strategy()
    assert strategy.total() == 72
    handed = made.run(strategy)
    assert (
        len(handed) < 45 and strategy.total() == len(handed) and len({cell.cell_id for cell in handed}) == len(handed)
    )
    variants = [variant for _, variant in made.study.variants()]
    left = strategy.race.running()
    assert left[0] == variants[0].variant_id == strategy.race.leader() and len(left) <= 2
    drops = {drop.variant_id: drop for drop in strategy.race.dropped}
    assert set(drops) == {variant.variant_id for variant in variants} - set(left)
    levels = {n: level_at(i, look_times(12), 12, 6, 0.2) for i, n in enumerate(look_times(12))}
    for variant in variants:
        cells = [cell for cell in handed if cell.variant == variant]
        if variant.variant_id not in drops:
            assert len(cells) == 12
            continue
        drop = drops[variant.variant_id]
        blocks = strategy.race.blocks[: drop.blocks]
        assert {(cell.seed, (cell.data.name,)) for cell in cells} == set(blocks)
        best = {(c.seed, c.data.name): quality(c) for c in handed if c.variant.variant_id == drop.leader}
        gaps = [quality(cell) - best[cell.seed, cell.data.name] for cell in cells]
        assert drop.difference == pytest.approx(np.mean(gaps)) and drop.p_value <= drop.level == levels[drop.blocks]
    # What the page is made of names no dropped variant.
    by_id = {cell.cell_id: cell.variant.variant_id for cell in handed}
    assert {by_id[cell_id] for cell_id in strategy.cell_ids()} == set(left)
    assert f"racing dropped {len(drops)} of 6 variants as worse than the leader" in strategy.notes()[0]


def test_a_metric_of_which_less_is_better_turns_the_race_round(tmp_path):
    def worse(cell):
        return {**record(cell), "validation": {"ece": quality(cell)}}

    made = Store(tmp_path, strategy={"name": "racing", "metric": "ece"})
    strategy = made.strategy()
    made.run(strategy, make=worse)
    assert strategy.race.leader() == made.study.variants()[-1][1].variant_id
    assert strategy.race.dropped and all(drop.difference > 0 for drop in strategy.race.dropped)


@pytest.mark.parametrize("cells", [1, 24, 25, 31])
def test_a_killed_race_goes_on_to_the_same_decisions(tmp_path, cells):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Store(tmp_path / "whole")
    through = whole.strategy()
    handed = whole.run(through, workers=3)
    killed = Store(tmp_path / "killed")
    first = killed.run(cells=cells, workers=2)
    again = killed.strategy()
    rest = killed.run(again)
    assert decisions(again) == decisions(through) and again.cell_ids() == through.cell_ids()
    assert {cell.cell_id for cell in [*first, *rest]} == {cell.cell_id for cell in handed}
    over = killed.strategy()
    assert over.done() and over.ask() is None and decisions(over) == decisions(through)
    assert len(over.resumed) == len(handed) == over.total()


def test_a_failed_cell_takes_its_variant_out_until_the_next_launch(tmp_path):
    made = Store(tmp_path)
    best = made.study.variants()[0][1].variant_id

    def failing(cell):
        if cell.variant.variant_id == best:
            return {"cell_id": cell.cell_id, "status": "failed", "validation": None}
        return record(cell)

    strategy = made.strategy()
    handed = made.run(strategy, make=failing)
    assert set(strategy.race.out) == {best} and best not in strategy.race.running()
    assert sum(cell.variant.variant_id == best for cell in handed) == 4
    # Its failures stay among the study's cells, where they are told.
    assert any(cell.cell_id in strategy.cell_ids() for cell in handed if cell.variant.variant_id == best)
    assert any("left the race: failed on " in note for note in strategy.notes())
    again = made.strategy()
    retried = made.run(again)
    assert again.race.leader() == best and sum(cell.variant.variant_id == best for cell in retried) == 12
    everyone_fails = Store(tmp_path, datasets=["e"])
    last = everyone_fails.strategy()
    everyone_fails.run(last, make=lambda cell: {**record(cell), "status": "failed", "validation": None})
    assert last.done() and not last.race.running()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": {"name": "racing", "alpha": 0}}, "strategy.alpha must be a number between 0 and 0.5, got 0"),
        ({"strategy": {"name": "racing", "metric": "acc"}}, "strategy.metric must be one of"),
        (
            {"strategy": {"name": "racing", "trials": 3}},
            "strategy.trials must be left out where strategy.name is racing",
        ),
        ({"strategy": {"name": "grid", "alpha": 0.1}}, "strategy.alpha must be left out where strategy.name is grid"),
        ({"axes": {"d_state": {"low": 2, "high": 4}}}, "axes.d_state must be a list of values in a grid"),
        ({"recipe_axes": {"learning_rate": [0.1, 0.2]}}, "recipe_axes must be left out where strategy.name is racing"),
        (
            {
                "contrasts": [
                    {
                        "name": "x",
                        "baseline": {"d_state": 2},
                        "against": {"d_state": 4},
                        "metric": "macro_f1",
                        "margin": 0.01,
                    }
                ]
            },
            "contrasts must be left out where strategy.name is racing, got 1: who is left of a race is chosen",
        ),
    ],
)
def test_what_a_race_cannot_be_is_refused_in_one_line(tmp_path, change, words):
    with pytest.raises(ValueError) as caught:
        Store(tmp_path, **change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_settings_have_defaults_and_count_in_the_hash(tmp_path):
    plain = Store(tmp_path, strategy={"name": "racing"}).study
    assert plain.strategy.to_dict() == {"name": "racing", "seed": 0, "alpha": 0.1, "metric": "macro_auc_ovr"}
    by_loss = Store(tmp_path, strategy={"name": "racing"}, recipe={"select_on": "loss"}).study
    assert by_loss.strategy.settings["metric"] == "macro_auc_ovr"
    by_f1 = Store(tmp_path, strategy={"name": "racing"}, recipe={"select_on": "macro_f1"}).study
    assert by_f1.strategy.settings["metric"] == "macro_f1"
    assert plain.study_hash not in (Store(tmp_path).study.study_hash, Store(tmp_path, strategy={"name": "grid"}))


def test_a_race_from_the_command_line_tells_whom_it_dropped(tmp_path, monkeypatch, capsys):
    """Real cells of two networks that learn their task alike, and of one too narrow for it."""
    monkeypatch.chdir(tmp_path)
    small = "size=8&n_train=60&n_val=60&n_test=20&noise=0"
    values = {
        "question": "q?",
        "base": "nano",
        "variant": {"depths": [1], "dims": [16], "patch_size": 4, "split_ratio": 0},
        "variants": {"good": {}, "other": {"dims": [18]}, "tiny": {"dims": [2]}},
        "strategy": {"name": "racing", "alpha": 0.4},
        "seeds": [0, 1],
        "datasets": [f"phantom_texture?{small}&seed={seed}" for seed in range(4)],
        "recipe": {"epochs": 3, "batch_size": 20, "learning_rate": 0.02, "warmup_epochs": 0.0, "shift": 0.0},
    }
    (tmp_path / "race.yaml").write_text(yaml.safe_dump(values))
    command = ["race.yaml", "--tracking-uri", "none", "--executor", "inline"]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "looks after blocks 4, 5, 7" in out
    assert "at most 3 variants × 8 blocks (a seed on a source) = 24; 0 done already, at most 24 to run" in out
    assert main(command) == 0
    out = capsys.readouterr().out
    manifest = load_manifest("mlruns", "race")
    raced = manifest["racing"]
    names = {drop["variant"] for drop in raced["dropped"]}
    assert names == {"tiny"} and raced["cells_asked"] < 24 == raced["cells_of_grid"]
    assert set(manifest["variants"].values()) == {"good", "other"}
    table = load_ledger("mlruns", study="race")
    assert len(table) == 16 and set(table["variant_label"]) == {"good", "other"}
    assert "racing dropped 1 of 3 variants" in out and f"{raced['cells_asked']} of 24 cells" in out
    page = (tmp_path / "mlruns/reports/race/report.html").read_text()
    assert "The race" in page and "Dropped variants" in page and "None: every cell of the study has finished." in page
    dropped = json.loads(json.dumps(raced["dropped"][0]))
    assert dropped["p_value"] <= dropped["level"] and dropped["difference"] < 0
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"tiny: dropped after {dropped['blocks']} blocks" in out and "nothing is left to run" in out
