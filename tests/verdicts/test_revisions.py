"""A study that was cut, or grew, once results could be seen says so: same contrasts, same hash, other data sets."""

import dataclasses

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger

from analysis.records.ledger import load_ledger, load_manifest
from analysis.verdicts.decisions import decide_all

DATASETS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta")
WHOLE = Design(
    name="whole", images=30, datasets=DATASETS, seeds=(0, 1), metrics=("macro_f1",), against=("split_ratio=0",)
)


def verdict(store, design):
    """The only verdict of a study of this design, which shares the cells of the store's first."""
    manifest = load_manifest(store, design.name)
    table = load_ledger(store, study=design.name)
    return decide_all(table, manifest, store, rng=np.random.default_rng(0), draws=20)[0]


def ask(store, **changes):
    """The same again under a name of its own, for other data sets or seeds, after the first has run."""
    design = dataclasses.replace(WHOLE, name="again", **changes)
    write_manifest(store, design)
    return verdict(store, design)


def write_manifest(store, design):
    write_ledger(store, dataclasses.replace(design, missing=[
        (label, dataset, seed) for label in design.variants for dataset in design.datasets for seed in design.seeds
    ]))  # fmt: skip


def test_the_study_itself_has_nothing_to_tell(tmp_path):
    found = verdict(write_ledger(tmp_path, WHOLE), WHOLE)
    assert found.outcome == "inferior" and not found.exploratory and not found.notes


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"datasets": DATASETS[:6]}, "data set eta was"),
        ({"datasets": DATASETS[:5]}, "data sets eta and zeta were"),
        ({"seeds": (0,)}, "seed 1 was"),
        ({"datasets": DATASETS[:6], "seeds": (1,)}, "data set eta and seed 0 were"),
    ],
)
def test_results_that_were_left_out_make_it_exploratory(tmp_path, changes, which):
    found = ask(write_ledger(tmp_path, WHOLE), **changes)
    assert found.exploratory
    assert found.reasons[0] == f"{which} left out, on which both variants had finished in another run of it"


def test_what_never_finished_may_be_left_out(tmp_path):
    gone = [("split_ratio=0", "eta", seed) for seed in WHOLE.seeds]
    store = write_ledger(tmp_path, dataclasses.replace(WHOLE, failed=gone))
    found = ask(store, datasets=DATASETS[:6])
    assert found.outcome == "inferior" and not found.exploratory


@pytest.mark.parametrize(("fate", "exploratory"), [("missing", True), ("failed", False), ("stopped", False)])
def test_a_look_before_the_last_cell_is_exploratory(tmp_path, fate, exploratory):
    """A cell that failed has had its chance; one that has not run yet could still turn the verdict."""
    gone = [("split_ratio=0", "eta", 1), ("baseline", "zeta", 0), ("split_ratio=1", "alpha", 0)]
    found = verdict(write_ledger(tmp_path, dataclasses.replace(WHOLE, **{fate: gone})), WHOLE)
    assert found.outcome == "inferior" and found.exploratory == exploratory
    assert found.reasons == (("2 of 14 pairs of cells have not run yet (an interim look)",) if exploratory else ())


def test_another_recipe_on_the_same_seeds_is_another_look(tmp_path):
    store = write_ledger(tmp_path, WHOLE)
    write_manifest(store, dataclasses.replace(WHOLE, name="again", datasets=DATASETS[:6]))
    table = load_ledger(store, study="again").assign(recipe_id="longer")
    manifest = load_manifest(store, "again")
    found = decide_all(table, manifest, store, rng=np.random.default_rng(0), draws=20)[0]
    assert found.reasons == (
        "compared before on these data with some of these seeds: seeds 0 and 1 on alpha, beta, gamma, delta and 2 more "
        "(study whole, recipe ec1be000); fresh seeds would tell",
    )


def test_what_was_added_after_a_look_makes_it_exploratory(tmp_path):
    store = write_ledger(tmp_path, dataclasses.replace(WHOLE, name="pilot", datasets=DATASETS[:6]))
    write_ledger(store, dataclasses.replace(WHOLE, datasets=(*DATASETS[:6], "eta"), missing=[
        (label, dataset, seed) for label in WHOLE.variants for dataset in DATASETS[:6] for seed in WHOLE.seeds
    ]))  # fmt: skip
    found = verdict(store, WHOLE)
    told = "data set eta was added after the first cells had run: p knows nothing of looks between"
    assert found.outcome == "inferior" and found.exploratory and found.reasons == (told,)
