"""Figures of one data set: learning curves, calibration, confusion matrices. Each returns a Drawing."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.distributions import binomial_quantile
from analysis.records.schema import Record
from analysis.rendering.canvas import (
    GREY,
    INK,
    PALE,
    Drawing,
    Mark,
    file_name,
    legend_below,
    new_figure,
    room,
    style,
    width,
)
from analysis.report.tallies import CONFIDENCE_BINS, FEWEST_IN_BIN, SMALL_MATRIX, Tally
from analysis.words import counted, distinct, metric_name, share

# More classes than this and a matrix's numbers are too small to read: shades remain, numbers are in the tables.
NUMBERED_CLASSES = 10


def learning_curves(
    dataset: str,
    cells: Mapping[str, Sequence[Record]],
    metric: str,
    labels: Mapping[str, str],
    styles: Mapping[str, Mark],
) -> Drawing | None:
    """Validation metric by epoch, mean and range over seeds, a line per variant; None where no record has curves.

    cells: finished records by variant id.
    """
    key = f"val_{metric}"
    lines: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
    n_seeds: list[int] = []
    for variant_id, records in cells.items():
        points = [(c["epoch"], c[key]) for r in records for c in r.get("curves") or [] if c.get(key) is not None]
        if not points:
            continue
        n_seeds.append(sum(1 for r in records if r.get("curves")))
        epochs, values = np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=np.float64)
        steps = np.unique(epochs)
        here = [values[epochs == step] for step in steps]
        lines[variant_id] = (
            steps + 1, np.array([h.mean() for h in here]),
            np.array([h.min() for h in here]), np.array([h.max() for h in here]),
        )  # fmt: skip
    if not lines:
        return None
    with style():
        figure, (axes,) = new_figure(2.5 + 0.16 * math.ceil(len(lines) / 2))
        short = dict(zip(lines, distinct((labels[v] for v in lines), room(24))))
        for place, (variant_id, (steps, mean, low, high)) in enumerate(lines.items()):
            mark = styles[variant_id]
            axes.fill_between(steps, low, high, color=mark.colour, alpha=0.09, linewidth=0)
            every = max(1, len(steps) // 6)
            # Markers of different variants start at different epochs, so that equal curves show both.
            axes.plot(
                steps, mean, color=mark.colour, marker=mark.marker, linestyle=mark.line, markersize=3.8,
                markevery=(min(place % every, len(steps) - 1), every), label=short[variant_id],
            )  # fmt: skip
        axes.set_title(dataset)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{metric_name(metric)}, validation")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.02)
        legend_below(figure, axes)
    low_n, high_n = min(n_seeds), max(n_seeds)
    seeds = counted(high_n, "seed") if low_n == high_n else f"{low_n} to {high_n} seeds"
    finals = "; ".join(f"{labels[v]} ends at {share(mean[-1])}" for v, (_, mean, _, _) in lines.items())
    return Drawing(
        f"curves_{file_name(dataset)}",
        figure,
        f"{dataset}, learning curves",
        f"n = {seeds} a variant.",
        f"Line chart of {metric_name(metric)} on validation by epoch. {finals}.",
    )


def reliability(
    dataset: str,
    tallies: Mapping[str, Tally],
    labels: Mapping[str, str],
    styles: Mapping[str, Mark],
    baseline: str | None,
) -> Drawing | None:
    """Accuracy by confidence of the predicted class, a line per variant; None where there are no predictions.

    The grey band is where 95 % of a perfectly calibrated model's bins would lie with as many test images as the
    reference variant (the baseline, else the first) has in each bin (Bröcker and Smith 2007).
    """
    if not tallies:
        return None
    reference = baseline if baseline is not None and baseline in tallies else next(iter(tallies))
    several = tallies[reference].has_many
    with style():
        figure = Figure(figsize=(width(), 3.6 + 0.16 * math.ceil(len(tallies) / 2)), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        _calibrated_band(axes, tallies[reference])
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        lowest = 1.0
        short = dict(zip(tallies, distinct((labels[v] for v in tallies), room(24))))
        for variant_id, tally in tallies.items():
            mark = styles[variant_id]
            full = tally.counts >= FEWEST_IN_BIN * tally.n_seeds
            x, y = tally.confidence[full] / tally.counts[full], tally.hits[full] / tally.counts[full]
            lowest = min([lowest, *x])
            axes.plot(
                x, y, color=mark.colour, marker=mark.marker, linestyle=mark.line, markersize=4,
                label=short[variant_id],
            )  # fmt: skip
            shares = tally.counts / tally.counts.sum()
            below.stairs(shares, np.linspace(0, 1, CONFIDENCE_BINS + 1), color=mark.colour, linestyle=mark.line)
        axes.set_title(dataset)
        axes.set_ylabel("frequency of a label, test" if several else "accuracy, test")
        axes.set_ylim(0, 1.02)
        below.set_ylim(0, None)
        below.set_xlim(max(0.0, math.floor(10 * lowest - 0.5) / 10), 1.0)
        told = "probability of a label, all labels together" if several else "probability of the predicted class"
        below.set_xlabel(told if several else f"confidence ({told})")
        below.set_ylabel("labels" if several else "images")
        below.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        below.yaxis.set_major_locator(MaxNLocator(2))
        legend_below(figure, axes)
    tally = tallies[reference]
    distance = "frequency from probability" if several else "accuracy from confidence"
    gaps = "; ".join(f"{labels[v]} {share(_gap(t))}" for v, t in tallies.items())
    caption = f"Grey: {labels[reference]}, {counted(tally.n_images, 'test image')}; lines: {_seeds(tallies)}."
    return Drawing(
        f"calibration_{file_name(dataset)}", figure, f"{dataset}, calibration", caption,
        f"Reliability diagram. Mean distance of {distance}: {gaps}.",
    )  # fmt: skip


def confusion_matrices(
    dataset: str, classes: Sequence[str], tallies: Mapping[str, Tally], labels: Mapping[str, str]
) -> Drawing | None:
    """For each variant, the share of each true class (row) predicted as each class; None without predictions.

    Of several labels an image, the share of images with a label (row) for which each label is predicted.
    """
    if not tallies:
        return None
    count = len(next(iter(tallies.values())).confusion)
    names = distinct(map(str, classes), room(20)) if len(classes) == count else [str(k) for k in range(count)]
    # Columns have only numbers, which rows show beside their names: names would need more room than the matrix.
    numbers = [str(k + 1) for k in range(count)]
    columns = 2 if count <= SMALL_MATRIX and len(tallies) > 1 else 1
    rows = math.ceil(len(tallies) / columns)
    side = min((width() - 1.4) / columns, 0.3 * count + 0.3)
    with style():
        figure, axes = new_figure(0.5 + rows * (side + 0.5), rows, columns)
        short = dict(zip(tallies, distinct((labels[v] for v in tallies), room(24))))
        for place, (variant_id, tally) in enumerate(tallies.items()):
            ax = axes[place]
            totals = tally.supports[:, None]
            shares = np.where(totals > 0, tally.confusion / np.maximum(totals, 1), np.nan)
            ax.imshow(shares, cmap="Greys", vmin=0, vmax=1.25)
            ax.set_title(short[variant_id])
            ax.grid(visible=False)
            ax.set_xticks(range(count), numbers)
            ax.set_yticks(
                range(count), [f"{n}  {k}" for n, k in zip(names, numbers)] if place % columns == 0 else numbers
            )
            ax.tick_params(length=0)
            for spine in ax.spines.values():
                spine.set_visible(True)
            if count <= NUMBERED_CLASSES:
                for (i, j), value in np.ndenumerate(shares):
                    text = "–" if np.isnan(value) else f"{100 * value:.0f}"
                    number = ax.text(
                        j, i, text, ha="center", va="center", fontsize=7.5, color="white" if value > 0.6 else INK
                    )
                    # Inside its matrix, hence left out of the layout, which would measure hundreds of them.
                    number.set_in_layout(False)
        for ax in axes[len(tallies) :]:
            ax.set_axis_off()
        noun = "label" if next(iter(tallies.values())).has_many else "class"
        figure.supxlabel(
            f"predicted {noun} (numbered as the true {'labels' if noun == 'label' else 'classes'})", fontsize=8
        )
        figure.supylabel(f"true {noun}", fontsize=8)
        figure.suptitle(dataset, fontsize=8.5, x=0.02, ha="left")
    supports = next(iter(tallies.values()))
    each = ", ".join(f"{n} {round(s / supports.n_seeds)}" for n, s in zip(names, supports.supports))
    recalls = "; ".join(f"{labels[v]} {', '.join(_recalls(t, names))}" for v, t in tallies.items())
    together = _seeds(tallies)
    return Drawing(
        f"confusion_{file_name(dataset)}", figure, f"{dataset}, confusion matrices",
        f"{together}. Test images a {noun}: {each}."
        + (" An image may have several labels, so rows do not add up to 100." if noun == "label" else ""),
        f"Confusion matrices. Percent of each {noun} recognised: {recalls}.",
    )  # fmt: skip


def _calibrated_band(axes: Axes, tally: Tally) -> None:
    """Binomial 95 % ranges around the diagonal for bins that hold images."""
    # A test image seen by several seeds is one image: counts are those of an average seed.
    images = np.rint(tally.counts / tally.n_seeds).astype(np.int64)
    full = tally.counts >= FEWEST_IN_BIN * tally.n_seeds
    if not full.any():
        return
    n, p = images[full], np.clip(tally.confidence[full] / tally.counts[full], 0.0, 1.0)
    low, high = binomial_quantile(0.025, n, p) / n, binomial_quantile(0.975, n, p) / n
    axes.fill_between(p, low, high, color=PALE, alpha=0.6, linewidth=0)


def _seeds(tallies: Mapping[str, Tally]) -> str:
    """The number of seeds added up in each variant's counts, in words."""
    counts = sorted({tally.n_seeds for tally in tallies.values()})
    return counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _gap(tally: Tally) -> float:
    """The calibration error of the drawn bins, seeds pooled."""
    return float(np.abs(tally.hits - tally.confidence).sum() / tally.counts.sum())


def _recalls(tally: Tally, names: Sequence[str]) -> list[str]:
    totals = tally.supports
    return [
        f"{name} {100 * hit / total:.0f} %"
        for name, hit, total in zip(names, tally.confusion.diagonal(), totals)
        if total
    ]
