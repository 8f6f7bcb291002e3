"""Figure of a metric over one number of a variant (a share, a count, a cost), paired by data set; not a test."""

import math
from collections.abc import Mapping

import numpy as np

from analysis.across.mean_tests import t_interval
from analysis.across.standings import averaged_columns, complete_rectangle
from analysis.metrics import LOWER_IS_BETTER
from analysis.records.sources import unit_noun
from analysis.rendering.canvas import COLOURS, INK, LINES, MARKERS, Drawing, legend_below, new_figure, style
from analysis.report.evidence import Evidence
from analysis.words import bounds, counted, distinct, metric_name, signed

DRAWN_DATASETS = 12


def response(evidence: Evidence, metric: str, positions: Mapping[str, float], axis: str) -> Drawing:
    """A drawing of each variant's difference from the baseline by data set (test, means over seeds), over its position.

    positions: by variant id; axis: what they are. The heavy line is the mean over data sets with Student's interval
    over data sets (over sources, where files share one). Only data sets that every drawn variant finished count. This
    is a description: verdicts decide whether there is a difference.

    Raises ValueError where the baseline has no position or no finished cell beside the others.
    """
    ids = [variant_id for variant_id in evidence.variants if variant_id in positions]
    means = complete_rectangle(evidence.table, f"test.{metric}", ids).means
    baseline = evidence.baseline
    if baseline is None or baseline not in means.index:
        raise ValueError(
            f"the baseline must be among the variants with results, got {baseline} and {list(means.index)}"
        )
    ordered = sorted(means.index, key=lambda variant_id: positions[variant_id])
    x = np.array([positions[variant_id] for variant_id in ordered])
    differences = (means - means.loc[baseline]).loc[ordered]
    values = differences.to_numpy()
    noun = unit_noun(list(differences.columns), evidence.sources)
    units = averaged_columns(differences, evidence.sources).to_numpy()
    intervals = [t_interval(row, 0.95, f"{noun}s") for row in units]
    with style():
        drawn = min(len(differences.columns), DRAWN_DATASETS)
        figure, (axes,) = new_figure(2.9 + 0.17 * math.ceil((drawn + 1) / 2))
        axes.axhline(0, color=INK, linewidth=0.8)
        for index, dataset in enumerate(distinct(differences.columns, 22)[:DRAWN_DATASETS]):
            mark = MARKERS[index % len(MARKERS)]
            axes.plot(
                x, values[:, index], mark, linestyle=LINES[index % len(LINES)], color=COLOURS[index % len(COLOURS)],
                linewidth=0.7, markersize=3, fillstyle="none", label=dataset,
            )  # fmt: skip
        axes.plot(x, units.mean(axis=1), "o-", color=INK, linewidth=1.8, markersize=5, label=f"mean over {noun}s")
        for place, interval in zip(x, intervals):
            if interval.is_defined and interval.high > interval.low:
                axes.plot([place, place], [interval.low, interval.high], color=INK, linewidth=1.1)
        names = distinct((evidence.variants[variant_id] for variant_id in ordered), 18)
        for place, name in _spaced(x, names):
            axes.annotate(
                name, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                rotation=35, fontsize=7, ha="left", va="bottom",
            )  # fmt: skip
        axes.set_xlabel(axis)
        axes.set_ylabel(f"difference in {metric_name(metric)}, test")
        legend_below(figure, axes)
    n_datasets = len(differences.columns)
    cut = n_datasets - DRAWN_DATASETS
    direction = "below zero is better" if metric in LOWER_IS_BETTER else "above zero is better"
    caption = (
        f"Difference from {evidence.variants[baseline]} on each of {counted(n_datasets, 'data set')}, seeds averaged; "
        f"{direction}. Heavy: their mean, with 95 % t intervals over {noun}s (n = {units.shape[1]}). "
        "A description, not a test, and no effect of the number on the axis alone: variants differ in more than that."
    )
    if cut > 0:
        caption += f" {counted(cut, 'data set')} of them not drawn."
    words = "; ".join(
        f"{evidence.variants[variant_id]} at {place:g}: {signed(float(row.mean()))} {bounds(interval, sign=True)}"
        for variant_id, place, row, interval in zip(ordered, x, units, intervals)
    )
    title = f"{metric_name(metric)} along {axis}"
    return Drawing(f"response_{metric}", figure, title, caption, f"Line plot. {words}.")


def _spaced(x: np.ndarray, names: list[str]) -> list[tuple[float, str]]:
    """Axis names at their places; names at one place, or at places too close to print, are joined."""
    span = (x.max() - x.min()) or 1.0
    joined: list[tuple[float, str]] = []
    for place, name in zip(x, names):
        if joined and math.isclose(place, joined[-1][0], abs_tol=0.02 * span):
            joined[-1] = (joined[-1][0], f"{joined[-1][1]}, {name}")
        else:
            joined.append((float(place), name))
    return joined
