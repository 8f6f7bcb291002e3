import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.across.rank_tests import EXACT_PAIRS, critical_difference, friedman, hodges_lehmann, signed_rank
from analysis.selftest.goldens import DATA
from analysis.verdicts.judgement import in_general


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


@pytest.fixture(scope="module")
def answers():
    """What R says."""
    return json.loads((DATA / "across_from_r.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demsar():
    return pd.read_csv(DATA / "demsar_table6.csv", comment="#", index_col="dataset")


def test_the_copy_of_rs_answers_is_the_original(answers, golden_root):
    original = json.loads((golden_root / "statistics_from_r.json").read_text(encoding="utf-8"))
    assert len(answers) > 10
    assert {key: original[key] for key in answers if key != "note"} == {k: v for k, v in answers.items() if k != "note"}


def test_signed_rank_agrees_with_r(answers):
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


def test_hodges_lehmann_of_hollander_and_wolfe():
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    location = hodges_lehmann(before - after)
    # wilcox.test(before, after, paired = TRUE, conf.int = TRUE) of R.
    assert location.estimate == pytest.approx(0.46)
    assert (location.interval.low, location.interval.high) == pytest.approx((0.01, 0.786))
    assert location.interval.over == "data sets" and location.interval.n == 9


@pytest.mark.parametrize("n", [6, 7, 12, 30, EXACT_PAIRS + 20])
def test_the_interval_leaves_out_what_the_signed_rank_test_rejects(n):
    rng = np.random.default_rng(n)
    for _ in range(10):
        differences = rng.normal(0.4, 1, n)
        interval = hodges_lehmann(differences).interval
        for end, inwards in ((interval.low, 1), (interval.high, -1)):
            inside, outside = end + inwards * 1e-9, end - inwards * 1e-9
            assert signed_rank(differences - inside).p_value > 0.05 >= signed_rank(differences - outside).p_value


def test_five_data_sets_have_no_signed_rank_interval():
    assert not hodges_lehmann(np.arange(1.0, 6.0)).interval.is_defined
    assert hodges_lehmann(np.arange(1.0, 7.0)).interval.low == 1.0
    assert hodges_lehmann([0.3]).estimate == 0.3


def test_friedman_agrees_with_r(answers):
    test = friedman(answers["scores.rows_are_datasets"])
    assert test.chi2 == pytest.approx(answers["friedman.chi2"][0], abs=1e-10)
    assert test.p_value == pytest.approx(answers["friedman.p"][0], abs=1e-12)
    assert (test.n, test.n_incomplete) == (12, 0)


def test_friedman_of_demsar(demsar):
    test = friedman(demsar, correct_ties=False)
    assert list(test.mean_ranks) == ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
    assert [round(rank, 3) for rank in test.mean_ranks.values()] == [3.143, 2.0, 2.893, 1.964]
    # Printed: 9.28, 3.69 with 3 and 39 degrees of freedom, critical value 2.85 at .05.
    assert test.chi2 == pytest.approx(9.28, abs=0.005) and test.df == (3, 39)
    assert test.statistic_f == pytest.approx(3.69, abs=0.005) and test.p_value_f < 0.05
    assert stats.f.isf(0.05, 3, 39) == pytest.approx(2.85, abs=0.005)
    # Ties make the corrected statistic larger.
    assert friedman(demsar).chi2 > test.chi2


def test_nemenyi_of_demsar(demsar):
    strict, loose = (critical_difference(demsar, method="nemenyi", alpha=alpha) for alpha in (0.05, 0.1))
    # Printed: 1.25 and 1.12. At .10 C4.5 is worse than +m and +m+cf (1.143 and 1.179), the data cannot place +cf.
    assert (strict.difference, loose.difference) == pytest.approx((1.25, 1.12), abs=0.006)
    assert strict.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    assert loose.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))
    assert list(loose.mean_ranks) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    for pair in strict.pairs:
        assert (abs(pair.rank_difference) >= strict.difference) == (pair.p_value <= 0.05)
        assert pair.rank_difference <= 0 and pair.adjusted_p == pair.p_value


def test_wilcoxon_pairs_are_signed_rank_tests_under_holm(answers):
    scores = np.array(answers["scores.rows_are_datasets"])
    found = critical_difference(scores)
    assert found.difference is None and len(found.pairs) == 10
    by_pair = {frozenset((pair.first, pair.second)): pair for pair in found.pairs}
    assert by_pair[frozenset("14")].p_value == signed_rank(scores[:, 4] - scores[:, 1], zeros="pratt").p_value
    assert by_pair[frozenset("03")].p_value == pytest.approx(answers["wilcoxon_exact_4_vs_1.p"][0], abs=1e-12)
    smallest = min(pair.p_value for pair in found.pairs)
    assert min(pair.adjusted_p for pair in found.pairs) == pytest.approx(10 * smallest)
    for pair in found.pairs:
        assert pair.differ == (pair.adjusted_p <= 0.05)
        # Groups hold exactly the pairs that do not differ.
        assert any({pair.first, pair.second} <= set(group) for group in found.groups) == (not pair.differ)


def test_a_pair_has_the_p_value_of_its_verdict_where_data_sets_tie():
    differences = np.array([0.0, -0.1, -0.2, 0.3, 0.4, 0.5, 0.6])
    (pair,) = critical_difference(np.stack([np.zeros(7), differences], axis=1)).pairs
    assert pair.p_value == in_general(differences, 0.0).p_value != signed_rank(differences, zeros="wilcox").p_value


def test_groups_are_the_largest_sets_without_a_difference():
    # 0 and 1 differ from 3 and 4, 2 from none: two bars that share 2.
    noise = np.random.default_rng(0).normal(0, 1, (12, 5))
    found = critical_difference(noise + np.array([0.0, 0.0, 2.0, 4.0, 4.0]) + 20 * noise[:, :1] * [0, 0, 1, 0, 0])
    differing = {frozenset((pair.first, pair.second)) for pair in found.pairs if pair.differ}
    assert differing == {frozenset(pair) for pair in ("03", "04", "13", "14")}
    assert {frozenset(group) for group in found.groups} == {frozenset("012"), frozenset("234")}
    # Within a group, best first.
    assert all(list(group) == sorted(group, key=found.mean_ranks.get) for group in found.groups)


def test_ranks_follow_what_is_better():
    errors = np.array([[0.1, 0.2, 0.3], [0.2, 0.1, 0.3]])
    assert friedman(errors, higher_is_better=False).mean_ranks == {"0": 1.5, "1": 1.5, "2": 3.0}
    assert friedman(errors).mean_ranks == {"0": 2.5, "1": 2.5, "2": 1.0}
    assert friedman(errors, higher_is_better=False).chi2 == friedman(-errors).chi2


def test_a_ledgers_metric_knows_what_is_better():
    rows = [(v, d, 0, value) for d in "abc" for v, value in (("x", 0.1), ("y", 0.3))]
    table = pd.DataFrame(rows, columns=["variant_id", "dataset", "seed", "test.brier"])
    assert friedman(table, metric="brier").mean_ranks == {"x": 1.0, "y": 2.0}
    assert friedman(table, metric="brier", higher_is_better=True).mean_ranks == {"x": 2.0, "y": 1.0}
    assert list(critical_difference(table, metric="brier").mean_ranks) == ["x", "y"]


def test_friedman_is_scipys():
    values = np.random.default_rng(3).integers(0, 4, (9, 4)).astype(float)
    theirs = stats.friedmanchisquare(*values.T)
    ours = friedman(values)
    assert (ours.chi2, ours.p_value) == pytest.approx((theirs.statistic, theirs.pvalue), abs=1e-12)


def test_data_sets_that_all_rank_alike():
    test = friedman(np.arange(12.0).reshape(4, 3))
    assert test.chi2 == 8.0 and test.statistic_f == math.inf
    assert test.p_value_f == pytest.approx(6.0**-3)
    # Two of three tied for the first place stand in 3 orders, not in 3!.
    assert friedman([[0.9, 0.9, 0.1]] * 3).p_value_f == pytest.approx(3.0**-2)


def test_identical_variants_tie():
    for k in (2, 3):
        same = np.repeat([[0.5], [0.7], [0.6]], k, axis=1)
        test = friedman(same)
        assert (test.chi2, test.p_value, test.statistic_f, test.p_value_f) == (0.0, 1.0, 0.0, 1.0)
        for method in ("wilcoxon", "nemenyi"):
            found = critical_difference(same, method=method)
            assert len(found.groups) == 1 and all(pair.p_value == 1.0 for pair in found.pairs)


def test_one_data_set_shows_nothing():
    test = friedman([[0.1, 0.2, 0.3]])
    assert (test.n, test.p_value_f, test.p_value) == (1, 1.0, 1.0)
    assert friedman([[0.1, 0.1, 0.3]], correct_ties=False).p_value_f == 1.0
    assert not any(pair.differ for pair in critical_difference([[0.1, 0.2, 0.3]], method="nemenyi").pairs)


def test_incomplete_data_sets_are_counted_and_left_out():
    values = np.array([[0.1, 0.2, 0.3], [math.nan, 0.1, 0.3], [0.3, 0.2, 0.4]])
    test, found = friedman(values), critical_difference(values)
    assert (test.n, test.n_incomplete, found.n, found.n_incomplete) == (2, 1, 2, 1)
    assert test.chi2 == friedman(values[[0, 2]]).chi2


def test_a_table_of_cells_is_averaged_over_seeds():
    rows = [
        {"variant_id": v, "dataset": d, "seed": s, "status": "done", "test.macro_f1": base + 0.01 * s}
        for (d, v), base in {("a", "x"): 0.5, ("a", "y"): 0.6, ("b", "x"): 0.8, ("b", "y"): 0.7}.items()
        for s in range(3)
    ]
    assert friedman(pd.DataFrame(rows), metric="macro_f1").mean_ranks == {"x": 1.5, "y": 1.5}
    assert list(critical_difference(pd.DataFrame(rows), metric="macro_f1").mean_ranks) == ["x", "y"]


def test_a_seed_that_one_variant_lacks_ranks_no_other():
    # y is better on every seed that both have; the seeds on which it failed are easier.
    rows = [
        {"variant_id": v, "dataset": f"d{d}", "seed": s, "status": "done", "test.macro_f1": value + 0.05 * (s > 1)}
        for d in range(8)
        for v, value in (("x", 0.7), ("y", 0.71), ("z", 0.6))
        for s in range(2 if v == "y" else 5)
    ]
    table = pd.DataFrame(rows)
    assert friedman(table, metric="macro_f1").mean_ranks == {"x": 2.0, "y": 1.0, "z": 3.0}
    found = critical_difference(table, metric="macro_f1")
    assert found.mean_ranks == {"y": 1.0, "x": 2.0, "z": 3.0} and all(pair.differ for pair in found.pairs)
    apart = table[(table["dataset"] != "d0") | ((table["seed"] == 0) == (table["variant_id"] == "y"))]
    assert (critical_difference(apart, metric="macro_f1").n, friedman(apart, metric="macro_f1").n_incomplete) == (7, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: friedman([[0.1], [0.2]]), r"at least two variants \(columns\), got 1"),
        (lambda: friedman([[0.1, math.nan]]), "that every variant finished, got none of 1"),
        (lambda: friedman(np.zeros((0, 3))), "got none of 0"),
        (lambda: friedman(pd.DataFrame({"a": ["x"], "b": [1.0]})), "must hold numbers, data sets × variants"),
        (lambda: friedman(pd.DataFrame({"variant_id": ["x"], "dataset": ["d"]})), "metric must be named"),
        (lambda: critical_difference([[0.1, 0.2]], method="tukey"), "wilcoxon or nemenyi, got 'tukey'"),
        (lambda: critical_difference([[0.1, 0.2]], alpha=1.0), "alpha must be between 0 and 1, got 1.0"),
        (lambda: hodges_lehmann([]), "at least one value"),
    ],
)
def test_bad_tables_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
