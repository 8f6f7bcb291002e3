"""Claims in general: what holds over data sets, from means over seeds.

The unit is the data set. Seeds are averaged within each data set first: cells of one data set are not independent, and
a test that takes them so finds differences that are not there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

METRICS_SUMMARISED = ("macro_f1", "macro_auc_ovr")
# Counts of sign patterns stay exact in float64 up to 2^53; beyond 50 pairs the normal approximation is as good.
EXACT_PAIRS = 50
# Differences equal to ten digits are ties: means over seeds carry rounding noise that would order them by chance.
DIGITS = 10


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


def summary(table: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """One row a variant of a ledger's table: mean test macro-F1 and macro-AUC with intervals, counts, parameters, MACs.

    `interval_over` says which uncertainty the interval carries:
    "data sets": t over data-set means (seeds averaged per data set first), for the mean over data sets like these; it
        is wide because data sets differ in difficulty, and is no comparison of variants, which pairs them;
    "seeds": with one data set, t over seeds: how far another training of this variant on this very data may lie, test
        images held fixed;
    "none": with one seed on one data set there is no interval (NaN).
    Intervals are cut to 0 … 1, where the metrics live. With two data sets t has one degree of freedom: expect nearly
    all of 0 … 1.

    Columns: variant_id, variant_label, for each metric `<metric>`, `<metric>_low`, `<metric>_high`, then interval_over,
    n_datasets, n_seeds (different seeds), n_cells, n_excluded (failed, stopped, or a metric undefined), params, macs
    (means over data sets, whose classes, channels and sizes differ). Variants keep the order of their first cell; one
    without a usable cell has NaN.

    Raises ValueError when a variant has two cells of one data set and seed (two recipes): select one recipe first.
    """
    rows = []
    for variant_id, cells in table.groupby("variant_id", sort=False):
        columns = [f"test.{name}" for name in METRICS_SUMMARISED]
        usable = cells[(cells["status"] == "done") & cells[columns].notna().all(axis=1)]
        twice = usable[usable.duplicated(["dataset", "seed"], keep=False)]
        if len(twice):
            dataset, seed = twice.iloc[0][["dataset", "seed"]]
            recipes = ", ".join(sorted(set(twice["recipe_id"])))
            raise ValueError(
                f"variant {variant_id} must have one cell on {dataset} (seed {seed}), got recipes {recipes}; select one"
            )
        n_datasets, n_seeds = usable["dataset"].nunique(), usable["seed"].nunique()
        over_seeds = usable.groupby("dataset", sort=False)[[*columns, "cost.params", "cost.macs"]].mean()
        units = over_seeds if n_datasets > 1 else usable
        row: dict[str, Any] = {"variant_id": variant_id, "variant_label": cells["variant_label"].iloc[-1]}
        for name in METRICS_SUMMARISED:
            values = units[f"test.{name}"].to_numpy()
            row[name] = float(values.mean()) if len(values) else math.nan
            row[f"{name}_low"], row[f"{name}_high"] = _t_interval(values, confidence)
        row["interval_over"] = "data sets" if n_datasets > 1 else "seeds" if n_seeds > 1 else "none"
        row |= {"n_datasets": n_datasets, "n_seeds": n_seeds, "n_cells": len(usable)}
        row |= {"n_excluded": len(cells) - len(usable)}
        row |= {name: over_seeds[f"cost.{name}"].mean() for name in ("params", "macs")}
        rows.append(row)
    return pd.DataFrame(rows)


def signed_rank(
    differences: Sequence[float] | np.ndarray,
    zeros: Literal["wilcox", "pratt"] = "wilcox",
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> SignedRank:
    """Wilcoxon's signed-rank test of paired differences, one a data set: the uncertainty is that over data sets.

    Exact with ties and zeros up to 50 pairs: the distribution of the rank sum over all equally likely signs, by dynamic
    programming on doubled mid-ranks. Beyond, the normal approximation with the variance of the tied ranks, without
    continuity correction. zeros: "wilcox" drops zero differences before ranking, "pratt" ranks them and then drops
    their ranks (Pratt 1959). Differences that agree to ten digits of the largest are ties. All zero: p = 1.

    alternative "greater": differences tend to be above zero. Raises ValueError for no difference, or one not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"differences must be one-dimensional with at least one value, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values[~np.isfinite(values)][0]}")
    if zeros not in ("wilcox", "pratt"):
        raise ValueError(f"zeros must be wilcox or pratt, got {zeros!r}")
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative must be two-sided, greater or less, got {alternative!r}")
    largest = np.abs(values).max()
    size = np.round(np.abs(values) / (largest or 1.0), DIGITS)
    nonzero = size > 0
    if not nonzero.any():
        return SignedRank(0.0, 0.0, 1.0, 0, len(values), "exact")
    doubled = np.rint(2 * stats.rankdata(size if zeros == "pratt" else size[nonzero])).astype(np.int64)
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
    patterns = np.zeros(int(doubled.sum()) + 1)
    patterns[0] = 1.0
    for rank in doubled:
        patterns[rank:] = patterns[rank:] + patterns[:-rank]
    total = 2.0 ** len(doubled)
    return float(patterns[: positive + 1].sum() / total), float(patterns[positive:].sum() / total)


def _normal_tails(doubled: np.ndarray, positive: int) -> tuple[float, float]:
    """The same by the normal approximation."""
    # Each rank joins the sum or does not, with probability ½: the variance is a quarter of its square, ties included.
    z = (positive - doubled.sum() / 2) / math.sqrt(float(np.square(doubled, dtype=np.float64).sum()) / 4)
    return float(stats.norm.cdf(z)), float(stats.norm.sf(z))


def _t_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Student's interval for the mean of independent values, cut to 0 … 1; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return max(0.0, float(values.mean() - half)), min(1.0, float(values.mean() + half))
