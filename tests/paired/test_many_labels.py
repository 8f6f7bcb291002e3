"""Several labels an image, and ordered classes: metrics, DeLong and resampling against scikit-learn and definitions."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk

from analysis.metrics import METRICS, all_metrics, checked, per_class
from analysis.paired import (
    bootstrap_difference,
    delong,
    false_claim_probability,
    mcnemar,
    randomisation_difference,
    two_level_bootstrap,
)
from analysis.paired.false_claim import _image_values
from analysis.paired.resampling import drawn_units
from analysis.records.predictions import Pairing
from analysis.tasks import MULTILABEL, ORDINAL, TASKS, task_named

OF_LABELS = MULTILABEL.metrics


def many(seed, images=120, labels=4):
    """Labels (images, labels) and two correlated models' probabilities; in hundredths, so that some tie."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, labels)) < [0.5, 0.3, 0.2, 0.1][:labels]).astype(np.int64)
    shared = rng.standard_normal((images, labels)) + 1.2 * truth - 0.6
    return truth, *((1 / (1 + np.exp(-shared - 0.7 * rng.standard_normal((2, images, labels))))).round(2))


def ordered(seed, images=90, classes=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    scores = rng.standard_normal((2, images, classes)) - (np.arange(classes) - truth[:, None]) ** 2 / 2
    scores = np.exp(scores)
    return truth, *(scores / scores.sum(axis=2, keepdims=True))


def by_scikit_learn(metric, truth, p):
    """A metric of many labels from scikit-learn, label by label, over the labels for which it is defined."""
    here = range(truth.shape[1])
    both = [k for k in here if 0 < truth[:, k].sum() < len(truth)]
    decided = p > 0.5
    if metric == "macro_f1":
        seen = [k for k in here if truth[:, k].any() or decided[:, k].any()]
        return np.mean([sk.f1_score(truth[:, k], decided[:, k]) for k in seen])
    return {
        "macro_auc_ovr": lambda: np.mean([sk.roc_auc_score(truth[:, k], p[:, k]) for k in both]),
        "balanced_accuracy": lambda: np.mean([sk.balanced_accuracy_score(truth[:, k], decided[:, k]) for k in both]),
        "accuracy": lambda: 1 - sk.hamming_loss(truth, decided),
        "auprc_macro": lambda: np.mean(
            [sk.average_precision_score(truth[:, k], p[:, k]) for k in here if truth[:, k].any()]
        ),
        "brier": lambda: np.mean([sk.brier_score_loss(truth[:, k], p[:, k], pos_label=1) for k in here]),
    }[metric]()


@pytest.mark.parametrize("metric", OF_LABELS)
def test_metrics_of_many_labels_are_means_over_labels(metric):
    truth, p, _ = many(1)
    assert METRICS[metric](truth, p) == pytest.approx(by_scikit_learn(metric, truth, p), abs=1e-12)
    # A label without an image, and one that all have, take no part where they have no value.
    truth[:, 2], truth[:, 3] = 0, 1
    assert METRICS[metric](truth, p) == pytest.approx(by_scikit_learn(metric, truth, p), abs=1e-12)


def test_a_record_names_absent_labels_and_what_is_undefined():
    truth, p, _ = many(2)
    truth[:, 1] = 0
    found = all_metrics(truth, p, ["a", "b", "c", "d"])
    assert found["missing_classes"] == ["b"] and found["mcc"] is None and found["ece"] is None
    assert "quadratic_kappa" not in found
    rows = per_class(truth, p, ["a", "b", "c", "d"])
    assert [row["support"] for row in rows] == truth.sum(axis=0).tolist()
    assert rows[1]["auc"] is None and rows[1]["recall"] is None
    assert rows[0]["precision"] == pytest.approx(sk.precision_score(truth[:, 0], p[:, 0] > 0.5))


def test_two_labels_are_no_two_classes():
    truth, p, q = many(3, labels=2)
    expected = np.mean([sk.roc_auc_score(truth[:, k], p[:, k]) for k in range(2)])
    assert METRICS["macro_auc_ovr"](truth, p) == pytest.approx(expected)
    assert delong(truth, p, q).auc_a == pytest.approx(expected)
    drawn = bootstrap_difference("macro_auc_ovr", truth, p, q, rng=np.random.default_rng(0), draws=50)
    assert drawn.value_a == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "p", "words"),
    [
        (np.full((3, 2), 2), np.full((3, 2), 0.5), "0 or 1, got 2"),
        (np.zeros((3, 2), int), np.full((3, 3), 0.5), r"shape of several labels, \(3, 2\), got \(3, 3\)"),
        (np.zeros((3, 2), int), np.full((3, 2), 1.5), "between 0 and 1"),
    ],
)
def test_wrong_labels_are_refused(labels, p, words):
    with pytest.raises(ValueError, match=words):
        checked(labels, p)


def test_delong_over_labels_is_its_definition():
    truth, a, b = many(4)
    influences = []
    for scores in (a, b):
        total = np.zeros(len(truth))
        for k in range(truth.shape[1]):
            positive = truth[:, k] == 1
            gap = scores[positive, k][:, None] - scores[~positive, k][None, :]
            wins = (gap > 0) + 0.5 * (gap == 0)
            m, n = wins.shape
            total[positive] += (wins.mean(axis=1) - wins.mean()) / math.sqrt(m * (m - 1))
            total[~positive] += (wins.mean(axis=0) - wins.mean()) / math.sqrt(n * (n - 1))
        influences.append(total / truth.shape[1])
    found = delong(truth, a, b)
    assert found.variance == pytest.approx(np.square(influences[0] - influences[1]).sum(), rel=1e-12)
    assert found.variance_a == pytest.approx(np.square(influences[0]).sum(), rel=1e-12)
    absent = truth.copy()
    absent[:, 2] = 0
    left = [0, 1, 3]
    without, three = delong(absent, a, b), delong(truth[:, left], a[:, left], b[:, left])
    assert without.missing_classes == (2,) and without.variance == pytest.approx(three.variance, rel=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", [*OF_LABELS, "quadratic_kappa"])
def test_resamples_are_the_loop_on_the_same_draws(metric, grouped):
    truth, a, b = ordered(5) if metric == "quadratic_kappa" else many(5)
    groups = np.arange(len(truth)) // 3 if grouped else None
    units = len(truth) // 3 if grouped else len(truth)
    found = bootstrap_difference(metric, truth, a, b, groups=groups, rng=np.random.default_rng(7), draws=6, level=0.8)
    (drawn,) = drawn_units(np.random.default_rng(7), units, 6)
    values = []
    for row in drawn:
        rows = np.concatenate([np.flatnonzero(groups == unit) for unit in row]) if grouped else row
        if metric == "quadratic_kappa":
            one = [sk.cohen_kappa_score(truth[rows], p[rows].argmax(axis=1), weights="quadratic") for p in (a, b)]
        else:
            one = [by_scikit_learn(metric, truth[rows], p[rows]) for p in (a, b)]
        values.append(one[0] - one[1])
    assert found.standard_error == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_kappa_is_scikit_learns_and_that_of_ordered_classes_alone():
    truth, p, _ = ordered(6)
    expected = sk.cohen_kappa_score(truth, p.argmax(axis=1), weights="quadratic")
    assert METRICS["quadratic_kappa"](truth, p) == pytest.approx(expected, abs=1e-12)
    assert all_metrics(truth, p, task=ORDINAL)["quadratic_kappa"] == pytest.approx(expected, abs=1e-12)
    # Whoever says one class of all images agrees as often as by chance; of one class there is nothing to agree on.
    constant = np.eye(4)[np.full(len(truth), 2)]
    assert METRICS["quadratic_kappa"](truth, constant) == 0.0
    assert math.isnan(METRICS["quadratic_kappa"](np.full(5, 2), constant[:5]))


@pytest.mark.parametrize("metric", [*OF_LABELS, "quadratic_kappa"])
def test_tests_of_seeds_and_claims_have_an_answer(metric):
    seeds = [ordered(s) if metric == "quadratic_kappa" else many(s) for s in (8, 9)]
    truth = seeds[0][0]
    a, b = (np.stack([seed[side] for seed in seeds]) for side in (1, 2))
    found = two_level_bootstrap(metric, truth, a, b, rng=np.random.default_rng(0), draws=100)
    assert found.interval.is_defined and found.interval.low < found.difference < found.interval.high
    pairing = Pairing(truth, b, a, np.arange(len(truth)), None)
    assert 0 < false_claim_probability(metric, [pairing], rng=np.random.default_rng(0), draws=200) < 1
    alike = two_level_bootstrap(metric, truth, a, a, rng=np.random.default_rng(0), draws=20)
    assert alike.p_value == 1.0 and alike.difference == 0.0


@pytest.mark.parametrize("metric", ["macro_auc_ovr", "auprc_macro", "brier"])
def test_values_of_images_have_the_metric_as_their_mean(metric):
    truth, p, _ = many(10)
    # Ties of scores move the average precision's influence, not its mean.
    assert _image_values(metric, truth, p).mean() == pytest.approx(METRICS[metric](truth, p), abs=1e-12)


def test_exchanged_outputs_are_tested_over_labels():
    truth, a, b = many(11, images=40)
    found = randomisation_difference("macro_f1", truth, a, b, rng=np.random.default_rng(0), draws=30)
    areas = randomisation_difference("macro_auc_ovr", truth, a, b, rng=np.random.default_rng(0), draws=30)
    assert found.difference == METRICS["macro_f1"](truth, a) - METRICS["macro_f1"](truth, b)
    assert 0 < found.p_value <= 1 and 0 < areas.p_value <= 1
    with pytest.raises(ValueError, match="one class an image for McNemar's test, got 4"):
        mcnemar(truth, a, b)


def test_catalogues_spell_tasks_their_way():
    assert task_named("multi-label, binary-class") is MULTILABEL and task_named("ordinal-regression") is ORDINAL
    assert {task_named(name).name for name in ("multiclass", "binary-class", "classification")} == {"classification"}
    assert [name for name, task in TASKS.items() if not task.defines("quadratic_kappa")] == [
        "classification",
        "multilabel",
    ]
    with pytest.raises(ValueError, match=r"x\.task must be classification, ordinal, multilabel, got 'regression'"):
        task_named("regression", "x.task")
