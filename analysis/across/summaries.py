"""A ledger's table summarised: one row per variant, its means with the interval that the design supports."""

import math
from typing import Any

import pandas as pd

from analysis.across.mean_tests import t_interval
from analysis.interval import Interval
from analysis.records.sources import files_by_source
from analysis.records.table import sources_of

METRICS_SUMMARISED = ("macro_f1", "macro_auc_ovr")


def summary(table: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """A row per variant of a ledger's table: mean test macro-F1 and macro-AUC with intervals, counts, parameters, MACs.

    `interval_over` says which uncertainty the interval carries:
    "data sets": t over data-set means (seeds averaged per data set first), for the mean over data sets like these; it
        is wide because data sets differ in difficulty, and is no comparison of variants, which pairs them;
    "sources": the same where data sets share a source, whose files are averaged first and count once;
    "seeds": with one data set (or source, its files averaged seed by seed), t over seeds: how far another training of
        this variant on this very data may lie, test images held fixed;
    "none": with one seed on one data set there is no interval (NaN).
    Intervals are cut to 0 … 1, where the metrics live. With two data sets t has one degree of freedom: expect nearly
    all of 0 … 1.

    Columns: variant_id, variant_label, for each metric `<metric>`, `<metric>_low`, `<metric>_high`, then interval_over,
    n_datasets, n_sources, n_seeds (different seeds), n_cells, n_excluded (failed, stopped, or a metric undefined),
    params, macs (means over data sets, whose classes, channels and sizes differ). Variants keep the order of their
    first cell; one without a usable cell has NaN.

    Raises ValueError when a variant has two cells of one data set and seed (two recipes): select one recipe first.
    """
    rows, sources = [], sources_of(table)
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
        files = files_by_source(over_seeds.index, sources)
        n_sources = len(files)
        over = "sources" if n_sources < n_datasets else "data sets"
        if n_sources > 1:
            units = over_seeds if n_sources == n_datasets else _averaged(over_seeds, files)
        else:
            units = usable if n_datasets < 2 else usable.groupby("seed", sort=False)[columns].mean()
            over = "seeds"
        row: dict[str, Any] = {"variant_id": variant_id, "variant_label": cells["variant_label"].iloc[-1]}
        for name in METRICS_SUMMARISED:
            values = units[f"test.{name}"].to_numpy()
            row[name] = float(values.mean()) if len(values) else math.nan
            interval = t_interval(values, confidence, over)
            row[f"{name}_low"], row[f"{name}_high"] = _cut(interval)
        row["interval_over"] = "none" if n_sources < 2 and n_seeds < 2 else over
        row |= {"n_datasets": n_datasets, "n_sources": n_sources, "n_seeds": n_seeds, "n_cells": len(usable)}
        row |= {"n_excluded": len(cells) - len(usable)}
        row |= {name: over_seeds[f"cost.{name}"].mean() for name in ("params", "macs")}
        rows.append(row)
    return pd.DataFrame(rows)


def _averaged(means: pd.DataFrame, files: list[tuple[str, ...]]) -> pd.DataFrame:
    """Means by data set as means by source."""
    return pd.DataFrame([means.loc[list(names)].mean() for names in files])


def _cut(interval: Interval) -> tuple[float, float]:
    """The interval's ends within 0 … 1, where the metrics live; NaN where it has none."""
    if not interval.is_defined:
        return math.nan, math.nan
    return max(0.0, interval.low), min(1.0, interval.high)
