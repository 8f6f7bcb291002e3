import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.across import EXACT_PAIRS, signed_rank, summary


def make_table(cells):
    """A ledger's table with the columns that summary reads, from (variant, dataset, seed, macro_f1) and changes."""
    rows = []
    for variant, dataset, seed, value, *changes in cells:
        row = {
            "variant_id": variant,
            "variant_label": f"label {variant}",
            "recipe_id": "r0",
            "dataset": dataset,
            "seed": seed,
            "status": "done",
            "test.macro_f1": value,
            "test.macro_auc_ovr": value + 0.1,
            "cost.params": 100.0 if dataset == "a" else 200.0,
            "cost.macs": 1000.0,
        }
        rows.append(row | (changes[0] if changes else {}))
    return pd.DataFrame(rows)


def test_summary_averages_seeds_first_and_takes_t_over_data_sets():
    # Five seeds on one data set count as much as one seed on another.
    cells = [("v", "a", s, 0.6 + 0.01 * s) for s in range(5)] + [("v", "b", 0, 0.7), ("v", "c", 0, 0.8)]
    row = summary(make_table(cells)).iloc[0]
    means = np.array([0.62, 0.7, 0.8])
    assert row["macro_f1"] == pytest.approx(means.mean())
    assert row["macro_auc_ovr"] == pytest.approx(means.mean() + 0.1)
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert (row["macro_f1_low"], row["macro_f1_high"]) == pytest.approx((low, high))
    assert row["interval_over"] == "data sets"
    assert row[["n_datasets", "n_seeds", "n_cells", "n_excluded"]].tolist() == [3, 5, 7, 0]
    assert row["params"] == pytest.approx(500 / 3) and row["macs"] == 1000
    assert row["variant_label"] == "label v"


def test_one_data_set_gives_an_interval_over_seeds():
    values = np.array([0.6, 0.62, 0.67])
    row = summary(make_table([("v", "a", s, v) for s, v in enumerate(values)])).iloc[0]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (row["macro_f1_low"], row["macro_f1_high"]) == pytest.approx((low, high))
    assert row[["interval_over", "n_datasets", "n_seeds"]].tolist() == ["seeds", 1, 3]


def test_one_cell_gives_no_interval():
    row = summary(make_table([("v", "a", 0, 0.6)])).iloc[0]
    assert row["macro_f1"] == 0.6 and row["interval_over"] == "none"
    assert math.isnan(row["macro_f1_low"]) and math.isnan(row["macro_auc_ovr_high"])


def test_intervals_stay_where_metrics_live():
    row = summary(make_table([("v", "a", 0, 0.2), ("v", "b", 0, 0.85)])).iloc[0]
    assert (row["macro_f1_low"], row["macro_f1_high"]) == (0.0, 1.0)


def test_confidence_widens_the_interval():
    table = make_table([("v", d, 0, v) for d, v in zip("abcd", (0.6, 0.61, 0.63, 0.6))])
    narrow, wide = summary(table, confidence=0.5).iloc[0], summary(table).iloc[0]
    assert wide["macro_f1_low"] < narrow["macro_f1_low"] < narrow["macro_f1_high"] < wide["macro_f1_high"]


def test_failed_stopped_and_undefined_cells_are_counted_and_left_out():
    nothing = {"test.macro_f1": math.nan, "test.macro_auc_ovr": math.nan, "cost.params": math.nan}
    cells = [
        ("v", "a", 0, 0.6),
        ("v", "a", 1, 0.0, nothing | {"status": "failed"}),
        ("v", "b", 0, 0.0, nothing | {"status": "stopped"}),
        ("v", "b", 1, 0.9, {"test.macro_auc_ovr": math.nan}),
        ("w", "a", 0, 0.0, nothing | {"status": "failed"}),
        # A record that failed after it had numbers must not count either.
        ("v", "a", 2, 0.1, {"status": "failed"}),
    ]
    table = summary(make_table(cells))
    assert table["variant_id"].tolist() == ["v", "w"]
    assert table["macro_f1"][0] == 0.6 and math.isnan(table["macro_f1"][1])
    assert table["n_cells"].tolist() == [1, 0] and table["n_excluded"].tolist() == [4, 1]
    assert table["interval_over"].tolist() == ["none", "none"]


def test_two_recipes_of_one_variant_are_refused():
    table = make_table([("v", "a", 0, 0.6), ("v", "a", 0, 0.7, {"recipe_id": "r1"})])
    with pytest.raises(ValueError, match=r"one cell on a \(seed 0\), got recipes r0, r1; select one"):
        summary(table)


def by_enumeration(differences, zeros, alternative="two-sided"):
    """p over all signs, from the definition."""
    differences = np.asarray(differences)
    if zeros == "wilcox":
        differences = differences[differences != 0]
    ranks = stats.rankdata(np.abs(differences))[differences != 0]
    differences = differences[differences != 0]
    observed = ranks[differences > 0].sum()
    sums = np.array([ranks @ signs for signs in itertools.product((0, 1), repeat=len(ranks))])
    at_most, at_least = np.mean(sums <= observed), np.mean(sums >= observed)
    return {"two-sided": min(1.0, 2 * min(at_most, at_least)), "less": at_most, "greater": at_least}[alternative]


@settings(max_examples=60, deadline=None)
@given(
    differences=st.lists(st.integers(-5, 5), min_size=1, max_size=9),
    zeros=st.sampled_from(["wilcox", "pratt"]),
    alternative=st.sampled_from(["two-sided", "less", "greater"]),
)
def test_signed_rank_is_the_enumeration_with_ties_and_zeros(differences, zeros, alternative):
    test = signed_rank(differences, zeros, alternative)
    assert test.method == "exact" and test.n + test.n_zeros == len(differences)
    expected = by_enumeration(differences, zeros, alternative) if any(differences) else 1.0
    assert test.p_value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [5, 20, EXACT_PAIRS])
def test_signed_rank_without_ties_is_scipys_exact_test(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    test, theirs = signed_rank(differences), stats.wilcoxon(differences, method="exact")
    assert test.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    assert min(test.positive, test.negative) == theirs.statistic


@pytest.mark.parametrize("zeros", ["wilcox", "pratt"])
def test_many_pairs_use_the_tie_corrected_normal_approximation(zeros):
    differences = np.random.default_rng(1).integers(-4, 6, EXACT_PAIRS + 30)
    test = signed_rank(differences, zeros)
    theirs = stats.wilcoxon(differences, zero_method=zeros, correction=False, method="approx")
    assert test.method == "normal" and test.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    greater = stats.wilcoxon(differences, zero_method=zeros, method="approx", alternative="greater")
    assert signed_rank(differences, zeros, "greater").p_value == pytest.approx(greater.pvalue, abs=1e-12)


def test_signed_rank_agrees_with_r(golden_root):
    answers = json.loads((golden_root / "statistics_from_r.json").read_text(encoding="utf-8"))
    scores = np.array(answers["scores.rows_are_datasets"])
    first, second = scores[:, 3] - scores[:, 0], scores[:, 3] - scores[:, 1]
    test = signed_rank(first)
    assert test.p_value == pytest.approx(answers["wilcoxon_exact_4_vs_1.p"][0], abs=1e-12)
    assert test.positive == answers["wilcoxon_exact_4_vs_1.V"][0]
    pratt = signed_rank(second, zeros="pratt").p_value
    assert pratt == pytest.approx(answers["wilcoxon_pratt_exact_4_vs_2.p"][0], abs=1e-12)


def test_signed_rank_of_hollander_and_wolfe():
    # Hollander & Wolfe 1973, p. 29: depression scores before and after therapy.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    test = signed_rank(before - after, alternative="greater")
    assert test.positive == 40 and test.p_value == 0.01953125
    assert test.effect == pytest.approx((40 - 5) / 45)


def test_rounding_noise_makes_no_ranks():
    # .3 − .2 and .2 − .1 differ in the last bit; the ranks must be 1.5, 1.5, 3.
    noisy = signed_rank([0.3 - 0.2, -(0.2 - 0.1), 0.5])
    assert 0.3 - 0.2 != 0.2 - 0.1 and (noisy.positive, noisy.negative) == (4.5, 1.5)


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_signed_rank_knows_no_scale_and_mirrors(scale):
    differences = np.array([0.1, 0.1, -0.3, 0.0, 0.7, 0.2, -0.2])
    for zeros in ("wilcox", "pratt"):
        test, scaled = signed_rank(differences, zeros), signed_rank(scale * differences, zeros)
        mirrored = signed_rank(-differences, zeros)
        assert test == scaled and test.p_value == mirrored.p_value and test.effect == -mirrored.effect


def test_degenerate_differences():
    same = signed_rank(np.zeros(7))
    assert (same.p_value, same.n, same.n_zeros, same.effect) == (1.0, 0, 7, 0.0)
    assert signed_rank([0.2]).p_value == 1.0
    assert signed_rank(np.arange(1, 9)).p_value == 2 / 2**8


@pytest.mark.parametrize(
    ("differences", "zeros", "alternative", "message"),
    [
        ([], "wilcox", "two-sided", "at least one value"),
        ([[1.0], [2.0]], "wilcox", "two-sided", r"got shape \(2, 1\)"),
        ([1.0, math.nan], "wilcox", "two-sided", "must be finite, got nan"),
        ([1.0], "zsplit", "two-sided", "wilcox or pratt, got 'zsplit'"),
        ([1.0], "wilcox", "both", "got 'both'"),
    ],
)
def test_bad_differences_are_one_line(differences, zeros, alternative, message):
    with pytest.raises(ValueError, match=message) as caught:
        signed_rank(differences, zeros, alternative)
    assert "\n" not in str(caught.value)
