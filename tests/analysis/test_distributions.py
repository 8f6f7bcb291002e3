import math

import numpy as np
import pytest
from scipy import stats

from analysis.distributions import binomial_quantile, normal_quantile, normal_tail, ranks, t_quantile, t_tail

SHARES = [0.0, 1e-9, 0.0005, 0.025, 0.5, 0.95, 1.0, *np.random.default_rng(0).random(50)]
NUMBERS = [0.0, -1.0, 3.0, math.inf, -math.inf, *4 * np.random.default_rng(1).standard_normal(50)]


@pytest.mark.parametrize("df", [1, 2, 3, 7, 30, 999, math.inf])
def test_t_is_that_of_scipy_to_the_last_bit(df):
    assert [t_quantile(share, df) for share in SHARES] == [float(stats.t.ppf(share, df)) for share in SHARES]
    assert [-t_quantile(share, df) for share in SHARES] == [float(stats.t.isf(share, df)) for share in SHARES]
    assert [t_tail(number, df) for number in NUMBERS] == [float(stats.t.sf(number, df)) for number in NUMBERS]


def test_no_degrees_of_freedom_and_no_number_have_no_answer():
    assert math.isnan(t_quantile(0.3, 0)) and math.isnan(t_tail(0.3, 0)) and math.isnan(t_tail(math.nan, 3))


def test_the_normal_distribution_is_that_of_scipy_to_the_last_bit():
    assert [normal_quantile(share) for share in SHARES] == [float(stats.norm.ppf(share)) for share in SHARES]
    assert [normal_tail(number) for number in NUMBERS] == [float(stats.norm.sf(number)) for number in NUMBERS]
    assert [normal_tail(-number) for number in NUMBERS] == [float(stats.norm.cdf(number)) for number in NUMBERS]


@pytest.mark.parametrize("share", [0.025, 0.5, 0.975])
def test_binomial_quantiles_are_those_of_scipy(share):
    rng = np.random.default_rng(2)
    trials = rng.integers(0, 400, 600)
    chance = np.concatenate([rng.random(500), np.zeros(50), np.ones(50)])
    np.testing.assert_array_equal(binomial_quantile(share, trials, chance), stats.binom.ppf(share, trials, chance))


@pytest.mark.parametrize("size", [1, 2, 9, 30])
def test_ranks_are_those_of_scipy(size):
    values = np.random.default_rng(size).integers(0, 8, size) / 8
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))
