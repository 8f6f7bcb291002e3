"""Tests of a race, looked at again and again while results come in: which variants are behind the leader for good.

Blocks (a seed on a source) are run in random order, each for all variants that are still in. What is asked of a variant
is whether it would be worse than the leader in the mean over *all* blocks of the study, most of which have not run: the
uncertainty captured is that over the blocks still to come, nothing beyond the study's own data sets and seeds.

The error is held by alpha spending (Lan & DeMets 1983): each look spends a share of α that was fixed before, shared
evenly among the variants that may turn out to lead. By the union bound, whatever the dependence between looks and
variants, the chance that the variant with the best mean over all blocks is dropped is then at most α, as far as the
single test holds its level. That is a paired t test, whose variance is moderated over variants (Smyth 2004) because few
blocks say little about a single one's, with the correction for drawing from finitely many blocks (Cochran 1977, 2.8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

# A look follows once blocks have grown by this factor: a variant far behind goes early, and few looks share α.
GROWTH = 1.25
# The first look: with fewer blocks a variance, moderated or not, is a guess.
FIRST_LOOK = 4
# Differences below this share of the values' range are rounding.
TINY = 1e-12


@dataclass(frozen=True)
class Look:
    """What a look at a race found: the leader, and for each variant how far it is behind it and the one-sided p.

    leader: the place of the best mean, of equals the first. behind: (variants,), the leader's mean minus each one's.
    p_values: (variants,), 1 for the leader.
    """

    leader: int
    behind: np.ndarray
    p_values: np.ndarray


def look_times(n_blocks: int) -> list[int]:
    """The numbers of blocks after which a race of `n_blocks` is looked at; never after the last, where all is known."""
    times, due = [], FIRST_LOOK
    while due < n_blocks:
        times.append(due)
        due = max(due + 1, math.ceil(due * GROWTH))
    return times


def spent(share: float, alpha: float) -> float:
    """The error spent when a share of all blocks is in, after Lan & DeMets (1983) with Pocock's shape."""
    return alpha * math.log1p((math.e - 1) * share)


def level_at(place: int, times: list[int], n_blocks: int, n_variants: int, alpha: float) -> float:
    """The level of a single test at a look, by its place in `times`: the error spent there, over all rivals."""
    before = spent(times[place - 1] / n_blocks, alpha) if place else 0.0
    return (spent(times[place] / n_blocks, alpha) - before) / max(1, n_variants - 1)


def look(values: np.ndarray, n_blocks: int) -> Look:
    """A look at values (variants, blocks so far), higher being better, of a race of `n_blocks` in random order.

    p is that of a paired t test of the difference from the leader, one-sided: how often blocks in another order would
    let the leader look this much better, were both equal in the mean over all blocks. 1 where differences do not vary.
    Raises ValueError for fewer than two blocks, or values that are not numbers.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not 2 <= values.shape[1] <= n_blocks or not np.isfinite(values).all():
        raise ValueError(
            f"values must be finite, (variants, blocks) with 2 to {n_blocks} blocks, got shape {values.shape}"
        )
    n = values.shape[1]
    leader = int(np.argmax(values.mean(axis=1)))
    differences = values[leader] - values
    behind = differences.mean(axis=1)
    others = np.arange(len(values)) != leader
    p_values = np.ones(len(values))
    if others.any() and n < n_blocks:
        variances, df = moderated(differences[others].var(axis=1, ddof=1), n - 1, TINY * float(np.ptp(values)))
        errors = np.sqrt(variances * (1 / n - 1 / n_blocks))
        with np.errstate(divide="ignore", invalid="ignore"):
            p_values[others] = np.where(errors > 0, special.stdtr(df, -behind[others] / errors), 1.0)
    return Look(leader, behind, p_values)


def moderated(variances: np.ndarray, df: float, tiny: float = 0.0) -> tuple[np.ndarray, float]:
    """Variances (variants,) drawn towards what they have in common, and their degrees of freedom then.

    Smyth (2004), section 6.2: variances of variants are taken as scaled inverse chi-squared about a common value, whose
    two parameters are fitted to the first two moments of log variances. No more degrees of freedom result than all
    variances have together. Variances of at most `tiny`² are left out of the fit; where fewer than two remain, all
    stay as they are.
    """
    known = variances[variances > tiny**2]
    if len(known) < 2:
        return variances, df
    logs = np.log(known) - special.digamma(df / 2) + math.log(df / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, df / 2))
    most = float(df * len(known))
    if excess <= 0:
        return np.full_like(variances, math.exp(float(logs.mean()))), most
    prior = 2 * _trigamma_inverse(excess)
    common = math.exp(float(logs.mean()) + float(special.digamma(prior / 2)) - math.log(prior / 2))
    return (prior * common + df * variances) / (prior + df), min(prior + df, most)


def _trigamma_inverse(value: float) -> float:
    """The y with trigamma(y) = value, by Newton's method on 1 / trigamma, which is nearly a line (Smyth 2004)."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y
