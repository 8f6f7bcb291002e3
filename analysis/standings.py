"""Where each variant stands on a metric: means over data sets that all variants finished, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.intervals import Interval

OVER_DATASETS_PAIRED = "data sets, their common difficulty removed"
LOWEST = {"mcc": -1.0}


@dataclass(frozen=True)
class Rectangle:
    """The variants and data sets that can be compared as they stand: each variant has a result on each data set."""

    means: pd.DataFrame
    """Mean over seeds, one row a variant (by id), one column a data set."""
    left_out_variants: tuple[str, ...]
    left_out_datasets: tuple[str, ...]


def complete_rectangle(table: pd.DataFrame, column: str, variants: Sequence[str]) -> Rectangle:
    """Means over seeds of a column, on variants and data sets without a gap; unfinished cells are never imputed.

    The data set or variant with the largest share of gaps is left out until none remains. The means use the seeds that
    all variants kept have in common on a data set, so that no variant gains by a lucky seed.
    """
    usable = table[(table["status"] == "done") & table[column].notna() & table["variant_id"].isin(variants)]
    order = [v for v in variants if v in set(usable["variant_id"])]
    cells = usable.pivot_table(index="variant_id", columns=["dataset", "seed"], values=column, sort=False).reindex(
        order
    )
    datasets = list(dict.fromkeys(usable["dataset"]))
    here = pd.DataFrame({d: cells[d].notna().any(axis=1) for d in datasets}, index=cells.index, dtype=bool)
    while here.size and not here.to_numpy().all():
        gaps_of_variants, gaps_of_datasets = (~here).mean(axis=1), (~here).mean(axis=0)
        # Data sets go first where both are equal: a variant is what the question is about.
        if gaps_of_datasets.max() >= gaps_of_variants.max():
            here = here.drop(columns=gaps_of_datasets.idxmax())
        else:
            here = here.drop(index=gaps_of_variants.idxmax())
    means = pd.DataFrame(index=here.index, columns=here.columns, dtype=np.float64)
    for dataset in here.columns:
        block = cells.loc[here.index, dataset]
        common = block.dropna(axis=1)
        means[dataset] = (common if common.shape[1] else block).mean(axis=1)
    return Rectangle(
        means=means,
        left_out_variants=tuple(v for v in variants if v not in means.index),
        left_out_datasets=tuple(d for d in dict.fromkeys(table["dataset"]) if d not in means.columns),
    )


@dataclass(frozen=True)
class Standings:
    """A metric's mean on a split for each variant, by id, with its interval; what was compared, and what could not be.

    The mean is over `datasets`, seeds averaged on each first. seeds: the fewest and the most cells behind a data set's
    mean. left out: variants and data sets with gaps.
    """

    metric: str
    split: str
    means: dict[str, float]
    intervals: dict[str, Interval]
    datasets: tuple[str, ...]
    seeds: tuple[int, int]
    left_out_variants: tuple[str, ...]
    left_out_datasets: tuple[str, ...]

    @property
    def over(self) -> str:
        """What the intervals are over; empty where there is no variant."""
        return next((interval.over for interval in self.intervals.values()), "")


def standings(
    table: pd.DataFrame, metric: str, variants: Sequence[str], *, split: str = "test", level: float = 0.95
) -> Standings:
    """Means and intervals of a metric for variants (ids) on the data sets that all of them finished.

    With several data sets and variants the interval is over data sets after what a data set adds to all variants alike
    has been removed (Cousineau 2005, with Morey's 2008 factor): data sets differ in difficulty, which says nothing
    about variants. It shows how well each mean is placed among the others; differences are tested elsewhere, paired.
    With one variant it is Student's over data-set means. With one data set it is Student's over seeds, test images held
    fixed. With one seed on one data set there is none. Ends are cut to the metric's range.
    """
    column = f"{split}.{metric}"
    rectangle = complete_rectangle(table, column, variants)
    values = rectangle.means.to_numpy()
    n_variants, n_datasets = values.shape
    cells = table[(table["status"] == "done") & table[column].notna()]
    kept = cells[cells["variant_id"].isin(rectangle.means.index) & cells["dataset"].isin(rectangle.means.columns)]
    counts = kept.groupby(["variant_id", "dataset"]).size()
    intervals = {}
    for row, variant_id in enumerate(rectangle.means.index):
        factor, sample, over = 1.0, values[row], "data sets"
        if n_datasets > 1 and n_variants > 1:
            sample = values[row] - values.mean(axis=0) + values.mean()
            factor, over = math.sqrt(n_variants / (n_variants - 1)), OVER_DATASETS_PAIRED
        elif n_datasets == 1:
            sample, over = kept.loc[kept["variant_id"] == variant_id, column].to_numpy(), "seeds"
        intervals[variant_id] = _student(values[row].mean(), sample, factor, level, over, LOWEST.get(metric, 0.0))
    return Standings(
        metric=metric,
        split=split,
        means={variant_id: float(mean) for variant_id, mean in zip(rectangle.means.index, values.mean(axis=1))}
        if n_datasets
        else {},
        intervals=intervals if n_datasets else {},
        datasets=tuple(rectangle.means.columns),
        seeds=(int(counts.min()), int(counts.max())) if len(counts) else (0, 0),
        left_out_variants=rectangle.left_out_variants,
        left_out_datasets=rectangle.left_out_datasets,
    )


def mean_costs(table: pd.DataFrame, columns: Sequence[str], datasets: Sequence[str]) -> pd.DataFrame:
    """Means of columns of finished cells, one row a variant (by id): over seeds, then over data sets.

    datasets: those that all variants finished, where there are any; costs depend on the data set.
    """
    done = table[(table["status"] == "done") & (table["dataset"].isin(datasets) if datasets else True)]
    return done.groupby(["variant_id", "dataset"])[list(columns)].mean().groupby("variant_id").mean()


def _student(centre: float, sample: np.ndarray, factor: float, level: float, over: str, lowest: float) -> Interval:
    n = len(sample)
    if n < 2:
        return Interval(math.nan, math.nan, level, over, n)
    half = factor * float(stats.t.ppf((1 + level) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(max(lowest, float(centre) - half), min(1.0, float(centre) + half), level, over, n)
