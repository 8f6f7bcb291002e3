"""Metric against cost: the Pareto front over MACs, parameters or latency, and how certain it is.

Costs are exact: they are counted, and stay as they are in every draw. The metric is not: its uncertainty is that over
data sets, and over the seeds within them, which are drawn anew for all variants together, so that what they share
cancels. Means are taken on each data set first, over the seeds that all variants finished there. More is better, save
for metrics that `analysis.metrics.LOWER_IS_BETTER` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.across.bootstrap import redraw, what_varies
from analysis.across.mean_tests import t_interval, t_over_means
from analysis.distributions import t_quantile
from analysis.interval import Interval
from analysis.metrics import LOWER_IS_BETTER
from analysis.records.sources import files_by_source, unit_noun
from analysis.records.table import by_source, paired_seeds, sources_of

Cost = str | Mapping[str, float]
# Costs that agree to nine digits are equal: means over data sets carry rounding.
DIGITS = 9


@dataclass(frozen=True)
class Point:
    """A variant's cost and mean metric, whether it is on the front, and with what probability.

    interval: Student's over data sets (over seeds with one), for this variant alone. p_front: share of the draws of
    data sets and seeds in which it is on the front.
    """

    variant_id: str
    label: str
    cost: float
    value: float
    interval: Interval
    on_front: bool
    p_front: float


@dataclass(frozen=True)
class Front:
    """The front of a metric against a cost, cheapest variant first.

    hypervolume: area between the best metric that each budget reaches and the reference's, over log2 cost up to the
    reference's: metric × doublings of cost. It is too large where variants tie, for the best of several means is lucky;
    its interval has that bias taken out. reference: (cost, metric). left_out: data sets that some variant misses.
    over: what n_datasets counts, "sources" where files of one source were averaged.
    """

    points: tuple[Point, ...]
    hypervolume: float
    hypervolume_interval: Interval
    reference: tuple[float, float]
    n_datasets: int
    n_seeds: int
    draws: int
    left_out: tuple[str, ...]
    over: str = "data sets"


@dataclass(frozen=True)
class Choice:
    """The best variant within a budget, the probability that it is the best, and that of every affordable one."""

    variant_id: str
    label: str
    probability: float
    probabilities: dict[str, float]
    value: float
    interval: Interval
    budget: float


@dataclass(frozen=True)
class CostEffect:
    """An effect of cost, averaged over data sets, in the metric's unit: estimate, interval, p, value by data set."""

    estimate: float
    interval: Interval
    p_value: float
    by_dataset: dict[str, float]


def pareto_front(
    table: pd.DataFrame | Cells,
    metric: str,
    *,
    rng: np.random.Generator,
    cost: Cost = "macs",
    reference: tuple[float, float] | None = None,
    draws: int = 10_000,
    level: float = 0.95,
) -> Front:
    """The Pareto front of a ledger's table: variants that no other matches at lower cost or beats at no higher cost.

    cost: macs, params, flops or another column (means over data sets), or a number for each variant, such as a measured
    latency. Of two that agree in both, both are on the front. reference: (cost, metric) for the hypervolume; by default
    the largest cost and the worst mean among the variants, fixed over the draws.
    The hypervolume's interval and the probabilities are by bootstrap of data sets and seeds; with one data set, of its
    seeds; with one cell per variant there is nothing to draw: every probability is 0 or 1 and intervals are undefined.

    The interval: the hypervolume less its bias, by how much the draws' mean exceeds it (Efron & Tibshirani 1993,
    chapter 10), ± t standard deviations of the draws. A maximum over tied means is biased once in the data and again in
    the draws, so that percentiles would hold the truth 70 % of the time with five tied variants; in simulations with 3
    to 20 data sets and a fixed reference this 95 % interval held it 93 to 99 %. The default reference is a mean of the
    same data, without which no hypervolume is below zero: it has no true value where variants tie.
    """
    cells = _read(table, metric, cost)
    worst = float(cells.means.min())
    at_cost, at_value = reference if reference is not None else (float(cells.costs.max()), cells.sign * worst)
    if not (math.isfinite(at_cost) and at_cost > 0 and math.isfinite(at_value)):
        raise ValueError(f"reference must be a positive cost and a finite metric, got {reference}")
    on_front = np.zeros(len(cells.variants))
    volumes = []
    for means in cells.drawn(draws, rng):
        on_front += _on_front(cells.costs, means).sum(axis=0)
        volumes.append(_hypervolume(cells.costs, means, at_cost, cells.sign * at_value))
    here = _on_front(cells.costs, cells.means[None])[0]
    points = [
        Point(
            variant, cells.labels[i], float(cells.costs[i]), *cells.value(i, level), bool(here[i]), on_front[i] / draws
        )
        for i, variant in enumerate(cells.variants)
    ]
    volume = float(_hypervolume(cells.costs, cells.means[None], at_cost, cells.sign * at_value)[0])
    return Front(
        points=tuple(sorted(points, key=lambda point: point.cost)),
        hypervolume=volume,
        hypervolume_interval=_without_bias(volume, np.concatenate(volumes), level, cells.n_seeds, cells.over),
        reference=(at_cost, at_value),
        n_datasets=len(cells.n_seeds),
        n_seeds=max(cells.n_seeds),
        draws=draws,
        left_out=cells.left_out,
        over=cells.over,
    )


def best_under_budget(
    table: pd.DataFrame | Cells,
    metric: str,
    budget: float,
    *,
    rng: np.random.Generator,
    cost: Cost = "macs",
    draws: int = 10_000,
    level: float = 0.95,
) -> Choice:
    """The variant with the best mean metric among those of at most this cost, the cheaper of two that tie.

    Its probability is the share of draws of data sets and seeds in which it is the best; where several tie in a draw
    they share it, so that identical variants have one half each. A pick on test data says nothing about fresh ones.
    Raises ValueError when the budget allows no variant.
    """
    cells = _read(table, metric, cost)
    affordable = np.flatnonzero(cells.costs <= budget * (1 + 10.0**-DIGITS))
    if len(affordable) == 0:
        raise ValueError(f"budget must allow the cheapest variant, which costs {cells.costs.min():g}, got {budget:g}")
    shares = np.zeros(len(affordable))
    for means in cells.drawn(draws, rng, affordable):
        best = means == means.max(axis=1, keepdims=True)
        shares += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
    probabilities = {cells.variants[i]: float(share / draws) for i, share in zip(affordable, shares)}
    chosen = int(min(affordable, key=lambda i: (-cells.means[i], cells.costs[i])))
    variant = cells.variants[chosen]
    value, interval = cells.value(chosen, level)
    return Choice(variant, cells.labels[chosen], probabilities[variant], probabilities, value, interval, budget)


def gain_per_doubling(
    table: pd.DataFrame | Cells,
    metric: str,
    *,
    cost: Cost = "macs",
    variants: Sequence[str] | None = None,
    level: float = 0.95,
) -> CostEffect:
    """How much the metric changes as cost doubles: least-squares slopes of variants' means on log2 cost, by data set.

    Student's t over the data sets' slopes; with one data set over its seeds' slopes, which then says nothing about
    other data. Costs are those on each data set. Raises ValueError where all variants cost the same.
    """
    cells = _read(table, metric, cost, variants)
    slopes = []
    for dataset, values in cells.by_dataset.items():
        logs = np.log2(cells.costs_on(dataset))
        centred = logs - logs.mean()
        if np.abs(centred).max() < 10.0**-DIGITS:
            raise ValueError(f"variants must differ in cost, got {2 ** logs[0]:g} for all of {len(logs)} on {dataset}")
        slopes.append(cells.sign * values @ centred / float(centred @ centred))
    return _over(cells, slopes, level)


def iso_cost(
    table: pd.DataFrame,
    metric: str,
    baseline: str | Sequence[str],
    against: str | Sequence[str],
    *,
    cost: Cost = "macs",
    at: float | None = None,
    tolerance: float = 0.02,
    level: float = 0.95,
) -> CostEffect:
    """The difference against − baseline of two families of variants at equal cost.

    On each data set both families are curves of mean metric over log2 cost, straight between their variants; the number
    is the mean distance between the curves where both exist, or the distance at the cost `at`. Nothing is extrapolated:
    families whose costs do not meet are refused, unless the gap is below `tolerance`, a share of the cost (two variants
    made to cost the same). Student's t over data sets; with one data set, over its seeds.
    """
    families = [[family] if isinstance(family, str) else list(family) for family in (baseline, against)]
    if not families[0] or not families[1]:
        raise ValueError("baseline and against must name at least one variant each, got none")
    cells = Cells(table, metric, cost, list(dict.fromkeys(families[0] + families[1])))
    indices = [[cells.variants.index(variant) for variant in family] for family in families]
    distances = []
    for dataset, values in cells.by_dataset.items():
        logs = np.log2(cells.costs_on(dataset))
        places = _meeting(logs[indices[0]], logs[indices[1]], at, tolerance, dataset)
        first, second = (_curve(logs[index], cells.sign * values[:, index], places) for index in indices)
        gap, width = second - first, places[-1] - places[0]
        mean = np.trapezoid(gap, places, axis=1) / width if width > 0 else gap.mean(axis=1)
        distances.append(mean)
    return _over(cells, distances, level)


class Cells:
    """A table's values by data set, seed and variant, turned so that more is better, with costs.

    Files of one source are averaged, seed by seed, and count as one data set.

    For several questions about one metric and cost, read them once and pass them in place of the table.
    """

    def __init__(self, table: pd.DataFrame, metric: str, cost: Cost, variants: Sequence[str] | None = None) -> None:
        if variants is not None:
            absent = [variant for variant in variants if variant not in set(table["variant_id"])]
            if absent:
                raise ValueError(f"variants must be among those of the table, got {', '.join(absent)}")
            table = table[table["variant_id"].isin(variants)]
        by_file, sources = paired_seeds(table, metric), sources_of(table)
        frames = by_source(by_file, sources)
        self.over = f"{unit_noun(by_file, sources)}s"
        self.sign = -1.0 if metric.removeprefix("test.") in LOWER_IS_BETTER else 1.0
        self.variants = [str(variant) for variant in next(iter(frames.values())).columns]
        absent = [] if variants is None else [variant for variant in variants if variant not in self.variants]
        if absent:
            raise ValueError(f"variants must have a finished cell, got none of {', '.join(absent)}")
        self.by_dataset = {name: self.sign * frame.to_numpy() for name, frame in frames.items()}
        self.n_seeds = [len(values) for values in self.by_dataset.values()]
        self.left_out = tuple(sorted({str(name) for name in table["dataset"]} - set(by_file)))
        named = table.drop_duplicates("variant_id", keep="last").set_index("variant_id")
        self.labels = [str(named["variant_label"][v]) if "variant_label" in named else v for v in self.variants]
        costs = dict(zip(by_file, _costs(table, cost, self.variants, list(by_file))))
        groups = files_by_source(by_file, sources)
        self._costs = np.stack([np.mean([costs[name] for name in files], axis=0) for files in groups])
        self.costs = _merged(self._costs.mean(axis=0))
        self.means = np.mean([values.mean(axis=0) for values in self.by_dataset.values()], axis=0)

    def costs_on(self, dataset: str) -> np.ndarray:
        """Costs of the variants on one data set, (variants,)."""
        return self._costs[list(self.by_dataset).index(dataset)]

    def value(self, index: int, level: float) -> tuple[float, Interval]:
        """A variant's mean metric, and Student's interval over data sets, or over seeds with one data set."""
        return _mean([self.sign * values[:, index] for values in self.by_dataset.values()], level, self.over)

    def drawn(
        self, draws: int, rng: np.random.Generator, variants: np.ndarray | slice = slice(None)
    ) -> Iterator[np.ndarray]:
        """Slices of means over data sets and seeds drawn anew, (draws, variants). variants: whose, by default of all.

        What is drawn does not depend on whose means are wanted.
        """
        most = max(self.n_seeds)
        # The last row is what a data set adds where it has fewer seeds than the most.
        rows = np.zeros((len(self.n_seeds) * most + 1, len(np.arange(len(self.variants))[variants])))
        for place, values in enumerate(self.by_dataset.values()):
            rows[place * most : place * most + len(values)] = values[:, variants]
        for datasets, seeds, counts in redraw(self.n_seeds, draws, rng, len(self.variants)):
            places = np.where(counts, datasets[:, :, None] * most + seeds, len(rows) - 1)
            yield (rows.take(places, axis=0).sum(axis=2) / counts.sum(axis=2)[..., None]).mean(axis=1)


def _read(table: pd.DataFrame | Cells, metric: str, cost: Cost, variants: Sequence[str] | None = None) -> Cells:
    return table if isinstance(table, Cells) else Cells(table, metric, cost, variants)


def _costs(table: pd.DataFrame, cost: Cost, variants: Sequence[str], datasets: Sequence[str]) -> np.ndarray:
    """Costs, (data sets, variants)."""
    if isinstance(cost, str):
        column = next((name for name in (f"cost.{cost}", cost) if name in table), None)
        if column is None:
            known = ", ".join(c.removeprefix("cost.") for c in table if str(c).startswith("cost.")) or "none"
            raise ValueError(f"cost must be one of the table's ({known}), got {cost!r}")
        means = table.assign(dataset=table["dataset"].astype(str)).groupby(["dataset", "variant_id"])[column].mean()
        costs = means.unstack().reindex(index=list(datasets), columns=list(variants)).to_numpy(dtype=np.float64)
    else:
        absent = [variant for variant in variants if variant not in cost]
        if absent:
            raise ValueError(f"cost must be given for every variant, got none for {', '.join(absent)}")
        costs = np.tile(np.array([cost[variant] for variant in variants], dtype=np.float64), (len(datasets), 1))
    wrong = ~(np.isfinite(costs) & (costs > 0))
    if wrong.any():
        row, column_index = np.argwhere(wrong)[0]
        raise ValueError(
            f"costs must be finite and above 0, got {costs[row, column_index]} of {variants[column_index]} on "
            f"{datasets[row]}"
        )
    return costs


def _merged(costs: np.ndarray) -> np.ndarray:
    """The costs, with those that are equal up to rounding made one number."""
    _, first, codes = np.unique(np.round(np.log2(costs), DIGITS), return_index=True, return_inverse=True)
    return costs[first][codes]


def _on_front(costs: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Which variants are on the front, (draws, variants), for costs (variants,) and means (draws, variants)."""
    on_front = np.zeros(means.shape, dtype=bool)
    best = np.full(len(means), -math.inf)
    for value in np.unique(costs):
        here = costs == value
        top = means[:, here].max(axis=1)
        on_front[:, here] = (means[:, here] == top[:, None]) & (top > best)[:, None]
        best = np.maximum(best, top)
    return on_front


def _hypervolume(costs: np.ndarray, means: np.ndarray, at_cost: float, at_value: float) -> np.ndarray:
    """Area under the staircase of the best mean within each budget, over log2 cost up to at_cost, above at_value."""
    volume, best = np.zeros(len(means)), np.full(len(means), at_value)
    steps = [value for value in np.unique(costs) if value < at_cost]
    for value, following in zip(steps, [*steps[1:], at_cost]):
        best = np.maximum(best, means[:, costs == value].max(axis=1))
        volume += (best - at_value) * math.log2(following / value)
    return volume


def _without_bias(volume: float, drawn: np.ndarray, level: float, n_seeds: Sequence[int], units: str) -> Interval:
    """Student's interval around a hypervolume less the bias of its draws, (draws,), at least 0; undefined without any.

    The draws' spread is too small by √((n − 1) / n), as in `percentile_interval`.
    """
    over, n = what_varies(n_seeds, units)
    if n < 2:
        return Interval(math.nan, math.nan, level, over, n)
    centre = 2 * volume - float(drawn.mean())
    half = float(-t_quantile((1 - level) / 2, n - 1) * drawn.std()) * math.sqrt(n / (n - 1))
    return Interval(max(0.0, centre - half), max(0.0, centre + half), level, over, n)


def _meeting(first: np.ndarray, second: np.ndarray, at: float | None, tolerance: float, dataset: str) -> np.ndarray:
    """Where two families' log2 costs meet: the ends of the common range with all variants' costs between, or `at`."""
    low, high = max(first.min(), second.min()), min(first.max(), second.max())
    slack = math.log2(1 + tolerance)
    ranges = ", ".join(f"{2 ** costs.min():g} to {2 ** costs.max():g}" for costs in (first, second))
    if low > high + slack:
        raise ValueError(f"families must meet in cost, got {ranges} on {dataset}")
    if low > high:
        return np.array([(low + high) / 2])
    if at is None:
        knots = np.concatenate([first, second])
        return np.unique(np.concatenate([[low, high], knots[(knots > low) & (knots < high)]]))
    if not (at > 0 and low - slack <= math.log2(at) <= high + slack):
        raise ValueError(f"at must lie where both families have variants ({ranges} on {dataset}), got {at:g}")
    return np.array([math.log2(at)])


def _curve(logs: np.ndarray, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each seed's metric (seeds, places) on the line through its variants; those of one cost count by their mean."""
    knots, codes = np.unique(np.round(logs, DIGITS), return_inverse=True)
    means = np.stack([values[:, codes == code].mean(axis=1) for code in range(len(knots))], axis=1)
    return np.stack([np.interp(places, knots, row) for row in means])


def _mean(by_dataset: Sequence[np.ndarray], level: float, over: str) -> tuple[float, Interval]:
    """Mean over data sets of means over seeds, with Student's interval; over seeds with one data set."""
    if len(by_dataset) == 1:
        return float(by_dataset[0].mean()), t_interval(by_dataset[0], level, "seeds")
    means = np.array([values.mean() for values in by_dataset])
    return float(means.mean()), t_interval(means, level, over)


def _over(cells: Cells, by_dataset: Sequence[np.ndarray], level: float) -> CostEffect:
    """The mean effect over data sets, from each data set's numbers, one per seed."""
    estimate, interval = _mean(by_dataset, level, cells.over)
    units = by_dataset[0] if len(by_dataset) == 1 else np.array([values.mean() for values in by_dataset])
    numbers = {name: float(values.mean()) for name, values in zip(cells.by_dataset, by_dataset)}
    return CostEffect(estimate, interval, t_over_means(units).p_value, numbers)
