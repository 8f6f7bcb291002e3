"""Tests of a race at its looks: levels, p values against other formulations, and the error over many races."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from analysis.across.racing import level_at, look, look_times, moderated, spent


def test_looks_grow_by_a_quarter_and_spend_alpha_in_all():
    assert look_times(24) == [4, 5, 7, 9, 12, 15, 19] and look_times(4) == [] and look_times(6) == [4, 5]
    assert spent(1.0, 0.1) == pytest.approx(0.1) and spent(0.0, 0.1) == 0
    for n in (6, 24, 200):
        times = look_times(n)
        levels = [level_at(place, times, n, 11, 0.1) for place in range(len(times))]
        assert (
            min(levels) > 0 and 10 * sum(levels) == pytest.approx(spent(times[-1] / n, 0.1)) and 10 * sum(levels) < 0.1
        )


def test_two_variants_are_compared_by_a_paired_t_test():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 7)) + np.array([[0.5], [0.0]])
    found = look(values, 10**9)
    better, worse = found.leader, 1 - found.leader
    expected = stats.ttest_rel(values[better], values[worse], alternative="greater")
    assert found.p_values[worse] == pytest.approx(expected.pvalue) and found.p_values[better] == 1
    assert (
        found.behind[worse] == pytest.approx(values[better].mean() - values[worse].mean()) and found.behind[better] == 0
    )
    # Of 28 blocks 7 are a quarter: the standard error shrinks by √¾.
    closer = look(values, 28)
    assert closer.p_values[worse] == pytest.approx(stats.t.sf(expected.statistic / math.sqrt(0.75), 6))
    assert (look(values, 7).p_values == 1).all()


def test_variances_are_moderated_as_the_first_two_moments_of_their_logarithms_say():
    rng = np.random.default_rng(1)
    # The model itself: common 4, prior degrees of freedom 10.
    true = 4 * 10 / rng.chisquare(10, 4000)
    seen = true * rng.chisquare(5, 4000) / 5
    found, df = moderated(seen, 5)
    prior = df - 5
    assert prior == pytest.approx(10, rel=0.15)
    common = (found * df - 5 * seen)[0] / prior
    assert common == pytest.approx(4, rel=0.05) and np.allclose(found, (prior * common + 5 * seen) / df)
    excess = np.log(seen).var(ddof=1) - special.polygamma(1, 2.5)
    other = 2 * optimize.brentq(lambda y: special.polygamma(1, y) - excess, 1e-3, 1e3)
    assert prior == pytest.approx(other, rel=1e-6)
    # Closer to the truth than variances on their own.
    assert np.mean(np.log(found / true) ** 2) < 0.6 * np.mean(np.log(seen / true) ** 2)


def test_equal_variances_are_pooled_and_too_few_stay_as_they_are():
    found, df = moderated(np.array([2.0, 2.0, 2.0]), 3)
    assert found[0] == found[1] and df == 9
    assert moderated(np.array([2.0]), 3)[1] == 3 and moderated(np.array([0.0, 0.0]), 3)[0].tolist() == [0, 0]


def test_what_does_not_vary_is_never_dropped():
    values = np.tile(np.linspace(0, 1, 5), (3, 1))
    assert (look(values, 20).p_values == 1).all() and look(values, 20).leader == 0
    with pytest.raises(ValueError, match="2 to 20 blocks, got shape"):
        look(values[:, :1], 20)
    with pytest.raises(ValueError, match="must be finite"):
        look(np.full((2, 4), np.nan), 20)


def raced(values, rng, alpha):
    """Whether the best over all blocks was dropped, and the share of cells run, of (variants, blocks)."""
    n_variants, n_blocks = values.shape
    shuffled, times = values[:, rng.permutation(n_blocks)], look_times(n_blocks)
    running, cells, before = np.arange(n_variants), 0, 0
    for place, n in enumerate(times):
        cells, before = cells + len(running) * (n - before), n
        found = look(shuffled[running][:, :n], n_blocks)
        running = running[found.p_values > level_at(place, times, n_blocks, n_variants, alpha)]
    cells += len(running) * (n_blocks - before)
    return values.mean(axis=1).argmax() not in running, cells / values.size


@pytest.mark.parametrize("tails", ["normal", "heavy, unequal"])
def test_the_best_is_dropped_no_more_often_than_declared(tails):
    """Simulated: 25 variants equal in the mean but for chance, which is where the best is dropped most easily."""
    rng, races, alpha = np.random.default_rng(2), 600, 0.2
    dropped = 0
    for _ in range(races):
        noise = rng.normal(size=(25, 24)) if tails == "normal" else rng.standard_t(3, (25, 24))
        scale = 1.0 if tails == "normal" else np.exp(0.7 * rng.normal(size=(25, 1)))
        dropped += raced(scale * noise, rng, alpha)[0]
    assert stats.binomtest(dropped, races, alpha, alternative="greater").pvalue > 0.01, dropped / races


def test_variants_far_behind_go_early():
    rng = np.random.default_rng(3)
    shares = [raced(rng.normal(size=(40, 24)) + rng.normal(0, 2, (40, 1)), rng, 0.1)[1] for _ in range(30)]
    assert np.mean(shares) < 0.4
