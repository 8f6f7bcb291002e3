"""Quantiles and tails of the distributions that every report needs, and ranks, numerically equal to scipy.stats.

From scipy.special, whose import takes a fifth of the time and memory; the tests compare each with scipy.stats.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special


def t_quantile(share: float, df: float) -> float:
    """The number below which this share of Student's t lies; the normal one with infinitely many degrees of freedom."""
    # For a share of 0 scipy.special would answer from the other end.
    return -math.inf if share == 0 and df > 0 else float(special.stdtrit(df, share))


def t_tail(value: float, df: float) -> float:
    """The share of Student's t above a number."""
    return float(special.stdtr(df, -value))


def normal_quantile(share: float) -> float:
    """The number below which this share of the normal distribution lies."""
    return float(special.ndtri(share))


def normal_tail(value: float) -> float:
    """The share of the normal distribution above a number."""
    return float(special.ndtr(-value))


def binomial_quantile(share: float, trials: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """The smallest number of successes, as floats, that this share of binomial draws does not exceed."""
    trials, chance = np.broadcast_arrays(np.asarray(trials, dtype=np.int64), np.asarray(chance, dtype=np.float64))
    low, high = np.full(trials.shape, -1.0), trials.astype(np.float64)
    # Bisection also finds it at chances of 0 and 1, where the smooth inverse of scipy.special has no answer.
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        enough = special.bdtr(middle, trials, chance) >= share
        high, low = np.where(enough & (middle > low), middle, high), np.where(enough, low, middle)
    return high


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values (n,), 1 for the smallest; tied values share the mean of their ranks."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]
