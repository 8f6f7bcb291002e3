import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.across import dataset_slope, rank_agreement


def rng():
    return np.random.default_rng(0)


def ledger(gains, names=None, seeds=3, noise=0.0):
    """A table of two variants, against being better by gains[i] on data set i; noise is shared by a seed's pair."""
    names = names or [f"set?distance={i + 1}" for i in range(len(gains))]
    draw = np.random.default_rng(1)
    rows = []
    for name, gain in zip(names, gains):
        for seed in range(seeds):
            level = draw.normal(0, noise) if noise else 0.0
            rows.append((name, seed, "a", 0.7 + level))
            rows.append((name, seed, "b", 0.7 + level + gain))
    return pd.DataFrame(rows, columns=["dataset", "seed", "variant_id", "test.macro_f1"]).assign(status="done")


def test_the_slope_is_that_of_a_straight_line_through_the_data_sets():
    gains = [0.01, 0.05, 0.02, 0.09, 0.08]
    table = ledger(gains, noise=0.1)
    found = dataset_slope(table, "macro_f1", "a", "b", "distance", rng=rng())
    x = np.arange(1, 6)
    slope, intercept = np.polyfit(x, gains, 1)
    assert found.value == pytest.approx(slope)
    residual = np.square(gains - slope * x - intercept).sum() / 3
    half = stats.t.ppf(0.975, 3) * math.sqrt(residual / np.square(x - 3).sum())
    assert (found.interval.low, found.interval.high) == pytest.approx((slope - half, slope + half))
    assert (found.interval.over, found.interval.n) == ("data sets", 5)
    slopes = np.array([np.polyfit(x, order, 1)[0] for order in itertools.permutations(gains)])
    tails = [(slopes >= slope - 1e-12).mean(), (slopes <= slope + 1e-12).mean()]
    assert found.p_value == pytest.approx(2 * min(tails))
    assert found.points["set?distance=4"] == pytest.approx((4.0, 0.09))
    reverse = dataset_slope(table, "macro_f1", "b", "a", "distance", rng=rng())
    assert reverse.value == pytest.approx(-found.value) and reverse.p_value == pytest.approx(found.p_value)


def test_the_slope_takes_numbers_by_name_and_doublings():
    names = ["ct?n_train=50", "ct?n_train=200", "ct?n_train=800"]
    table = ledger([0.03, 0.02, 0.01], names)
    by_dial = dataset_slope(table, "macro_f1", "a", "b", "n_train", rng=rng(), log=True)
    assert by_dial.value == pytest.approx(-0.005)
    by_name = dataset_slope(table, "macro_f1", "a", "b", dict(zip(names, (0, 2, 4))), rng=rng())
    assert by_name.value == pytest.approx(-0.005)


def test_a_seed_that_one_variant_lacks_does_not_count():
    table = ledger([0.01, 0.02, 0.03])
    odd = (table["dataset"] == "set?distance=2") & (table["seed"] == 0)
    table.loc[odd & (table["variant_id"] == "b"), "test.macro_f1"] = 9.0
    table = table[~(odd & (table["variant_id"] == "a"))]
    assert dataset_slope(table, "macro_f1", "a", "b", "distance", rng=rng()).value == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("names", "along", "log", "message"),
    [
        (["x?d=1", "y?d=2", "z"], "d", False, "along must be a dial in every data set's name, got d and z"),
        (["x?d=1", "y?d=2", "z?d=a"], "d", False, "along must be a dial with numbers, got d=a in z?d=a"),
        (["x?d=1", "y?d=1", "z?d=1"], "d", False, "numbers of data sets must differ, got 1 for all"),
        (["x?d=1", "y?d=2"], "d", False, "data sets must be at least three for a slope, got 2 that both"),
        (["x?d=1", "y?d=0", "z?d=4"], "d", True, "numbers must be positive for a logarithm, got 0.0"),
        (["x", "y", "z"], {"x": 1, "y": 2}, False, "along must have a number for every data set, got none for z"),
    ],
)
def test_a_slope_that_cannot_be_is_refused(names, along, log, message):
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?")):
        dataset_slope(ledger([0.1] * len(names), names), "macro_f1", "a", "b", along, rng=rng(), log=log)


def test_a_slope_where_there_is_none_is_rarely_found():
    draws = np.random.default_rng(3)
    found = [
        dataset_slope(ledger(draws.normal(0, 1, 6)), "macro_f1", "a", "b", "distance", rng=rng()) for _ in range(60)
    ]
    assert np.mean([one.p_value <= 0.2 for one in found]) == pytest.approx(0.2, abs=3 * math.sqrt(0.16 / 60))
    assert np.mean([0 in one.interval for one in found]) == pytest.approx(0.95, abs=3 * math.sqrt(0.0475 / 60))


def rankings(f1, accuracy):
    """A table of one data set from values (seeds, variants) of two metrics."""
    rows = [
        ("set", seed, f"v{i}", f1[seed][i], accuracy[seed][i]) for seed in range(len(f1)) for i in range(len(f1[0]))
    ]
    columns = ["dataset", "seed", "variant_id", "test.macro_f1", "test.accuracy"]
    return pd.DataFrame(rows, columns=columns).assign(status="done")


def test_agreement_is_kendalls_of_the_means():
    draws = np.random.default_rng(2)
    f1, accuracy = draws.normal(size=(2, 4, 6)).round(1)
    found = rank_agreement(rankings(f1, accuracy), "test.macro_f1", "accuracy", rng=rng())["set"]
    assert found.value == pytest.approx(stats.kendalltau(f1.mean(axis=0), accuracy.mean(axis=0)).statistic)
    assert found.interval.low <= found.value <= found.interval.high
    assert (found.interval.over, found.interval.n) == ("seeds", 4)


def test_agreement_at_its_ends_and_without_an_interval():
    ranks = [[0.1, 0.2, 0.3, 0.4]]
    same = rank_agreement(rankings(ranks, ranks), "macro_f1", "accuracy", rng=rng())["set"]
    assert same.value == pytest.approx(1) and not same.interval.is_defined
    reverse = rank_agreement(rankings(ranks, [ranks[0][::-1]]), "macro_f1", "accuracy", rng=rng())["set"]
    assert reverse.value == pytest.approx(-1)
    assert math.isnan(rank_agreement(rankings(ranks, [[0.5] * 4]), "macro_f1", "accuracy", rng=rng())["set"].value)
