"""The cells of two variants that can be compared: the same data set and seed, finished on both sides."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.records.table import finished_cells
from analysis.verdicts.declared import Contrast
from analysis.words import METRIC_NAMES, listed

# Means over the classes that have test images.
OVER_PRESENT = ("macro_auc_ovr", "auprc_macro", "balanced_accuracy")


@dataclass(frozen=True)
class PairedCells:
    """The cells of one data set on whose seeds both variants finished, and what their records say.

    values: the contrast's metric, by cell_id.
    """

    dataset: str
    difference: float
    n_seeds: int
    n_test: int
    cost_ratio: float
    baseline_cells: tuple[str, ...]
    against_cells: tuple[str, ...]
    values: dict[str, float]


def paired_cells(
    table: pd.DataFrame, contrast: Contrast, expected: Sequence[tuple[str, int]]
) -> tuple[list[PairedCells], list[str]]:
    """The data sets on which a seed of both variants has finished, and what a reader must know of them, in words.

    That is which cells have no partner, on which the metric is undefined, and which classes have no test image.
    expected: (data set, seed) of every pair that there should be, beside those that the table knows of.
    """
    sides = {"baseline": contrast.baseline, "against": contrast.against}
    rows = table[table["variant_id"].isin(sides.values())]
    cells = finished_cells(rows, contrast.metric)
    for name in ("cost.macs", "n_test", "cell_id"):
        if name not in cells:
            cells[name] = "" if name == "cell_id" else math.nan
    columns = ["dataset", "seed", "value", "cost.macs", "n_test", "cell_id"]
    first, second = (cells.loc[cells["variant_id"] == v, columns] for v in sides.values())
    both = first.merge(second, on=["dataset", "seed"], suffixes=("_baseline", "_against"), sort=False)
    found = []
    for dataset, here in both.groupby("dataset", sort=False):
        here = here.sort_values("seed", kind="stable")
        ratios = here["cost.macs_against"] / here["cost.macs_baseline"]
        n_test = here["n_test_baseline"].iloc[0]
        found.append(
            PairedCells(
                dataset=str(dataset),
                difference=float((here["value_against"] - here["value_baseline"]).mean()),
                n_seeds=len(here),
                n_test=0 if pd.isna(n_test) else int(n_test),
                cost_ratio=float(ratios.mean()),
                baseline_cells=tuple(here["cell_id_baseline"]),
                against_cells=tuple(here["cell_id_against"]),
                values={
                    cell_id: float(value)
                    for side in sides
                    for cell_id, value in zip(here[f"cell_id_{side}"], here[f"value_{side}"])
                },
            )
        )
    paired = set(zip(both["dataset"], both["seed"]))
    known = dict.fromkeys([*expected, *zip(rows["dataset"], rows["seed"])])
    done = rows[rows["status"] == "done"] if "status" in rows else rows
    on_both = done.groupby(["dataset", "seed"])["variant_id"].nunique() == len(sides)
    finished = set(on_both[on_both].index)
    alone = [key for key in known if key not in paired]
    metric = METRIC_NAMES[contrast.metric]
    why = " (one class in the test set)" if contrast.metric == "macro_auc_ovr" else ""
    notes = []
    for reason, keys in (
        ("without a pair of finished cells", [key for key in alone if key not in finished]),
        (f"{metric} undefined{why}", [key for key in alone if key in finished]),
    ):
        if keys:
            notes.append(f"{reason}: {_named(keys, {pair.dataset for pair in found})}")
    absent = _without_images(cells, [pair.dataset for pair in found])
    if absent:
        others = f", so {metric} is over the other classes there" if contrast.metric in OVER_PRESENT else ""
        notes.append(f"no test image of {absent}{others}")
    return found, notes


def _named(keys: Sequence[tuple[str, int]], known: set[str]) -> str:
    """Seeds by data set; all of them where a data set is none of those known."""
    alone: dict[str, list[int]] = {}
    for dataset, seed in keys:
        alone.setdefault(str(dataset), []).append(int(seed))
    named: dict[str, list[str]] = {}
    for name, seeds in alone.items():
        which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, sorted(seeds)))}"
        named.setdefault(which if name in known else "all seeds", []).append(name)
    return "; ".join(f"{which} on {listed(names)}" for which, names in named.items())


def _without_images(cells: pd.DataFrame, datasets: Sequence[str]) -> str:
    """The classes that these data sets' records name as missing on test; empty where there are none."""
    if "test.missing_classes" not in cells:
        return ""
    missing = cells.dropna(subset="test.missing_classes").groupby("dataset")["test.missing_classes"].first()
    return "; ".join(f"{listed(json.loads(missing[name]))} on {name}" for name in datasets if name in missing)
