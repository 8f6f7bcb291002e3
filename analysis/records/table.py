"""A ledger's table seen data set by data set: the values of the seeds that variants share, and their means.

The source of data sets is the unit of every claim in general: files of one source are averaged. Functions here only
arrange and average: no number carries an uncertainty yet.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from analysis.metrics import METRICS
from analysis.records.sources import files_by_source, unit_name

Matrix: TypeAlias = pd.DataFrame | np.ndarray | Sequence[Sequence[float]]
# In place of a seed: the value is a mean over seeds, printed as such or of files that have none in common.
MEAN_OF_SEEDS = -1


def is_ledger(table: pd.DataFrame) -> bool:
    """Whether a frame has one row per cell, as `load_ledger` gives it."""
    return {"variant_id", "dataset"} <= set(table.columns)


def metric_column(table: pd.DataFrame, metric: str) -> str:
    """The column of a metric: `test.<metric>`, or the column of that very name."""
    for name in (f"test.{metric}", metric):
        if name in table.columns:
            return name
    known = ", ".join(c.removeprefix("test.") for c in table.columns if c.startswith("test.")) or ", ".join(table)
    raise ValueError(f"metric must be one of {known}, got {metric!r}")


def measured(table: pd.DataFrame, split: str = "test") -> list[str]:
    """The declared metrics that a table of cells has on a split, in the order of their declaration."""
    return [name for name in METRICS if f"{split}.{name}" in table]


def finished_cells(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells that are done and have the metric, with it as the column `value`; the index is renumbered.

    A table without `status` has only finished cells, one without `seed` only seed 0. `attrs["left_out"]` counts the
    cells left out: nothing is imputed. Raises ValueError when two cells are one variant, data set and seed (two
    recipes).
    """
    if not is_ledger(table):
        raise ValueError(f"table must have the columns variant_id and dataset, got {', '.join(map(str, table))}")
    values = table[metric_column(table, metric)].astype(np.float64)
    usable = np.isfinite(values.to_numpy())
    if "status" in table:
        usable &= (table["status"] == "done").to_numpy()
    cells = table.loc[usable].assign(value=values[usable]).reset_index(drop=True)
    if "seed" not in cells:
        cells["seed"] = 0
    twice = cells[cells.duplicated(["variant_id", "dataset", "seed"])]
    if len(twice):
        variant, dataset, seed = twice.iloc[0][["variant_id", "dataset", "seed"]]
        raise ValueError(
            f"variant, data set and seed must name one cell, got two of {variant} on {dataset} (seed {seed}); "
            "select one recipe"
        )
    cells.attrs["left_out"] = int((~usable).sum())
    return cells


def paired_seeds(table: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    """For each data set the values (seeds, variants) of the seeds on which every variant finished.

    Variants without any finished cell take no part; a data set on which the others share no seed has no entry.
    Raises ValueError when no data set is left.
    """
    cells = finished_cells(table, metric)
    variants = list(dict.fromkeys(cells["variant_id"]))
    found = {}
    for dataset, here in cells.groupby("dataset", sort=False):
        values = here.pivot(index="seed", columns="variant_id", values="value").reindex(columns=variants).dropna()
        if len(values):
            found[str(dataset)] = values.sort_index()
    if not found:
        raise ValueError(f"variants must share a finished seed on some data set, got none of {len(cells)} cells")
    return found


def sources_of(table: pd.DataFrame) -> dict[str, str]:
    """The source of each data set of a table: the column `source_key` where it has one, else the data set's name."""
    found = {str(name): str(name) for name in table["dataset"].unique()}
    if "source_key" in table:
        named = table[table["source_key"].notna()]
        found |= {str(name): str(key) for name, key in zip(named["dataset"], named["source_key"])}
    return found


def by_source(frames: Mapping[str, pd.DataFrame], sources: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Values (seeds, variants) by data set, as `paired_seeds` has them, by source: files of one are averaged.

    Seed by seed, over the seeds that all files of the source have; where they share none, a single row of their means.
    """
    found = {}
    for files in files_by_source(frames, sources):
        here = [frames[name] for name in files]
        if len(here) > 1:
            seeds = [seed for seed in here[0].index if all(seed in other.index for other in here)]
            rows = [frame.loc[seeds] if seeds else frame.mean().to_frame(MEAN_OF_SEEDS).T for frame in here]
            here = [sum(rows[1:], rows[0]) / len(rows)]
        found[unit_name(files)] = here[0]
    return found


def cells_by_source(cells: pd.DataFrame) -> pd.DataFrame:
    """Finished cells, as `finished_cells` has them, with the files of one source averaged: value, and MACs if there.

    A variant's seed counts where it finished on every file of the source that any variant has finished on. `dataset`
    names the source. Without files that share a source the cells come back as they are.
    """
    sources = sources_of(cells)
    groups = {name: files for files in files_by_source(cells["dataset"].astype(str), sources) for name in files}
    if all(len(files) == 1 for files in groups.values()):
        return cells
    names = cells["dataset"].astype(str)
    units = names.map(lambda name: unit_name(groups[name]))
    numbers = [name for name in ("value", "cost.macs") if name in cells]
    grouped = cells.assign(dataset=units).groupby(["dataset", "variant_id", "seed"], sort=False)
    merged = grouped[numbers].mean()
    wanted = {unit_name(files): len(files) for files in groups.values()}
    whole = grouped.size() == merged.index.get_level_values("dataset").map(wanted)
    found = merged[whole.to_numpy()].reset_index()
    found.attrs = {**cells.attrs}
    return found


def as_matrix(table: Matrix, metric: str | None = None) -> tuple[pd.DataFrame, int]:
    """Values (sources, variants) of the sources that are complete, and how many were left out as incomplete.

    table: a ledger's table, whose metric is averaged over the seeds on which every variant finished, so that no variant
    gains by an easy seed, and then over the data sets of each source; or the values themselves (rows are sources). A
    data set without such a seed is incomplete, and so is a source without another one. Raises ValueError for fewer than
    two variants, and when no source is complete.
    """
    if isinstance(table, pd.DataFrame) and is_ledger(table):
        if metric is None:
            raise ValueError("metric must be named for a table of cells, got none")
        sources = sources_of(table)
        means = {name: seeds.mean() for name, seeds in paired_seeds(table, metric).items()}
        units = files_by_source(means, sources)
        values = pd.DataFrame(
            {
                unit_name(files): means[files[0]] if len(files) == 1 else pd.DataFrame([means[f] for f in files]).mean()
                for files in units
            }
        ).T
        n_datasets = len(set(sources.values()))
    else:
        values = pd.DataFrame(table)
        n_datasets = len(values)
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError) as problem:
            raise ValueError(f"table must hold numbers, data sets × variants, got {problem}") from None
    if values.shape[1] < 2:
        raise ValueError(f"table must have at least two variants (columns), got {values.shape[1]}")
    complete = values[np.isfinite(values.to_numpy()).all(axis=1)]
    if len(complete) == 0:
        raise ValueError(f"table must have a data set that every variant finished, got none of {n_datasets}")
    return complete, n_datasets - len(complete)
