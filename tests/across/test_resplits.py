"""The corrected resampled t test: its formula by hand, its error rate where Student's is far off."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.across.resplits import corrected_t


def test_it_is_the_formula_of_nadeau_and_bengio():
    values = np.array([0.02, 0.05, -0.01, 0.03, 0.04])
    found = corrected_t(values, 0.25, margin=0.1)
    error = math.sqrt((1 / 5 + 0.25) * values.var(ddof=1))
    assert found.standard_error == pytest.approx(error)
    t = values.mean() / error
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, 4))
    assert found.equivalence_p == pytest.approx(stats.t.sf((0.1 - values.mean()) / error, 4))
    half = stats.t.ppf(0.975, 4) * error
    assert (found.interval.low, found.interval.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert (found.df, found.n, found.interval.over) == (4, 5, "folds")
    # Without what folds share it is Student's test.
    assert corrected_t(values, 1e-12).p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)


def test_degenerate_differences_have_defined_answers():
    one = corrected_t([0.1], 0.25, margin=0.2)
    assert one.p_value == 1.0 and one.equivalence_p == 1.0 and not one.interval.is_defined
    none = corrected_t([0.0, 0.0, 0.0], 0.25, margin=0.1)
    assert none.p_value == 1.0 and none.equivalence_p == 0.0 and none.interval.low == none.interval.high == 0
    assert corrected_t([0.1, 0.1], 0.25).p_value == 0.0
    with pytest.raises(ValueError, match=r"ratio must be test images for each training image, above 0, got 0\.0"):
        corrected_t([0.1, 0.2], 0.0)


def rates(folds, repeats, simulations=2000, images=60, level=0.05):
    """Shares of false claims by Student's t and by the corrected test, of two learners that are equally good.

    Each is a nearest-mean classifier of two classes on one of two features, which are exchangeable: over samples of
    the data set neither is better.
    """
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(images) % 2, (simulations, 1))
    features = rng.standard_normal((2, simulations, images)) + 0.8 * labels
    found = []
    for _ in range(repeats):
        order = rng.permuted(np.tile(np.arange(images), (simulations, 1)), axis=1)
        shape = (simulations, folds, images // folds)
        own = np.take_along_axis(labels, order, axis=1).reshape(shape)
        accuracy = []
        for feature in features:
            x = np.take_along_axis(feature, order, axis=1).reshape(shape)
            means = []
            for k in (0, 1):
                here = own == k
                # Of all folds but the one that is tested.
                sums, counts = (x * here).sum(axis=2), here.sum(axis=2)
                means.append((sums.sum(axis=1, keepdims=True) - sums) / (counts.sum(axis=1, keepdims=True) - counts))
            nearer = np.abs(x - means[1][..., None]) < np.abs(x - means[0][..., None])
            accuracy.append((nearer == own).mean(axis=2))
        found.append(accuracy[0] - accuracy[1])
    differences = np.concatenate(found, axis=1)
    n = differences.shape[1]
    errors = differences.std(axis=1, ddof=1) / math.sqrt(n)
    t = np.divide(differences.mean(axis=1), errors, out=np.zeros(simulations), where=errors > 0)
    student = 2 * stats.t.sf(np.abs(t), n - 1) <= level
    corrected = [corrected_t(row, 1 / (folds - 1)).p_value <= level for row in differences]
    return student.mean(), np.mean(corrected)


@pytest.mark.parametrize(("folds", "repeats", "students"), [(5, 1, 0.05), (5, 4, 0.25), (10, 3, 0.25)])
def test_it_keeps_its_level_where_folds_are_no_data_sets(folds, repeats, students):
    student, corrected = rates(folds, repeats)
    assert corrected <= 0.06
    # The more often images are dealt out, the surer is Student's test of what is one sample.
    assert student > students
