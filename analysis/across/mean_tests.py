"""Tests of a mean over data sets: t, sign flips, and equivalence within a margin.

Each takes paired differences, one per data set, its seeds averaged. The uncertainty is that over data sets: it holds
for data sets like these, drawn anew, with as many seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.distributions import t_quantile, t_tail
from analysis.interval import Interval, check_generator

Alternative = Literal["two-sided", "greater", "less"]
# 2^20 sign patterns take about ten milliseconds; each further difference doubles that.
EXACT_FLIPS = 20
# Sums that agree to ten digits are equal: they differ only by the order of addition.
TOLERANCE = 1e-10


@dataclass(frozen=True)
class MeanTest:
    """A t test of a mean over data sets. t is infinite where all differences are the same nonzero number."""

    estimate: float
    interval: Interval
    standard_deviation: float
    t: float
    df: int
    p_value: float
    n: int


@dataclass(frozen=True)
class SignFlip:
    """A sign-flip test of a mean over data sets; draws: sign patterns examined, all of them where exact."""

    estimate: float
    p_value: float
    n: int
    n_zeros: int
    draws: int
    method: Literal["exact", "random"]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t tests of a mean against −margin and +margin.

    p_value is the larger of the two; interval has the level 1 − 2α and lies within the margin exactly where
    `equivalent`.
    """

    estimate: float
    margin: float
    p_below: float
    p_above: float
    p_value: float
    interval: Interval
    equivalent: bool
    n: int


def t_over_means(
    differences: Sequence[float] | np.ndarray, *, alternative: Alternative = "two-sided", level: float = 0.95
) -> MeanTest:
    """Student's t test of paired differences, one per data set, with a two-sided interval: uncertainty over data sets.

    One data set carries no information on their spread: p = 1 and no interval. All differences zero: p = 1, the
    interval is [0, 0]. All differences one other number: the limit, p = 0 (1 on the other side), an interval of zero
    width. Raises ValueError for no difference, or one not finite.
    """
    values = checked_differences(differences)
    check_alternative(alternative)
    n, estimate = len(values), float(values.mean())
    spread, t = _studentised(values, 0.0)
    tails = {"greater": _t_sf(t, n - 1), "less": _t_sf(-t, n - 1), "two-sided": min(1.0, 2 * _t_sf(abs(t), n - 1))}
    return MeanTest(estimate, _t_interval(values, level), spread, t, n - 1, tails[alternative], n)


def sign_flip(
    differences: Sequence[float] | np.ndarray,
    *,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    draws: int = 100_000,
) -> SignFlip:
    """Sign-flip test of mean paired differences, one per data set: under the null hypothesis each sign is arbitrary.

    Exact over all 2^n sign patterns for up to 20 nonzero differences (the sign of a zero changes nothing), without use
    of rng. Beyond that, `draws` random patterns, the observed one counted among them (Phipson & Smyth 2010): p is
    never 0. The uncertainty is that over data sets. All zero, or a single one: p = 1.
    """
    values = checked_differences(differences)
    check_alternative(alternative)
    check_generator(rng)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    nonzero = values[values != 0]
    exact = len(nonzero) <= EXACT_FLIPS
    if exact:
        sums = np.zeros(1)
        for value in nonzero:
            sums = np.concatenate([sums + value, sums - value])
        extra = 0
    else:
        sums, extra = _random_sums(nonzero, draws, rng), 1
    observed, slack = nonzero.sum(), TOLERANCE * np.abs(nonzero).sum()
    extreme = {
        "greater": sums >= observed - slack,
        "less": sums <= observed + slack,
        "two-sided": np.abs(sums) >= abs(observed) - slack,
    }[alternative]
    p = (int(extreme.sum()) + extra) / (len(sums) + extra)
    n_zeros = len(values) - len(nonzero)
    return SignFlip(float(values.mean()), p, len(nonzero), n_zeros, len(sums), "exact" if exact else "random")


def tost(differences: Sequence[float] | np.ndarray, margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Equivalence by two one-sided t tests (Schuirmann 1987): is the mean over data sets within ± the margin?

    The margin is the one declared before the study ran, in the metric's unit. Uncertainty over data sets. One data set:
    p = 1, never equivalent. All differences one number: p = 0 within the margin, else 1.
    """
    values = checked_differences(differences)
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be a finite number above 0, got {margin!r}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha!r}")
    n = len(values)
    p_below = _t_sf(_studentised(values, -margin)[1], n - 1)
    p_above = _t_sf(-_studentised(values, margin)[1], n - 1)
    p = max(p_below, p_above)
    return Equivalence(
        estimate=float(values.mean()),
        margin=margin,
        p_below=p_below,
        p_above=p_above,
        p_value=p,
        interval=_t_interval(values, 1 - 2 * alpha),
        equivalent=p <= alpha,
        n=n,
    )


def checked_differences(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    """The differences, (data sets,), as float64. Raises ValueError unless there is at least one and all are finite."""
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"differences must be one-dimensional with at least one value, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def check_alternative(alternative: str) -> None:
    """Raises ValueError for an alternative that no test here has."""
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative must be two-sided, greater or less, got {alternative!r}")


def t_interval(values: np.ndarray, level: float, over: str) -> Interval:
    """Student's interval for the mean of independent values; undefined for fewer than two."""
    n = len(values)
    if n < 2:
        return Interval(math.nan, math.nan, level, over, n)
    half = t_quantile((1 + level) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    mean = float(values.mean())
    return Interval(mean - half, mean + half, level, over, n)


def _t_interval(values: np.ndarray, level: float) -> Interval:
    return t_interval(values, level, "data sets")


def _studentised(values: np.ndarray, null: float) -> tuple[float, float]:
    """Standard deviation, and t of the mean's distance from `null`: 0 / 0 is 0, one value has NaN for both."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    spread, distance = float(values.std(ddof=1)), float(values.mean()) - null
    if spread == 0:
        return 0.0, math.copysign(math.inf, distance) if distance else 0.0
    return spread, distance / (spread / math.sqrt(n))


def _t_sf(t: float, df: int) -> float:
    """Upper tail of Student's t; 1 where a single value has none, so that nothing is ever concluded from it."""
    return 1.0 if math.isnan(t) else t_tail(t, df)


def _random_sums(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Sums of the values under random signs, (draws,), in slices that stay below some ten megabytes."""
    rows = max(1, 1_000_000 // len(values))
    slices = [min(rows, draws - start) for start in range(0, draws, rows)]
    return np.concatenate([(2.0 * rng.integers(0, 2, (size, len(values))) - 1) @ values for size in slices])
