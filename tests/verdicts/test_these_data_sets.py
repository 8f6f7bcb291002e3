"""Contrasts about these data sets: two suffice, seeds and images are drawn anew, and the words say which."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, manifest, write_ledger
from tables_fixture import ABOVE, contrast, table_of

from analysis.hashes import declaration_hash
from analysis.paired.levels import stratified
from analysis.power import detectable_on_these
from analysis.records.ledger import load_ledger, load_manifest
from analysis.records.predictions import paired_predictions
from analysis.report.write import write_report
from analysis.selftest.simulation import TRUTHS, design_of, simulate_these
from analysis.selftest.simulation import Design as Simulated
from analysis.verdicts.decisions import decide_all
from analysis.verdicts.declared import Contrast
from analysis.verdicts.judgement import on_dataset, on_these, untested
from analysis.verdicts.levels import IN_GENERAL, THESE_DATA_SETS, THIS_DATA_SET

TWO = Design(
    metrics=("macro_f1",), images=150, datasets=("busi", "fundus"), seeds=(0, 1, 2), against=["split_ratio=0"]
)  # fmt: skip


def declare(store, design, level=THESE_DATA_SETS, **changes):
    """The store's manifest of a design with the contrasts' level declared, and its records under that declaration."""
    path = store / "ledger" / "studies" / f"{design.study_hash}.json"
    made = json.loads(path.read_text())
    before = made["contrasts_hash"]
    made["contrasts"] = [asked | {"level": level} for asked in made["contrasts"]]
    made |= {"contrasts_hash": declaration_hash(made["contrasts"], 0.05, "holm"), **changes}
    path.write_text(json.dumps(made))
    records = store / "ledger" / "records.jsonl"
    records.write_text(records.read_text().replace(before, made["contrasts_hash"]))
    return store


def verdict(store, name=TWO.name, draws=300):
    table, kept = load_ledger(store, study=name), load_manifest(store, name)
    return decide_all(table, kept, store, rng=np.random.default_rng(0), draws=draws)[0]


def test_two_data_sets_and_three_seeds_can_carry_a_claim(tmp_path):
    store = declare(write_ledger(tmp_path, TWO), TWO)
    found = verdict(store)
    assert (found.outcome, found.level, found.exploratory) == ("inferior", THESE_DATA_SETS, False)
    assert found.estimate == pytest.approx(np.mean([part.difference for part in found.per_dataset]))
    assert found.interval.over == "seeds and test images" and found.interval.n == 3
    assert found.interval.high < 0 and found.p_value < 0.05 and found.location is found.mixed is None
    assert "on the data sets busi and fundus, which says nothing of others" in found.sentence
    assert "stratified t test over seeds and test images of the data sets at hand (" in found.sentence
    assert "over seeds and test images" in found.line
    page = write_report(store, TWO.name).page.read_text()
    assert "on the data sets busi and fundus" in page and "mean of these data sets" in page
    assert "these data sets" in page and "One on these data sets holds for seeds and images" in page
    assert design_of(load_manifest(store, TWO.name), load_ledger(store, study=TWO.name))[0].on_these


def test_the_same_cells_in_general_cannot(tmp_path):
    found = verdict(write_ledger(tmp_path, TWO))
    assert found.level == IN_GENERAL and found.exploratory and found.outcome == "inconclusive"


def test_the_numbers_are_those_of_the_parts(tmp_path):
    store = declare(write_ledger(tmp_path, TWO), TWO)
    found = verdict(store)
    rng, parts, values = np.random.default_rng(0), [], []
    for name in TWO.datasets:
        cells = [[TWO.cell_id(v, name, seed) for seed in TWO.seeds] for v in ("baseline", "split_ratio=0")]
        pairing = paired_predictions(store, *cells)
        parts.append(on_dataset("macro_f1", 0.02, pairing, rng=rng, draws=300).parts)
    values = [part.difference for part in found.per_dataset]
    expected = stratified(values, parts, [0.5, 0.5], [0, 1])
    assert found.p_value == pytest.approx(2 * expected.p_beyond(abs(expected.difference)), rel=0.2)
    half = (found.interval.high - found.interval.low) / 2
    assert half == pytest.approx(expected.half_width(0.025), rel=0.1)


def test_two_seeds_are_too_few_for_a_claim(tmp_path):
    two = dataclasses.replace(TWO, seeds=(0, 1))
    found = verdict(declare(write_ledger(tmp_path, two), two))
    assert found.exploratory and found.level == THESE_DATA_SETS
    assert found.reasons == ("a claim on these data sets takes 3 seeds on each, got 2 where fewest",)


def test_one_data_set_is_judged_as_this_data_set(tmp_path):
    one = dataclasses.replace(TWO, datasets=("busi",))
    found = verdict(declare(write_ledger(tmp_path, one), one))
    assert found.level == THIS_DATA_SET and not found.exploratory and found.outcome == "inferior"


def test_files_of_one_source_are_never_in_general(tmp_path):
    store = write_ledger(tmp_path, TWO)
    path = store / "ledger" / "studies" / f"{TWO.study_hash}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_keys": {"busi": "s", "fundus": "s"}}))
    found = verdict(store)
    assert found.level == THESE_DATA_SETS and (found.n_datasets, found.n_sources) == (2, 1)
    assert found.exploratory and "with 2 data sets of 1 source (smallest adjusted p 1)" in found.reasons[-1]


def test_without_predictions_nothing_is_tested(tmp_path):
    gone = dataclasses.replace(TWO, without_probabilities=[("baseline", "busi", 0)])
    found = verdict(declare(write_ledger(tmp_path, gone), gone))
    assert found.outcome == "inconclusive" and math.isnan(found.p_value) and found.level == ""
    assert "without per-image predictions: busi" in found.notes


def test_a_level_that_is_named_after_a_look_does_not_judge_what_ran_before(tmp_path):
    """In general it was inconclusive; the file then says these data sets: judged as it was declared."""
    store = write_ledger(tmp_path, TWO)
    path = store / "ledger" / "studies" / f"{TWO.study_hash}.json"
    later = json.loads(path.read_text()) | {"name": "later", "study_hash": "later"}
    later["contrasts"] = [asked | {"level": THESE_DATA_SETS} for asked in later["contrasts"]]
    later["contrasts_hash"] = declaration_hash(later["contrasts"], 0.05, "holm")
    (path.parent / "later.json").write_text(json.dumps(later))
    found = verdict(store, "later")
    assert found.level == IN_GENERAL and found.exploratory
    assert "level in general (now these data sets)" in " ".join(found.notes)


def test_equivalence_needs_images_enough_to_see_the_margin():
    """Models alike on every image of both sets: equivalent where two hundred images could have shown the margin."""
    rng = np.random.default_rng(0)
    for images, equivalent in ((30, False), (400, True)):
        labels = rng.integers(0, 2, images)
        same = [np.where(rng.random(images) < 0.8, labels, 1 - labels).astype(float) for _ in range(3)]
        from analysis.records.predictions import Pairing

        stacked = np.stack([np.stack([1 - p, p], axis=1) for p in same])
        pairing = Pairing(labels, stacked, stacked, np.arange(images), None)
        judged = [on_dataset("accuracy", 0.02, pairing, rng=rng, draws=100)] * 2
        found = on_these([0.0, 0.0], judged, [0.5, 0.5], [0, 1], 0.02)
        assert found.p_value == 1.0 and (found.equivalence_p <= 0.05) == equivalent
        # All of the mean's margin on one of the sets: that much more would show there.
        assert found.equivalence_p == pytest.approx((1 - 0.04) ** images)
    assert on_these([0.0], [untested("test images", 0)], [1.0], [0], 0.02).level == ""


def test_contrasts_keep_their_hash_where_no_level_is_named():
    plain = manifest(TWO)["contrasts"][0]
    assert Contrast.from_dict(plain).level == IN_GENERAL
    assert Contrast.from_dict(plain | {"level": THESE_DATA_SETS}).level == THESE_DATA_SETS
    with pytest.raises(ValueError, match=r"contrast.level must be one of in general, these data sets, got 'mine'"):
        contrast(level="mine")


@pytest.mark.parametrize("metric", TRUTHS)
def test_three_seeds_on_two_data_sets_claim_falsely_no_more_often_than_alpha(metric):
    """Images, seeds whose skill differs as much as images make it: at most .06, for equivalence too."""
    design = Simulated(n_datasets=2, n_seeds=3, n_images=300, seed_sd=0.02, margin=0.05)
    rates = simulate_these(design, rng=np.random.default_rng(0), simulations=300, draws=200, metric=metric)
    assert [rate.value for rate in rates[:2] if rate.value > 0.06] == [] and all(rate.holds for rate in rates)


def test_what_a_pilot_says_can_be_found():
    """Welch's t of two data sets with known spreads: power as promised."""
    rng, sd, seeds = np.random.default_rng(0), 0.01, 5
    rows = [
        {"variant_id": v, "dataset": d, "seed": s, "status": "done", "test.macro_f1": 0.8 + sd / 2**0.5 * rng.normal()}
        for v in "ab"
        for d in ("x", "y")
        for s in range(200)
    ]
    found = detectable_on_these(pd.DataFrame(rows), "macro_f1", seeds)
    hits = 0
    for _ in range(1000):
        x = found + sd * rng.standard_normal((2, seeds))
        var = x.var(axis=1, ddof=1) / seeds
        from analysis.paired.levels import Parts

        whole = stratified(
            x.mean(axis=1), [Parts(v, seeds - 1, 0.0, 0.0, math.inf, 100) for v in var], [0.5, 0.5], [0, 1]
        )
        hits += 2 * whole.p_beyond(abs(whole.difference)) <= 0.05
    assert hits / 1000 == pytest.approx(0.8, abs=0.05)
    with pytest.raises(ValueError, match="two variants that share two seeds on every data set, got none on d0"):
        detectable_on_these(table_of(ABOVE, seeds=1), "macro_f1", 3)
