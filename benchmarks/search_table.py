"""The recorded table that strategies are replayed on: every variant of a small space on every data set and seed.

    python benchmarks/search_table.py            # goes on where it was stopped; about an hour of one core in all

Writes `results/search_table.csv`, a line a cell, and `results/search_table.json`: variants with their costs, data sets,
recipe and machine. `read_table` reads both.
"""

import argparse
import csv
import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

# Python looks for modules beside the script first, and there `analysis` is another script.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.machine import RESULTS, write_results  # noqa: E402
from medmamba_variants.cost import count_cost  # noqa: E402
from medmamba_variants.design.kinds import to_json  # noqa: E402
from study import NUMERICS_VERSION, Cell, DataRef, Study, load_dataset, load_study, run_cell  # noqa: E402
from study.strategies.proposals import variant_of  # noqa: E402
from study.training import loop  # noqa: E402

SPACE = Path(__file__).with_suffix(".yaml")
CELLS = RESULTS / "search_table.csv"
VARIANTS = RESULTS / "search_table.json"
METRICS = ("macro_auc_ovr", "macro_f1")
COLUMNS = (
    "variant",
    "dataset",
    "seed",
    *(f"{split}_{metric}" for split in ("validation", "test") for metric in METRICS),
)
ID_DIGITS = 10


@dataclass(frozen=True)
class Table:
    """The table: `values[split][metric]` is (variants, data sets, seeds), not a number where a cell is missing."""

    variants: tuple[dict[str, Any], ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    values: dict[str, dict[str, np.ndarray]]

    @cached_property
    def place(self) -> dict[str, int]:
        """Where a variant stands, by its id."""
        return {one["variant_id"]: i for i, one in enumerate(self.variants)}


def read_table() -> Table:
    found = json.loads(VARIANTS.read_text())
    variants, datasets, seeds = found["variants"], found["datasets"], found["seeds"]
    rows = {one["variant_id"][:ID_DIGITS]: i for i, one in enumerate(variants)}
    shape = (len(variants), len(datasets), len(seeds))
    values = {split: {metric: np.full(shape, np.nan) for metric in METRICS} for split in ("validation", "test")}
    with CELLS.open(newline="") as lines:
        for line in csv.DictReader(lines):
            at = rows[line["variant"]], int(line["dataset"]), seeds.index(int(line["seed"]))
            for split, of_split in values.items():
                for metric, array in of_split.items():
                    array[at] = float(line[f"{split}_{metric}"])
    return Table(tuple(variants), tuple(datasets), tuple(seeds), values)


def distinct_variants(study: Study) -> dict[str, Any]:
    """Every distinct variant of a study's axes by id; axes without effect at a point are left out there."""
    found = {}
    for point in itertools.product(*study.axes.values()):
        params = {name: json.dumps(to_json(value)) for name, value in zip(study.axes, point)}
        variant = variant_of(study, params)
        found.setdefault(variant.variant_id, variant)
    return found


def finished() -> set[tuple[str, int, int]]:
    if not CELLS.exists():
        return set()
    content = CELLS.read_bytes()
    CELLS.write_bytes(content[: content.rfind(b"\n") + 1])  # what a kill left half-written
    with CELLS.open(newline="") as lines:
        return {(line["variant"], int(line["dataset"]), int(line["seed"])) for line in csv.DictReader(lines)}


def cells(study: Study, variants: dict[str, Any]) -> Iterator[tuple[str, int, int, Any]]:
    """(variant, data set, seed, cell) of the table, seeds outermost, variants innermost."""
    specs = study.sources()
    refs = {name: DataRef(name, load_dataset(specs[name], name).info.fingerprint, specs[name]) for name in specs}
    for seed in study.seeds:
        for place, name in enumerate(study.datasets):
            for variant_id, variant in variants.items():
                yield variant_id[:ID_DIGITS], place, seed, Cell(variant, study.recipe, refs[name], seed)


def costs(study: Study, variant: Any) -> dict[str, float]:
    """Means over the data sets."""
    found = []
    for name, spec in study.sources().items():
        info = load_dataset(spec, name).info
        size = study.recipe.size_for(info.image_size)
        found.append(count_cost(variant, image_size=size, num_classes=len(info.classes), in_channels=info.channels))
    return {"params": fmean(cost.params for cost in found), "macs": fmean(cost.macs for cost in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, help="end after this many cells")
    chosen = parser.parse_args()
    # Of a fifth of a second that a cell takes, a quarter would go into counting the same multiply-adds again.
    loop.network_cost = functools.cache(loop.network_cost)  # type: ignore[assignment]
    study = load_study(SPACE)
    variants = distinct_variants(study)
    if not VARIANTS.exists():
        rows = [
            {"variant_id": key, "variant": variant.diff(), "label": study.label(variant), **costs(study, variant)}
            for key, variant in variants.items()
        ]
        about = {"numerics_version": NUMERICS_VERSION, "recipe": study.recipe.to_dict(), "seeds": list(study.seeds)}
        write_results(VARIANTS, {**about, "datasets": list(study.datasets), "variants": rows})
    done = finished()
    with CELLS.open("a", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        if not done:
            writer.writerow(COLUMNS)
        began, ran = time.perf_counter(), 0
        for variant, dataset, seed, cell in cells(study, variants):
            if (variant, dataset, seed) in done:
                continue
            if ran == chosen.cells:
                return
            record, _ = run_cell(cell, device="cpu", threads=1)
            if record["status"] != "done":
                sys.exit(f"{cell.variant.variant_id}, {cell.data.name}, seed {seed}: {record['error']['message']}")
            found = [f"{record[split][metric]:.5f}" for split in ("validation", "test") for metric in METRICS]
            writer.writerow([variant, dataset, seed, *found])
            lines.flush()
            ran += 1
            if ran % 100 == 0:
                print(f"{ran} cells, {(time.perf_counter() - began) / ran:.2f} s each", flush=True)


if __name__ == "__main__":
    main()
