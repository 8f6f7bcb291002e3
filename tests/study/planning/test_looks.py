"""Every way round a declaration, tried by launches: what was seen before is told, and makes a verdict exploratory.

Cells are made up in no time; everything else is what a user runs.
"""

import json

import numpy as np
import pytest

from analysis.metrics import all_metrics
from analysis.records.launches import LAUNCHES, read_launches
from analysis.records.ledger import load_ledger, read_records
from analysis.records.manifests import parsed_manifests
from analysis.verdicts.decisions import decide_all
from study.launch import main
from study.running import session
from study.training.cell import _identity

CONTRAST = "{name: all scan, baseline: {split_ratio: 0.5}, against: {split_ratio: 1}, metric: macro_f1, margin: 0.01}"
FILE = f"""\
question: Does the share of the scan matter?
base: nano
axes: {{split_ratio: [0.5, 1]}}
seeds: [0, 1]
datasets: [a, b, c, d, e, f]
contrasts: [{CONTRAST}]
"""
LOOKED = "compared before on these data with some of these seeds"
ADDED = "added after the first cells had run: p knows nothing of looks between"


def made_up(cell, device, threads, **more):
    """The record and the predictions of a cell, as different as its id."""
    rng = np.random.default_rng(int(cell.cell_id, 16))
    labels = np.arange(30) % 3
    record = _identity(cell) | {"status": "done", "classes": ["x", "y", "z"], "seconds": 0.1, "n_test": 30}
    record |= {"cost": {"params": 10, "macs": 10, "flops": 20}, "best_epoch": 0, "train_seconds": 0.1}
    kept = {}
    for split in ("validation", "test"):
        probabilities = rng.dirichlet(np.ones(3), 30)
        record[split] = all_metrics(labels, probabilities, ["x", "y", "z"])
        kept |= {f"{split}_probabilities": probabilities, f"{split}_labels": labels}
        kept[f"{split}_ids"] = np.array([f"{split}/{i}" for i in range(30)])
    return record, kept


def write_data(folder, names, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        arrays = {}
        for split, count in (("train", 9), ("val", 6), ("test", 6)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
        np.savez(folder / f"{name}.npz", **arrays)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with no launch yet, beside study.yaml and six data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "run_here", made_up)
    (tmp_path / "study.yaml").write_text(FILE)
    write_data(tmp_path, "abcdef")
    return tmp_path / "mlruns"


def run(*options, file="study.yaml"):
    base = [file, "--data-root", ".", "--tracking-uri", "none", "--executor", "inline", "--no-report"]
    assert main([*base, *options]) == 0


def verdict(store, place=-1):
    """The first verdict of the launch that registered last (or the place-th), as its report would have it."""
    launch = read_launches(store / "ledger")[place]
    manifest = parsed_manifests(store / "ledger")[launch["study_hash"]]
    prints = {name: facts["fingerprint"] for name, facts in launch["data"].items()}
    table = load_ledger(store, study=launch["study_hash"], fingerprints=prints)
    return decide_all(
        table, manifest | {"study_hash": launch["study_hash"]}, store, rng=np.random.default_rng(0), draws=9
    )[0]


def test_what_is_declared_first_stays_confirmatory(store):
    run()
    found = verdict(store)
    assert not found.exploratory and found.reasons == found.notes == ()
    run()
    assert len(read_launches(store / "ledger")) == 1, "the same launch again declares nothing new"
    assert verdict(store) == found
    # A value more on the axis, in a study of its own: what was declared before its cells ran stands.
    run("--set", "axes.split_ratio=[0.5, 1, 0]")
    assert len(read_launches(store / "ledger")) == 2 and verdict(store).reasons == ()


def test_a_seed_added_after_a_look_is_named(store):
    run()
    run("--seeds", "0,1,2")
    assert verdict(store).reasons == (f"seed 2 was {ADDED}",)
    # The first was declared before anything ran, and stands; that there is another is told.
    found = verdict(store, 0)
    assert found.reasons == () and found.notes == ("asked in this store on 1 other choice of data sets and seeds, too",)


def test_a_value_added_in_the_same_command_does_not_wash_it_away(store):
    run()
    run("--seeds", "0,1,2", "--set", "axes.split_ratio=[0.5, 1, 0]")
    assert verdict(store).reasons == (f"seed 2 was {ADDED}",)
    # Nor one that is added later.
    run("--seeds", "0,1,2")
    run("--seeds", "0,1,2", "--set", "axes.split_ratio=[0.5, 1, 0.25]")
    assert verdict(store).reasons == (f"seed 2 was {ADDED}",)


def test_of_two_additions_both_are_named(store):
    run()
    run("--seeds", "0,1,2")
    run("--seeds", "0,1,2,3")
    assert verdict(store).reasons == (f"seeds 2 and 3 were {ADDED}",)
    write_data(store.parent, "g", seed=7)
    run("--seeds", "0,1,2,3", "--datasets", "a,b,c,d,e,f,g")
    assert verdict(store).reasons == (f"data set g and seeds 2 and 3 were {ADDED}",)


def test_another_recipe_tried_is_told_and_fresh_seeds_confirm(store, capsys):
    run()
    recipe = read_records(store)[0][0]["recipe_id"][:8]
    capsys.readouterr()
    run("--set", "recipe.epochs=7")
    where = f"seeds 0 and 1 on a, b, c, d and 2 more (study study, recipe {recipe})"
    assert f"note: {LOOKED}: {where} (all scan); verdicts will be exploratory" in capsys.readouterr().out
    assert verdict(store).reasons == (f"{LOOKED}: {where}; fresh seeds would tell",)
    run("--set", "recipe.epochs=8", "--seeds", "1,2")
    assert verdict(store).exploratory
    run("--set", "recipe.epochs=7", "--seeds", "5,6")
    found = verdict(store)
    assert not found.exploratory, "declared before they ran, on seeds that nobody has seen"
    assert found.notes[0].startswith("compared before on these data with other seeds: ") and where in found.notes[0]
    assert f"Compared before on these data with other seeds: {where}" in found.sentence


def test_recipes_that_are_tuned_for_each_variant_are_one_question(store):
    """Each variant ends with its own recipe; trials, by other seeds, are no looks at what was declared before them."""
    tuned = ("--set", "recipe_axes={learning_rate: [0.001, 0.002, 0.004]}", "--set", "tuning_seeds=[90]")
    run(*tuned)
    table = load_ledger(store, study=read_launches(store / "ledger")[0]["study_hash"])
    assert len(set(table["recipe_id"])) > 1, "the made-up cells tune the variants apart"
    assert verdict(store).reasons == verdict(store).notes == ()
    run(*tuned, "--seeds", "0,1,2")
    assert verdict(store).reasons == (f"seed 2 was {ADDED}",)


def test_a_margin_that_changes_judges_by_the_first(store):
    run()
    run("--set", f"contrasts=[{CONTRAST.replace('0.01', '0.9')}]")
    found = verdict(store)
    assert found.contrast.margin == 0.01 and "margin 0.01 (now 0.9)" in found.notes[0]
    # On fresh seeds it is a declaration of its own.
    run("--set", f"contrasts=[{CONTRAST.replace('0.01', '0.9')}]", "--seeds", "5,6")
    found = verdict(store)
    assert found.contrast.margin == 0.9 and not found.exploratory
    assert found.notes == (
        "compared before on these data with other seeds: seeds 0 and 1 on a, b, c, d and 2 more (study study)",
    )


def test_a_metric_that_changes_is_asked_after_a_look(store):
    run()
    run("--set", f"contrasts=[{CONTRAST.replace('macro_f1', 'mcc')}]")
    found = verdict(store)
    assert found.exploratory and "ran under another declaration" in found.reasons[0]
    run("--set", f"contrasts=[{CONTRAST.replace('macro_f1', 'mcc')}]", "--set", "recipe.epochs=7")
    assert verdict(store).reasons[0].startswith(LOOKED)


def test_a_study_of_another_name_is_the_same_question(store):
    run()
    (store.parent / "other.yaml").write_text(FILE)
    run(file="other.yaml")
    assert verdict(store).reasons == (), "nothing but the name has changed"
    run("--seeds", "0,1,2", file="other.yaml")
    assert verdict(store).reasons == (f"seed 2 was {ADDED}",)
    (store.parent / "third.yaml").write_text(FILE.replace("question: Does", "question: But does"))
    run("--set", "recipe.epochs=7", file="third.yaml")
    assert LOOKED in verdict(store).reasons[0]


def test_a_file_that_changes_on_disk_is_told(store):
    run()
    write_data(store.parent, "abcdef", seed=1)
    run()
    found = verdict(store)
    assert len(read_launches(store / "ledger")) == 2
    assert found.reasons == (
        f"{LOOKED}: seeds 0 and 1 on a, b, c, d and 2 more (study study, other content of the file); "
        "fresh seeds would tell",
    )
    run("--seeds", "5,6")
    assert not verdict(store).exploratory


def test_the_same_file_by_another_name_is_the_same_data(store):
    run()
    for old, new in zip("abcdef", "uvwxyz"):
        (store.parent / f"{old}.npz").rename(store.parent / f"{new}.npz")
    run("--datasets", "u,v,w,x,y,z", "--set", "recipe.epochs=7")
    assert verdict(store).reasons[0].startswith(LOOKED)


def test_a_source_that_moves_is_told(store):
    (store.parent / "datasets.json").write_text(json.dumps({"a": {"source_key": "s"}, "b": {"source_key": "s"}}))
    run()
    (store.parent / "datasets.json").write_text(json.dumps({"a": {"source_key": "s"}}))
    run()
    assert verdict(store).reasons == ("the source of b was s at its first launch, and is b now",)
    assert verdict(store).n_sources == 6


def test_stopping_at_a_look_that_pleases(store, monkeypatch):
    """A hundred seeds are declared, two run; then a study of two."""

    def until_two(cell, device, threads, **more):
        if cell.seed > 1:
            raise KeyboardInterrupt
        return made_up(cell, device, threads)

    monkeypatch.setattr(session, "run_here", until_two)
    base = ["study.yaml", "--data-root", ".", "--tracking-uri", "none", "--executor", "inline", "--no-report"]
    assert main([*base, "--seeds", ",".join(map(str, range(100)))]) == 130
    run()
    assert "left out before running: whoever looks may stop when p is small" in verdict(store).reasons[0]


def test_stores_from_before_the_register_are_judged_by_the_order_of_their_records(store):
    """Without a register the oldest record of a study says when it asked."""
    run()
    run("--seeds", "0,1,2")
    run("--seeds", "0,1,2,3")
    run("--set", "recipe.epochs=7")
    launches = read_launches(store / "ledger")
    told = [verdict(store, place).reasons for place in range(4)]
    kept = (store / "ledger" / LAUNCHES).read_text()
    (store / "ledger" / LAUNCHES).unlink()
    for launch, expected in zip(launches, told):
        manifest = parsed_manifests(store / "ledger")[launch["study_hash"]]
        table = load_ledger(store, study=launch["study_hash"])
        assert decide_all(table, manifest, store, rng=np.random.default_rng(0), draws=9)[0].reasons == expected
    (store / "ledger" / LAUNCHES).write_text(kept)


def test_the_register_survives_a_kill_and_refuses_what_is_none(store):
    run()
    path = store / "ledger" / LAUNCHES
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"study_hash": "x", "see')
    assert len(read_launches(store / "ledger")) == 1
    run("--seeds", "5,6")
    assert len(read_launches(store / "ledger")) == 2 and path.read_bytes().startswith(whole)
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(ValueError, match=r"launches.jsonl: line 1 must be a launch, got '\{\}'"):
        read_launches(store / "ledger")
