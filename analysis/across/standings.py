"""Standings of variants on a metric: means over data sets and seeds that all variants finished, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.distributions import t_quantile
from analysis.interval import Interval
from analysis.records.sources import files_by_source, unit_name, unit_noun

if TYPE_CHECKING:
    import pandas as pd

OVER_DATASETS_PAIRED = "data sets, their common difficulty removed"
OVER_SOURCES_PAIRED = "sources, their common difficulty removed"
LOWEST = {"mcc": -1.0}


@dataclass(frozen=True)
class Rectangle:
    """Variants and data sets that can be compared as they stand: every variant has the same seeds on each data set.

    values: by data set, one row per variant (by id), one column per seed that all of them finished.
    """

    values: dict[str, pd.DataFrame]
    left_out_variants: tuple[str, ...]
    left_out_datasets: tuple[str, ...]

    @property
    def means(self) -> pd.DataFrame:
        """Means over the seeds, one row a variant (by id), one column a data set."""
        import pandas as pd

        return pd.DataFrame({dataset: here.mean(axis=1) for dataset, here in self.values.items()})


def complete_rectangle(table: pd.DataFrame, column: str, variants: Sequence[str]) -> Rectangle:
    """A column's values on variants, data sets and seeds without a gap; unfinished cells are never imputed.

    The data set or variant with the largest share of gaps is left out, again and again until no gap remains. Each data
    set keeps the seeds that all remaining variants share, so that no variant gains by a lucky seed; a data set without
    any is left out, too.
    """
    usable = table[(table["status"] == "done") & table[column].notna() & table["variant_id"].isin(variants)]
    finished = set(usable["variant_id"].unique())
    order = [v for v in variants if v in finished]
    cells = usable.pivot_table(index="variant_id", columns=["dataset", "seed"], values=column, sort=False).reindex(
        order
    )
    datasets = list(usable["dataset"].unique())
    # Late: whoever only reads standings has no need of a library of tables.
    import pandas as pd

    here = pd.DataFrame({d: cells[d].notna().any(axis=1) for d in datasets}, index=cells.index, dtype=bool)
    while here.size and not here.to_numpy().all():
        gaps_of_variants, gaps_of_datasets = (~here).mean(axis=1), (~here).mean(axis=0)
        # Data sets go first where both are equal: a variant is what the question is about.
        if gaps_of_datasets.max() >= gaps_of_variants.max():
            here = here.drop(columns=gaps_of_datasets.idxmax())
        else:
            here = here.drop(index=gaps_of_variants.idxmax())
    shared = {str(dataset): cells.loc[here.index, dataset].dropna(axis=1) for dataset in here.columns}
    values = {dataset: block for dataset, block in shared.items() if block.size}
    kept = here.index if values else []
    return Rectangle(
        values=values,
        left_out_variants=tuple(v for v in variants if v not in kept),
        left_out_datasets=tuple(d for d in table["dataset"].unique() if d not in values),
    )


@dataclass(frozen=True)
class Standings:
    """A metric's mean and interval on a split for each variant, by id, with what was compared and what could not be.

    The mean is over `datasets`, on each first over the seeds that all variants finished, then over the files of a
    source. seeds: the fewest and the most of them on a data set. left out: variants and data sets with gaps.
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
    fixed. With one seed on one data set there is none. Files of one source are averaged first, and count as one data
    set. Ends are cut to the metric's range.
    """
    column = f"{split}.{metric}"
    rectangle = complete_rectangle(table, column, variants)
    # Late, here and below: whoever only reads standings has no need of a library of tables.
    from analysis.records.table import by_source, sources_of

    sources = sources_of(table)
    by_dataset = rectangle.means
    by_unit = averaged_columns(by_dataset, sources)
    values = by_unit.to_numpy()
    n_variants, n_datasets = values.shape
    noun = unit_noun(list(by_dataset.columns), sources)
    counts = [block.shape[1] for block in rectangle.values.values()]
    intervals = {}
    for row, variant_id in enumerate(by_dataset.index):
        factor, sample, over = 1.0, values[row], f"{noun}s"
        if n_datasets > 1 and n_variants > 1:
            sample = values[row] - values.mean(axis=0) + values.mean()
            over = OVER_DATASETS_PAIRED if noun == "data set" else OVER_SOURCES_PAIRED
            factor = math.sqrt(n_variants / (n_variants - 1))
        elif n_datasets == 1:
            blocks = {name: block.T for name, block in rectangle.values.items()}
            (block,) = by_source(blocks, sources).values()
            sample, over = block[variant_id].to_numpy(), "seeds"
        intervals[variant_id] = _student(values[row].mean(), sample, factor, level, over, LOWEST.get(metric, 0.0))
    return Standings(
        metric=metric,
        split=split,
        means={variant_id: float(values[row].mean()) for row, variant_id in enumerate(by_dataset.index)},
        intervals=intervals,
        datasets=tuple(by_dataset.columns),
        seeds=(min(counts, default=0), max(counts, default=0)),
        left_out_variants=rectangle.left_out_variants,
        left_out_datasets=rectangle.left_out_datasets,
    )


def averaged_columns(by_dataset: pd.DataFrame, sources: Mapping[str, str]) -> pd.DataFrame:
    """Columns by data set as columns by source: those of files of one source are averaged."""
    import pandas as pd

    units = files_by_source(by_dataset.columns, sources)
    if len(units) == len(by_dataset.columns):
        return by_dataset
    return pd.DataFrame({unit_name(files): by_dataset[list(files)].mean(axis=1) for files in units})


def mean_costs(table: pd.DataFrame, columns: Sequence[str], datasets: Sequence[str]) -> pd.DataFrame:
    """Means of columns of finished cells, one row per variant (by id): over seeds, data sets of a source, and sources.

    datasets: those that all variants finished, where there are any; costs depend on the data set.
    """
    from analysis.records.table import sources_of

    done = table[(table["status"] == "done") & (table["dataset"].isin(datasets) if datasets else True)]
    means = done.groupby(["variant_id", "dataset"])[list(columns)].mean()
    sources = sources_of(done)
    if unit_noun(list(sources), sources) == "source":
        means = means.groupby(["variant_id", means.index.get_level_values("dataset").map(sources)]).mean()
    return means.groupby("variant_id").mean()


def _student(centre: float, sample: np.ndarray, factor: float, level: float, over: str, lowest: float) -> Interval:
    n = len(sample)
    if n < 2:
        return Interval(math.nan, math.nan, level, over, n)
    half = factor * float(t_quantile((1 + level) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(max(lowest, float(centre) - half), min(1.0, float(centre) + half), level, over, n)
