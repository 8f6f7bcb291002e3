"""Reach of the declared contrasts: the smallest possible p, and the difference that would be found."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from analysis.power import (
    detectable_difference,
    detectable_effect,
    detectable_on_these,
    pilot_spread,
    smallest_adjusted_p,
)
from analysis.records.ledger import load_ledger
from analysis.records.sources import counted_units, files_by_source, folds_alone
from analysis.verdicts.levels import FEWEST_FOLDS, FEWEST_SEEDS, THESE_DATA_SETS
from analysis.words import counted, metric_name
from study.declaration.cells import DataRef
from study.declaration.definition import Contrast, Study
from study.planning.plan import Plan
from study.store.ledger import Ledger

# A study's data sets by name, which know their sources; without them each data set counts as a source of its own.
Refs = Mapping[str, DataRef] | None


def unreachable(study: Study, refs: Refs = None) -> str | None:
    """Why the declared confirmatory contrasts cannot reach their α with the study's data sets; None where they can.

    Sources of data sets are the units of a claim in general, so that their number sets the smallest possible p; one on
    the study's own data sets takes seeds.
    """
    short = [c for c in study.contrasts if c.kind == "confirmatory" and not reaches(study, c, refs)]
    if not short:
        return None
    worst = max(short, key=lambda contrast: smallest_p(study, contrast, refs))
    if is_fixed(worst):
        more = "" if len(short) == 1 else f" and {len(short) - 1} more"
        return (
            f"{study.path}: confirmatory contrasts on these data sets must have {FEWEST_SEEDS} seeds, got "
            f"'{worst.name}'{more} with {counted(len(study.seeds), 'seed')} (or kind: exploratory)"
        )
    units = counted_units(len(study.datasets), n_sources(study, refs))
    noun = "data sets" if len(study.datasets) == n_sources(study, refs) else "sources"
    size, more = family_size(study, worst), "" if len(short) == 1 else f" and {len(short) - 1} more"
    family = f", {study.correction} over the {size} of family {worst.family}" if size > 1 else ""
    return (
        f"{study.path}: confirmatory contrasts must be able to reach α = {study.alpha:g}, "
        f"got '{worst.name}'{more} with a smallest p of {smallest_p(study, worst, refs):.4g} on {units}"
        f"{family} (takes {fewest(study, size)} {noun}, or level: these data sets, or kind: exploratory)"
    )


def n_sources(study: Study, refs: Refs = None) -> int:
    """The number of sources that the study's data sets are of."""
    return len(files_by_source(study.datasets, study.source_keys(refs)))


def pilot(plan: Plan, ledger: Ledger) -> pd.DataFrame | None:
    """The finished cells of a study with contrasts, as a pilot from which to estimate the spread; None without any."""
    if not plan.study.contrasts:
        return None
    try:
        return load_ledger(ledger.folder, cell_ids=plan.cells, records=ledger.reading())
    except ValueError:
        return None


def detectable(study: Study, contrast: Contrast, pilot: pd.DataFrame | None, refs: Refs = None) -> str:
    """The smallest difference that would be found: in the metric's unit by a pilot's spread, else in spreads."""
    n, size = n_sources(study, refs), family_size(study, contrast)
    if is_fixed(contrast):
        return _detectable_on_these(study, contrast, pilot, size)
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
            metric = metric_name(contrast.metric)
            return f"a difference in {metric} of about {found:.2g} by the spread of cells done already{family}"
    level = study.alpha if study.correction == "none" else study.alpha / size
    effect = detectable_effect(n, level)
    if math.isinf(effect):
        return f"no difference of one contrast alone{family}"
    over = "data sets" if n == len(study.datasets) else "sources"
    return f"a difference of {effect:.2g} of its standard deviations over {over}{family}"


def _detectable_on_these(study: Study, contrast: Contrast, pilot: pd.DataFrame | None, size: int) -> str:
    family = f" (family of {size})" if size > 1 else ""
    if pilot is not None:
        try:
            found = detectable_on_these(
                pilot,
                contrast.metric,
                len(study.seeds),
                alpha=study.alpha,
                family_size=size,
                correction=study.correction,
            )
        except ValueError:
            pass
        else:
            return (
                f"on these data sets a difference in {metric_name(contrast.metric)} of about {found:.2g} by the spread "
                f"over seeds of cells done already, to which test images add theirs{family}"
            )
    return f"on these data sets what the spread over seeds and test images lets through, which cells will tell{family}"


def is_fixed(contrast: Contrast) -> bool:
    """Whether a contrast is about the study's own data sets and no others."""
    return contrast.level == THESE_DATA_SETS


def reaches(study: Study, contrast: Contrast, refs: Refs = None) -> bool:
    """Whether a contrast could be significant at the study's α if all its data sets agreed."""
    return smallest_p(study, contrast, refs) <= study.alpha


def family_size(study: Study, contrast: Contrast) -> int:
    """The number of contrasts that share a correction with a given one: those of its family and kind."""
    return sum((c.family, c.kind) == (contrast.family, contrast.kind) for c in study.contrasts)


def smallest_p(study: Study, contrast: Contrast, refs: Refs = None) -> float:
    """The smallest p, adjusted within its family, that a contrast can have on the sources of the study's data sets.

    On these data sets, where they are fixed, any with three seeds, or three folds where all are folds of one; without
    them 1.
    """
    if is_fixed(contrast):
        folds = len(study.datasets) >= FEWEST_FOLDS and folds_alone(study.datasets) is not None
        return 0.0 if folds or len(study.seeds) >= FEWEST_SEEDS else 1.0
    return smallest_adjusted_p(n_sources(study, refs), family_size(study, contrast), study.correction)


def fewest(study: Study, family_size: int) -> int:
    """The fewest data sets with which the smallest adjusted p is at most α."""
    n = 1
    while smallest_adjusted_p(n, family_size, study.correction) > study.alpha:
        n += 1
    return n
