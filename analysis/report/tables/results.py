"""The table that papers print: variants × data sets, mean ± SD over seeds, average and rank, with what they cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.across.standings import averaged_columns, complete_rectangle, mean_costs
from analysis.metrics import LOWER_IS_BETTER
from analysis.records.sources import counted_units
from analysis.records.table import sources_of
from analysis.rendering.marks import file_name
from analysis.rendering.tables import Strong, Table
from analysis.verdicts.verdict import Verdict
from analysis.words import NOTHING, counted, listed, metric_name, quantity, share

# With more data sets, and more of them than variants, each is a row.
COLUMN_DATASETS = 5
# Means equal to so many digits share a rank: the rest is rounding.
DIGITS = 10
COSTS = {"parameters": "cost.params", "MACs": "cost.macs", "latency": "cost.latency"}
# A column with what others printed beside a mean.
PRINTED_SPREAD = "printed_spread"
MARKS = {"superior": "▲", "inferior": "▼", "equivalent": "="}


@dataclass(frozen=True)
class Means:
    """Means over seeds (variants, data sets) by id, NaN where there are none, with sample SDs and numbers of seeds.

    average, rank: over `complete`, the data sets that every variant in them finished, those of one source averaged
    first; NaN for other variants. n_sources: of how many sources they are.
    """

    means: pd.DataFrame
    spreads: pd.DataFrame
    seeds: pd.DataFrame
    average: pd.Series
    rank: pd.Series
    complete: tuple[str, ...]
    n_sources: int


def means_over_seeds(table: pd.DataFrame, metric: str, variants: Sequence[str], split: str = "test") -> Means:
    """What stands in the table, for variants by id. Nothing is imputed.

    Where all variants of the average have a data set, their means are over the seeds that they share there; elsewhere
    over the seeds that a variant has.
    """
    column = f"{split}.{metric}"
    done = table[(table["status"] == "done") & table[column].notna()]
    rectangle = complete_rectangle(table, column, variants)
    groups = done.groupby(["variant_id", "dataset"], sort=False)[column]
    datasets = list(dict.fromkeys(table["dataset"]))
    means, spreads, seeds = (
        getattr(groups, name)().unstack().reindex(index=list(variants), columns=datasets)
        for name in ("mean", "std", "count")
    )
    for dataset, block in rectangle.values.items():
        means.loc[block.index, dataset] = block.mean(axis=1)
        spreads.loc[block.index, dataset] = block.std(axis=1)
        seeds.loc[block.index, dataset] = block.shape[1]
    if PRINTED_SPREAD in done:
        spreads = done.groupby(["variant_id", "dataset"])[PRINTED_SPREAD].first().unstack().reindex_like(spreads)
    shared = averaged_columns(rectangle.means, sources_of(table))
    ranks = shared.round(DIGITS).rank(axis=0, ascending=metric in LOWER_IS_BETTER)
    average, rank = (here.mean(axis=1).reindex(list(variants)) for here in (shared, ranks))
    return Means(means, spreads, seeds.fillna(0).astype(int), average, rank, tuple(rectangle.values), shared.shape[1])


def results_table(
    table: pd.DataFrame,
    metric: str,
    labels: Mapping[str, str],
    verdicts: Sequence[Verdict] = (),
    baseline: str | None = None,
    *,
    split: str = "test",
    noun: str = "variant",
) -> Table:
    """The table of a metric for variants (id → label). A mark stands only where a declared contrast was decided.

    verdicts: the study's, of which those of this metric against the baseline (id) mark the average of a variant.
    """
    found = means_over_seeds(table, metric, list(labels), split)
    marks = {
        verdict.contrast.against: verdict.outcome
        for verdict in verdicts
        if verdict.contrast.metric == metric
        and verdict.contrast.baseline == baseline
        and verdict.outcome in MARKS
        and not verdict.exploratory
        and split == "test"
    }
    costs = _costs(table)
    columns: dict[str, dict[str, str]] = {}
    for dataset in found.means:
        columns[str(dataset)] = {v: _cell(found, v, str(dataset)) for v in labels}
    columns["average"] = {v: _marked(share(found.average[v]), marks.get(v)) for v in labels}
    columns["rank"] = {v: share(found.rank[v], 2) for v in labels}
    for name, values in costs.items():
        columns[name] = {v: _cost(name, values.get(v, math.nan)) for v in labels}
    if len(found.means.columns) <= max(COLUMN_DATASETS, len(labels)):
        headers = [noun, *columns]
        rows = [[label, *(column[v] for column in columns.values())] for v, label in labels.items()]
    else:
        headers = ["data set", *labels.values()]
        rows = [[name, *(column[v] for v in labels)] for name, column in columns.items()]
    return Table(
        file_name(f"results_{metric.rstrip(' ↑↓')}"),
        f"Results: {metric_name(metric)}",
        _caption(found, metric, split, set(marks.values()), labels.get(baseline or "", "")),
        headers,
        rows,
        _data(found, labels, costs),
    )


def _cell(found: Means, variant: str, dataset: str) -> str:
    mean, spread = found.means.at[variant, dataset], found.spreads.at[variant, dataset]
    if np.isnan(mean):
        return NOTHING
    return share(mean) if np.isnan(spread) else f"{share(mean)} ± {share(spread)}"


def _marked(text: str, outcome: str | None) -> str:
    if outcome is None:
        return text
    marked = f"{text} {MARKS[outcome]}"
    return Strong(marked) if outcome == "superior" else marked


def _cost(name: str, value: float) -> str:
    if name == "latency":
        return NOTHING if math.isnan(value) else f"{1000 * value:.3g} ms"
    return quantity(value)


def _costs(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Costs that were counted or measured, by name and variant."""
    done = table[table["status"] == "done"]
    columns = {name: key for name, key in COSTS.items() if key in done and done[key].notna().any()}
    if not columns:
        return {}
    means = mean_costs(done, list(columns.values()), ())
    return {name: means[key].to_dict() for name, key in columns.items()}


def _data(found: Means, labels: Mapping[str, str], costs: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    records = []
    for variant, label in labels.items():
        row: dict[str, Any] = {"variant_id": variant, "variant": label}
        for dataset in found.means:
            row[f"{dataset}_mean"] = found.means.at[variant, dataset]
            row[f"{dataset}_sd"] = found.spreads.at[variant, dataset]
            row[f"{dataset}_seeds"] = found.seeds.at[variant, dataset]
        row |= {"average": found.average[variant], "rank": found.rank[variant]}
        records.append(row | {name.lower(): values.get(variant, math.nan) for name, values in costs.items()})
    return pd.DataFrame(records)


def _caption(found: Means, metric: str, split: str, outcomes: set[str], baseline: str) -> str:
    counts = sorted({int(n) for n in found.seeds.to_numpy().ravel() if n})
    if counts == [1] and found.spreads.notna().to_numpy().any():
        caption = f"Means on {split} ± what was printed beside them, which is no interval. "
    elif found.spreads.notna().to_numpy().any():
        seeds = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        caption = f"Mean ± standard deviation over seeds on {split} (n = {seeds}), which is no interval. "
    else:
        caption = f"One value for each data set, on {split}. "
    caption += (
        f"Average and rank (1 is best) are over {counted_units(len(found.complete), found.n_sources)} without a gap. "
        if found.complete
        else "No data set has a result of every row, so there is no average. "
    )
    gaps = [str(name) for name in found.average.index if np.isnan(found.average[name])]
    apart = [str(name) for name in found.means if name not in found.complete]
    if found.complete and apart:
        caption += f"Not in them, for a gap: {listed(apart, 12)}. "
    if found.complete and gaps:
        caption += f"{counted(len(gaps), 'row')} with gaps {'has' if len(gaps) == 1 else 'have'} no average. "
    if outcomes:
        means = {"superior": "better than", "inferior": "worse than", "equivalent": "equivalent to"}
        said = ", ".join(f"{MARKS[outcome]} {text}" for outcome, text in means.items() if outcome in outcomes)
        caption += f"{said} {baseline}, by the verdict on a declared contrast."
    else:
        caption += "No mark: no declared contrast was decided."
    return caption.strip()
