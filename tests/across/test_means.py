import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.across.mean_tests import EXACT_FLIPS, sign_flip, t_over_means, tost
from analysis.power import smallest_p_signed_rank

DIFFERENCES = np.array([0.012, -0.004, 0.02, 0.007, 0.015, 0.001, -0.002, 0.011])


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_t_is_scipys(alternative):
    test = t_over_means(DIFFERENCES, alternative=alternative)
    theirs = stats.ttest_1samp(DIFFERENCES, 0.0, alternative=alternative)
    assert (test.t, test.p_value, test.df) == pytest.approx((theirs.statistic, theirs.pvalue, 7), abs=1e-12)
    low, high = stats.ttest_1samp(DIFFERENCES, 0.0).confidence_interval(0.95)
    assert (test.interval.low, test.interval.high) == pytest.approx((low, high), abs=1e-12)
    assert (test.interval.over, test.interval.n, test.n) == ("data sets", 8, 8)
    assert test.estimate == pytest.approx(DIFFERENCES.mean())
    assert test.standard_deviation == pytest.approx(DIFFERENCES.std(ddof=1))


def test_level_widens_the_t_interval():
    narrow, wide = t_over_means(DIFFERENCES, level=0.8).interval, t_over_means(DIFFERENCES, level=0.99).interval
    assert wide.low < narrow.low < narrow.high < wide.high and wide.level == 0.99


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_sign_flips_are_the_enumeration(alternative):
    differences = np.array([0.3, -0.1, 0.2, 0.1, 0.0, 0.2])
    means = np.array([np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=6)])
    seen = differences.sum()
    slack = 1e-12
    count = {
        "two-sided": np.abs(means) >= abs(seen) - slack,
        "greater": means >= seen - slack,
        "less": means <= seen + slack,
    }[alternative]
    test = sign_flip(differences, rng=rng(), alternative=alternative)
    assert test.p_value == pytest.approx(count.mean(), abs=1e-15)
    assert (test.method, test.n, test.n_zeros, test.draws) == ("exact", 5, 1, 32)


def test_equal_sums_in_another_order_of_addition_count():
    # .1 + .2 ≠ .3 in floating point: the pattern (−.3, +.1, +.2) is as extreme as the observed one.
    assert 0.1 + 0.2 != 0.3
    values = np.array([0.1, 0.2, 0.3, 0.6])
    exact = sign_flip(np.array([1, 2, 3, 6]), rng=rng()).p_value
    assert sign_flip(values, rng=rng()).p_value == exact == 2 / 16
    assert sign_flip([0.3, -0.1, -0.2], rng=rng()).p_value == sign_flip([3, -1, -2], rng=rng()).p_value == 1.0


def test_the_sign_flip_floor_is_that_of_the_signed_rank():
    for n in (1, 3, 8):
        assert sign_flip(np.linspace(1, 2, n), rng=rng()).p_value == smallest_p_signed_rank(n)


def test_random_flips_come_near_the_exact_p_and_are_never_zero():
    few = np.random.default_rng(4).normal(0.5, 1, EXACT_FLIPS)
    exact = sign_flip(few, rng=rng())
    # One more value, so small that it changes nothing but the method.
    drawn = sign_flip(np.append(few, 1e-9), rng=rng(), draws=40_000)
    assert (exact.method, drawn.method, exact.draws, drawn.draws) == ("exact", "random", 2**EXACT_FLIPS, 40_000)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=4 * math.sqrt(exact.p_value / 40_000))
    assert sign_flip(np.ones(40), rng=rng(), draws=99).p_value == pytest.approx(1 / 100)


def test_flips_come_from_rng_alone():
    differences = np.random.default_rng(4).normal(0.2, 1, 30)
    np.random.seed(1)
    first = sign_flip(differences, rng=np.random.default_rng(7), draws=500).p_value
    np.random.seed(2)
    assert sign_flip(differences, rng=np.random.default_rng(7), draws=500).p_value == first
    others = {sign_flip(differences, rng=np.random.default_rng(s), draws=500).p_value for s in range(8)}
    assert len(others) > 1


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02])
def test_tost_is_that_of_statsmodels(margin):
    from statsmodels.stats.weightstats import DescrStatsW

    p, below, above = DescrStatsW(DIFFERENCES).ttost_mean(-margin, margin)
    test = tost(DIFFERENCES, margin)
    assert (test.p_value, test.p_below, test.p_above) == pytest.approx((p, below[1], above[1]), abs=1e-12)
    inside = -margin < test.interval.low and test.interval.high < margin
    assert test.equivalent == inside == (p <= 0.05)
    assert test.interval.level == pytest.approx(0.9)


def test_alpha_moves_equivalence():
    assert tost(DIFFERENCES, 0.0155).equivalent and not tost(DIFFERENCES, 0.0155, alpha=0.001).equivalent


def test_one_data_set_shows_nothing():
    test = t_over_means([0.3])
    assert (test.estimate, test.p_value, test.df) == (0.3, 1.0, 0) and not test.interval.is_defined
    assert t_over_means([0.3], alternative="greater").p_value == 1.0
    assert sign_flip([0.3], rng=rng()).p_value == 1.0
    same = tost([0.0], 0.01)
    assert same.p_value == 1.0 and not same.equivalent and not same.interval.is_defined


def test_identical_variants():
    zeros = np.zeros(5)
    test = t_over_means(zeros)
    assert (test.p_value, test.t, test.interval.low, test.interval.high) == (1.0, 0.0, 0.0, 0.0)
    assert sign_flip(zeros, rng=rng()).p_value == 1.0 and sign_flip(zeros, rng=rng()).n_zeros == 5
    assert tost(zeros, 0.01).p_value == 0.0 and tost(zeros, 0.01).equivalent


def test_one_and_the_same_difference_is_the_limit():
    test = t_over_means(np.full(4, 0.25))
    assert (test.t, test.p_value, test.interval.low, test.interval.high) == (math.inf, 0.0, 0.25, 0.25)
    assert t_over_means(np.full(4, 0.25), alternative="less").p_value == 1.0
    assert not tost(np.full(4, 0.25), 0.01).equivalent and tost(np.full(4, 0.25), 0.01).p_value == 1.0
    # Only an exact test keeps its floor here.
    assert sign_flip(np.full(4, 0.25), rng=rng()).p_value == 0.125


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_over_means([]), "at least one value, got shape"),
        (lambda: t_over_means([[1.0], [2.0]]), r"got shape \(2, 1\)"),
        (lambda: t_over_means([1.0, math.nan]), "must be finite, got nan"),
        (lambda: t_over_means([1.0], alternative="both"), "got 'both'"),
        (lambda: t_over_means([1.0, 2.0], level=1.0), "level must be between 0 and 1"),
        (lambda: sign_flip([1.0, math.inf], rng=rng()), "must be finite, got inf"),
        (lambda: sign_flip([1.0], rng=rng(), draws=0), "draws must be at least 1, got 0"),
        (lambda: sign_flip([1.0], rng=rng(), alternative="up"), "got 'up'"),
        (lambda: tost([1.0], 0.0), "margin must be a finite number above 0, got 0.0"),
        (lambda: tost([1.0], math.inf), "got inf"),
        (lambda: tost([1.0], 0.1, alpha=0.5), "alpha must be between 0 and 0.5, got 0.5"),
    ],
)
def test_bad_differences_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
