import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.metrics import macro_auc_ovr
from analysis.paired.auc import delong
from analysis.paired.bootstrap import bootstrap_difference
from analysis.records.predictions import Pairing
from analysis.selftest.goldens import DATA
from analysis.verdicts.judgement import on_dataset


def draw(rng, images, classes, decimals=None):
    """Labels with every class twice, and two correlated models' scores; rounded, so that many tie, with decimals."""
    labels = np.concatenate([np.repeat(np.arange(classes), 2), rng.integers(0, classes, images - 2 * classes)])
    shared = rng.standard_normal((images, classes)) + 1.2 * np.eye(classes)[labels]
    a, b = (shared + 0.7 * rng.standard_normal((images, classes)) for _ in range(2))
    return labels, *((a, b) if decimals is None else (a.round(decimals), b.round(decimals)))


def by_pairs(labels, scores):
    """AUCs (classes,) and influences (classes, images) from the definition: every positive against every negative."""
    areas, influences = [], []
    for k in range(scores.shape[1]):
        positive = labels == k
        gap = scores[positive, k][:, None] - scores[~positive, k][None, :]
        wins = (gap > 0) + 0.5 * (gap == 0)
        m, n = wins.shape
        influence = np.empty(len(labels))
        influence[positive] = (wins.mean(axis=1) - wins.mean()) / math.sqrt(m * (m - 1))
        influence[~positive] = (wins.mean(axis=0) - wins.mean()) / math.sqrt(n * (n - 1))
        areas.append(wins.mean())
        influences.append(influence)
    return np.array(areas), np.array(influences)


def check_against_r(golden):
    labels = np.array(golden["delong.y"])
    result = delong(labels, np.array(golden["delong.score_a"]), np.array(golden["delong.score_b"]))
    found = {
        "delong.auc_a": [result.auc_a],
        "delong.auc_b": [result.auc_b],
        "delong.paired_z": [result.z],
        "delong.paired_p": [result.p_value],
        "delong.auc_a_ci95": [result.interval_a.low, result.interval_a.high],
        "delong.var_a": [result.variance_a],
        "delong.cov_ab": [result.covariance],
    }
    for name, values in found.items():
        np.testing.assert_allclose(values, golden[name], rtol=1e-9, atol=0, err_msg=name)


def test_equal_to_proc():
    check_against_r(json.loads((DATA / "paired_from_r.json").read_text()))


def test_equal_to_all_golden_values_of_proc(golden_root):
    check_against_r(json.loads((golden_root / "statistics_from_r.json").read_text()))


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize(("images", "classes"), [(40, 3), (150, 6)])
def test_macro_is_the_covariance_of_all_classes_from_the_definition(images, classes, decimals):
    labels, a, b = draw(np.random.default_rng(images), images, classes, decimals)
    result = delong(labels, a, b, level=0.9)
    areas_a, influence_a = by_pairs(labels, a)
    areas_b, influence_b = by_pairs(labels, b)
    weights = np.concatenate([np.full(classes, 1 / classes), np.full(classes, -1 / classes)])
    influences = np.concatenate([influence_a, influence_b])
    covariance = influences @ influences.T
    variance = weights @ covariance @ weights
    assert result.auc_a == pytest.approx(areas_a.mean(), rel=1e-12)
    assert result.difference == pytest.approx(areas_a.mean() - areas_b.mean(), rel=1e-9)
    assert result.variance == pytest.approx(variance, rel=1e-9)
    assert result.variance_a == pytest.approx(covariance[:classes, :classes].mean(), rel=1e-9)
    assert result.covariance == pytest.approx(covariance[:classes, classes:].mean(), rel=1e-9)
    assert result.variance == pytest.approx(result.variance_a + result.variance_b - 2 * result.covariance, rel=1e-9)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(result.difference) / math.sqrt(variance)), rel=1e-9)
    assert result.interval.high - result.difference == pytest.approx(1.6448536269514722 * math.sqrt(variance), rel=1e-9)
    assert (result.interval.over, result.interval.n, result.interval.level) == ("test images", images, 0.9)
    assert result.missing_classes == () and result.n_images == images


def test_the_areas_are_the_metric_to_the_last_bit():
    labels, a, b = draw(np.random.default_rng(1), 90, 4)
    a, b = (np.exp(s) / np.exp(s).sum(axis=1, keepdims=True) for s in (a, b))
    result = delong(labels, a, b)
    assert (result.auc_a, result.auc_b) == (macro_auc_ovr(labels, a), macro_auc_ovr(labels, b))


def test_two_columns_are_the_scores_of_class_1():
    labels, a, b = draw(np.random.default_rng(2), 50, 2)
    assert delong(labels, a, b) == delong(labels, a[:, 1], b[:, 1])
    # One-vs-rest with two complementary columns and a third class that nobody has: the binary test twice.
    three = [np.stack([-s[:, 1], s[:, 1], np.zeros(50)], axis=1) for s in (a, b)]
    macro, binary = delong(labels, *three), delong(labels, a, b)
    assert macro.missing_classes == (2,) and binary.missing_classes == ()
    assert macro.z == pytest.approx(binary.z, rel=1e-9) and macro.p_value == pytest.approx(binary.p_value, rel=1e-9)


def test_the_standard_error_is_that_of_resampled_images_and_groups():
    rng = np.random.default_rng(3)
    labels, a, b = draw(rng, 500, 3)
    a, b = (np.exp(s) / np.exp(s).sum(axis=1, keepdims=True) for s in (a, b))
    single = delong(labels, a, b)
    error = math.sqrt(single.variance)
    bootstrap = bootstrap_difference("macro_auc_ovr", labels, a, b, rng=rng, draws=4000)
    assert error == pytest.approx(bootstrap.standard_error, rel=0.06)
    # Every image three times over, as a group of three, is no more evidence than once.
    labels, a, b, groups = (np.repeat(x, 3, axis=0) for x in (labels, a, b, np.arange(500)))
    grouped = delong(labels, a, b, groups=groups)
    # Each side by the groups that it has, as without groups each side by its images.
    assert grouped.variance == pytest.approx(single.variance, rel=1e-12)
    assert (grouped.interval.over, grouped.interval.n) == ("groups of test images", 500)
    assert delong(labels, a, b).variance == pytest.approx(error**2 / 3, rel=0.01)


def test_groups_of_one_image_are_no_groups():
    labels, a, b = draw(np.random.default_rng(4), 40, 3)
    patients = pd.Series([f"patient {i // 2:02}" for i in range(40)], dtype=object)
    assert delong(labels, a, b, groups=patients) == delong(labels, a, b, groups=np.arange(40) // 2)
    assert delong(labels, a, b, groups=np.arange(40)[::-1]) == delong(labels, a, b)


def draw_groups(rng, n_groups, images):
    """A patient's images share some of what each of two equal models makes of them."""
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, images - n_groups)])
    labels, a, b = draw(rng, images, 2)
    a, b = (scores + rng.standard_normal((n_groups, 2))[groups] for scores in (a, b))
    return labels, a, b, groups


def test_few_groups_are_judged_by_t():
    labels, a, b, groups = draw_groups(np.random.default_rng(8), 10, 120)
    result = delong(labels, a, b, groups=groups)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(result.z), 9), rel=1e-12)
    half = stats.t.isf(0.025, 9) * math.sqrt(result.variance)
    assert result.interval.high - result.difference == pytest.approx(half)
    assert result.interval_a.low == pytest.approx(result.auc_a - stats.t.isf(0.025, 9) * math.sqrt(result.variance_a))
    # So is equivalence within a margin.
    # Ranks are all that counts, and probabilities of the same order keep them.
    sides = [np.stack([1 - p, p], axis=1)[None] for p in (stats.norm.cdf(scores[:, 1]) for scores in (b, a))]
    pairing = Pairing(labels, *sides, np.arange(120), groups)
    judged = on_dataset("macro_auc_ovr", 0.9, pairing, rng=None, draws=0)
    room = (0.9 - abs(result.difference)) / math.sqrt(result.variance)
    assert judged.equivalence_p == pytest.approx(max(stats.t.sf(room, 9), 0.1**10), rel=1e-9)
    alone = delong(labels, a, a, groups=np.zeros(120, int))
    assert (alone.p_value, alone.interval.low, alone.interval.high) == (1.0, 0.0, 0.0)


def test_equal_models_on_few_groups_are_rejected_as_often_as_promised():
    rng = np.random.default_rng(9)
    samples = [draw_groups(rng, 8, 120) for _ in range(600)]
    rejected = np.mean([delong(y, a, b, groups=groups).p_value < 0.05 for y, a, b, groups in samples])
    # Binomial noise on 600: standard error .009 at .05.
    assert 0.02 < rejected < 0.078


def test_equal_models_are_rejected_as_often_as_promised():
    rng = np.random.default_rng(5)
    p_values = np.array([delong(*draw(rng, 150, 4)).p_value for _ in range(400)])
    # Binomial noise on 400: standard error .011 at .05.
    assert 0.02 < np.mean(p_values < 0.05) < 0.085
    assert 0.4 < p_values.mean() < 0.6


def test_identical_predictions():
    labels, a, _ = draw(np.random.default_rng(6), 40, 3)
    result = delong(labels, a, a)
    assert (result.difference, result.z, result.p_value, result.variance) == (0.0, 0.0, 1.0, 0.0)
    assert (result.interval.low, result.interval.high) == (0.0, 0.0)
    # The same ranking on another scale is the same model to an AUC.
    assert delong(labels, a, 3 * a - 1).p_value == 1.0


def test_a_missing_class_is_left_out_and_named():
    labels, a, b = draw(np.random.default_rng(7), 60, 4)
    keep = labels != 2
    result = delong(labels[keep], a[keep], b[keep])
    expected = np.mean([np.mean(_wins(labels[keep], a[keep][:, k], k)) for k in (0, 1, 3)])
    assert result.missing_classes == (2,) and result.auc_a == pytest.approx(expected, rel=1e-12)
    assert 0 < result.p_value < 1


def _wins(labels, scores, k):
    gap = scores[labels == k][:, None] - scores[labels != k][None, :]
    return (gap > 0) + 0.5 * (gap == 0)


@pytest.mark.parametrize("labels", [[1, 1, 1], [1]])
@pytest.mark.parametrize("columns", [0, 2, 3])
def test_one_class_or_one_image_has_no_auc(labels, columns):
    rng = np.random.default_rng(8)
    a, b = rng.random((2, len(labels), columns) if columns else (2, len(labels)))
    result = delong(np.array(labels), a, b)
    assert result.missing_classes == tuple(range(columns or 2))
    assert math.isnan(result.auc_a) and math.isnan(result.difference) and math.isnan(result.p_value)
    assert not result.interval.is_defined and result.interval.n == len(labels)


def test_a_constant_predictor_has_half_the_area_and_no_variance():
    labels, a, _ = draw(np.random.default_rng(9), 60, 3)
    result = delong(labels, a, np.full_like(a, 1 / 3))
    assert result.auc_b == 0.5 and result.variance_b == 0.0 and result.covariance == pytest.approx(0.0, abs=1e-18)
    assert result.variance == pytest.approx(result.variance_a, rel=1e-12) and result.p_value < 0.05


def test_a_difference_without_variance_is_not_judged():
    result = delong(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.full(4, 0.5))
    assert (result.difference, result.variance) == (0.5, 0.0)
    assert math.isnan(result.p_value) and math.isnan(result.z) and not result.interval.is_defined


def test_one_image_of_a_class_leaves_its_variance_unknown():
    labels = np.array([0, 0, 0, 1])
    result = delong(labels, np.array([0.1, 0.7, 0.3, 0.5]), np.array([0.2, 0.1, 0.6, 0.5]))
    assert result.difference == 0.0 and math.isnan(result.variance) and math.isnan(result.p_value)
    grouped = delong(np.tile(labels, 2), *np.random.default_rng(0).random((2, 8)), groups=np.tile(np.arange(4), 2))
    assert math.isfinite(grouped.auc_a) and math.isnan(grouped.variance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": [0.1, math.nan, 0.3]}, "probabilities_a must be finite, got nan"),
        ({"b": [0.1, math.inf, 0.3]}, "probabilities_b must be finite, got inf"),
        ({"b": [0.1, 0.2]}, "labels and probabilities_b must have the same length, got 3 and 2"),
        ({"labels": []}, "labels must be one-dimensional integers, got float64"),
        ({"labels": np.empty(0, int)}, "labels must hold at least one image, got none"),
        ({"labels": [0, 1, 2]}, r"labels must be 0 … 1, got 0 … 2"),
        ({"a": np.ones((3, 4))}, r"probabilities of a and b must have one shape, got \(3, 4\) and \(3,\)"),
        ({"a": np.ones((3, 1))}, r"probabilities_a must be numbers of shape \(images,\) or \(images, classes\), got"),
        ({"a": ["x", "y", "z"]}, "probabilities_a must be numbers"),
        ({"groups": [0, 1]}, r"groups must name one group for each of 3 images, got shape \(2,\)"),
        ({"groups": [0.0, math.nan, 1.0]}, "groups must be integers or strings, got float64"),
        ({"groups": ["a", None, "b"]}, "groups must be integers or strings, got object"),
        ({"labels": ["benign", "benign", "malignant"]}, "labels must be one-dimensional integers, got <U9 of shape"),
        ({"level": 1.5}, "level must be between 0 and 1, got 1.5"),
    ],
)
def test_bad_input_is_one_line(change, message):
    arguments = {
        "labels": [0, 1, 1],
        "a": [0.1, 0.2, 0.3],
        "b": [0.3, 0.2, 0.1],
        "groups": None,
        "level": 0.95,
    } | change
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        delong(
            arguments["labels"], arguments["a"], arguments["b"], groups=arguments["groups"], level=arguments["level"]
        )
    assert "\n" not in str(caught.value)
