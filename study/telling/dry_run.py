"""Dry run of a launch: what it would do, cells and their costs, what contrasts can show, and the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.audits import Notice
from analysis.power import smallest_p_signed_rank
from analysis.records.sources import counted_units, told
from analysis.verdicts.levels import FEWEST_SEEDS
from analysis.words import counted, metric_name, quantity
from medmamba_variants.networks import Network
from study.declaration.cells import Cell
from study.declaration.definition import Study
from study.declaration.racing import RACING
from study.planning.costs import Costs
from study.planning.estimate import estimate
from study.planning.inputs import Inputs
from study.planning.memory import memory_lines
from study.planning.plan import Plan
from study.planning.racing import Race, follow
from study.planning.reach import (
    detectable,
    family_size,
    fewest,
    is_fixed,
    n_sources,
    pilot,
    reaches,
    smallest_p,
)
from study.planning.register import compared_before
from study.store.ledger import Ledger
from study.strategies.racing import dropped_lines, race_lines
from study.strategies.search import count_finished
from study.telling.terminal import about, columns


def describe(
    plan: Plan,
    inputs: Inputs,
    notices: Sequence[Notice],
    costs: Costs,
    ledger: Ledger,
    store: Path,
    device: str,
    threads: int,
    workers: int,
) -> list[str]:
    """The lines of a dry run; reads the store and writes nothing to it. notices: of the data sets' audits."""
    study = plan.study
    told = {"hypothesis": study.hypothesis, "controls": study.controls, "caveat": study.caveat}
    lines = [f"{study.name}: {study.question}", *(f"{key}: {text}" for key, text in told.items() if text)]
    lines += [f"file {study.path}", f"store {store}", ""]
    lines += _variants(study, inputs, costs)
    lines += ["", *_datasets(study, inputs), *audit_lines(notices)]
    cells, counts = _cells(plan, store)
    lines += ["", *counts]
    lines += _contrasts(plan, pilot(plan, ledger))
    before = compared_before(study, inputs.refs, ledger)
    lines += [f"  {before}"] if before else []
    if not cells:
        return [*lines, "time: nothing is left to run"]
    time = estimate(plan, cells, inputs.infos, costs, device, threads)
    each = f"{counted(len(cells), 'cell')} of {about(time.seconds / len(cells))}"
    where = f"{counted(workers, 'worker')} with {counted(threads, 'thread')}"
    rounds = math.ceil(len(cells) / workers) * time.seconds / len(cells)
    lines.append(f"time: about {about(rounds)} ({each}, on {where} each); {time.basis}")
    return [*lines, *memory_lines(inputs, study.recipe, workers)]


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
    if study.matched is not None:
        lines += _matched(study.matched)
        beyond = costs.beyond_tolerance()
        lines += [beyond] if beyond else []
    return [*lines, note] if note else lines


def _matched(found: Mapping[str, Any]) -> list[str]:
    """How the variants were scaled to equal cost."""
    side = found["image_size"]
    rows = [
        (
            row["label"],
            f"{row['factor']:.2f}",
            *(quantity(row[f"{measure}_{when}"]) for measure in ("params", "macs") for when in ("before", "after")),
        )
        for row in found["variants"]
    ]
    head = ("matched", "width", "parameters, as given", "matched", "MACs, as given", "matched")
    table = columns(head, rows, right=range(1, len(head)))
    note = f"(widths scaled to the {found['measure']} of {found['baseline']}, at {side}×{side}×3 and two classes)"
    return ["", *table, note]


def _mean_cost(study: Study, variant: Network, costs: Costs) -> tuple[float, float]:
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
    lines = columns(("data set", "modality", "classes", "image", "train / val / test"), rows, right=(2,))
    lines += [f"note: {name}: {note}" for name in study.datasets for note in inputs.infos[name].notes]
    shared = told(study.datasets, study.source_keys(inputs.refs))
    return [*lines, shared] if shared else lines


def audit_lines(notices: Sequence[Notice]) -> list[str]:
    """What audits of data sets tell, one a line; or that they found no fault."""
    found = [f"audit: {notice.line}" for notice in notices]
    clean = (
        []
        if any(notice.fault for notice in notices)
        else ["audit: no picture stands in two splits, or bears two labels"]
    )
    return [*found, *clean]


def _cells(plan: Plan, store: Path) -> tuple[list[Cell], list[str]]:
    """The cells still to run (for a search: as many of its base), and how many there are, are done and have failed."""
    study = plan.study
    if study.strategy.name == RACING:
        return _race(plan)
    times = f"{counted(len(study.seeds), 'seed')} × {counted(len(study.datasets), 'data set')}"
    if study.is_grid:
        left = plan.left()
        if study.tuning is not None:
            tried = f"{counted(len(study.tuning.recipes), 'recipe')} × {counted(len(study.tuning.seeds), 'seed')}"
            tuned = (
                f"{counted(len(plan.variants()), 'variant')} × {tried} × "
                f"{counted(len(study.tuning.datasets or study.datasets), 'data set')}"
            )
            # Under which recipe they will run is not known yet; the study's stands in for it.
            known = {cell.variant.variant_id for cell in plan.cells.values()}
            waiting = [v for _, v in plan.variants() if v.variant_id not in known]
            left = [*left, *(cell for variant in waiting for cell in study.cells_of(variant, plan.refs))]
            names = ", ".join(study.tuning.axes)
            lines = [f"tuning: {names}, chosen by validation {metric_name(study.tuning.metric)}"]
            lines += [f"trials: {tuned} = {len(plan.trials)}, none of which is judged"]
        else:
            lines = []
        again = f" ({len(plan.failed)} failed before and will run again)" if plan.failed else ""
        product = f"{counted(len(plan.variants()), 'variant')} × {times}"
        total = plan.total - len(plan.trials)
        if plan.shard is not None:
            product = f"shard {plan.shard[0]} of {plan.shard[1]} of {product}"
        both = "" if not plan.trials else f"; {plan.total} with the trials"
        count = f"cells: {product} = {total}{both}; {len(plan.done())} done already, {len(left)} to run{again}"
        return left, [*lines, count]
    done = count_finished(plan, store)
    left = [cell for _ in range(study.strategy.trials) for cell in study.cells_of(study.base, plan.refs)][
        : max(0, plan.total - done)
    ]
    product = f"{counted(study.strategy.trials, 'variant')} × {times}"
    return left, [f"cells: {product} = {plan.total}; {done} done already, {len(left)} to run"]


def _race(plan: Plan) -> tuple[list[Cell], list[str]]:
    """The cells that a race would run if it dropped nobody else, and what it has dropped so far."""
    race = Race(plan.study, plan.refs)
    done = follow(race, plan.finished)
    left = race.cells_left()
    looks = ", ".join(map(str, race.times)) or "none: too few blocks"
    product = f"{counted(len(plan.study.variants()), 'variant')} × {counted(len(race.blocks), 'block')}"
    lines = [
        f"race by validation {metric_name(race.metric)}: the best variant is dropped with a chance of at most "
        f"{race.alpha:g}; looks after blocks {looks}",
        f"cells: at most {product} (a seed on a source) = {plan.total}; {len(done)} done already, at most {len(left)} "
        "to run",
    ]
    return left, lines + race_lines(race) + [f"  {line}" for line in dropped_lines(race)]


def _contrasts(plan: Plan, pilot: pd.DataFrame | None) -> list[str]:
    """Lines on what the declared contrasts can reach at best, and how large a difference they can find."""
    study, refs = plan.study, plan.refs
    if not study.contrasts:
        return ["contrasts: none declared, so whatever is compared later is exploratory"]
    n = n_sources(study, refs)
    units, how = counted_units(len(study.datasets), n), f"(α = {study.alpha:g}, correction {study.correction})"
    lines = [
        f"contrasts over {units}: the smallest p of a signed-rank test is {smallest_p_signed_rank(n):.4g} {how}"
        if not all(map(is_fixed, study.contrasts))
        else f"contrasts on these {units}, by t over seeds and test images {how}"
    ]
    for contrast in study.contrasts:
        size = family_size(study, contrast)
        sides = f"{contrast.against_label} against {contrast.baseline_label}"
        fixed = is_fixed(contrast)
        smallest = "on these data sets" if fixed else f"p ≥ {smallest_p(study, contrast, refs):.4g}"
        line = f"  {contrast.name}: {sides}, {metric_name(contrast.metric)}, margin {contrast.margin:g}: {smallest}"
        if size > 1:
            line += f" (family {contrast.family} of {size})"
        if not reaches(study, contrast, refs):
            noun = "data sets" if n == len(study.datasets) else "sources"
            needed = f"{FEWEST_SEEDS} seeds" if fixed else f"{fewest(study, size)} {noun}"
            line += f": cannot reach α, which takes {needed}"
        lines.append(line)
    found = {detectable(study, c, pilot, refs) for c in study.contrasts if reaches(study, c, refs)}
    return lines + [f"  found with 80 % power: {size}" for size in sorted(found)]
