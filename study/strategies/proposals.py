"""Proposals of a search: from a trial's parameters to a variant, from its cells' records to objectives."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from analysis.records.schema import Record
from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import AXES, FAMILIES, SUGAR, parse_axis
from medmamba_variants.design.branches import branches_from_split_ratio
from medmamba_variants.design.structure import dead_axes
from study.declaration.cells import Cell
from study.declaration.definition import Range, Study

# Whether other axes have an effect hangs on these, each on those before it, and on axes of their own component.
DECIDING = ("depths", "branches", "split_ratio", *FAMILIES)
# Values in steps are rounded to this many decimals.
STEP_DIGITS = 12


@dataclass
class Proposal:
    """A variant that a search has accepted: its cells, their records, and the trials that wait for them."""

    variant: VariantConfig
    macs: float
    cells: dict[str, Cell]
    records: dict[str, Record] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    # The last trial of this variant that was closed without values, to be redone if its cells succeed after all.
    closed: int | None = None
    complete: bool = False

    def all_in(self) -> bool:
        """Whether every cell has left a record."""
        return len(self.records) == len(self.cells)

    def outcome(self, study: Study) -> tuple[list[float] | None, str, str]:
        """The outcome, (objectives, status, reason): each validation metric's mean over data sets of means over seeds.

        No objectives, but a reason, where a cell failed or was stopped, or a metric is not a number.
        """
        statuses = Counter(record["status"] for record in self.records.values())
        for status in ("failed", "stopped"):
            if statuses[status]:
                return None, status, f"{statuses[status]} of {len(self.cells)} cells {status}"
        values = []
        for objective in study.strategy.objectives:
            if objective == "macs":
                values.append(self.macs)
                continue
            by_data: dict[str, list[float]] = {name: [] for name in study.datasets}
            for cell_id, cell in self.cells.items():
                value = self.records[cell_id]["validation"].get(objective)
                if value is None or not math.isfinite(value):
                    where = f"{cell.data.name}, seed {cell.seed}"
                    return None, "failed", f"validation {objective} is not a number ({where})"
                by_data[cell.data.name].append(value)
            values.append(fmean(fmean(by_seed) for by_seed in by_data.values()))
        return values, "done", ""


def next_axis(study: Study, params: Mapping[str, Any]) -> str | None:
    """The axis that a trial with these parameters must choose next; None where every axis that lives has been chosen.

    Axes are chosen in the file's order, but for those that may have no effect: they wait for what decides that.
    """
    try:
        dead = dead_axes(_values(study, _choices(study, params)))
    except ValueError:  # lists of different lengths, which make no network
        dead = {}
    waiting = [name for name in study.axes if name not in params and name not in dead]
    for name in waiting:
        axis = (AXES | SUGAR)[name]
        decided_by = DECIDING[: DECIDING.index(name)] if name in DECIDING else (*DECIDING, *axis.hangs_on)
        if not axis.no_effect or not set(decided_by) & set(waiting):
            return name
    return None


def variant_of(study: Study, params: Mapping[str, Any]) -> VariantConfig:
    """The variant of a trial's parameters. An axis without effect at this point is left out: one network, one variant.

    Raises ValueError when the choices do not make a network.
    """
    choices = _choices(study, params)
    dead = dead_axes(_values(study, choices))
    return VariantConfig.from_dict({k: v for k, v in choices.items() if k not in dead}, base=study.base)


def _choices(study: Study, params: Mapping[str, Any]) -> dict[str, Any]:
    choices: dict[str, Any] = {}
    for name, param in params.items():
        values = study.axes[name]
        if not isinstance(values, Range):
            choices[name] = json.loads(param)
        else:
            # .1 + 2 · .1 misses .3 by its last bit, and would be a different variant from a file's .3.
            choices[name] = round(param, STEP_DIGITS) if values.step else param
    return choices


def _values(study: Study, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical values of all axes: the choices, and the base's."""
    fields: dict[str, Any] = {name: getattr(study.base, name) for name in AXES}
    fields |= {name: parse_axis(name, value) for name, value in choices.items()}
    if "split_ratio" in fields:
        fields["branches"] = branches_from_split_ratio(fields.pop("split_ratio"))
    return fields
