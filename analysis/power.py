"""What a design can show, before it runs: smallest reachable p, detectable difference, data sets and seeds needed.

The unit is the data set: each gives one paired difference, its seeds averaged. The uncertainty is that over data sets.
Files of one source are averaged and count as one: wherever a number of data sets is asked for, sources are meant.
How far paired differences spread comes from a pilot's cells (`pilot_spread`) or is set by hand (`Spread`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

CORRECTIONS = ("holm", "bh", "none")
MOST_DATASETS = 100_000
SIMULATIONS = 20_000
# Beyond this the approximation is as close as the simulation.
SIMULATED_DATASETS = 20
# Beyond this two data sets have all the power there is.
HUGE_EFFECT = 1000.0


def smallest_p_signed_rank(n_datasets: int) -> float:
    """The smallest two-sided p of an exact signed-rank test: all n differences of one sign, without ties or zeros."""
    _at_least("n_datasets", n_datasets, 1)
    return min(1.0, 2.0 * 0.5**n_datasets)


def smallest_adjusted_p(n_datasets: int, family_size: int = 1, correction: str = "holm") -> float:
    """The smallest adjusted p that one of `family_size` signed-rank contrasts can reach on n data sets.

    Holm multiplies the smallest p by the size of the family, whatever the others are. Benjamini–Hochberg ("bh") does so
    only while the others are large; its floor, with every contrast at its smallest p, is that p itself.
    """
    _at_least("family_size", family_size, 1)
    _known(correction)
    factor = family_size if correction == "holm" else 1
    return min(1.0, factor * smallest_p_signed_rank(n_datasets))


def signed_rank_power(effect: float, n: int, alpha: float = 0.05) -> float:
    """The chance that the two-sided signed-rank test of n normal differences finds their mean, on its own side.

    effect: the mean, in standard deviations. Up to 20 data sets by a simulation of the exact test, the same at each
    call, with a standard error of .003. Beyond that, the power of the t test with 3 / π of the data sets: the relative
    efficiency of the signed-rank test where differences are normal (Hodges & Lehmann 1956).
    """
    _at_least("n", n, 2)
    _share("alpha", alpha)
    if not (math.isfinite(effect) and effect >= 0):
        raise ValueError(f"effect must be a finite number of at least 0, got {effect!r}")
    if n > SIMULATED_DATASETS:
        return _large_sample_power(effect, n, alpha)
    return float(np.searchsorted(_found_from(n, alpha), effect, side="right") / SIMULATIONS)


def _large_sample_power(effect: float, n: int, alpha: float) -> float:
    from scipy import stats

    as_many = n * 3 / math.pi
    return float(stats.nct.sf(stats.t.isf(alpha / 2, as_many - 1), as_many - 1, effect * math.sqrt(as_many)))


@lru_cache(maxsize=64)
def _found_from(n: int, alpha: float) -> np.ndarray:
    """The means from which simulated sets of n standard normal differences are found, in order: (simulations,).

    The test finds a mean above 0 where the pairwise average of a certain rank is above 0, and a mean shifts them all.
    """
    from analysis.across.rank_tests import averages_cut

    cut = averages_cut(n, alpha / 2)
    if cut == 0:
        return np.full(SIMULATIONS, math.inf)
    # This is a table of the test, not a study's draw: the same numbers each time keep a plan steady.
    values = np.random.default_rng(0).standard_normal((SIMULATIONS, n))
    rows, columns = np.triu_indices(n)
    averages = (values[:, rows] + values[:, columns]) / 2
    averages.partition(cut - 1, axis=1)
    return np.sort(-averages[:, cut - 1])


def detectable_effect(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest standardised paired effect dz (mean / standard deviation of differences) found with this power.

    Signed-rank test over n data sets, as verdicts use it; alpha is the level of one contrast (with Holm over m of them,
    at worst α / m). dz refers to the spread over data sets, which more seeds shrink only as far as seeds cause it.
    Infinite where the test's smallest p is above alpha: no difference, however large, can be shown.
    """
    _at_least("n", n, 2)
    _share("alpha", alpha)
    _share("power", power)
    if power <= alpha:
        raise ValueError(f"power must be above alpha, got {power} and {alpha}")
    if n <= SIMULATED_DATASETS:
        return float(_found_from(n, alpha)[math.ceil(power * SIMULATIONS) - 1])
    from scipy.optimize import brentq

    high = 1.0
    while _large_sample_power(high, n, alpha) < power:
        high *= 2
    return float(brentq(lambda effect: _large_sample_power(effect, n, alpha) - power, 0.0, high, xtol=1e-12))


def datasets_needed(
    effect: float, alpha: float = 0.05, power: float = 0.8, family_size: int = 1, correction: str = "holm"
) -> int:
    """The fewest data sets on which the signed-rank test finds a standardised paired effect dz with this power.

    The level is α / family_size (the first step of Holm, the worst case of "bh"; α with "none").
    """
    if not (math.isfinite(effect) and effect > 0):
        raise ValueError(f"effect must be a finite number above 0, got {effect!r}")
    level = _level(alpha, family_size, correction)
    _share("power", power)
    low = SIMULATED_DATASETS
    if signed_rank_power(effect, low, level) >= power:
        return next(n for n in range(2, low + 1) if signed_rank_power(effect, n, level) >= power)
    # Power grows with n: double until it suffices, then bisect.
    high = 2 * low
    while signed_rank_power(effect, high, level) < power:
        low, high = high, 2 * high
        if high > MOST_DATASETS:
            raise ValueError(f"effect must be large enough for {MOST_DATASETS} data sets to find it, got {effect!r}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if signed_rank_power(effect, middle, level) >= power else (middle, high)
    return high


@dataclass(frozen=True)
class Spread:
    """Standard deviations of one cell's metric, without what paired variants share (data set and seed).

    dataset_variant: how differently variants suit data sets; more seeds do not shrink it. residual: between training
    runs. The rest says what a pilot's estimate rests on: n_datasets, n_variants, n_seeds (most on one data set),
    all 0 where set by hand; separated is False where one seed left both in dataset_variant.
    """

    dataset_variant: float
    residual: float
    n_datasets: int = 0
    n_variants: int = 0
    n_seeds: int = 0
    separated: bool = True

    def __post_init__(self) -> None:
        for name in ("dataset_variant", "residual"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")

    def of_difference(self, n_seeds: int) -> float:
        """Standard deviation over data sets of the difference between two variants, means over n paired seeds."""
        _at_least("n_seeds", n_seeds, 1)
        return math.sqrt(2 * (self.dataset_variant**2 + self.residual**2 / n_seeds))


def pilot_spread(table: pd.DataFrame, metric: str, *, variants: list[str] | None = None) -> Spread:
    """The spread of a metric in a pilot's finished cells, by moments of all paired differences between variants.

    On each data set two variants' differences vary over their common seeds (twice the residual variance); their means
    vary over data sets by that, divided by the seeds, and by twice the variance of data set × variant, which is 0 where
    the former explains it all. Files of one source are averaged to one data set. Every pair of variants with two data
    sets weighs by its degrees of freedom. With one seed everywhere the two cannot be told apart: all is taken for data
    set × variant, so that a plan does not hope for more seeds. Raises ValueError when no two variants share two data
    sets.
    """
    from analysis.records.sources import averaged
    from analysis.records.table import finished_cells, sources_of

    cells = finished_cells(table, metric)
    sources = sources_of(cells)
    if variants is not None:
        absent = [variant for variant in variants if variant not in set(cells["variant_id"])]
        if absent:
            raise ValueError(f"variants must have a finished cell, got none of {', '.join(absent)}")
        cells = cells[cells["variant_id"].isin(variants)]
    values = cells.pivot(index=["dataset", "seed"], columns="variant_id", values="value")
    within, within_df, between, between_df, expected = 0.0, 0, 0.0, 0, 0.0
    datasets: set[str] = set()
    for first, second in combinations(values.columns, 2):
        differences = (values[second] - values[first]).dropna().groupby(level="dataset")
        counts = differences.size()
        # Files of one source are one data set with as many more seeds.
        means = np.array(list(averaged(differences.mean().to_dict(), sources).values()))
        if len(means) < 2:
            continue
        datasets |= {sources[name] for name in counts.index}
        within += float((differences.var(ddof=0) * counts).sum())
        within_df += int((counts - 1).sum())
        between += float(means.var(ddof=1)) * (len(means) - 1)
        between_df += len(means) - 1
        expected += float(np.mean(_shares(counts, sources))) * (len(means) - 1)
    if between_df == 0:
        raise ValueError(
            f"table must have two variants that share two data sets, got {len(values.columns)} variants on "
            f"{cells['dataset'].nunique()} data sets"
        )
    separated = within_df > 0
    residual = within / within_df / 2 if separated else 0.0
    interaction = max(0.0, between / between_df / 2 - residual * expected / between_df)
    return Spread(
        dataset_variant=math.sqrt(interaction),
        residual=math.sqrt(residual),
        n_datasets=len(datasets),
        n_variants=len(values.columns),
        n_seeds=int(values.notna().any(axis=1).groupby(level="dataset").sum().max()),
        separated=separated,
    )


def _shares(counts: pd.Series, sources: Mapping[str, str]) -> list[float]:
    """The variance of each source's mean difference, in variances of one seed's: seeds and files are averaged."""
    from analysis.records.sources import files_by_source

    return [
        sum(1 / counts[name] for name in files) / len(files) ** 2 for files in files_by_source(counts.index, sources)
    ]


def detectable_difference(
    spread: Spread,
    n_datasets: int,
    n_seeds: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    family_size: int = 1,
    correction: str = "holm",
) -> float:
    """The smallest mean difference, in the metric's unit, that this many data sets and paired seeds find.

    Infinite where the signed-rank test's smallest p is above the level of `datasets_needed`.
    """
    effect = detectable_effect(n_datasets, _level(alpha, family_size, correction), power)
    return effect if math.isinf(effect) else effect * spread.of_difference(n_seeds)


def detectable_on_these(
    table: pd.DataFrame,
    metric: str,
    n_seeds: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    family_size: int = 1,
    correction: str = "holm",
) -> float:
    """The smallest mean difference on the pilot's own data sets that n paired seeds on each find, in the metric's unit.

    By the spread of paired differences over seeds, a mean over all pairs of variants, with t of as many degrees of
    freedom as Satterthwaite's rule gives; power of the noncentral t. What test images do to all seeds alike is not in
    that spread: the true number is larger. Raises ValueError where no two variants share two seeds on every data set.
    """
    from scipy import optimize, stats

    from analysis.records.sources import files_by_source
    from analysis.records.table import finished_cells, sources_of

    _at_least("n_seeds", n_seeds, 2)
    level = _level(alpha, family_size, correction)
    cells = finished_cells(table, metric)
    values = cells.pivot(index=["dataset", "seed"], columns="variant_id", values="value")
    pairs = list(combinations(values.columns, 2))
    spreads = [(values[b] - values[a]).dropna().groupby(level="dataset").var(ddof=1) for a, b in pairs]
    units = files_by_source(cells["dataset"].unique(), sources_of(cells))
    shares = []
    for files in units:
        for name in files:
            known = [spread[name] for spread in spreads if name in spread and not math.isnan(spread[name])]
            if not known:
                raise ValueError(
                    f"table must have two variants that share two seeds on every data set, got none on {name}"
                )
            shares.append(float(np.mean(known)) / n_seeds / (len(files) * len(units)) ** 2)
    variances = np.array(shares)
    if not variances.any():
        return 0.0
    df = float(variances.sum() ** 2 / (variances**2).sum()) * (n_seeds - 1)
    needed = float(stats.t.isf(level / 2, df))
    shift = optimize.brentq(lambda effect: stats.nct.sf(needed, df, effect) - power, 0.0, 10 * needed + 10)
    return float(shift) * math.sqrt(float(variances.sum()))


def datasets_for_difference(
    difference: float,
    spread: Spread,
    n_seeds: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    family_size: int = 1,
    correction: str = "holm",
) -> int:
    """The fewest data sets that find a mean difference, in the metric's unit, with this many paired seeds on each."""
    _difference(difference)
    deviation = spread.of_difference(n_seeds)
    # Without any spread every difference is found: the floor decides.
    effect = difference / deviation if deviation > 0 else HUGE_EFFECT
    return datasets_needed(min(effect, HUGE_EFFECT), alpha, power, family_size, correction)


def seeds_for_difference(
    difference: float,
    spread: Spread,
    n_datasets: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    family_size: int = 1,
    correction: str = "holm",
) -> int | None:
    """The fewest paired seeds that find a mean difference on this many data sets; None where no number of them does.

    Seeds shrink the residual alone: what is left with endlessly many, data set × variant, only more data sets shrink.
    """
    _difference(difference)
    effect = detectable_effect(n_datasets, _level(alpha, family_size, correction), power)
    # difference ≥ effect · √(2 (σ² + ρ² / n)), solved for n.
    room = (difference / effect) ** 2 / 2 - spread.dataset_variant**2
    if room <= 0:
        return None
    # Slightly below, so that rounding does not demand one seed more than an exact hit needs.
    return max(1, math.ceil(spread.residual**2 / room * (1 - 1e-12)))


def _level(alpha: float, family_size: int, correction: str) -> float:
    """The level of one contrast of a family in which no other is found."""
    _share("alpha", alpha)
    _at_least("family_size", family_size, 1)
    _known(correction)
    return alpha if correction == "none" else alpha / family_size


def _known(correction: str) -> None:
    if correction not in CORRECTIONS:
        raise ValueError(f"correction must be one of {', '.join(CORRECTIONS)}, got {correction!r}")


def _difference(difference: float) -> None:
    if not (math.isfinite(difference) and difference > 0):
        raise ValueError(f"difference must be a finite number above 0, got {difference!r}")


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
