"""Means and intervals of variants: paired seeds, the data sets' difficulty removed, nothing imputed."""

import math

import numpy as np
import pytest
from ledger_fixture import as_table
from scipy import stats

from analysis.across.standings import complete_rectangle, standings


def make_table(values):
    """A ledger's table of values (variants, data sets, seeds)."""
    return as_table(values.swapaxes(0, 1))


def simulate(shape, seed=0):
    rng = np.random.default_rng(seed)
    return 0.6 + rng.normal(0, 0.1, (1, shape[1], 1)) + rng.normal(0, 0.02, shape)


IDS = ["v0", "v1", "v2"]


def test_intervals_are_cousineaus_with_moreys_factor():
    values = simulate((3, 6, 2))
    means = values.mean(axis=2)
    place = standings(make_table(values), "macro_f1", IDS)
    # Morey 2008: the variance of what is left of each data set, times variants / (variants − 1).
    left = means - means.mean(axis=0)
    errors = np.sqrt(3 / 2 * left.var(axis=1, ddof=1) / 6)
    for i, variant in enumerate(IDS):
        interval = place.intervals[variant]
        half = stats.t.ppf(0.975, 5) * errors[i]
        assert place.means[variant] == pytest.approx(means[i].mean())
        assert (interval.low, interval.high) == pytest.approx((means[i].mean() - half, means[i].mean() + half))
        assert interval.n == 6 and "difficulty removed" in interval.over
    assert place.seeds == (2, 2)


def test_what_data_sets_add_to_all_variants_does_not_widen_an_interval():
    values = simulate((3, 6, 2))
    harder = values + np.linspace(-0.2, 0.2, 6)[None, :, None]
    for one, other in zip(*(standings(make_table(v), "macro_f1", IDS).intervals.values() for v in (values, harder))):
        assert other.high - other.low == pytest.approx(one.high - one.low)


def test_means_are_of_the_seeds_that_all_variants_finished():
    values = simulate((3, 4, 3))
    # v1 lacks the last two seeds of d0, and they were lucky for the others.
    values[:, 0, 1:] += 0.1
    values[1, 0, 1:] = math.nan
    place = standings(make_table(values), "macro_f1", IDS)
    expected = [np.mean([row[0, 0], *row[1:].mean(axis=1)]) for row in values]
    assert list(place.means.values()) == pytest.approx(expected)
    # The seeds behind the means, not those that happen to have finished.
    assert place.seeds == (1, 3)
    values[1, :, 1:] = math.nan
    assert standings(make_table(values), "macro_f1", IDS).seeds == (1, 1)


def test_one_data_set_has_an_interval_over_its_shared_seeds():
    values = simulate((3, 1, 5))
    values[1, 0, 2:] = math.nan
    place = standings(make_table(values), "macro_f1", IDS)
    for i, variant in enumerate(IDS):
        interval = place.intervals[variant]
        low, high = stats.t.interval(0.95, 1, values[i, 0, :2].mean(), stats.sem(values[i, 0, :2]))
        assert place.means[variant] == pytest.approx(values[i, 0, :2].mean())
        assert (interval.low, interval.high) == pytest.approx((max(0.0, low), min(1.0, high)))
        assert (interval.over, interval.n) == ("seeds", 2)


def test_a_data_set_without_a_shared_seed_is_left_out():
    values = simulate((2, 3, 2))
    values[0, 1, 0] = values[1, 1, 1] = math.nan
    place = standings(make_table(values), "macro_f1", IDS[:2])
    assert (place.datasets, place.left_out_datasets) == (("d0", "d2"), ("d1",))
    assert list(place.means.values()) == pytest.approx(values[:, [0, 2]].mean(axis=(1, 2)))
    alone = standings(make_table(values[:, 1:2]), "macro_f1", IDS[:2])
    assert (alone.means, alone.intervals, alone.seeds) == ({}, {}, (0, 0))


def test_the_rectangle_has_no_gap():
    values = simulate((3, 4, 2))
    values[2, :3] = values[0, 3] = math.nan
    rectangle = complete_rectangle(make_table(values), "test.macro_f1", [*IDS, "v9"])
    assert (rectangle.left_out_variants, rectangle.left_out_datasets) == (("v2", "v9"), ("d3",))
    assert rectangle.means.to_numpy() == pytest.approx(values[:2, :3].mean(axis=2))
    assert all(np.isfinite(block.to_numpy()).all() for block in rectangle.values.values())
