"""Intervals without width: what exact bounds say in their place, held against binomial tests and simulation."""

import math

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger
from scipy import stats

from analysis.paired.auc import delong
from analysis.paired.concordance import _disjoint_pairs, no_event_bound, ranking_bound
from analysis.records.ledger import load_ledger, load_manifest
from analysis.records.predictions import Pairing
from analysis.verdicts.decisions import decide_all
from analysis.verdicts.judgement import on_dataset

LABELS = np.array([0, 1] * 12)


@pytest.mark.parametrize("trials", [1, 3, 24, 1000])
def test_no_event_is_clopper_and_pearsons_bound(trials):
    exact = stats.binomtest(0, trials, alternative="less").proportion_ci(0.95, method="exact")
    assert no_event_bound(trials).value == pytest.approx(exact.high, rel=1e-9)
    assert no_event_bound(0).value == 1.0
    if trials > 20:
        assert no_event_bound(trials).value == pytest.approx(3 / trials, rel=0.1), "the rule of three"


def test_two_perfect_aucs_have_a_bound_in_place_of_an_interval_without_width():
    rng = np.random.default_rng(0)
    a, b = LABELS + 0.3 * rng.random((2, 24))
    found = delong(LABELS, a, b)
    assert (found.difference, found.interval.low, found.interval.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert found.bound.trials == 12 and found.bound.value == pytest.approx(1 - 0.05 ** (1 / 12))
    assert found.lowest_a == found.lowest_b == pytest.approx(0.05 ** (1 / 12))
    worse = np.where(np.arange(24) < 3, 1 - b, b)
    other = delong(LABELS, a, worse)
    assert other.variance > 0 and other.bound is other.lowest_b is None
    assert other.lowest_a == pytest.approx(0.05 ** (1 / 12)) and other.interval_a.low == other.interval_a.high == 1.0


def test_a_perfect_model_against_a_constant_one_has_no_bound():
    found = delong(LABELS, LABELS.astype(float), np.zeros(24))
    assert math.isnan(found.p_value) and found.bound is None
    alike = delong(LABELS, np.zeros(24), np.ones(24))
    assert alike.bound.trials == 12, "two constant models order no pair otherwise"


def test_a_macro_auc_has_the_bound_of_its_rarest_class():
    labels = np.repeat([0, 1, 2], [20, 9, 4])
    scores = np.eye(3)[labels]
    assert delong(labels, scores, 0.9 * scores).bound.trials == 4


def test_a_group_stands_in_one_pair_only():
    # Groups of positives, of negatives and of both: 0 1 | 2 | 3 4 5.
    codes = np.array([0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    positive = np.array([1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0], bool)
    first, second = _disjoint_pairs(positive, codes)
    assert len(first) == len(second) == 3
    assert positive[first].all() and not positive[second].any()
    used = [*codes[first], *codes[second]]
    assert len(set(used)) == len(used) == 6
    assert ranking_bound(positive.astype(int), [(positive[:, None] * 1.0,) * 2], codes).trials == 3
    assert ranking_bound(np.array([1, 0]), [(np.zeros((2, 1)),) * 2], np.zeros(2, int)) is None, (
        "one group makes no pair"
    )


def test_the_bound_holds_where_a_difference_is_seldom_seen():
    """Two models that truly differ by the bound: seldom enough, samples show no sign of it."""
    rng, images, trials = np.random.default_rng(0), 24, 4000
    bound = no_event_bound(12).value
    silent = 0
    for _ in range(trials):
        a = LABELS + 0.5 * rng.random(images)
        # Each pair of b is wrong with a probability of the bound: its positive lies below all negatives.
        b = np.where((LABELS == 1) & (rng.random(images) < bound), -1.0, a)
        found = ranking_bound(LABELS, [(a[:, None], b[:, None])])
        silent += found is not None
    assert silent / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_judgement_without_width_says_so(n_seeds):
    right = np.stack([1 - LABELS, LABELS], axis=1).astype(float)
    a = np.stack([0.9 * right + 0.05] * n_seeds)
    pairing = Pairing(LABELS, np.stack([0.8 * right + 0.1] * n_seeds), a, np.arange(24), None)
    rng = np.random.default_rng(0)
    found = on_dataset("macro_auc_ovr", 0.02, pairing, rng=rng, draws=50)
    assert found.interval.low == found.interval.high == 0.0
    assert found.note == (
        "has no width, which is a flaw of the method and no certainty; with 95 % confidence neither is ahead by more "
        "than 0.221 on test images like these (exact one-sided bound, from 12 disjoint pairs of them)"
    )
    found = on_dataset("accuracy", 0.02, pairing, rng=rng, draws=50)
    assert "they treat at most 11.7 % of test images differently" in found.note and "from 24 that they" in found.note
    grouped = Pairing(LABELS, pairing.baseline, pairing.against, pairing.ids, np.arange(24) // 2)
    assert "22.1 % of groups" in on_dataset("accuracy", 0.02, grouped, rng=rng, draws=50).note
    differ = Pairing(LABELS, pairing.baseline[:, :, ::-1], pairing.against, pairing.ids, None)
    # Always right against always wrong: DeLong has no interval, the spread of seeds one without width or bound.
    note = on_dataset("macro_auc_ovr", 0.02, differ, rng=rng, draws=50).note
    assert note == ("" if n_seeds == 1 else "has no width, which is a flaw of the method and no certainty")


def test_a_verdict_tells_it(tmp_path):
    """A variant that is the baseline in another name: the same predictions, and an interval from 0 to 0."""
    variants = {"baseline": ({}, 9.0, 1.0), "other": ({"fusion": "attention"}, 9.5, 1.1)}
    design = Design(variants=variants, datasets=("alpha",), seeds=(0,), images=24, metrics=("macro_auc_ovr",))
    store = write_ledger(tmp_path, design)
    table, manifest = load_ledger(store, study=design.name), load_manifest(store, design.name)
    (found,) = decide_all(table, manifest, store, rng=np.random.default_rng(0), draws=20)
    assert found.interval.low == found.interval.high == 0.0
    assert found.notes[-1].startswith("the interval on alpha has no width, which is a flaw of the method")
    assert "neither is ahead by more than 0.312" in found.sentence
