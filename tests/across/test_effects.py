import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.across.effects import LARGEST_T, cliffs_delta, dz, iqm, p_superior, performance_profile, seed_values

A = [[0.70, 0.72, 0.75], [0.60, 0.66, 0.61], [0.90, 0.91, 0.95]]
B = [[0.69, 0.71, 0.72], [0.65, 0.66, 0.70], [0.80, 0.85, 0.86]]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_dz_and_the_interval_of_the_noncentral_t(n, sign):
    differences = sign * np.random.default_rng(n).normal(0.8, 1, n)
    effect = dz(differences)
    assert effect.value == pytest.approx(differences.mean() / differences.std(ddof=1))
    t, root = effect.value * math.sqrt(n), math.sqrt(n)
    assert stats.nct.sf(sign * t, n - 1, sign * root * (effect.interval.low if sign > 0 else effect.interval.high)) == (
        pytest.approx(0.025, abs=1e-8)
    )
    assert stats.nct.cdf(
        sign * t, n - 1, sign * root * (effect.interval.high if sign > 0 else effect.interval.low)
    ) == (pytest.approx(0.025, abs=1e-8))
    assert (effect.interval.over, effect.interval.n, effect.n) == ("data sets", n, n)


def test_dz_covers_what_it_says():
    draws = np.random.default_rng(1).normal(0.7, 1, (250, 6))
    intervals = [dz(row).interval for row in draws]
    inside = np.mean([interval.low <= 0.7 <= interval.high for interval in intervals])
    # Three standard errors of a share of .95 in 250.
    assert inside == pytest.approx(0.95, abs=0.042)


def test_dz_of_hardly_any_spread_goes_on_smoothly():
    base = np.array([-1.0, 0.5, 0.5, -0.3, 0.3])
    base = base / base.std(ddof=1)
    below, above = (dz(base + factor * LARGEST_T / math.sqrt(5)) for factor in (0.9999, 1.0001))
    assert above.interval.low == pytest.approx(below.interval.low, rel=1e-3)
    assert above.interval.high == pytest.approx(below.interval.high, rel=1e-3)
    mirrored = dz(-(base + 1.0001 * LARGEST_T / math.sqrt(5)))
    assert mirrored.interval.low == pytest.approx(-above.interval.high)


def test_degenerate_dz():
    assert dz(np.zeros(4)).value == 0.0 and not dz(np.zeros(4)).interval.is_defined
    assert dz(np.full(4, -0.1)).value == -math.inf and not dz(np.full(4, -0.1)).interval.is_defined
    assert math.isnan(dz([0.1]).value) and not dz([0.1]).interval.is_defined


def test_p_superior_counts_pairs_within_data_sets():
    expected = []
    for first, second in zip(A, B):
        wins = [(x > y) + 0.5 * (x == y) for x in first for y in second]
        expected.append(np.mean(wins))
    effect = p_superior(A, B)
    assert effect.value == pytest.approx(np.mean(expected)) and effect.n == 3
    u = stats.mannwhitneyu(A[0], B[0]).statistic / 9
    assert p_superior(A[:1], B[:1]).value == pytest.approx(u)
    assert effect.interval.low < effect.value < effect.interval.high
    assert (effect.interval.over, effect.interval.n) == ("data sets", 3)
    turned = p_superior(B, A)
    assert turned.value == pytest.approx(1 - effect.value)
    assert turned.interval.low == pytest.approx(1 - effect.interval.high)


def test_cliffs_delta_is_the_same_on_another_scale():
    chance, delta = p_superior(A, B), cliffs_delta(A, B)
    assert delta.value == pytest.approx(2 * chance.value - 1)
    assert delta.interval.low == pytest.approx(2 * chance.interval.low - 1)
    assert delta.interval.high == pytest.approx(2 * chance.interval.high - 1)
    assert cliffs_delta(A, A).value == 0.0


def by_newcombe(value, n, m, k, phi, end):
    """How many standard deviations an interval's end lies from the mean, seeds' variance by Newcombe's method 5."""
    star = (m + k) / 2 - 1
    variance = end * (1 - end) * (1 + star * (1 - end) / (2 - end) + star * end / (1 + end)) / (m * k) / n
    return abs(value - end) / math.sqrt(phi * variance)


def test_always_better_still_has_an_interval():
    better = p_superior([0.9] * 8, [0.8] * 8)
    # Of one seed each a win is a coin: Wilson's interval, with t.
    reach = stats.t.isf(0.025, 7)
    assert (better.value, better.interval.high) == (1.0, 1.0)
    assert better.interval.low == pytest.approx(1 / (1 + reach**2 / 8))
    worse = p_superior([0.8] * 8, [0.9] * 8)
    assert (worse.value, worse.interval.low) == (0.0, 0.0)
    assert worse.interval.high == pytest.approx(1 - better.interval.low)


def test_equal_chances_still_have_an_interval():
    effect = p_superior([[1, 2, 3, 4, 5]] * 4, [[0, 0.5, 1.5, 0.2, 0.1]] * 4)
    assert effect.value == pytest.approx(0.96) and effect.interval.low < 0.8 and effect.interval.high > 0.98
    # Four data sets at .96 and one at ½, against what five seeds each would give.
    shrunk = (4 * 0.96 + 0.5) / 5
    seeds = shrunk * (1 - shrunk) * (1 + 4 * ((1 - shrunk) / (2 - shrunk) + shrunk / (1 + shrunk))) / 25 / 4
    phi = np.var([0.96] * 4 + [0.5]) * 5 / 3 / 5 / seeds
    assert phi > 1
    for end in (effect.interval.low, effect.interval.high):
        assert by_newcombe(0.96, 4, 5, 5, phi, end) == pytest.approx(stats.t.isf(0.025, 3))
    same = p_superior([[0.5, 0.5]] * 4, [[0.5]] * 4)
    assert same.value == 0.5 and same.interval.low == pytest.approx(1 - same.interval.high)
    assert same.interval.low < 0.4


@pytest.mark.parametrize(
    ("shift", "between", "n_datasets"), [(1.8, 0.0, 5), (2.5, 2.4, 5), (4.0, 5.0, 5), (4.0, 2.4, 8)]
)
def test_the_interval_covers_the_chance(shift, between, n_datasets):
    generator = rng(4)
    # The chance that one normal beats another, a data set's shift being normal itself.
    chance = stats.norm.cdf(shift / math.sqrt(2 + between**2))
    inside = 0
    for _ in range(300):
        shifts = generator.normal(shift, between, (n_datasets, 1))
        a, b = generator.normal(shifts, 1, (n_datasets, 5)), generator.normal(0, 1, (n_datasets, 5))
        inside += chance in p_superior(a, b).interval
    # Three standard errors of a share of .95 in 300; with five data sets it is above.
    assert inside / 300 > 0.95 - 0.038


def test_one_data_set_has_no_interval_over_data_sets():
    assert not p_superior([[0.9, 0.8]], [[0.1, 0.2]]).interval.is_defined
    assert not cliffs_delta([[0.9, 0.8]], [[0.1, 0.2]]).interval.is_defined


def test_mappings_meet_on_common_data_sets():
    first, second = {"a": A[0], "b": A[1], "only": [0.0]}, {"b": B[1], "a": B[0], "c": [1.0]}
    assert p_superior(first, second) == p_superior(A[:2], B[:2])


def test_iqm_is_scipys_trimmed_mean():
    uneven = [[0.7, 0.72, 0.75], [0.6, 0.66], [0.9, 0.91, 0.95, 0.1], [0.3], [0.5, 0.8]]
    flat = [value for row in uneven for value in row]
    effect = iqm(uneven, rng=rng(), draws=200)
    assert effect.value == pytest.approx(stats.trim_mean(flat, 0.25))
    assert effect.interval.low <= effect.value <= effect.interval.high
    assert (effect.interval.over, effect.interval.n) == ("data sets and seeds", 5)
    assert iqm([[0.1, 0.2, 0.9, 0.4]], rng=rng(), draws=50).interval.over == "seeds"
    assert iqm([0.1, 0.2, 0.9], rng=rng(), draws=50).interval.over == "data sets"
    assert not iqm([0.4], rng=rng(), draws=50).interval.is_defined


def test_the_iqm_interval_is_that_of_a_plain_loop():
    runs = [np.random.default_rng(i).normal(i, 1, 4) for i in range(12)]
    generator, values = rng(5), []
    for _ in range(1500):
        chosen = generator.integers(0, 12, 12)
        values.append(stats.trim_mean(np.concatenate([generator.choice(runs[d], 4) for d in chosen]), 0.25))
    interval = iqm(runs, rng=rng(6), draws=1500, level=0.8).interval
    tail = stats.norm.sf(math.sqrt(12 / 11) * stats.t.isf(0.1, 11))
    assert (interval.low, interval.high) == pytest.approx(np.quantile(values, [tail, 1 - tail]), abs=0.35)


@pytest.mark.parametrize("n_datasets", [2, 3, 4, 5])
def test_a_bootstrap_of_too_few_data_sets_has_no_interval(n_datasets):
    # The range of all draws, in place of a percentile that none reaches, would hold the truth 75 % of the time with 3.
    runs = rng(1).normal(0.8, 0.05, (n_datasets, 3))
    interval = iqm(runs, rng=rng(), draws=2000).interval
    low = performance_profile(runs, [0.8], rng=rng(), draws=50)["low"]
    assert (interval.is_defined, interval.n) == (n_datasets == 5, n_datasets)
    assert low.isna().all() == (n_datasets < 5)


def test_profiles_are_shares_of_runs():
    taus = [0.0, 0.65, 0.71, 0.93, 1.0]
    profile = performance_profile([*A, *A], taus, rng=rng(), draws=300)
    flat = np.array(A).ravel()
    assert profile["share"].tolist() == pytest.approx([np.mean(flat > tau) for tau in taus])
    assert (profile["low"] <= profile["share"]).all() and (profile["share"] <= profile["high"]).all()
    assert profile.attrs == {"level": 0.95, "over": "data sets and seeds", "n": 6}
    # Data sets weigh the same, whatever the number of their seeds.
    uneven = performance_profile([[0.0] * 9, [1.0]], [0.5], rng=rng(), draws=50)
    assert uneven["share"].tolist() == [0.5]
    assert performance_profile([0.3], [0.1], rng=rng(), draws=5)["low"].isna().all()
    assert len(performance_profile(A, [], rng=rng(), draws=5)) == 0


@pytest.mark.parametrize("what", ["iqm", "profile"])
def test_draws_come_from_rng_alone(what):
    def low(seed):
        if what == "iqm":
            return iqm(A, rng=rng(seed), draws=40, level=0.5).interval.low
        return performance_profile(A, [0.7], rng=rng(seed), draws=40, level=0.5)["low"][0]

    np.random.seed(1)
    first = low(3)
    np.random.seed(2)
    assert low(3) == first
    assert len({low(seed) for seed in range(12)}) > 1


def test_seeds_of_a_table():
    table = pd.DataFrame(
        {
            "variant_id": ["x", "x", "x", "y"],
            "dataset": ["a", "b", "a", "a"],
            "seed": [1, 0, 0, 0],
            "status": "done",
            "test.macro_f1": [0.2, 0.3, 0.1, 0.9],
        }
    )
    found = seed_values(table, "macro_f1", "x")
    assert {name: values.tolist() for name, values in found.items()} == {"a": [0.1, 0.2], "b": [0.3]}
    with pytest.raises(ValueError, match="must have a finished cell, got none of 'z'"):
        seed_values(table, "macro_f1", "z")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dz([]), "at least one value"),
        (lambda: p_superior([], []), "a must have at least one data set, got none"),
        (lambda: p_superior([[0.1], []], [[0.1], [0.2]]), r"at least one seed on each data set, got shape \(0,\)"),
        (lambda: p_superior([[0.1]], [[0.1], [0.2]]), "the same data sets, got 1 and 2"),
        (lambda: p_superior({"a": [1.0]}, {"b": [1.0]}), "must share a data set, got a and b"),
        (lambda: cliffs_delta([[math.nan]], [[0.1]]), "a must be finite, got nan"),
        (lambda: iqm([[0.1]], rng=rng(), draws=0), "draws must be at least 1, got 0"),
        (lambda: performance_profile(A, [math.nan], rng=rng()), "thresholds must be one-dimensional and finite"),
    ],
)
def test_bad_runs_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
