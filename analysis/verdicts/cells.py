"""The cells of two variants that can be compared: the same data set and seed, finished on both sides."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.table import MEAN_OF_SEEDS, finished_cells, is_ledger, metric_column
from analysis.verdicts.declared import Contrast
from analysis.verdicts.pairs import PairedCells
from analysis.words import bare_metric_name, listed

# Means over the classes that have test images.
OVER_PRESENT = ("macro_auc_ovr", "auprc_macro", "balanced_accuracy")


@dataclass(frozen=True)
class Row:
    """A cell of a table: its row number, and what pairing looks at. value: None where it has no finite metric."""

    place: int
    variant: str
    dataset: str
    seed: int
    is_done: bool
    value: float | None
    macs: float
    n_test: float
    cell_id: str
    missing_classes: str | None
    n_train: float


class Cells:
    """A table's cells by variant, read once for all contrasts of a metric."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self._rows: dict[str, dict[str, list[Row]]] = {}

    def of(self, metric: str, variants: Sequence[str]) -> list[Row]:
        """The rows of some variants, in the table's order.

        Raises ValueError as `finished_cells` does, including where two finished cells are one variant, data set and
        seed.
        """
        if metric not in self._rows:
            self._rows[metric] = self._read(metric)
        found = sorted((row for v in variants for row in self._rows[metric].get(v, ())), key=lambda row: row.place)
        keys = [(row.variant, row.dataset, row.seed) for row in found if row.is_done and row.value is not None]
        if len(set(keys)) < len(keys):
            finished_cells(self._table[self._table["variant_id"].isin(variants)], metric)
        return found

    def _read(self, metric: str) -> dict[str, list[Row]]:
        table = self._table
        if not is_ledger(table):
            # `finished_cells` words the refusal.
            finished_cells(table, metric)
        values = table[metric_column(table, metric)].astype(np.float64).to_numpy()
        rows: dict[str, list[Row]] = {}
        for place, (variant, dataset, seed, status, value, macs, n_test, cell_id, missing, n_train) in enumerate(
            zip(
                table["variant_id"],
                table["dataset"],
                self._column("seed", 0),
                self._column("status", "done"),
                values.tolist(),
                self._column("cost.macs", math.nan),
                self._column("n_test", math.nan),
                self._column("cell_id", ""),
                self._column("test.missing_classes", None),
                self._column("n_train", math.nan),
            )
        ):
            known = missing if isinstance(missing, str) else None
            finite = value if math.isfinite(value) else None
            done = bool(status == "done")
            row = Row(place, variant, dataset, int(seed), done, finite, macs, n_test, cell_id, known, n_train)
            rows.setdefault(variant, []).append(row)
        return rows

    def _column(self, name: str, otherwise: Any) -> Sequence[Any]:
        return self._table[name].tolist() if name in self._table else [otherwise] * len(self._table)


def paired_cells(
    table: Cells, contrast: Contrast, expected: Sequence[tuple[str, int]]
) -> tuple[list[PairedCells], list[str]]:
    """The data sets on which both variants finished a seed, and in words what a reader must know about them.

    Namely: cells without a partner, cells with an undefined metric, and classes without a test image.
    expected: (data set, seed) of every pair that there should be, beside those in the table.
    """
    rows = table.of(contrast.metric, (contrast.baseline, contrast.against))
    usable = [row for row in rows if row.is_done and row.value is not None]
    sides = {
        variant: {(row.dataset, row.seed): row for row in usable if row.variant == variant}
        for variant in (contrast.baseline, contrast.against)
    }
    first, second = sides[contrast.baseline], sides[contrast.against]
    pairs: dict[str, list[tuple[Row, Row]]] = {}
    for key, row in first.items():
        if key in second:
            pairs.setdefault(row.dataset, []).append((row, second[key]))
    found = [_pair(dataset, sorted(here, key=lambda pair: pair[0].seed)) for dataset, here in pairs.items()]
    known = dict.fromkeys([*expected, *((row.dataset, row.seed) for row in rows)])
    finished = [{(r.dataset, r.seed) for r in rows if r.is_done and r.variant == variant} for variant in sides]
    alone = [key for key in known if not (key in first and key in second)]
    metric = bare_metric_name(contrast.metric)
    why = " (one class in the test set)" if contrast.metric == "macro_auc_ovr" else ""
    notes = []
    for reason, keys in (
        ("without a pair of finished cells", [key for key in alone if not (key in finished[0] and key in finished[1])]),
        (f"{metric} undefined{why}", [key for key in alone if key in finished[0] and key in finished[1]]),
    ):
        if keys:
            notes.append(f"{reason}: {_named(keys, {pair.dataset for pair in found})}")
    absent = _without_images(usable, [pair.dataset for pair in found])
    if absent:
        others = f", so {metric} is over the other classes there" if contrast.metric in OVER_PRESENT else ""
        notes.append(f"no test image of {absent}{others}")
    return found, notes


def _pair(dataset: str, rows: Sequence[tuple[Row, Row]]) -> PairedCells:
    """Pairs of a baseline's row and its partner on one data set."""
    differences = np.array([against.value for _, against in rows]) - np.array([baseline.value for baseline, _ in rows])
    ratios = np.array([against.macs for _, against in rows]) / np.array([baseline.macs for baseline, _ in rows])
    ratios = ratios[~np.isnan(ratios)]
    n_test = rows[0][0].n_test
    return PairedCells(
        dataset=str(dataset),
        difference=float(differences.mean()),
        n_seeds=sum(baseline.seed != MEAN_OF_SEEDS for baseline, _ in rows),
        n_test=0 if pd.isna(n_test) else int(n_test),
        n_train=0 if pd.isna(rows[0][0].n_train) else int(rows[0][0].n_train),
        cost_ratio=float(ratios.mean()) if len(ratios) else math.nan,
        baseline_cells=tuple(baseline.cell_id for baseline, _ in rows),
        against_cells=tuple(against.cell_id for _, against in rows),
        values={row.cell_id: float(row.value or 0.0) for side in zip(*rows) for row in side},
    )


def _named(keys: Sequence[tuple[str, int]], known: set[str]) -> str:
    """Seeds by data set, in words: "all seeds" of a data set that is not a known one."""
    alone: dict[str, list[int]] = {}
    for dataset, seed in keys:
        alone.setdefault(str(dataset), []).append(int(seed))
    named: dict[str, list[str]] = {}
    for name, seeds in alone.items():
        which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, sorted(seeds)))}"
        named.setdefault(which if name in known else "all seeds", []).append(name)
    return "; ".join(f"{which} on {listed(names)}" for which, names in named.items())


def _without_images(cells: Sequence[Row], datasets: Sequence[str]) -> str:
    """The classes that the records of some data sets name as missing on test, in words; empty where there are none."""
    missing: dict[str, str] = {}
    for row in cells:
        if row.missing_classes is not None:
            missing.setdefault(row.dataset, row.missing_classes)
    return "; ".join(f"{listed(json.loads(missing[name]))} on {name}" for name in datasets if name in missing)
