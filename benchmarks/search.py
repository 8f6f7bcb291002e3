"""Strategies replayed on the recorded table (`search_table.py`), where nothing is trained.

    python benchmarks/search.py                          # writes benchmarks/results/search.json
    python benchmarks/search.py --only racing            # seconds
    python benchmarks/search.py --strategies random,tpe --seeds 5 --trials 30

Racing: in each of 20 random orders of blocks, the share of all cells that were run, whether the best variant of the
table (by mean validation metric) was dropped, and by how much the race's leader is worse than it. Search: how much of
the hypervolume under the table's front (validation metric against the logarithm of multiply-adds) the variants found so
far dominate, against the cells spent, over 20 seeds, and how much more than random search with the same seed; intervals
are bootstraps over seeds. Of an unfinished table the largest rectangle of data sets and seeds is used, and said.
"""

import argparse
import dataclasses
import math
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

# Python looks for modules beside the script first, and there `analysis` is another script.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.machine import RESULTS, write_results  # noqa: E402
from benchmarks.search_table import SPACE, Table, distinct_variants, read_table  # noqa: E402
from study import Cell, DataRef, Study, load_study  # noqa: E402
from study.declaration.definition import StrategyChoice  # noqa: E402
from study.declaration.racing import RACING  # noqa: E402
from study.planning.plan import Plan  # noqa: E402
from study.planning.racing import Race  # noqa: E402
from study.strategies.samplers import SAMPLERS  # noqa: E402
from study.strategies.search import Search  # noqa: E402

METRIC = "macro_auc_ovr"
ALPHA = 0.1
# What racing must reach: the share of cells, and the distance from the best.
MOST_CELLS, MOST_REGRET = 0.4, 0.005
DRAWS = 2000


def complete(table: Table) -> tuple[list[int], list[int]]:
    """The places of data sets and seeds of the largest rectangle in which every variant has every cell."""
    there = np.isfinite(table.values["validation"][METRIC]).all(axis=0)
    found: tuple[list[int], list[int]] = ([], [])
    for picks in product((False, True), repeat=there.shape[1]):
        seeds = [i for i, picked in enumerate(picks) if picked]
        datasets = [i for i, row in enumerate(there[:, seeds]) if seeds and row.all()]
        if len(seeds) * len(datasets) > len(found[0]) * len(found[1]):
            found = datasets, seeds
    return found


class Replay:
    """The table as a study whose cells have been run."""

    def __init__(self, table: Table) -> None:
        datasets, seeds = complete(table)
        study = load_study(SPACE)
        names = tuple(table.datasets[i] for i in datasets)
        variants = distinct_variants(study)
        grid = tuple((study.label(variant), variant) for variant in variants.values())
        self.study = dataclasses.replace(
            study, datasets=names, seeds=tuple(table.seeds[i] for i in seeds), grid=grid, recipe=study.recipe
        )
        self.refs = {name: DataRef(name, name, {}) for name in names}
        self._rows = {one["variant_id"]: i for i, one in enumerate(table.variants)}
        self._columns = {name: i for i, name in enumerate(names)}
        self._seeds = {seed: i for i, seed in enumerate(self.study.seeds)}
        self.values = {split: table.values[split][METRIC][:, datasets][:, :, seeds] for split in table.values}
        self.means = {split: values.mean(axis=(1, 2)) for split, values in self.values.items()}
        self.macs = np.array([one["macs"] for one in table.variants])

    def place(self, variant_id: str) -> int:
        return self._rows[variant_id]

    def record(self, cell: Cell) -> dict[str, Any]:
        at = self.place(cell.variant.variant_id), self._columns[cell.data.name], self._seeds[cell.seed]
        value = float(self.values["validation"][at])
        return {"cell_id": cell.cell_id, "status": "done", "validation": {METRIC: value}, "test": None}

    def with_strategy(self, strategy: StrategyChoice) -> Study:
        grid = self.study.grid if strategy.is_grid else ()
        return dataclasses.replace(self.study, strategy=strategy, grid=grid)


def race(replay: Replay, seed: int) -> dict[str, Any]:
    """One race, its blocks in the order of a seed."""
    choice = StrategyChoice(RACING, seed=seed, settings={"alpha": ALPHA, "metric": METRIC})
    run = Race(replay.with_strategy(choice), replay.refs)
    while not run.is_over():
        for cell in run.wanted():
            run.take(replay.record(cell))
        run.advance()
    best = int(np.argmax(replay.means["validation"]))
    leader = run.leader()
    assert leader is not None
    won = replay.place(leader)
    dropped = {replay.place(drop.variant_id) for drop in run.dropped}
    return {
        "seed": seed,
        "share_of_cells": run.asked() / replay.values["validation"].size,
        "best_dropped": best in dropped,
        "left": len(run.running()),
        **{f"regret_{split}": float(means[best] - means[won]) for split, means in replay.means.items()},
    }


def races(replay: Replay, orders: int) -> dict[str, Any]:
    rows = [race(replay, seed) for seed in range(orders)]
    good = [r["share_of_cells"] <= MOST_CELLS and r["regret_validation"] <= MOST_REGRET for r in rows]
    found = {
        "orders": orders,
        "alpha": ALPHA,
        "within_both": sum(good),
        "share_of_cells": fmean(row["share_of_cells"] for row in rows),
        "largest_share_of_cells": max(row["share_of_cells"] for row in rows),
        "best_dropped": sum(row["best_dropped"] for row in rows),
        "largest_regret": max(row["regret_validation"] for row in rows),
        "rows": rows,
    }
    print(
        f"racing: {found['share_of_cells']:.1%} of the cells (at most {found['largest_share_of_cells']:.1%}), leader "
        f"at most {100 * found['largest_regret']:.2f} points below the best, best dropped in {found['best_dropped']} "
        f"of {orders} orders (declared: at most {ALPHA:.0%}); within {MOST_REGRET:g} at ≤ {MOST_CELLS:.0%} of the "
        f"cells in {found['within_both']} of {orders}"
    )
    return found


def hypervolume(metric: np.ndarray, macs: np.ndarray, floor: float, most: float, span: float) -> float:
    """The area that variants dominate: metric above `floor`, and the logarithm of MACs below `most`, over `span`."""
    area, reached = 0.0, floor
    # From the cheapest on, each adds a rectangle to where all cost more.
    for cost, value in sorted(zip(np.log(macs), metric)):
        if value > reached:
            area += (value - reached) * (most - cost) / span
            reached = value
    return area


def search(replay: Replay, name: str, seed: int, trials: int) -> list[float]:
    """The share of the table's hypervolume after each variant that a search trained."""
    settings = {key: setting.default for key, setting in SAMPLERS[name].settings.items()}
    choice = StrategyChoice(name, trials=trials, seed=seed, objectives=(METRIC, "macs"), settings=settings)
    study = replay.with_strategy(choice)
    macs, means = replay.macs, replay.means["validation"]
    most, span = math.log(macs.max()), math.log(macs.max() / macs.min())
    whole = hypervolume(means, macs, 0.5, most, span)
    found: list[int] = []
    shares = []
    with tempfile.TemporaryDirectory() as store:
        plan = Plan(study, replay.refs, {}, {}, frozenset())
        strategy = Search(plan, store, lambda variant, _: float(macs[replay.place(variant.variant_id)]))
        for variant in _variants(strategy, replay):
            found.append(variant)
            shares.append(hypervolume(means[found], macs[found], 0.5, most, span) / whole)
    return shares


def _variants(strategy: Search, replay: Replay) -> Iterator[int]:
    """The variants that a search trains, one after the other, each once all its cells are in."""
    per_variant = len(replay.study.seeds) * len(replay.study.datasets)
    told = 0
    while not strategy.done() and (cell := strategy.ask()) is not None:
        strategy.tell(replay.record(cell))
        told += 1
        if told % per_variant == 0:
            yield replay.place(cell.variant.variant_id)


def interval(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Mean over seeds and its 95 % bootstrap interval."""
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    return [float(values.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))]


def searches(replay: Replay, names: list[str], seeds: int, trials: int) -> list[dict[str, Any]]:
    per_variant = len(replay.study.seeds) * len(replay.study.datasets)
    rng, rows = np.random.default_rng(0), []
    at = sorted({max(1, trials * quarter // 4) for quarter in (1, 2, 3, 4)})
    curves: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(["random", *names]):
        curves[name] = np.array([search(replay, name, seed, trials) for seed in range(seeds)])
        for n in at:
            here = curves[name][:, n - 1]
            row = {
                "strategy": name,
                "variants": n,
                "cells": n * per_variant,
                "share": interval(here, rng),
                "against_random": interval(here - curves["random"][:, n - 1], rng),
            }
            rows.append(row)
            (mean, low, high), (more, below, above) = row["share"], row["against_random"]
            print(
                f"{name:13} {n:4} variants, {n * per_variant:5} cells: {mean:.3f} [{low:.3f}, {high:.3f}] of the "
                f"hypervolume, {more:+.3f} [{below:+.3f}, {above:+.3f}] against random",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("racing", "search"))
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--strategies", default=",".join(SAMPLERS))
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    chosen = parser.parse_args()
    table = read_table()
    replay = Replay(table)
    n_datasets, n_seeds = len(replay.study.datasets), len(replay.study.seeds)
    whole = (n_datasets, n_seeds) == (len(table.datasets), len(table.seeds))
    size = f"{len(table.variants)} variants × {n_datasets} data sets × {n_seeds} seeds"
    print(f"{size}{'' if whole else ', the part of the table that is finished'}")
    report: dict[str, Any] = {"table": size, "whole": whole, "metric": METRIC}
    if chosen.only != "search":
        report["racing"] = races(replay, chosen.orders)
    if chosen.only != "racing":
        report["search"] = searches(replay, chosen.strategies.split(","), chosen.seeds, chosen.trials)
    write_results(chosen.out, report)


if __name__ == "__main__":
    main()
