"""The cells of two variants that can be compared: the same data set and seed, finished on both sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.contrasts import Contrast
from analysis.datasets import finished_cells
from analysis.wording import listed


@dataclass(frozen=True)
class PairedCells:
    """The cells of one data set on whose seeds both variants finished, and what their records say."""

    dataset: str
    difference: float
    n_seeds: int
    n_test: int
    cost_ratio: float
    baseline_cells: tuple[str, ...]
    against_cells: tuple[str, ...]


def paired_cells(
    table: pd.DataFrame, contrast: Contrast, expected: Sequence[tuple[str, int]]
) -> tuple[list[PairedCells], list[str]]:
    """The data sets on which a seed of both variants has finished, and which cells have no partner, in words.

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
            )
        )
    paired = set(zip(both["dataset"], both["seed"]))
    known = dict.fromkeys([*expected, *zip(rows["dataset"], rows["seed"])])
    alone: dict[str, list[int]] = {}
    for dataset, seed in known:
        if (dataset, seed) not in paired:
            alone.setdefault(str(dataset), []).append(int(seed))
    here = {pair.dataset for pair in found}
    missing: dict[str, list[str]] = {}
    for name, seeds in alone.items():
        which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, sorted(seeds)))}"
        missing.setdefault(which if name in here else "all seeds", []).append(name)
    shown = "; ".join(f"{which} on {listed(names)}" for which, names in missing.items())
    return found, [f"without a pair of finished cells: {shown}"] if missing else []
