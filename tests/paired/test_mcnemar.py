import json
import math

import numpy as np
import pytest
from scipy import stats

from analysis.paired.accuracy import mcnemar, mcnemar_counts
from analysis.selftest.goldens import DATA

GOLDEN = json.loads((DATA / "paired_from_r.json").read_text())


def test_equal_to_r():
    result = mcnemar_counts(*GOLDEN["mcnemar_exact.b_c"])
    assert result.p_value == pytest.approx(GOLDEN["mcnemar_exact.p"][0], rel=1e-12)


def test_equal_to_all_golden_values_of_r(golden_root):
    golden = json.loads((golden_root / "statistics_from_r.json").read_text())
    assert mcnemar_counts(*golden["mcnemar_exact.b_c"]).p_value == pytest.approx(golden["mcnemar_exact.p"][0], rel=1e-9)


def test_agresti_approval_of_the_president():
    result = mcnemar_counts(*GOLDEN["agresti.changed"])
    assert result.z**2 == pytest.approx(GOLDEN["agresti.chi2"][0], abs=5e-5)
    assert 2 * stats.norm.sf(result.z) == pytest.approx(GOLDEN["agresti.p"][0], rel=2e-4)
    # The exact test of 236 changes of mind says what chi-squared says, a little more carefully.
    assert GOLDEN["agresti.p"][0] < result.p_value < 1.4 * GOLDEN["agresti.p"][0]


def test_counts_of_images_that_one_model_alone_classifies_rightly():
    labels = np.array([0, 0, 1, 2, 2, 1])
    a = np.eye(3)[[0, 0, 1, 2, 0, 0]]
    b = np.eye(3)[[0, 1, 2, 0, 2, 0]]
    result = mcnemar(labels, a, b)
    assert (result.only_a, result.only_b) == (3, 1)
    assert result.z == 1.0 and result.p_value == 0.625
    assert result.p_mid == pytest.approx(0.625 - stats.binom.pmf(1, 4, 0.5), rel=1e-12)
    assert mcnemar(labels, b, a).z == -1.0


@pytest.mark.parametrize("count", [0, 1, 4])
def test_nothing_to_tell_them_apart(count):
    result = mcnemar_counts(count, count)
    assert (result.p_value, result.p_mid, result.z) == (1.0, pytest.approx(1.0, rel=1e-12), 0.0)


def test_identical_predictions_and_one_image():
    assert mcnemar(np.array([0, 1]), np.array([0.2, 0.3]), np.array([0.2, 0.3])).p_value == 1.0
    assert mcnemar(np.array([1]), np.array([0.9]), np.array([0.2])).p_value == 1.0


def test_mid_p_is_nearer_to_its_level_than_the_exact_test():
    rates = []
    for total in range(6, 31, 3):
        probability = stats.binom.pmf(np.arange(total + 1), total, 0.5)
        results = [mcnemar_counts(k, total - k) for k in range(total + 1)]
        rates.append(
            [probability[[p <= 0.05 for p in ps]].sum() for ps in zip(*((r.p_value, r.p_mid) for r in results))]
        )
    exact, mid = np.array(rates).T
    assert (exact <= 0.05).all() and (mid >= exact).all()
    assert np.abs(mid - 0.05).mean() < np.abs(exact - 0.05).mean() - 0.002


@pytest.mark.parametrize(
    ("labels", "a", "b", "message"),
    [
        ([0, 1], [0.1, 0.2], [0.1], "labels and probabilities must have the same length, got 2 and 1"),
        ([0, 1], [0.1, math.nan], [0.1, 0.2], "probabilities must be finite and between 0 and 1, got nan"),
        ([0, 1], np.full((2, 3), 1 / 3), [0.1, 0.2], r"a and b must have one shape, got \(2, 3\) and \(2,\)"),
    ],
)
def test_bad_input_is_one_line(labels, a, b, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        mcnemar(np.array(labels), np.array(a), np.array(b))
    with pytest.raises(ValueError, match=r"^counts must not be negative, got 3 and -1$"):
        mcnemar_counts(3, -1)
