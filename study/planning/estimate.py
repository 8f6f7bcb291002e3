"""Estimate of how long a study will take, from finished cells, else from a timed training step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from analysis.records.schema import Record
from analysis.words import counted
from medmamba_variants.cost import measure_latency
from medmamba_variants.model import build_model
from study.data import DatasetInfo
from study.declaration.cells import Cell
from study.declaration.definition import Study
from study.planning.costs import Costs
from study.planning.plan import Plan
from study.training.devices import resolved_device
from study.training.provenance import machine

# Repeats of the timed training step behind a guess.
TIMED_STEPS = 3
LARGEST_TIMED_BATCH = 64


@dataclass(frozen=True)
class Estimate:
    """Seconds of computing that a study still needs, all cells in sequence, and where the number comes from."""

    seconds: float
    basis: str


def estimate(
    plan: Plan,
    cells: Sequence[Cell],
    infos: Mapping[str, DatasetInfo],
    costs: Costs,
    device: str,
    threads: int,
) -> Estimate:
    """The estimated time of some cells: from finished ones of the same recipe, data and machine, else a timed step.

    From measured cells: the median of the same variant, or that of all variants in proportion to their MACs. For data
    without any, one training step of the study's base is timed and taken in proportion to MACs × images. infos: the
    study's data sets by name.
    """
    measured = _Measured(plan.study, plan.finished.values())
    guess: _Guess | None = None
    known, total = 0, 0.0
    for cell in cells:
        macs = costs.macs(cell.variant, cell.data.name)
        seconds = measured.seconds(cell, macs)
        if seconds is None:
            guess = guess or _Guess(plan.study, infos, costs, device, threads)
            seconds = guess.seconds(cell, macs)
        else:
            known += 1
        total += seconds
    if known == len(cells):
        basis = f"measured: {counted(measured.count, 'cell')} of this recipe and data in the ledger"
    elif known:
        basis = f"measured for {known} of {len(cells)} cells, the rest guessed from a timed step, MACs × images"
    else:
        basis = "guessed from a timed training step, MACs × images"
    return Estimate(total, basis)


class _Measured:
    """Estimates from the seconds of finished cells of this recipe on this kind of machine."""

    def __init__(self, study: Study, records: Iterable[Record]) -> None:
        here = machine().get("cpu")
        self._by_data: dict[str, list[Record]] = {}
        for record in records:
            same_machine = (record.get("machine") or {}).get("cpu") == here
            if record["recipe_id"] == study.recipe.recipe_id and same_machine:
                self._by_data.setdefault(record["data_fingerprint"], []).append(record)

    @property
    def count(self) -> int:
        return sum(len(records) for records in self._by_data.values())

    def seconds(self, cell: Cell, macs: float) -> float | None:
        records = self._by_data.get(cell.data.fingerprint, [])
        same = [r["seconds"] for r in records if r["variant_id"] == cell.variant.variant_id]
        if same:
            return median(same)
        rates = [r["seconds"] / r["cost"]["macs"] for r in records if (r.get("cost") or {}).get("macs")]
        return median(rates) * macs if rates else None


class _Guess:
    """Estimates in proportion to MACs × images, from one timed training step of the study's base variant."""

    def __init__(self, study: Study, infos: Mapping[str, DatasetInfo], costs: Costs, device: str, threads: int) -> None:
        self._infos = infos
        name = study.datasets[0]
        info = infos[name]
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            step = measure_latency(
                build_model(study.base, num_classes=len(info.classes), in_channels=info.channels),
                image_size=study.recipe.size_for(info.image_size),
                in_channels=info.channels,
                batch_size=min(study.recipe.batch_size, LARGEST_TIMED_BATCH),
                backward=True,
                device=str(resolved_device(device)),
                repeats=TIMED_STEPS,
            )
        finally:
            torch.set_num_threads(before)
        self._seconds_a_mac = step.seconds / step.batch_size / costs.macs(study.base, name)

    def seconds(self, cell: Cell, macs: float) -> float:
        info = self._infos[cell.data.name]
        epochs = cell.recipe.epochs_for(info.n_train)
        # A forward pass is a third of a step.
        images = epochs * (info.n_train + info.n_val / 3) + (info.n_val + info.n_test) / 3
        return self._seconds_a_mac * macs * images
