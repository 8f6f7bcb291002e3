"""The course of a race: which cells it needs next, and whom it drops, from the records so far and nothing else.

Blocks, a seed on a source, come in an order drawn from the strategy's seed: every source once, then every source again
with another seed, so that whatever has run compares all variants on the same data, and on every source early. All
variants that are still in run a block's cells. After some blocks those behind the leader for good are dropped
(`analysis.across.racing`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from analysis.across.racing import level_at, look, look_times
from analysis.metrics import LOWER_IS_BETTER
from analysis.records.schema import Record
from study.declaration.cells import Cell, DataRef
from study.declaration.definition import Study


@dataclass(frozen=True)
class Dropped:
    """A variant that a race dropped: after how many blocks, and how far behind which leader it was by then.

    difference: its mean minus the leader's over those blocks. p_value: one-sided, at most `level`.
    """

    variant_id: str
    blocks: int
    leader: str
    difference: float
    p_value: float
    level: float


class Race:
    """A race, driven by records: `wanted` cells are run and taken, and once all are in, `advance` looks and goes on."""

    def __init__(self, study: Study, refs: Mapping[str, DataRef]) -> None:
        self.study = study
        self.metric = str(study.strategy.settings["metric"])
        self.alpha = float(study.strategy.settings["alpha"])
        self.blocks = blocks_in_order(study, refs)
        self.times = look_times(len(self.blocks))
        self.dropped: list[Dropped] = []
        # Variants that cannot be compared any more, and why.
        self.out: dict[str, str] = {}
        self.seen = 0
        self._refs = refs
        self._variants = {variant.variant_id: variant for _, variant in study.variants()}
        self._values: dict[str, list[float]] = {variant_id: [] for variant_id in self._variants}
        # Cells that were asked for, by id, and what came of them: a value, higher being better, or why there is none.
        self._asked: dict[str, Cell] = {}
        self._came: dict[tuple[str, int, str], float | str] = {}
        self._wanted: dict[str, Cell] = {}
        self._want()

    def running(self) -> list[str]:
        """The ids of the variants still in the race, in the study's order."""
        gone = {drop.variant_id for drop in self.dropped} | set(self.out)
        return [variant_id for variant_id in self._variants if variant_id not in gone]

    def wanted(self) -> list[Cell]:
        """The cells up to the next look whose records have not been taken, block by block."""
        return list(self._wanted.values())

    def take(self, record: Record) -> None:
        """Takes the record of a wanted cell, finished or failed."""
        cell = self._wanted.pop(record["cell_id"])
        value = record["validation"].get(self.metric) if record["status"] == "done" else None
        if value is not None and math.isfinite(value):
            came: float | str = -value if self.metric in LOWER_IS_BETTER else value
        else:
            what = record["status"] if record["status"] != "done" else f"{self.metric} is not a number"
            came = f"{what} on {cell.data.name}, seed {cell.seed}"
        self._came[cell.variant.variant_id, cell.seed, cell.data.name] = came

    def advance(self) -> bool:
        """Looks, drops and wants the next cells, if all wanted ones are in; whether there may be more to run."""
        if self._wanted or self.is_over():
            return False
        until = self._until()
        for seed, names in self.blocks[self.seen : until]:
            self._close(seed, names)
        self.seen = until
        if until in self.times:
            self._look(until)
        self._want()
        return not self.is_over()

    def is_over(self) -> bool:
        """Whether all blocks have been run by all variants still in."""
        return not self._wanted and (self.seen == len(self.blocks) or not self.running())

    def cells_left(self) -> list[Cell]:
        """The cells that remain if nobody else is dropped."""
        return self.wanted() + [cell for block in self.blocks[self._until() :] for cell in self._cells(*block)]

    def total(self) -> int:
        """The number of cells if nobody else is dropped, those that were run included."""
        later = sum(len(names) for _, names in self.blocks[self._until() :])
        return len(self._asked) + later * len(self.running())

    def judged(self) -> list[str]:
        """The ids of the cells run so far of variants that were not dropped."""
        gone = {drop.variant_id for drop in self.dropped}
        return [cell_id for cell_id, cell in self._asked.items() if cell.variant.variant_id not in gone]

    def asked(self) -> int:
        """The number of cells that the race has asked for so far."""
        return len(self._asked)

    def leader(self) -> str | None:
        """The variant with the best mean over the blocks so far of those still in; None before the first look."""
        running = self.running()
        if not running or not self.seen:
            return None
        return max(running, key=lambda variant_id: fmean(self._values[variant_id]))

    def _until(self) -> int:
        return next((n for n in self.times if n > self.seen), len(self.blocks))

    def _want(self) -> None:
        cells = [cell for block in self.blocks[self.seen : self._until()] for cell in self._cells(*block)]
        self._wanted = {cell.cell_id: cell for cell in cells}
        self._asked |= self._wanted

    def _cells(self, seed: int, names: tuple[str, ...]) -> Iterator[Cell]:
        running = self.running()
        for name in names:
            for variant_id in running:
                yield Cell(self._variants[variant_id], self.study.recipe, self._refs[name], seed)

    def _close(self, seed: int, names: tuple[str, ...]) -> None:
        """Notes each variant's value in a block, the mean over its data sets, or takes the variant out."""
        for variant_id in self.running():
            came = [self._came[variant_id, seed, name] for name in names]
            bad = next((why for why in came if isinstance(why, str)), None)
            if bad is not None:
                self.out[variant_id] = bad
            else:
                self._values[variant_id].append(fmean(value for value in came if not isinstance(value, str)))

    def _look(self, n: int) -> None:
        running = self.running()
        if len(running) < 2:
            return
        found = look(np.array([self._values[variant_id] for variant_id in running]), len(self.blocks))
        level = level_at(self.times.index(n), self.times, len(self.blocks), len(self._variants), self.alpha)
        sign = 1.0 if self.metric in LOWER_IS_BETTER else -1.0
        self.dropped += [
            Dropped(variant_id, n, running[found.leader], sign * float(behind), float(p), level)
            for variant_id, behind, p in zip(running, found.behind, found.p_values)
            if p <= level
        ]


def blocks_in_order(study: Study, refs: Mapping[str, DataRef]) -> list[tuple[int, tuple[str, ...]]]:
    """The blocks of a race as (seed, data sets of one source), in rounds over all sources.

    Each source has the seeds in an order of its own. All depends on the strategy's seed, the study's seeds and its
    sources alone.
    """
    by_source: dict[str, list[str]] = {}
    for name, key in study.source_keys(refs).items():
        by_source.setdefault(key, []).append(name)
    sources, rng = list(by_source), np.random.default_rng(study.strategy.seed)
    seeds = {key: rng.permutation(study.seeds) for key in sources}
    return [
        (int(seeds[sources[place]][turn]), tuple(by_source[sources[place]]))
        for turn in range(len(study.seeds))
        for place in rng.permutation(len(sources))
    ]


def follow(race: Race, finished: Mapping[str, Record]) -> list[Record]:
    """Takes a race as far as finished records carry it, and returns those that it took."""
    taken = []
    while True:
        for cell in race.wanted():
            if cell.cell_id in finished:
                race.take(finished[cell.cell_id])
                taken.append(finished[cell.cell_id])
        if not race.advance():
            return taken


def race_manifest(race: Race) -> dict[str, Any]:
    """What a race looked at and whom it dropped when, in plain JSON values for the manifest."""
    labels = {variant.variant_id: label for label, variant in race.study.variants()}
    return {
        "metric": race.metric,
        "alpha": race.alpha,
        "blocks": [[seed, list(names)] for seed, names in race.blocks],
        "looks": race.times,
        "blocks_run": race.seen,
        "cells_asked": race.asked(),
        "cells_of_grid": len(labels) * len(race.study.seeds) * len(race.study.datasets),
        "dropped": [
            {
                "variant_id": drop.variant_id,
                "variant": labels[drop.variant_id],
                "blocks": drop.blocks,
                "leader": labels[drop.leader],
                "difference": drop.difference,
                "p_value": drop.p_value,
                "level": drop.level,
            }
            for drop in race.dropped
        ],
        "out": {labels[variant_id]: why for variant_id, why in race.out.items()},
    }
