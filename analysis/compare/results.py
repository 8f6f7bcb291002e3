"""Results that others published, as a table like a ledger's, with per-image predictions where there are any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.hashes import content_hash
from analysis.metrics import all_metrics
from analysis.records.predictions import Predictions
from analysis.records.schema import Record
from analysis.report.tables.results import PRINTED_SPREAD

COSTS = ("cost.params", "cost.macs")


@dataclass(frozen=True)
class Results:
    """What was read: a table with one row per method, data set and seed, as `load_ledger` makes it, and what is behind.

    The method stands in `variant_id`. records: what sections of a report read of a cell's record, by cell_id; none
    without predictions. predictions: by cell_id. metrics: columns `test.<metric>`, the primary one first. told: what a
    reader must know about how files were read.
    """

    table: pd.DataFrame
    metrics: tuple[str, ...]
    records: Mapping[str, Record]
    predictions: Mapping[str, Predictions]
    told: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.table["variant_id"]))

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(self.table["dataset"]))


def cell_id(method: str, dataset: str, seed: int) -> str:
    """The id of a cell: a hash of what names it."""
    return content_hash([method, dataset, seed])


def of_values(
    values: Sequence[tuple[str, str, int, float]],
    metric: str,
    told: Sequence[str] = (),
    spreads: Mapping[tuple[str, str], float] | None = None,
) -> Results:
    """Results without images: (method, data set, seed, value) each. Raises ValueError where two are one cell.

    spreads: what was printed beside a mean, by data set and method; shown, and used by nothing.
    """
    rows = [_row(method, dataset, seed) | {f"test.{metric}": value} for method, dataset, seed, value in values]
    for row in rows if spreads else ():
        row[PRINTED_SPREAD] = (spreads or {}).get((row["dataset"], row["variant_id"]), math.nan)
    return Results(_table(rows), (metric,), {}, {}, tuple(told))


def of_predictions(
    cells: Mapping[tuple[str, str, int], Predictions],
    classes: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    told: Sequence[str] = (),
) -> Results:
    """Results with images: predictions by (method, data set, seed). classes: names by data set.

    Raises ValueError, one line, where probabilities are none.
    """
    rows, records, kept = [], {}, {}
    for (method, dataset, seed), found in cells.items():
        try:
            test = all_metrics(found.labels, found.probabilities, classes[dataset])
        except ValueError as problem:
            raise ValueError(f"{method} on {dataset} (seed {seed}): {problem}") from None
        row = _row(method, dataset, seed) | {"n_test": len(found.labels)}
        row["probabilities"] = f"probabilities/{row['cell_id']}.npz"
        row |= {f"test.{name}": value for name, value in test.items() if name not in ("per_class", "missing_classes")}
        rows.append(row)
        records[row["cell_id"]] = {
            **{key: row[key] for key in ("cell_id", "variant_id", "dataset", "seed", "status", "n_test")},
            "classes": list(classes[dataset]),
            "test": test,
        }
        kept[row["cell_id"]] = found
    return Results(_table(rows), tuple(metrics), records, kept, tuple(told))


def _row(method: str, dataset: str, seed: int) -> dict[str, Any]:
    return {
        "cell_id": cell_id(method, dataset, seed),
        "variant_id": method,
        "variant_label": method,
        "contrasts_hash": None,
        "dataset": dataset,
        "seed": seed,
        "status": "done",
        "error": None,
        "n_test": math.nan,
        "probabilities": None,
        **dict.fromkeys(COSTS, math.nan),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    numbers = [name for name in table if str(name).startswith("test.")]
    table[numbers] = table[numbers].astype("float64")
    twice = table[table.duplicated("cell_id")]
    if len(twice):
        method, dataset, seed = twice.iloc[0][["variant_id", "dataset", "seed"]]
        raise ValueError(f"method, data set and seed must name one result, got two of {method} on {dataset} ({seed})")
    table.attrs = {"done": len(table), "failed": 0, "stopped": 0, "torn": 0, "errors": {}, "missing": []}
    return table
