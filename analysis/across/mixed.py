"""One mixed model of all finished cells: metric ~ variant + log2 MACs, data sets, data set × variant and seeds random.

The variances are those of restricted maximum likelihood (REML), found by bounded optimisation (Bates et al. 2015,
section 3) in `analysis.across.reml`. statsmodels' MixedLM has the same optimum where it converges, but is slow and does
not converge where a variance is zero, which in studies of this size is common.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.across.reml import COMPONENTS, Fit, fit_variances
from analysis.distributions import t_quantile, t_tail
from analysis.interval import Interval
from analysis.records.sources import unit_noun
from analysis.records.table import Matrix, cells_by_source, finished_cells, is_ledger, sources_of

# The share of the variation of log2 MACs within data sets that variants must leave unexplained for both to be fitted.
OWN_SHARE = 0.01


@dataclass(frozen=True)
class FixedEffect:
    """A fixed effect in the metric's unit: estimate, standard error, t with its degrees of freedom, p, interval."""

    name: str
    estimate: float
    standard_error: float
    t: float
    df: int
    p_value: float
    interval: Interval


@dataclass(frozen=True)
class MixedModel:
    """A fitted mixed model. Variances are in the metric's unit squared; None where the design cannot identify one.

    intercept: the reference's mean, at each data set's mean MACs where MACs are in the model. effects: each other
    variant's difference from the reference. macs: gain per doubling of MACs, None where left out, `macs_left_out` says
    why. converged: whether the optimiser found a maximum; notes: what was unusual about the fit (a variance at zero, no
    convergence), one sentence each. covariance: that of the coefficients (intercept, effects, macs). datasets_of: how
    many data sets each variant finished on. over: what n_datasets counts, "sources" where files of one were averaged.
    """

    reference: str
    intercept: FixedEffect
    effects: tuple[FixedEffect, ...]
    macs: FixedEffect | None
    macs_left_out: str | None
    variance_dataset: float
    variance_dataset_variant: float | None
    variance_seed: float | None
    variance_residual: float
    log_likelihood: float
    converged: bool
    notes: tuple[str, ...]
    covariance: tuple[tuple[float, ...], ...]
    datasets_of: dict[str, int]
    n_datasets: int
    n_seeds: int
    n_cells: int
    n_left_out: int
    over: str = "data sets"

    def difference(self, baseline: str, against: str, *, level: float = 0.95) -> FixedEffect:
        """The difference against − baseline of two variants of the model.

        The degrees of freedom of t are the data sets of the variant that finished on fewer, less 1: the others say
        nothing about how this one varies.
        """
        variants = [self.reference, *(effect.name for effect in self.effects)]
        weights = np.zeros(len(self.covariance))
        for variant, sign in ((baseline, -1.0), (against, 1.0)):
            if variant not in variants:
                raise ValueError(f"variants must be among those of the model ({', '.join(variants)}), got {variant!r}")
            if variant != self.reference:
                weights[variants.index(variant)] += sign
        coefficients = np.array([0.0, *(effect.estimate for effect in self.effects), 0.0][: len(weights)])
        variance = float(weights @ np.array(self.covariance) @ weights)
        n_datasets = min(self.datasets_of[baseline], self.datasets_of[against])
        name = f"{against} − {baseline}"
        return _effect(name, float(weights @ coefficients), variance, n_datasets, level, self.over)


class Design(NamedTuple):
    """The model's columns, a row per cell: value, fixed effects, codes of data set, variant and seed."""

    values: np.ndarray
    fixed: np.ndarray
    datasets: np.ndarray
    variants: np.ndarray
    seeds: np.ndarray


def mixed_model(
    table: Matrix,
    metric: str | None = None,
    *,
    macs: bool = True,
    reference: str | None = None,
    level: float = 0.95,
) -> MixedModel:
    """The mixed model of a ledger's table, fitted to all finished cells: uncertainty over data sets and seeds.

    metric ~ variant + log2 MACs, with normal random effects of data set, of data set × variant (whether a variant suits
    a data set), and of the seeds within a data set (what paired trainings share). Leaving out data set × variant would
    shrink the standard errors falsely. REML; t with data sets − 1 degrees of freedom, of a variant's effect those data
    sets that the variant or the reference finished on, whichever are fewer: with 1 there is p = 1 and no interval.

    log2 MACs (`cost.macs`) are centred on their data set's mean (over all variants, missing ones too), so that harder
    data sets with larger images do not pose as an effect of cost. They take part only where variants do not determine
    them; then the effects of variants are differences at equal MACs. macs=False leaves them out: differences as they
    are, cost included.

    Files of one source are averaged first, seed by seed, and count as one data set (`analysis.records.sources`).

    table may hold the values themselves, (data sets, variants), one seed each. One seed per cell: data set × variant
    cannot be told from the residual, and both are the residual. Cells that failed or lack the metric are left out and
    counted, data sets may miss variants. reference: by default the first variant of the table.

    Raises ValueError for fewer than two data sets or variants.
    """
    ready = prepared(table, metric, macs=macs, reference=reference)
    return fitted(ready, fit_variances(*ready.design), level=level)


@dataclass(frozen=True)
class Prepared:
    """What a mixed model is fitted to, and what is reported along with the fit. names: the reference first."""

    design: Design
    names: tuple[str, ...]
    macs_left_out: str | None
    datasets_of: dict[str, int]
    n_datasets: int
    n_seeds: int
    n_left_out: int
    over: str = "data sets"


def prepared(table: Matrix, metric: str | None, *, macs: bool = True, reference: str | None = None) -> Prepared:
    """The design of `mixed_model`, for a fit made elsewhere. Raises ValueError as `mixed_model` does."""
    cells = _cells(table, metric)
    names = list(dict.fromkeys(cells["variant_id"]))
    if len(names) < 2:
        raise ValueError(f"table must have at least two variants with a finished cell, got {len(names)}")
    if reference is None:
        reference = names[0]
    if reference not in names:
        raise ValueError(f"reference must be one of {', '.join(names)}, got {reference!r}")
    names = [reference, *(name for name in names if name != reference)]
    n_datasets = cells["dataset"].nunique()
    if n_datasets < 2:
        raise ValueError(f"table must have at least two data sets with a finished cell, got {n_datasets}")
    log_macs, macs_left_out = _log_macs(cells) if macs else (None, "not asked for")
    design = _design(cells, names, log_macs)
    if design.values.size <= design.fixed.shape[1]:
        raise ValueError(f"table must have more finished cells than coefficients, got {len(cells)} for {len(names)}")
    return Prepared(
        design=design,
        names=tuple(names),
        macs_left_out=macs_left_out,
        datasets_of=cells.groupby("variant_id")["dataset"].nunique().astype(object).to_dict(),
        n_datasets=n_datasets,
        n_seeds=cells["seed"].nunique(),
        n_left_out=cells.attrs["left_out"],
        over=cells.attrs["over"],
    )


def fitted(ready: Prepared, fit: Fit, *, level: float = 0.95) -> MixedModel:
    """The mixed model of a design and its fit."""
    names, datasets_of = ready.names, ready.datasets_of
    variances = dict(zip(COMPONENTS, fit.variances))

    def effect(name: str, index: int, n: int) -> FixedEffect:
        return _effect(name, float(fit.coefficients[index]), float(fit.covariance[index, index]), n, level, ready.over)

    return MixedModel(
        reference=names[0],
        intercept=effect("intercept", 0, ready.n_datasets),
        effects=tuple(
            effect(name, index, min(datasets_of[name], datasets_of[names[0]]))
            for index, name in enumerate(names[1:], start=1)
        ),
        macs=effect("log2 MACs", len(names), ready.n_datasets) if ready.macs_left_out is None else None,
        macs_left_out=ready.macs_left_out,
        variance_dataset=variances["data set"] or 0.0,
        variance_dataset_variant=variances["data set × variant"],
        variance_seed=variances["seed"],
        variance_residual=fit.residual,
        log_likelihood=fit.log_likelihood,
        converged=fit.converged,
        notes=_notes(fit),
        covariance=tuple(tuple(float(value) for value in row) for row in fit.covariance),
        datasets_of=datasets_of,
        n_datasets=ready.n_datasets,
        n_seeds=ready.n_seeds,
        n_cells=len(ready.design.values),
        n_left_out=ready.n_left_out,
        over=ready.over,
    )


def _cells(table: Matrix, metric: str | None) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame) and is_ledger(table):
        if metric is None:
            raise ValueError("metric must be named for a table of cells, got none")
        cells = finished_cells(table, metric)
    else:
        wide = pd.DataFrame(table)
        rows = [(str(v), str(d), value) for d, row in wide.iterrows() for v, value in row.items()]
        cells = finished_cells(pd.DataFrame(rows, columns=["variant_id", "dataset", "metric"]), "metric")
    found = cells_by_source(cells)
    sources = sources_of(cells)
    found.attrs["over"] = f"{unit_noun(sources, sources)}s"
    return found


def _log_macs(cells: pd.DataFrame) -> tuple[np.ndarray | None, str | None]:
    """log2 MACs less what their data set adds, (cells,), or None and why they cannot take part.

    What data sets and variants add is by least squares: a data set's mean would move with the variants that it lacks.
    """
    if "cost.macs" not in cells:
        return None, "the table has no cost.macs"
    macs = cells["cost.macs"].to_numpy(dtype=np.float64)
    if not (np.isfinite(macs) & (macs > 0)).all():
        return None, "MACs are not known of every cell"
    logs = np.log2(macs)
    datasets, variants = (pd.get_dummies(cells[name], dtype=float).to_numpy() for name in ("dataset", "variant_id"))
    added = np.linalg.lstsq(np.hstack([datasets, variants]), logs, rcond=None)[0]
    by_dataset, by_variant = np.split(added, [datasets.shape[1]])
    own = logs - datasets @ by_dataset - variants @ by_variant
    # Where nothing is missing this is the distance from the data set's mean.
    centred = logs - datasets @ by_dataset - by_variant.mean()
    total = float(centred @ centred)
    if total <= 1e-12 * len(logs):
        return None, "all variants have the same MACs"
    if float(own @ own) < OWN_SHARE * total:
        return None, "variants determine their MACs"
    return centred, None


def _design(cells: pd.DataFrame, names: Sequence[str], log_macs: np.ndarray | None) -> Design:
    variants = pd.Categorical(cells["variant_id"], categories=names).codes.astype(np.int64)
    columns = [np.ones(len(cells)), *(variants == code for code in range(1, len(names)))]
    if log_macs is not None:
        columns.append(log_macs)
    return Design(
        values=cells["value"].to_numpy(dtype=np.float64),
        datasets=pd.factorize(cells["dataset"])[0],
        variants=variants,
        seeds=pd.factorize(cells["seed"])[0],
        fixed=np.column_stack(columns).astype(np.float64),
    )


def _effect(
    name: str, estimate: float, variance: float, n_datasets: int, level: float, over: str = "data sets"
) -> FixedEffect:
    error, df = math.sqrt(max(0.0, variance)), n_datasets - 1
    if error > 0:
        t = estimate / error
    else:
        t = math.copysign(math.inf, estimate) if estimate else 0.0
    half = error * t_quantile((1 + level) / 2, df)
    interval = Interval(estimate - half, estimate + half, level, over, n_datasets)
    p_value = min(1.0, 2 * t_tail(abs(t), df)) if df > 0 else 1.0
    return FixedEffect(name, estimate, error, t, df, p_value, interval)


def _notes(fit: Fit) -> tuple[str, ...]:
    notes = [
        f"the variance of {name} is estimated as zero"
        for name, variance in zip((*COMPONENTS, "the residual"), (*fit.variances, fit.residual))
        if variance == 0.0
    ]
    if not fit.converged:
        notes.append(f"the fit did not converge: {fit.message}")
    return tuple(notes)
