"""Differences followed along a number of the data sets, such as a dial, and agreement of two rankings of variants."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
from scipy import stats

from analysis.across.effects import Effect
from analysis.distributions import t_quantile
from analysis.interval import Interval, check_generator
from analysis.records.sources import averaged, unit_noun
from analysis.records.table import finished_cells, metric_column, paired_seeds, sources_of

# As many orders as eight data sets have, up to which the test is exact.
PERMUTATIONS = math.factorial(8)


@dataclass(frozen=True)
class Slope:
    """A slope with its interval, p by permutation, and the points (position, difference) of the data sets behind it."""

    value: float
    interval: Interval
    p_value: float
    points: dict[str, tuple[float, float]]


def dataset_slope(
    table: pd.DataFrame,
    metric: str,
    baseline: str,
    against: str,
    along: str | Mapping[str, float],
    *,
    rng: np.random.Generator,
    log: bool = False,
    level: float = 0.95,
) -> Slope:
    """The slope of the paired difference against − baseline along a number of each data set: an interaction.

    along: the number by data set, or the name of a dial in data sets' names (`distance` in
    `phantom_relation?distance=0.5`). log: over its base-2 logarithm, the change for each doubling. Seeds that both
    variants finished are averaged first; a data set is a point of a straight line by least squares. The interval is
    Student's with data sets − 2 degrees of freedom. p, two-sided, is the share of orders of the differences whose slope
    is as steep: of all orders up to eight data sets, of 40,320 drawn with rng beyond. Uncertainty over data sets, which
    are taken as independent: draws of one dial's value must differ in more than the dial. Files of one source make one
    point, of their mean number and mean difference.

    Raises ValueError for a data set without a number, fewer than three data sets, and numbers that are all equal.
    """
    check_generator(rng)
    cells = finished_cells(table, metric)
    cells = cells[cells["variant_id"].isin([baseline, against])]
    differences = {
        name: float((values[against] - values[baseline]).mean())
        for name, values in paired_seeds(cells, "value").items()
        if {baseline, against} <= set(values.columns)
    }
    positions = _positions(list(differences), along)
    if log:
        if min(positions, default=1) <= 0:
            raise ValueError(f"numbers must be positive for a logarithm, got {min(positions)}")
        positions = [math.log2(position) for position in positions]
    sources, noun = sources_of(cells), unit_noun(differences, sources_of(cells))
    places = averaged(dict(zip(differences, positions)), sources)
    differences = averaged(differences, sources)
    x, y = np.array(list(places.values())), np.array(list(differences.values()))
    if len(x) < 3:
        raise ValueError(f"data sets must be at least three for a slope, got {len(x)} that both variants finished")
    if np.ptp(x) == 0:
        raise ValueError(f"numbers of data sets must differ, got {x[0]:g} for all")
    fit = stats.linregress(x, y)
    centred = (x - x.mean()) / np.square(x - x.mean()).sum()

    def slope(values: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(np.tensordot(values, centred, axes=(axis, 0)))

    test = stats.permutation_test(
        (y,), slope, permutation_type="pairings", vectorized=True, n_resamples=PERMUTATIONS, random_state=rng
    )
    half = t_quantile(0.5 + level / 2, len(x) - 2) * float(fit.stderr)
    interval = Interval(float(fit.slope) - half, float(fit.slope) + half, level, f"{noun}s", len(x))
    points = {name: (float(place), differences[name]) for name, place in zip(differences, x)}
    return Slope(float(fit.slope), interval, float(test.pvalue), points)


def rank_agreement(
    table: pd.DataFrame,
    first: str,
    second: str,
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> dict[str, Effect]:
    """Kendall's τ-b between two rankings of the variants, by data set: of two metrics, or of columns such as a cost.

    1: the same order, 0: none in common, −1: reversed; values are ranked as they stand, whichever end is the better
    one. Variants are ranked by means over the seeds that all of them finished; the interval redraws these seeds, so
    that it holds the data set and its test images fixed (one seed: no interval). NaN where a ranking is all ties.
    """
    check_generator(rng)
    both = finished_cells(table, first)
    both = both[both[metric_column(both, second)].notna()]
    one, two = paired_seeds(both, first), paired_seeds(both, second)
    found = {}
    for name in one:
        a, b = one[name].to_numpy(float), two[name][one[name].columns].to_numpy(float)
        n = len(a)
        value = float(_tau(a.mean(axis=0), b.mean(axis=0)))
        low = high = math.nan
        if n > 1:
            chosen = rng.integers(0, n, (draws, n))
            drawn = _tau(a[chosen].mean(axis=1), b[chosen].mean(axis=1))
            drawn = drawn[np.isfinite(drawn)]
            if len(drawn):
                low, high = (float(np.quantile(drawn, tail)) for tail in ((1 - level) / 2, (1 + level) / 2))
        found[name] = Effect("τ", value, Interval(low, high, level, "seeds", n), 1)
    return found


def _positions(names: list[str], along: str | Mapping[str, float]) -> list[float]:
    if not isinstance(along, str):
        missing = [name for name in names if name not in along]
        if missing:
            raise ValueError(f"along must have a number for every data set, got none for {missing[0]}")
        return [float(along[name]) for name in names]
    found = []
    for name in names:
        turned = parse_qs(name.partition("?")[2]).get(along)
        if turned is None:
            raise ValueError(f"along must be a dial in every data set's name, got {along} and {name}")
        try:
            found.append(float(turned[0]))
        except ValueError:
            raise ValueError(f"along must be a dial with numbers, got {along}={turned[0]} in {name}") from None
    return found


def _tau(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """τ-b of the last axis; NaN where one of the two is all ties."""
    upper = np.triu_indices(a.shape[-1], 1)
    first, second = (np.sign(v[..., :, None] - v[..., None, :])[..., upper[0], upper[1]] for v in (a, b))
    scale = np.sqrt(np.square(first).sum(axis=-1) * np.square(second).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((first * second).sum(axis=-1) / scale)
