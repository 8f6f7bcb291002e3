"""Tests on ranks over data sets: signed-rank of two variants, Friedman of several, and which pairs differ.

The unit is the data set, its seeds averaged. The uncertainty is that over data sets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.across.mean_tests import Alternative, check_alternative, checked_differences
from analysis.across.multiplicity import adjust
from analysis.distributions import normal_quantile, normal_tail, ranks
from analysis.interval import Interval
from analysis.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from analysis.records.table import Matrix

# Counts of sign patterns are exact in float64 up to 2^53; beyond 50 pairs the normal approximation is as good.
EXACT_PAIRS = 50
# Differences equal to ten digits are ties: means over seeds carry rounding noise that would order them by chance.
DIGITS = 10
# Below this share of its range a quantity is 0: the rest is rounding.
TINY = 1e-12


@dataclass(frozen=True)
class SignedRank:
    """A signed-rank test: rank sums of positive and negative differences, p value, pairs used and zeros among them."""

    positive: float
    negative: float
    p_value: float
    n: int
    n_zeros: int
    method: Literal["exact", "normal"]

    @property
    def effect(self) -> float:
        """Matched-pairs rank-biserial correlation, −1 … 1; 0 where all differences are zero."""
        total = self.positive + self.negative
        return (self.positive - self.negative) / total if total else 0.0


@dataclass(frozen=True)
class Location:
    """The Hodges–Lehmann estimate, the median of the means of all pairs, with the signed-rank test's own interval."""

    estimate: float
    interval: Interval


@dataclass(frozen=True)
class Friedman:
    """Friedman's test: chi2 with its p, Iman and Davenport's F with its p, and each variant's mean rank (1 is best).

    statistic_f is infinite where all data sets rank alike.
    """

    chi2: float
    p_value: float
    statistic_f: float
    p_value_f: float
    df: tuple[int, int]
    mean_ranks: dict[str, float]
    n: int
    n_incomplete: int


@dataclass(frozen=True)
class RankedPair:
    """A pair of variants: the difference of their mean ranks (negative: the first is better), p, and verdict at α."""

    first: str
    second: str
    rank_difference: float
    p_value: float
    adjusted_p: float
    differ: bool


@dataclass(frozen=True)
class CriticalDifference:
    """What a critical-difference diagram shows: mean ranks, pairs, and groups of variants that do not differ.

    difference: the mean ranks' critical difference (Nemenyi), None where pairs are tested one by one. groups: the
    largest such sets of two and more, best first; each is a bar of the diagram. over: what n counts, "source" where
    files of one source were averaged.
    """

    method: Literal["nemenyi", "wilcoxon"]
    alpha: float
    mean_ranks: dict[str, float]
    difference: float | None
    pairs: tuple[RankedPair, ...]
    groups: tuple[tuple[str, ...], ...]
    n: int
    n_incomplete: int
    over: str = "data set"


def signed_rank(
    differences: Sequence[float] | np.ndarray,
    zeros: Literal["wilcox", "pratt"] = "wilcox",
    alternative: Alternative = "two-sided",
) -> SignedRank:
    """Wilcoxon's signed-rank test of paired differences, one per data set: the uncertainty is that over data sets.

    Exact with ties and zeros up to 50 pairs: the distribution of the rank sum over all equally likely signs, by dynamic
    programming on doubled mid-ranks. Beyond, the normal approximation with the variance of the tied ranks, without
    continuity correction. zeros: "wilcox" drops zero differences before ranking, "pratt" ranks them and then drops
    their ranks (Pratt 1959). Differences that agree to ten digits of the largest are ties. All zero: p = 1.

    alternative "greater": differences tend to be above zero. Raises ValueError for no difference, or one not finite.
    """
    values = checked_differences(differences)
    if zeros not in ("wilcox", "pratt"):
        raise ValueError(f"zeros must be wilcox or pratt, got {zeros!r}")
    check_alternative(alternative)
    largest = np.abs(values).max()
    size = np.round(np.abs(values) / (largest or 1.0), DIGITS)
    nonzero = size > 0
    if not nonzero.any():
        return SignedRank(0.0, 0.0, 1.0, 0, len(values), "exact")
    doubled = np.rint(2 * ranks(size if zeros == "pratt" else size[nonzero])).astype(np.int64)
    if zeros == "pratt":
        doubled = doubled[nonzero]
    positive = int(doubled[values[nonzero] > 0].sum())
    exact = len(doubled) <= EXACT_PAIRS
    at_most, at_least = (_exact_tails if exact else _normal_tails)(doubled, positive)
    p = {"greater": at_least, "less": at_most, "two-sided": min(1.0, 2 * min(at_most, at_least))}[alternative]
    return SignedRank(
        positive=positive / 2,
        negative=(int(doubled.sum()) - positive) / 2,
        p_value=p,
        n=len(doubled),
        n_zeros=len(values) - len(doubled),
        method="exact" if exact else "normal",
    )


def _exact_tails(doubled: np.ndarray, positive: int) -> tuple[float, float]:
    """Probability of a doubled positive rank sum at most, and at least, the observed one, over all 2^n signs."""
    patterns = _patterns(doubled)
    total = 2.0 ** len(doubled)
    return float(patterns[: positive + 1].sum() / total), float(patterns[positive:].sum() / total)


def _patterns(doubled: np.ndarray) -> np.ndarray:
    """How many of the 2^n signs give each doubled rank sum 0, 1, 2 …, by dynamic programming."""
    patterns = np.zeros(int(doubled.sum()) + 1)
    patterns[0] = 1.0
    for rank in doubled:
        patterns[rank:] = patterns[rank:] + patterns[:-rank]
    return patterns


def _normal_tails(doubled: np.ndarray, positive: int) -> tuple[float, float]:
    """Probability of a positive rank sum at most, and at least, the observed one, by the normal approximation."""
    # Each rank joins the sum or does not, with probability ½: the variance is a quarter of its square, ties included.
    z = (positive - doubled.sum() / 2) / math.sqrt(float(np.square(doubled, dtype=np.float64).sum()) / 4)
    return normal_tail(-z), normal_tail(z)


def hodges_lehmann(differences: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Location:
    """The pseudo-median of paired differences, one per data set, with the interval that the signed-rank test accepts.

    Uncertainty over data sets, for symmetric differences. Without ties the interval leaves out 0 exactly where the
    two-sided test has p ≤ 1 − level; with ties it is conservative. Fewer data sets than can ever reach that p (six for
    .95) have no interval. Exact up to 50 data sets, then by the normal approximation.
    """
    values = checked_differences(differences)
    n = len(values)
    rows, columns = np.triu_indices(n)
    averages = np.sort((values[rows] + values[columns]) / 2)
    cut = averages_cut(n, (1 - level) / 2)
    ends = (averages[cut - 1], averages[-cut]) if cut > 0 else (math.nan, math.nan)
    return Location(float(np.median(averages)), Interval(float(ends[0]), float(ends[1]), level, "data sets", n))


def averages_cut(n: int, tail: float) -> int:
    """How many of the n (n + 1) / 2 pairwise averages, at most, may lie beyond 0 for the test to reject.

    tail: the level of one side. Differences above 0 are found where the average of this rank, from below, is above 0.
    0: nothing is ever found. For n untied differences, exact up to 50, then by the normal approximation.
    """
    if n <= EXACT_PAIRS:
        below = np.cumsum(_patterns(2 * np.arange(1, n + 1)))[::2] / 2.0**n
        return int(np.searchsorted(below, tail, side="right"))
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return math.floor(n * (n + 1) / 4 + normal_quantile(tail) * spread) + 1


def friedman(
    table: Matrix, *, metric: str | None = None, higher_is_better: bool | None = None, correct_ties: bool = True
) -> Friedman:
    """Friedman's test of whether several variants rank alike over data sets, with Iman and Davenport's F.

    table: values (data sets, variants), or a ledger's table with `metric`, averaged over the seeds on which every
    variant finished and over the files of each source, which count as one data set. Ranks within each data set, 1 for
    the best, ties shared; values equal to ten digits tie. Data sets that lack a variant, or have no such seed, are left
    out and counted. higher_is_better: by default the metric's own direction, True where no metric is named.
    correct_ties=False leaves out the correction for ties (as in Demšar 2006). F = (n − 1) χ² / (n (k − 1) − χ²) with k
    − 1 and (k − 1)(n − 1) degrees of freedom (Iman & Davenport 1980). Where all data sets rank alike F is infinite and
    its p is the chance of that, (1 / orders)^(n − 1), with the k! / Π t! orders in which ranks with these ties can
    stand. All values tied, or one data set: p = 1.

    Raises ValueError for fewer than two variants, and when no data set is complete.
    """
    from analysis.records.table import as_matrix

    values, n_incomplete = as_matrix(table, metric)
    ranked = _ranks(values.to_numpy(), metric, higher_is_better)

    # Late, here and below: it takes a second to import.
    from scipy import stats

    n, k = ranked.shape
    means = ranked.mean(axis=0)
    chi2 = 12 * n / (k * (k + 1)) * float(np.square(means - (k + 1) / 2).sum())
    if correct_ties:
        # Σ(t³ − t) over groups of ties, from the ranks' lost variance.
        lost = n * (k**3 - k) / 12 - float(np.square(ranked - (k + 1) / 2).sum())
        share = 1 - 12 * lost / (n * (k**3 - k))
        chi2 = chi2 / share if share > TINY else 0.0
    df = (k - 1, (k - 1) * (n - 1))
    room = n * (k - 1) - chi2
    if room > TINY * n * k:
        statistic_f = (n - 1) * chi2 / room
        p_value_f = float(stats.f.sf(statistic_f, *df)) if n > 1 else 1.0
    else:
        ties = np.unique(ranked[0], return_counts=True)[1]
        orders = math.lgamma(k + 1) - sum(math.lgamma(tied + 1) for tied in ties)
        statistic_f, p_value_f = math.inf, math.exp((1 - n) * orders)
    return Friedman(
        chi2=chi2,
        p_value=float(stats.chi2.sf(chi2, k - 1)) if n > 1 else 1.0,
        statistic_f=statistic_f,
        p_value_f=p_value_f,
        df=df,
        mean_ranks={str(name): float(rank) for name, rank in zip(values.columns, means)},
        n=n,
        n_incomplete=n_incomplete,
    )


def critical_difference(
    table: Matrix,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    method: Literal["wilcoxon", "nemenyi"] = "wilcoxon",
    higher_is_better: bool | None = None,
) -> CriticalDifference:
    """Which pairs of variants differ over data sets, as a critical-difference diagram shows it.

    "wilcoxon": exact signed-rank tests of all pairs under Holm, zeros by Pratt as in verdicts; to be preferred: whether
    two variants differ does not depend on the others (Benavoli et al. 2016). "nemenyi": the studentized range of mean
    ranks (Demšar 2006), with one critical difference for all. table as for `friedman`. Uncertainty over data sets.
    """
    if method not in ("wilcoxon", "nemenyi"):
        raise ValueError(f"method must be wilcoxon or nemenyi, got {method!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha!r}")
    from analysis.records.table import as_matrix

    values, n_incomplete = as_matrix(table, metric)
    data = values.to_numpy()
    n, k = data.shape
    means = _ranks(data, metric, higher_is_better).mean(axis=0)
    names = [str(name) for name in values.columns]
    order = sorted(range(k), key=lambda i: (means[i], i))
    pairs = list(combinations(order, 2))
    error = math.sqrt(k * (k + 1) / (12 * n))
    difference = None
    if method == "nemenyi":
        from scipy import stats

        difference = float(stats.studentized_range.isf(alpha, k, math.inf)) * error
        p_values = [float(stats.studentized_range.sf(abs(means[i] - means[j]) / error, k, math.inf)) for i, j in pairs]
        # Its integration may leave 0 … 1 by rounding. The studentized range holds the family already.
        adjusted = p_values = [min(1.0, max(0.0, p)) for p in p_values]
    else:
        p_values = [signed_rank(data[:, i] - data[:, j], zeros="pratt").p_value for i, j in pairs]
        adjusted = list(adjust(p_values, "holm"))
    ranked = tuple(
        RankedPair(names[i], names[j], float(means[i] - means[j]), p, a, a <= alpha)
        for (i, j), p, a in zip(pairs, p_values, adjusted)
    )
    alike = [(pair.first, pair.second) for pair in ranked if not pair.differ]
    return CriticalDifference(
        method=method,
        alpha=alpha,
        mean_ranks={names[i]: float(means[i]) for i in order},
        difference=difference,
        pairs=ranked,
        groups=_groups([names[i] for i in order], alike),
        n=n,
        n_incomplete=n_incomplete,
        over=_unit(table),
    )


def _unit(table: Matrix) -> str:
    from analysis.records.sources import unit_noun
    from analysis.records.table import is_ledger, sources_of

    if not hasattr(table, "columns") or not is_ledger(table):
        return "data set"
    sources = sources_of(table)
    return unit_noun(sources, sources)


def _ranks(values: np.ndarray, metric: str | None, higher_is_better: bool | None) -> np.ndarray:
    """Ranks within rows, 1 for the best, ties shared."""
    if higher_is_better is None:
        higher_is_better = metric is None or metric.removeprefix("test.") not in LOWER_IS_BETTER
    rounded = np.round(values / (np.abs(values).max() or 1.0), DIGITS)
    return np.array([ranks(-row if higher_is_better else row) for row in rounded])


def _groups(names: Sequence[str], alike: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """The largest sets of two and more names that are pairwise alike, in the names' order."""
    import networkx  # Late: it takes a seventh of a second, and only a diagram needs it.

    places = {name: place for place, name in enumerate(names)}
    found = networkx.find_cliques(networkx.Graph(alike))
    return tuple(
        sorted(
            (tuple(sorted(group, key=places.__getitem__)) for group in found),
            key=lambda group: [places[name] for name in group],
        )
    )
