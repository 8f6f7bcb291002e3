"""What a launch would do, told before it is done: cells and their costs, what contrasts can show, and the time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from analysis.power import (
    detectable_difference,
    detectable_effect,
    pilot_spread,
    smallest_adjusted_p,
    smallest_p_signed_rank,
)
from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import Cost, count_cost, measure_latency
from medmamba_variants.model import build_model
from study.cells import Cell, DataRef
from study.contrasts import Contrast
from study.data import DatasetInfo, open_source
from study.definition import Study
from study.ledger import Ledger, Record
from study.provenance import machine
from study.strategies import count_finished
from study.wording import about, columns, counted, quantity

if TYPE_CHECKING:
    import pandas as pd

# Repeats of the timed training step behind a guess.
TIMED_STEPS = 3
LARGEST_TIMED_BATCH = 64


@dataclass(frozen=True)
class Inputs:
    """A study's data sets, by name, as cells refer to them and as they describe themselves."""

    refs: Mapping[str, DataRef]
    infos: Mapping[str, DatasetInfo]


def read_inputs(study: Study) -> Inputs:
    """The study's data sets, each read and hashed. Raises ValueError, one line, for what is wrong with a file."""
    specs = study.sources()
    infos = {name: open_source(specs[name]).describe(name) for name in study.datasets}
    refs = {name: DataRef(name, info.fingerprint, specs[name]) for name, info in infos.items()}
    return Inputs(refs, infos)


class Costs:
    """What variants cost on the study's data sets, for one image."""

    def __init__(self, study: Study, inputs: Inputs) -> None:
        self._study = study
        self._infos = inputs.infos

    def of(self, variant: VariantConfig, dataset: str) -> Cost:
        """The cost of a variant on a data set. Raises ValueError where the variant cannot read its images."""
        info = self._infos[dataset]
        size = self._study.recipe.size_for(info.image_size)
        return count_cost(variant, image_size=size, num_classes=len(info.classes), in_channels=info.channels)

    def macs(self, variant: VariantConfig, dataset: str) -> float:
        """Multiply-adds of one forward pass."""
        return float(self.of(variant, dataset).macs)

    def check(self) -> None:
        """Raises ValueError, naming file, variant and data set, where a variant of the grid cannot read the images."""
        for label, variant in self._study.variants():
            for name in self._study.datasets:
                try:
                    self.of(variant, name)
                except ValueError as error:
                    raise ValueError(f"{self._study.path}: variant {label} on {name}: {error}") from None


@dataclass(frozen=True)
class Estimate:
    """Seconds of computing that a study still needs, all cells one after the other, and where the number comes from."""

    seconds: float
    basis: str


def estimate(
    study: Study, cells: Sequence[Cell], inputs: Inputs, costs: Costs, ledger: Ledger, device: str, threads: int
) -> Estimate:
    """The time of these cells: measured ones of the same recipe, data and machine, else a timed step.

    From measured cells: the median of the same variant, or that of all variants in proportion to their MACs. For data
    without any, one training step of the study's base is timed and taken in proportion to MACs × images.
    """
    measured = _Measured(study, ledger.finished().values())
    guess: _Guess | None = None
    known, total = 0, 0.0
    for cell in cells:
        macs = costs.macs(cell.variant, cell.data.name)
        seconds = measured.seconds(cell, macs)
        if seconds is None:
            guess = guess or _Guess(study, inputs, costs, device, threads)
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
    """Seconds of finished cells of this recipe on this kind of machine."""

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
    """Seconds in proportion to MACs × images, from one timed training step of the study's base variant."""

    def __init__(self, study: Study, inputs: Inputs, costs: Costs, device: str, threads: int) -> None:
        import torch

        from study.devices import resolved_device

        self._study = study
        self._infos = inputs.infos
        name = study.datasets[0]
        info = self._infos[name]
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


def describe(
    study: Study, inputs: Inputs, costs: Costs, ledger: Ledger, store: Path, device: str, threads: int, workers: int
) -> list[str]:
    """The lines of a dry run; reads the store and writes nothing."""
    lines = [f"{study.name}: {study.question}", f"file {study.path}", f"store {store}", ""]
    lines += _variants(study, inputs, costs)
    lines += ["", *_datasets(study, inputs)]
    cells, counts = _cells(study, inputs, ledger, store)
    lines += ["", *counts]
    lines += _contrasts(study, _pilot(study, inputs, ledger))
    if not cells:
        return [*lines, "time: nothing is left to run"]
    time = estimate(study, cells, inputs, costs, ledger, device, threads)
    each = f"{counted(len(cells), 'cell')} of {about(time.seconds / len(cells))}"
    where = f"{counted(workers, 'worker')} with {counted(threads, 'thread')}"
    rounds = math.ceil(len(cells) / workers) * time.seconds / len(cells)
    return [*lines, f"time: about {about(rounds)} ({each}, on {where} each); {time.basis}"]


def _variants(study: Study, inputs: Inputs, costs: Costs) -> list[str]:
    if not study.is_grid:
        chosen = study.strategy
        axes = ", ".join(study.axes)
        limit = "" if chosen.max_macs is None else f", at most {quantity(chosen.max_macs)} MACs"
        base = _mean_cost(study, study.base, costs)
        return [
            f"{chosen.name} search of {counted(chosen.trials, 'variant')} over {axes}{limit}",
            f"objectives: {', '.join(chosen.objectives)}",
            f"the base {study.base_name} has {quantity(base[0])} parameters and {quantity(base[1])} MACs",
        ]
    rows = []
    for label, variant in study.variants():
        params, macs = _mean_cost(study, variant, costs)
        rows.append((label, quantity(params), quantity(macs)))
    sizes = {(study.recipe.size_for(info.image_size), info.channels) for info in inputs.infos.values()}
    note = "" if len(sizes) == 1 and len(inputs.infos) == 1 else "(parameters and MACs: means over the data sets)"
    lines = columns(("variant", "parameters", "MACs"), rows, right=(1, 2))
    return [*lines, note] if note else lines


def _mean_cost(study: Study, variant: VariantConfig, costs: Costs) -> tuple[float, float]:
    found = [costs.of(variant, name) for name in study.datasets]
    return fmean(cost.params for cost in found), fmean(cost.macs for cost in found)


def _datasets(study: Study, inputs: Inputs) -> list[str]:
    rows = []
    for name in study.datasets:
        info = inputs.infos[name]
        height, width = study.recipe.size_for(info.image_size)
        shape = f"{height}×{width}×{info.channels}"
        splits = f"{info.n_train} / {info.n_val} / {info.n_test}"
        rows.append((name, info.modality, str(len(info.classes)), shape, splits))
    return columns(("data set", "modality", "classes", "image", "train / val / test"), rows, right=(2,))


def _cells(study: Study, inputs: Inputs, ledger: Ledger, store: Path) -> tuple[list[Cell], list[str]]:
    """The cells still to run (of a search: as many of its base), and how many there are, are done and have failed."""
    times = f"{counted(len(study.seeds), 'seed')} × {counted(len(study.datasets), 'data set')}"
    if study.is_grid:
        finished, records = ledger.finished(), ledger.records()
        cells = list(study.cells(inputs.refs))
        left = [cell for cell in cells if cell.cell_id not in finished]
        failed = sum(records.get(cell.cell_id, {}).get("status") == "failed" for cell in left)
        again = f" ({failed} failed before and will run again)" if failed else ""
        product = f"{counted(len(study.variants()), 'variant')} × {times}"
        done = len(cells) - len(left)
        return left, [f"cells: {product} = {len(cells)}; {done} done already, {len(left)} to run{again}"]
    total = study.strategy.trials * len(study.seeds) * len(study.datasets)
    done = count_finished(study, inputs.refs, ledger, store)
    left = [
        Cell(study.base, study.recipe, inputs.refs[name], seed)
        for _ in range(study.strategy.trials)
        for seed in study.seeds
        for name in study.datasets
    ][: max(0, total - done)]
    product = f"{counted(study.strategy.trials, 'variant')} × {times}"
    return left, [f"cells: {product} = {total}; {done} done already, {len(left)} to run"]


def unreachable(study: Study) -> str | None:
    """Why the declared confirmatory contrasts cannot reach their own α with the study's data sets; None where they can.

    Data sets are the units of a claim in general, so that their number sets the smallest p there is.
    """
    n = len(study.datasets)
    short = [c for c in study.contrasts if c.kind == "confirmatory" and not _reaches(study, c)]
    if not short:
        return None
    worst = max(short, key=lambda contrast: _smallest_p(study, contrast))
    size, more = _family_size(study, worst), "" if len(short) == 1 else f" and {len(short) - 1} more"
    family = f", {study.correction} over the {size} of family {worst.family}" if size > 1 else ""
    return (
        f"{study.path}: confirmatory contrasts must be able to reach α = {study.alpha:g}, "
        f"got '{worst.name}'{more} with a smallest p of {_smallest_p(study, worst):.4g} on {counted(n, 'data set')}"
        f"{family} (takes {_fewest(study, size)} data sets, or kind: exploratory)"
    )


def _pilot(study: Study, inputs: Inputs, ledger: Ledger) -> pd.DataFrame | None:
    """The cells done already of a study with contrasts, from which a spread can be told; None without any."""
    if not study.contrasts:
        return None
    # Late: pandas takes half a second to import.
    from analysis.records import load_ledger

    try:
        return load_ledger(ledger.folder, cell_ids=[cell.cell_id for cell in study.cells(inputs.refs)])
    except ValueError:
        return None


def _contrasts(study: Study, pilot: pd.DataFrame | None) -> list[str]:
    """What the declared contrasts can reach at best, and how large a difference must be for them to find it."""
    if not study.contrasts:
        return ["contrasts: none declared, so whatever is compared later is exploratory"]
    n = len(study.datasets)
    lines = [
        f"contrasts over {counted(n, 'data set')}: the smallest p of a signed-rank test is "
        f"{smallest_p_signed_rank(n):.4g} (α = {study.alpha:g}, correction {study.correction})"
    ]
    for contrast in study.contrasts:
        size = _family_size(study, contrast)
        sides = f"{contrast.against_label} against {contrast.baseline_label}"
        smallest = f"p ≥ {_smallest_p(study, contrast):.4g}"
        line = f"  {contrast.name}: {sides}, {contrast.metric}, margin {contrast.margin:g}: {smallest}"
        if size > 1:
            line += f" (family {contrast.family} of {size})"
        if not _reaches(study, contrast):
            line += f": cannot reach α, which takes {_fewest(study, size)} data sets"
        lines.append(line)
    found = {_detectable(study, contrast, pilot) for contrast in study.contrasts if _reaches(study, contrast)}
    return lines + [f"  found with 80 % power: {size}" for size in sorted(found)]


def _detectable(study: Study, contrast: Contrast, pilot: pd.DataFrame | None) -> str:
    """From which size on a difference is found: in the metric's unit by a pilot's spread, else in spreads."""
    n, size = len(study.datasets), _family_size(study, contrast)
    family = f" (family of {size})" if size > 1 else ""
    if pilot is not None:
        try:
            spread = pilot_spread(pilot, contrast.metric)
        except ValueError:
            pass
        else:
            found = detectable_difference(
                spread, n, len(study.seeds), alpha=study.alpha, family_size=size, correction=study.correction
            )
            if math.isinf(found):
                return f"no difference of one contrast alone{family}"
            return f"a difference in {contrast.metric} of about {found:.2g} by the spread of cells done already{family}"
    level = study.alpha if study.correction == "none" else study.alpha / size
    effect = detectable_effect(n, level)
    if math.isinf(effect):
        return f"no difference of one contrast alone{family}"
    return f"a difference of {effect:.2g} of its standard deviations over data sets{family}"


def _reaches(study: Study, contrast: Contrast) -> bool:
    return _smallest_p(study, contrast) <= study.alpha


def _family_size(study: Study, contrast: Contrast) -> int:
    """How many contrasts share a correction with this one: those of its family and kind."""
    return sum((c.family, c.kind) == (contrast.family, contrast.kind) for c in study.contrasts)


def _smallest_p(study: Study, contrast: Contrast) -> float:
    return smallest_adjusted_p(len(study.datasets), _family_size(study, contrast), study.correction)


def _fewest(study: Study, family_size: int) -> int:
    """Data sets from which on the smallest adjusted p is at most α."""
    n = 1
    while smallest_adjusted_p(n, family_size, study.correction) > study.alpha:
        n += 1
    return n
