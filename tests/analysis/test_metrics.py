import json
import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from effort import calls_of
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics import (
    DECLARED,
    LOWER_IS_BETTER,
    METRICS,
    accuracy,
    all_metrics,
    auprc_macro,
    balanced_accuracy,
    brier,
    ece,
    macro_auc_ovr,
    macro_f1,
    mcc,
    per_class,
)
from analysis.tasks import ORDINAL

# Those that have no value where all images are of one class.
UNDEFINED_IN_ONE_CLASS = {"macro_auc_ovr", "quadratic_kappa"}


def draw(rng, images, classes, ties=False):
    """Labels with every class present, and probabilities that know something about them; with ties, random tenths."""
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    if ties:
        probabilities = rng.multinomial(10, np.full(classes, 1 / classes), images) / 10
    else:
        probabilities = rng.dirichlet(np.ones(classes), images)
        probabilities[np.arange(images), labels] += 0.3
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities


def by_scikit_learn(labels, probabilities):
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    onehot = np.eye(classes)[labels]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            # sklearn's own multi-class check wants sums of 1 to 1e-8; column by column is the definition.
            "macro_auc_ovr": np.mean([sk.roc_auc_score(onehot[:, k], probabilities[:, k]) for k in range(classes)]),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "accuracy": sk.accuracy_score(labels, predicted),
            "auprc_macro": sk.average_precision_score(onehot, probabilities, average="macro"),
            "mcc": sk.matthews_corrcoef(labels, predicted),
            "brier": 0.5 * np.mean(np.sum((probabilities - onehot) ** 2, axis=1)),
        }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("images", "classes"), [(2, 2), (41, 2), (60, 3), (300, 7)])
def test_equal_to_scikit_learn(images, classes, ties):
    labels, probabilities = draw(np.random.default_rng(images + classes), images, classes, ties)
    ours = all_metrics(labels, probabilities)
    for name, value in by_scikit_learn(labels, probabilities).items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name


def test_brier_is_scikit_learns_in_the_binary_case():
    labels, probabilities = draw(np.random.default_rng(0), 50, 2)
    assert brier(labels, probabilities) == pytest.approx(sk.brier_score_loss(labels, probabilities[:, 1]), abs=1e-12)


@pytest.mark.parametrize(("images", "classes"), [(41, 2), (300, 7)])
def test_equal_to_torchmetrics(images, classes):
    import torch
    import torchmetrics.functional.classification as tm

    labels, probabilities = draw(np.random.default_rng(images), images, classes)
    p, y = torch.from_numpy(probabilities), torch.from_numpy(labels)
    theirs = {
        "macro_f1": tm.multiclass_f1_score(p, y, classes, average="macro"),
        "macro_auc_ovr": tm.multiclass_auroc(p, y, classes, average="macro"),
        "balanced_accuracy": tm.multiclass_accuracy(p, y, classes, average="macro"),
        "accuracy": tm.multiclass_accuracy(p, y, classes, average="micro"),
        "ece": tm.multiclass_calibration_error(p, y, classes, n_bins=15, norm="l1"),
        "auprc_macro": tm.multiclass_average_precision(p, y, classes, average="macro"),
        "mcc": tm.multiclass_matthews_corrcoef(p, y, classes),
    }
    ours = all_metrics(labels, probabilities)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(float(value), abs=1e-6), name


def test_per_class_equal_to_scikit_learn():
    labels, probabilities = draw(np.random.default_rng(5), 200, 4)
    rows = per_class(labels, probabilities, ["a", "b", "c", "d"])
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, probabilities.argmax(axis=1))
    assert [row["class"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["support"] for row in rows] == support.tolist()
    for key, values in {"precision": precision, "recall": recall, "f1": f1}.items():
        assert [row[key] for row in rows] == pytest.approx(values.tolist(), abs=1e-12)
    auc = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in range(4)]
    assert [row["auc"] for row in rows] == pytest.approx(auc, abs=1e-12)


def test_single_functions_and_all_metrics_agree_and_survive_json():
    labels, probabilities = draw(np.random.default_rng(1), 64, 5)
    together = json.loads(json.dumps(all_metrics(labels, probabilities), allow_nan=False))
    # Quadratic kappa needs classes in an order.
    named = {name: metric for name, metric in METRICS.items() if name != "quadratic_kappa"}
    assert set(together) == set(named) | {"per_class", "missing_classes"}
    assert {name: metric(labels, probabilities) for name, metric in named.items()} == {k: together[k] for k in named}
    assert together["per_class"] == per_class(labels, probabilities)
    assert set(METRICS) > LOWER_IS_BETTER


def test_scores_of_class_one_are_the_binary_case():
    labels, probabilities = draw(np.random.default_rng(2), 33, 2)
    two_columns = np.stack([1 - probabilities[:, 1], probabilities[:, 1]], axis=1)
    assert all_metrics(labels, probabilities[:, 1]) == all_metrics(labels, two_columns)


def test_small_binary_scores_keep_their_order():
    # 1 − 1e-20 and 1 − 2e-20 are the same number: class 0 must not be ranked by them.
    assert macro_auc_ovr(np.array([0, 1]), np.array([1e-20, 2e-20])) == 1.0


def test_hand_counted_values():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 2])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), predicted] = 0.8
    assert accuracy(labels, probabilities) == pytest.approx(4 / 6)
    assert balanced_accuracy(labels, probabilities) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert macro_f1(labels, probabilities) == pytest.approx((4 / 6 + 2 / 4 + 1) / 3)
    # One bin: confidence .8, accuracy 4/6.
    assert ece(labels, probabilities) == pytest.approx(0.8 - 4 / 6)
    assert brier(labels, probabilities) == pytest.approx((4 * 0.06 + 2 * (0.64 + 0.01 + 0.81)) / 12)


def test_ties_count_half_and_a_constant_predictor_is_chance():
    labels = np.array([0, 0, 1, 1, 1])
    constant = np.tile([0.4, 0.6], (5, 1))
    metrics = all_metrics(labels, constant)
    assert metrics["macro_auc_ovr"] == 0.5
    assert metrics["balanced_accuracy"] == 0.5
    assert metrics["mcc"] == 0.0
    assert metrics["auprc_macro"] == pytest.approx(0.5)  # prevalences .4 and .6
    assert metrics["per_class"][0]["precision"] == 0.0
    assert metrics["ece"] == pytest.approx(0.0)
    assert macro_auc_ovr(labels, np.array([0.1, 0.5, 0.5, 0.9, 0.9])) == pytest.approx((6 - 0.5) / 6)


def test_equal_probabilities_predict_the_lowest_class():
    assert accuracy(np.array([0, 1]), np.full((2, 2), 0.5)) == 0.5
    assert accuracy(np.array([0, 0]), np.array([0.5, 0.5])) == 1.0


def test_a_missing_class_is_named_and_leaves_the_means():
    rng = np.random.default_rng(3)
    labels, probabilities = draw(rng, 80, 4)
    kept = labels != 2
    labels, probabilities = labels[kept], probabilities[kept]
    metrics = all_metrics(labels, probabilities, ["a", "b", "c", "d"])
    present = [0, 1, 3]
    assert metrics["missing_classes"] == ["c"]
    row = metrics["per_class"][2]
    assert (row["support"], row["recall"], row["auc"]) == (0, None, None)
    assert row["precision"] == 0.0 and row["f1"] == 0.0  # predicted, never right
    auc = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in present]
    assert metrics["macro_auc_ovr"] == pytest.approx(np.mean(auc), abs=1e-12)
    area = [sk.average_precision_score(labels == k, probabilities[:, k]) for k in present]
    assert metrics["auprc_macro"] == pytest.approx(np.mean(area), abs=1e-12)
    recall = sk.recall_score(labels, probabilities.argmax(axis=1), labels=present, average=None)
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(recall), abs=1e-12)
    # The predicted but absent class counts 0 in F1, as in scikit-learn.
    assert metrics["macro_f1"] == pytest.approx(sk.f1_score(labels, probabilities.argmax(axis=1), average="macro"))


def test_a_class_neither_present_nor_predicted_leaves_f1():
    labels = np.array([0, 1, 0, 1])
    probabilities = np.array([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.7, 0.3, 0.0], [0.6, 0.4, 0.0]])
    assert macro_f1(labels, probabilities) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert per_class(labels, probabilities)[2] == {
        "class": "2",
        "precision": None,
        "recall": None,
        "f1": None,
        "auc": None,
        "support": 0,
    }


def test_one_image_and_one_class():
    metrics = all_metrics(np.array([1]), np.array([[0.2, 0.7, 0.1]]))
    assert metrics["macro_auc_ovr"] is None and math.isnan(macro_auc_ovr(np.array([1]), np.array([[0.2, 0.7, 0.1]])))
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == metrics["macro_f1"] == metrics["auprc_macro"] == 1.0
    assert metrics["mcc"] == 0.0
    assert metrics["ece"] == pytest.approx(0.3)
    assert metrics["missing_classes"] == ["0", "2"]
    assert auprc_macro(np.array([1, 1]), np.array([0.3, 0.4])) == 1.0
    assert mcc(np.array([1, 1]), np.array([0.3, 0.4])) == 0.0


def test_full_confidence_shares_the_last_bin():
    # One right at 1.0 and one wrong at .95: in one bin |1 − .975 − .475| …, in two bins the gaps would add up to .475.
    assert ece(np.array([1, 0]), np.array([1.0, 0.95])) == pytest.approx(abs(1 - 1.95) / 2)
    # An edge belongs to the bin below it: .6 = 9/15 is the last value of bin 9, .59 lies with it.
    edge = np.linspace(0, 1, 16)[9]
    assert ece(np.array([1, 0]), np.array([edge, 0.59])) == pytest.approx(abs((1 - edge) - 0.59) / 2)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "finite and between 0 and 1, got nan"),
        ([0, 1], [[0.5, 0.5], [np.inf, 0.5]], "finite and between 0 and 1, got inf"),
        ([0, 1], [[1.5, -0.5], [0.5, 0.5]], "between 0 and 1, got 1.5 .2 such values"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.4]], "sum to 1 for every image, got 0.9 for image 1"),
        ([0, 1], [0.5, np.nan], "finite"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels must be 0 … 1, got 0 … 2"),
        ([-1, 1], [[0.5, 0.5], [0.5, 0.5]], "labels must be 0 … 1, got -1 … 1"),
        ([0.0, 1.0], [0.5, 0.5], "one-dimensional integers, got float64"),
        ([[0], [1]], [0.5, 0.5], r"one-dimensional integers, got int64 of shape \(2, 1\)"),
        ([0], [0.5, 0.5], "same length, got 1 and 2"),
        ([0, 1], [[1.0], [1.0]], "at least 2 classes"),
        ([0, 1], ["a", "b"], "must be numbers"),
    ],
)
def test_bad_input_is_one_line(labels, probabilities, message):
    for function in (all_metrics, macro_f1, ece):
        with pytest.raises(ValueError, match=message) as caught:
            function(np.array(labels), np.array(probabilities))
        assert "\n" not in str(caught.value)


def test_no_image_and_wrong_names_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        macro_f1(np.zeros(0, dtype=int), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="must name the 2 columns of probabilities, got 3"):
        all_metrics(np.array([0]), np.array([0.2]), ["a", "b", "c"])


def test_float32_softmax_is_accepted_and_inputs_are_not_changed():
    labels, probabilities = draw(np.random.default_rng(4), 100, 9)
    single = probabilities.astype(np.float32)
    before = single.copy(), probabilities.copy()
    assert all_metrics(labels, single)["macro_auc_ovr"] == pytest.approx(macro_auc_ovr(labels, probabilities), abs=1e-4)
    all_metrics(labels, probabilities)
    assert np.array_equal(single, before[0]) and np.array_equal(probabilities, before[1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), images=st.integers(1, 30), classes=st.integers(2, 5), ties=st.booleans())
def test_values_lie_in_range_and_do_not_depend_on_the_order_of_images(seed, images, classes, ties):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    probabilities = draw(rng, max(images, classes), classes, ties)[1][:images]
    order = rng.permutation(images)
    ours = all_metrics(labels, probabilities, task=ORDINAL)
    shuffled = all_metrics(labels[order], probabilities[order], task=ORDINAL)
    for name in METRICS:
        if ours[name] is None:
            assert name in UNDEFINED_IN_ONE_CLASS and len(set(labels)) == 1 and shuffled[name] is None
        else:
            assert DECLARED[name].low <= ours[name] <= DECLARED[name].high + 1e-12, name
            assert ours[name] == pytest.approx(shuffled[name], abs=1e-12)


def test_fast_enough_for_every_epoch():
    few, many = (draw(np.random.default_rng(6), images, 7) for images in (200, 20_000))
    efforts = [calls_of(lambda drawn=drawn: all_metrics(*drawn)) for drawn in (few, many)]
    # Not image by image.
    assert 20 < efforts[1] <= 1.1 * efforts[0] < 1000
