"""What a design can show before it runs: smallest reachable p values, detectable effects, data sets needed.

The unit is the data set: each gives one paired difference, its seeds averaged. The uncertainty is that over data sets.
"""

import math

CORRECTIONS = ("holm", "bh", "none")
MOST_DATASETS = 100_000


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
    if correction not in CORRECTIONS:
        raise ValueError(f"correction must be one of {', '.join(CORRECTIONS)}, got {correction!r}")
    factor = family_size if correction == "holm" else 1
    return min(1.0, factor * smallest_p_signed_rank(n_datasets))


def paired_t_power(effect: float, n: int, alpha: float = 0.05) -> float:
    """Power of a two-sided paired t test of n normal differences with a mean of `effect` standard deviations."""
    from scipy import stats

    _at_least("n", n, 2)
    _share("alpha", alpha)
    if not (math.isfinite(effect) and effect >= 0):
        raise ValueError(f"effect must be a finite number of at least 0, got {effect!r}")
    critical = stats.t.isf(alpha / 2, n - 1)
    shift = effect * math.sqrt(n)
    # The lower tail as the mirrored upper one: scipy's nct.cdf is NaN far out on the left.
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.sf(critical, n - 1, -shift))


def detectable_effect(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest standardised paired effect dz (mean / standard deviation of differences) found with this power.

    Two-sided paired t test over n data sets; alpha is the level of one contrast (with Holm over m of them, at worst
    α / m). dz refers to the spread over data sets, which more seeds shrink only as far as seeds cause it.
    """
    from scipy.optimize import brentq

    _at_least("n", n, 2)
    _share("alpha", alpha)
    _share("power", power)
    if power <= alpha:
        raise ValueError(f"power must be above alpha, got {power} and {alpha}")
    high = 1.0
    while paired_t_power(high, n, alpha) < power:
        high *= 2
    return float(brentq(lambda effect: paired_t_power(effect, n, alpha) - power, 0.0, high, xtol=1e-12))


def datasets_needed(
    effect: float, alpha: float = 0.05, power: float = 0.8, family_size: int = 1, correction: str = "holm"
) -> int:
    """The fewest data sets that find a standardised paired effect dz with this power, and can reach α at all.

    The paired t test has the power at α / family_size (the first step of Holm, the worst case of "bh"; α with "none"),
    and the signed-rank test's smallest adjusted p is at most α.
    """
    if not (math.isfinite(effect) and effect > 0):
        raise ValueError(f"effect must be a finite number above 0, got {effect!r}")
    _share("alpha", alpha)
    _share("power", power)
    level = alpha if correction == "none" else alpha / family_size
    low = 2
    while smallest_adjusted_p(low, family_size, correction) > alpha:
        low += 1
    # Power grows with n: double until it suffices, then bisect.
    if paired_t_power(effect, low, level) >= power:
        return low
    high = 2 * low
    while paired_t_power(effect, high, level) < power:
        low, high = high, 2 * high
        if high > MOST_DATASETS:
            raise ValueError(f"effect must be large enough for {MOST_DATASETS} data sets to find it, got {effect!r}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if paired_t_power(effect, middle, level) >= power else (middle, high)
    return high


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
