"""The probability that a claim of outperformance is false."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from analysis.metrics import LOWER_IS_BETTER, METRICS
from analysis.paired.false_claim import _image_values, false_claim_probability
from analysis.records.predictions import Pairing

DRAWS = 4000


def onehot(predicted, classes):
    return np.eye(classes)[predicted] * 0.98 + 0.02 / classes


def made(seed=0, seeds=2, images=300, classes=3, skill=0.3, groups=None):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    shared = rng.normal(size=(images, classes))
    sides = []
    for bonus in (0.0, skill):
        scores = (1.0 + bonus) * np.eye(classes)[labels] + shared + 0.7 * rng.normal(size=(seeds, images, classes))
        sides.append(np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True))
    return Pairing(labels, sides[0], sides[1], np.arange(images), groups)


def agreement(only_baseline, only_against, both=20, neither=10):
    """A pairing of two classes with these counts of right predictions."""
    right_baseline = np.repeat([True, True, False, False], [both, only_baseline, only_against, neither])
    right_against = np.repeat([True, False, True, False], [both, only_baseline, only_against, neither])
    labels = np.arange(len(right_baseline)) % 2
    sides = [onehot(np.where(right, labels, 1 - labels), 2)[None] for right in (right_baseline, right_against)]
    return Pairing(labels, sides[0], sides[1], np.arange(len(labels)), None)


def probability(metric, *pairings, seed=1, draws=DRAWS):
    return false_claim_probability(metric, pairings, rng=np.random.default_rng(seed), draws=draws)


@pytest.mark.parametrize(("fewer", "more"), [(0, 1), (0, 5), (3, 9), (13, 28)])
def test_accuracy_is_a_beta_probability(fewer, more):
    # Of the images of difference the share of the better one is Beta, the image added on either side evenly.
    expected = 0.5 * (stats.beta.cdf(0.5, more + 1, fewer) if fewer else 0.0)
    expected += 0.5 * stats.beta.cdf(0.5, more, fewer + 1)
    for pairing in (agreement(fewer, more), agreement(more, fewer)):
        assert probability("accuracy", pairing, draws=20_000) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("metric", METRICS)
def test_it_is_near_the_bootstraps_share_on_the_other_side(metric):
    pairing = made(seed=3, seeds=1, images=240, skill=0.12)
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(600):
        drawn = rng.integers(0, 240, 240)
        labels = pairing.labels[drawn]
        a, b = (METRICS[metric](labels, side[0][drawn]) for side in (pairing.against, pairing.baseline))
        differences.append(a - b)
    differences = np.array(differences) * (-1 if metric in LOWER_IS_BETTER else 1)
    share = np.mean(differences <= 0)
    share = min(share, 1 - share)
    assert 0.02 < share < 0.5
    assert probability(metric, pairing) == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize("metric", ["macro_auc_ovr", "auprc_macro", "brier"])
@pytest.mark.parametrize(("classes", "ties"), [(2, False), (2, True), (4, True)])
def test_image_values_are_the_metrics_slopes(metric, classes, ties):
    """An image that counts a little more moves the metric by its value less the mean, over the number of images."""
    rng = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 36 - classes)])
    probabilities = rng.dirichlet(np.ones(classes), 36)
    if ties:
        probabilities = rng.multinomial(4, np.full(classes, 1 / classes), 36) / 4
    values = _image_values(metric, labels, probabilities)
    assert values.mean() == pytest.approx(METRICS[metric](labels, probabilities), abs=1e-12)
    # So many copies of all images that one more is a small step.
    copies = 2000
    rows = np.repeat(np.arange(36), copies)
    for image in (0, 1, 17, 35):
        more = np.append(rows, image)
        slope = METRICS[metric](labels[more], probabilities[more]) - METRICS[metric](labels, probabilities)
        assert slope * copies * 36 == pytest.approx(values[image] - values.mean(), abs=3e-3)


@pytest.mark.parametrize("metric", ["macro_f1", "macro_auc_ovr", "brier", "ece", "auprc_macro"])
def test_exchanging_the_variants_changes_the_claim_and_not_its_probability(metric):
    pairing = made(seed=4, skill=0.1)
    swapped = dataclasses.replace(pairing, baseline=pairing.against, against=pairing.baseline)
    assert probability(metric, pairing) == pytest.approx(probability(metric, swapped, seed=2), abs=0.03)


def test_a_clear_difference_is_no_false_claim_and_more_data_sets_make_it_clearer():
    assert probability("macro_f1", made(skill=2.0)) == 1 / (1 + DRAWS)
    weak = [made(seed=s, images=60, skill=0.25) for s in range(6)]
    alone = np.mean([probability("macro_auc_ovr", pairing) for pairing in weak])
    assert probability("macro_auc_ovr", *weak) < 0.5 * alone


def test_groups_count_as_one():
    pairing = made(seed=5, images=200, skill=0.2)
    rows = np.repeat(np.arange(200), 4)
    copied = Pairing(
        pairing.labels[rows], pairing.baseline[:, rows], pairing.against[:, rows], np.arange(800), rows.copy()
    )
    blind = dataclasses.replace(copied, groups=None)
    for metric in ("macro_f1", "macro_auc_ovr", "ece", "auprc_macro"):
        once = probability(metric, pairing)
        assert probability(metric, copied, seed=3) == pytest.approx(once, abs=0.03)
        assert probability(metric, blind, seed=3) < 0.6 * once


def test_defined_answers():
    pairing = made(images=30)
    same = dataclasses.replace(pairing, against=pairing.baseline)
    for metric in METRICS:
        assert probability(metric, same, draws=100) == 1.0
    assert math.isnan(probability("macro_f1", draws=100))
    one_class = dataclasses.replace(pairing, labels=np.zeros(30, dtype=np.int64))
    assert math.isnan(probability("macro_auc_ovr", one_class, draws=100))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        probability("macro_f1", pairing, draws=0)
    with pytest.raises(ValueError, match=r"metric must be one of macro_f1, .*, got 'auc'"):
        probability("auc", pairing)


def test_a_metric_without_known_slopes_has_no_probability_rather_than_anothers(monkeypatch):
    monkeypatch.setitem(METRICS, "other", METRICS["accuracy"])
    assert math.isnan(probability("other", made(images=30), draws=100))


def test_only_the_generator_counts():
    pairing = made(skill=0.1)
    first = probability("macro_f1", pairing)
    np.random.seed(5)
    assert probability("macro_f1", pairing) == first
    assert probability("macro_f1", pairing, seed=9) != first
