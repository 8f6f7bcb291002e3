"""Figures of what a study claims: metric against cost, paired differences, ranks. Each returns a Drawing."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis.across.rank_tests import CriticalDifference
from analysis.across.standings import Standings
from analysis.metrics import LOWER_IS_BETTER
from analysis.power import smallest_adjusted_p
from analysis.rendering.canvas import GREY, INK, Drawing, file_name, lay_out, new_figure, room, style, width
from analysis.verdicts.levels import IN_GENERAL, OVER_FOLDS
from analysis.verdicts.verdict import Verdict
from analysis.words import UNITS, bounds, counted, distinct, listed, metric_name, p_value, quantity, share, signed

# Square points: the largest variant's bubble; other areas are in proportion.
LARGEST_BUBBLE = 620.0
SMALLEST_BUBBLE = 14.0
LABELLED = 10
# Inches: the width of an average letter at the size of tick labels.
CHARACTER = 0.066
# Points from a bubble's edge at which its name may stand, and from which on a line joins them.
DISTANCES = (4.0, 8.0, 14.0, 22.0, 34.0, 50.0, 70.0)
APART = 14.0
# Variants further apart in cost than this are drawn on a logarithmic axis.
LOG_FROM = 4.0
# What a network that has learned nothing reaches; only for metrics where this does not depend on the classes.
CHANCE = {"macro_auc_ovr": 0.5, "mcc": 0.0}


def metric_against_cost(
    place: Standings,
    costs: Mapping[str, tuple[float, float]],
    front: Sequence[str],
    labels: Mapping[str, str],
    baseline: str | None,
    split: str = "test",
) -> Drawing:
    """Each variant's mean metric over its MACs, a bubble with the area of its parameters, and the Pareto front.

    costs: (MACs, parameters) by variant id. front: ids of the variants that no other beats in both; drawn filled.
    """
    ids = [v for v in place.means if v in costs]
    macs, means = np.array([costs[v][0] for v in ids]), np.array([place.means[v] for v in ids])
    most = max(costs[v][1] for v in ids)
    # Where there are many, all bubbles are smaller.
    largest = LARGEST_BUBBLE * min(1.0, LABELLED / len(ids))
    areas = {v: max(SMALLEST_BUBBLE, largest * costs[v][1] / most) for v in ids}
    with style():
        figure, (axes,) = new_figure(3.4)
        if macs.max() / macs.min() > LOG_FROM:
            axes.set_xscale("log")
        for v, x, y, area in zip(ids, macs, means, areas.values()):
            interval = place.intervals[v]
            if interval.is_defined:
                axes.plot([x, x], [interval.low, interval.high], color=INK, linewidth=0.9, zorder=3)
                axes.plot([x, x], [interval.low, interval.high], "_", color=INK, markersize=6, zorder=3)
            face = "#9ecae1" if v in front else "white"
            axes.scatter(
                [x], [y], s=area, facecolor=face, edgecolor=INK, linewidth=1.0, zorder=2,
                hatch="////" if v == baseline else None,
            )  # fmt: skip
            axes.plot([x], [y], ".", color=INK, markersize=3, zorder=4)
        steps = sorted((costs[v][0], place.means[v]) for v in front if v in costs and v in place.means)
        if len(steps) > 1:
            axes.step(*zip(*steps), where="post", color=INK, linestyle=(0, (4, 2)), linewidth=0.9, zorder=1)
        axes.set_xlabel("MACs for one image (mean over data sets)")
        axes.set_ylabel(f"{metric_name(place.metric)}, {split}")
        axes.margins(0.18, 0.12)
        if axes.get_xscale() == "log":
            # Decades may all lie outside.
            axes.xaxis.set_major_locator(FixedLocator(_round_numbers(*axes.get_xlim())))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(room(6), steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_cost_tick))
        _size_legend(figure, axes, most, largest)
        chosen = _named(ids, front, baseline)
        wanted = dict(zip(chosen, distinct(labels[v] for v in chosen)))
        named = _place_labels(figure, axes, place, steps, {v: costs[v][0] for v in ids}, areas, wanted)
    unlabelled = len(ids) - len(named)
    caption = f"Mean on {split} over {listed(place.datasets, 12)}. Whiskers: {_over_text(place)}"
    if place.metric in CHANCE:
        caption += f" Chance: {CHANCE[place.metric]:g}."
    if unlabelled:
        caption += f" {counted(unlabelled, 'variant')} {'is' if unlabelled == 1 else 'are'} not named."
    shown = "; ".join(f"{labels[v]}: {share(place.means[v])} at {quantity(costs[v][0])} MACs" for v in named)
    title = f"{metric_name(place.metric)} against MACs"
    return Drawing(f"cost_{place.metric}", figure, title, caption, f"Bubble chart. {shown}.")


def forest(verdict: Verdict, name: str) -> Drawing:
    """A contrast's paired difference on each data set and over all of them, with intervals and the declared margin."""
    contrast, rows, location = verdict.contrast, verdict.per_dataset, verdict.location
    metric = metric_name(contrast.metric)
    summaries = []
    if len(rows) > 1 and not math.isnan(verdict.estimate):
        over = "data sets" if verdict.n_sources == verdict.n_datasets else "sources"
        what = f"mean over {over}" if verdict.level == IN_GENERAL else "mean of these data sets"
        summaries.append(
            (
                "mean over folds" if verdict.level == OVER_FOLDS else what,
                "Student's",
                verdict.estimate,
                verdict.interval,
            )
        )
        if location is not None and location.interval.is_defined:
            summaries.append(("median of averages", "the signed-rank test's", location.estimate, location.interval))
    with style():
        figure, (axes,) = new_figure(1.05 + 0.21 * (len(rows) + (0.4 + len(summaries) if summaries else 0)))
        if contrast.margin:
            axes.axvspan(-contrast.margin, contrast.margin, facecolor="#f2f2f2", edgecolor="none", zorder=0)
            for edge in (-contrast.margin, contrast.margin):
                axes.axvline(edge, color=GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
        axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
        for place, row in enumerate(rows):
            if row.interval.is_defined:
                axes.plot([row.interval.low, row.interval.high], [place, place], color=INK, linewidth=1.1)
                axes.plot([row.interval.low, row.interval.high], [place, place], "|", color=INK, markersize=5)
            axes.plot([row.difference], [place], "s", color=INK, markersize=4)
        ticks: list[float] = list(range(len(rows)))
        names = distinct((row.dataset for row in rows), room(22))
        if summaries:
            axes.axhline(len(rows) - 0.3, color=GREY, linewidth=0.6)
        for place, (summary, _, estimate, interval) in enumerate(summaries):
            low = len(rows) + 0.4 + place
            if interval.is_defined:
                corners_x = [interval.low, estimate, interval.high, estimate]
                axes.fill(
                    corners_x, [low, low - 0.3, low, low + 0.3], facecolor="#9ecae1", edgecolor=INK, linewidth=0.9
                )
            else:
                axes.plot([estimate], [low], "D", color=INK, markersize=5)
            ticks, names = [*ticks, low], [*names, summary]
        axes.set_yticks(ticks, names)
        axes.set_ylim((ticks[-1] if ticks else 0) + 0.7, -0.7)
        axes.margins(x=0.06)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(room(5), symmetric=False))
        axes.xaxis.set_major_formatter(FuncFormatter(_signed_tick))
        baseline, against = distinct((contrast.baseline_label, contrast.against_label), room(20))
        sides = [f"← {baseline} better", f"{against} better →"]
        if contrast.metric in LOWER_IS_BETTER:
            sides = [f"← {against} better", f"{baseline} better →"]
        axes.set_xlabel(f"difference in {metric}\n{sides[0]}   |   {sides[1]}")
        sizes = [(float(place), f"{row.n_seeds} × {row.n_images}") for place, row in enumerate(rows)]
        head = "seeds × images"
        if not any(row.n_images for row in rows):
            # Values without images, and perhaps without seeds.
            sizes = [(float(place), f"{row.n_seeds}" if row.n_seeds else "") for place, row in enumerate(rows)]
            head = "seeds" if any(row.n_seeds for row in rows) else ""
        for height, size in [(-0.95, head), *sizes]:
            axes.annotate(
                size, (1.0, height), xycoords=("axes fraction", "data"),
                xytext=(4, 0), textcoords="offset points", va="center", fontsize=7, color=INK, annotation_clip=False,
            )  # fmt: skip
    overs = {f"{row.interval.percent} over {row.interval.over}" for row in rows if row.interval.is_defined}
    caption = f"{contrast.against_label} minus {contrast.baseline_label}. "
    caption += f"Lines: {listed(sorted(overs))}. " if overs else "Single data sets carry no interval here. "
    for summary, whose, _, interval in summaries:
        if interval.is_defined:
            caption += f"Diamond, {summary}: {whose} {interval.basis()}. "
    shown = "; ".join(f"{row.dataset} {signed(row.difference)} {bounds(row.interval, 4, sign=True)}" for row in rows)
    return Drawing(name, figure, f"{contrast.name}, {metric}", caption.strip(), f"Forest plot. {shown}.")


def critical_difference(result: CriticalDifference, labels: Mapping[str, str], metric: str) -> Drawing:
    """Mean ranks on a line, best at the left; a bar joins variants that no test tells apart (after Demšar 2006)."""
    mean_ranks = result.mean_ranks
    ordered = list(mean_ranks)
    count = len(ordered)
    short = distinct((labels[v] for v in ordered), room(24))
    texts = {v: f"{name}  {share(mean_ranks[v], 2)}" for v, name in zip(ordered, short)}
    bars = [sorted(mean_ranks[v] for v in group) for group in result.groups]
    depth = 0.45 + 0.28 * len(bars)
    bottom = depth + 0.55 * count
    with style():
        figure, (axes,) = new_figure(0.6 + 0.32 * bottom)
        axes.set_axis_off()
        # All names stand at the left, each on the line that leads to its rank and no longer than it, so that long names
        # leave room for the ranks. Inches per rank: as many as every name allows, and those up to the last rank.
        across = width() - 0.3
        needs = {v: CHARACTER * len(texts[v]) for v in ordered}
        scale = min((across - needs[v]) / max(count - mean_ranks[v], 0.5) for v in ordered)
        scale = min(scale, across / max(count - 1, 1))
        low = count - across / scale
        axes.set_xlim(low - 0.05 / scale, count + 0.1 / scale)
        axes.set_ylim(bottom + 0.2, -1.6)
        axes.plot([1, count], [0, 0], color=INK, linewidth=1.0)
        for rank in range(1, count + 1):
            axes.plot([rank, rank], [0, -0.2], color=INK, linewidth=1.0)
            axes.text(rank, -0.35, str(rank), ha="center", va="bottom", fontsize=7.5)
        axes.text((1 + count) / 2, -1.0, "mean rank", ha="center", va="bottom", fontsize=7.5)
        for row, bar in enumerate(bars):
            y = 0.3 + 0.28 * row
            axes.plot(bar, [y] * len(bar), "o-", color=INK, linewidth=2.0, markersize=3.6)
        for row, v in enumerate(ordered):
            y = depth + 0.55 * (row + 0.5)
            axes.plot([mean_ranks[v], mean_ranks[v], low], [0, y, y], color=GREY, linewidth=0.7)
            axes.text(low, y - 0.06, texts[v], ha="left", va="bottom", fontsize=7.5)
    test = "exact signed-rank tests of all pairs under Holm"
    if result.difference is not None:
        test = f"Nemenyi's test, critical difference {share(result.difference, 2)}"
    caption = (
        f"Mean rank of {metric_name(metric)} on test over {counted(result.n, result.over)}, 1 is best, on each the "
        f"mean of the seeds that all of them finished. A line joins variants of which no two differ at α = "
        f"{result.alpha:g}, dots mark its members ({test})."
    )
    least = smallest_adjusted_p(result.n, len(result.pairs), "holm")
    if result.difference is None and least > result.alpha:
        caption += (
            f" On {counted(result.n, result.over)} the smallest p that {counted(len(result.pairs), 'pair')} can reach "
            f"is {p_value(least)}: no two variants can differ here, whatever they do."
        )
    if result.n_incomplete:
        caption += f" Left out: {counted(result.n_incomplete, result.over)} without a seed that all finished."
    shown = "; ".join(f"{labels[v]} {share(mean_ranks[v], 2)}" for v in ordered)
    title = f"Mean ranks over {result.over}s: {metric_name(metric)}"
    return Drawing(
        file_name(f"ranks_{metric.rstrip(' ↑↓')}"),
        figure,
        title,
        caption,
        f"Critical-difference diagram. Mean ranks: {shown}.",
    )


def _round_numbers(low: float, high: float) -> list[float]:
    """The roundest numbers within a range on a logarithmic axis, at least four of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        within = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(within) >= 4:
            break
    return within


def _signed_tick(value: float, _: int) -> str:
    """The label of a difference on an axis: its sign and all digits of a round number, no more."""
    return "0" if abs(value) < 1e-12 else f"{value:+.6g}".replace("-", "−")


def _cost_tick(value: float, _: int) -> str:
    """The label of a cost on an axis: its unit and all digits of a round number, however close the ticks are."""
    rounded, unit = quantity(value), quantity(value).partition(" ")[2]
    size = {name: factor for factor, name in UNITS}.get(unit, 1.0)
    exact = f"{value / size:.6g} {unit}".strip()
    return rounded if float(rounded.split()[0]) == float(exact.split()[0]) else exact


def _over_text(place: Standings) -> str:
    """What the whiskers mean, as a sentence."""
    defined = [interval for interval in place.intervals.values() if interval.is_defined]
    if not defined:
        return "none, since one seed on one data set carries no interval."
    low, high = place.seeds
    seeds = counted(high, "seed") if low == high else f"{low} to {high} seeds"
    one = defined[0]
    counts = f"n = {one.n}" if one.over == "seeds" else f"n = {one.n}, {seeds} on each"
    return f"{one.percent} intervals over {one.over} ({counts})."


def _named(ids: Sequence[str], front: Sequence[str], baseline: str | None) -> list[str]:
    """Variants with their names beside them: all where they are few, else baseline and front, thinned out evenly."""
    if len(ids) <= LABELLED:
        return list(ids)
    here = [v for v in front if v in ids]
    places = np.unique(np.linspace(0, len(here) - 1, min(LABELLED, len(here))).round().astype(int))
    chosen = {here[place] for place in places} | {baseline}
    return [v for v in ids if v in chosen]


def _size_legend(figure: Figure, axes: Axes, most: float, largest: float) -> None:
    """A legend of two bubbles with round numbers of parameters, so that areas can be read."""
    step = 10 ** math.floor(math.log10(max(most, 1.0)))
    rounded = step * max(k for k in (1, 2, 5) if k * step <= max(most, 1.0))
    for size in (rounded, rounded / 5):
        axes.scatter(
            [], [], s=max(SMALLEST_BUBBLE, largest * size / most), facecolor="none", edgecolor=GREY,
            label=f"{quantity(size)} parameters",
        )  # fmt: skip
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=2, handletextpad=1.2, columnspacing=2.5, borderpad=1.2
    )


def _place_labels(
    figure: Figure,
    axes: Axes,
    place: Standings,
    steps: Sequence[tuple[float, float]],
    macs: Mapping[str, float],
    areas: Mapping[str, float],
    names: Mapping[str, str],
) -> list[str]:
    """Puts names beside bubbles, each at the nearest of many places that covers no name, bubble, whisker or edge.

    Returns the variants that have their name: one that would cover another's bubble or name everywhere has none. A name
    that stands apart from its bubble has a line to it.
    """
    lay_out(figure)
    # In points, so that the resolution does not matter. Boxes are left, low, right, high.
    scale = figure.dpi / 72
    solid, light = [], []
    for v in macs:
        x, y = axes.transData.transform((macs[v], place.means[v])) / scale
        radius = math.sqrt(areas[v]) / 2
        solid.append((x - radius, y - radius, x + radius, y + radius))
        if place.intervals[v].is_defined:
            ends = [(macs[v], end) for end in (place.intervals[v].low, place.intervals[v].high)]
            (_, low), (_, high) = axes.transData.transform(ends) / scale
            light.append((x - 4, low - 2, x + 4, high + 2))
    for (start, height), (end, _) in pairwise(steps):
        (left, low), (right, _) = axes.transData.transform([(start, height), (end, height)]) / scale
        light.append((left, low - 2, right, low + 2))
    frame = np.asarray(axes.get_window_extent().extents) / scale
    sides = np.array([(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)])
    distances = np.repeat(DISTANCES, len(sides))
    sides = np.tile(sides, (len(DISTANCES), 1))
    named = []
    for v, name in names.items():
        centre = np.asarray(axes.transData.transform((macs[v], place.means[v]))) / scale
        text = axes.annotate(
            name, (macs[v], place.means[v]), xytext=(0, 0), textcoords="offset points", fontsize=7.5, zorder=5
        )
        size = np.asarray(text.get_window_extent().size) / scale
        reach = (math.sqrt(areas[v]) / 2 + distances) * np.where((sides == 0).any(axis=1), 1.0, 0.75)
        corners = centre + sides * reach[:, None] - size * (1 - sides) / 2
        boxes = np.hstack([corners, corners + size])
        outside = np.maximum(0, np.hstack([frame[:2] - boxes[:, :2], boxes[:, 2:] - frame[2:]])).sum(axis=1)
        covered = _overlaps(boxes, np.array(solid))
        lightly = _overlaps(boxes, np.array(light)) if light else 0.0
        best = int(np.argmin(50 * (outside + covered) + distances + lightly))
        if covered[best] > 0 or outside[best] > 0:
            text.remove()
            continue
        # Anchored on the bubble's side: in another font or resolution a name grows at its far end.
        side = sides[best, 0]
        text.set_horizontalalignment("left" if side > 0 else "right" if side < 0 else "center")
        text.set_position(corners[best] + (size[0] * (1 - side) / 2, 0) - centre)
        solid.append(tuple(boxes[best]))
        named.append(v)
        if distances[best] >= APART:
            near = np.clip(centre, boxes[best, :2], boxes[best, 2:])
            ends_of_line = axes.transData.inverted().transform(np.array([centre, near]) * scale)
            axes.plot(*ends_of_line.T, color=GREY, linewidth=0.5, zorder=1, scalex=False, scaley=False)
    return named


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area, in square points, that each box shares with all others together."""
    shared = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    return np.maximum(0, shared).prod(axis=2).sum(axis=1)
