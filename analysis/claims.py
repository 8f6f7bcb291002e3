"""The probability that a claim of outperformance is false, from per-image predictions.

"A is better than B by 0.004" is claimed from one set of test images. Given what both models said on each of them, how
probable is it that over all such images A is no better? (Christodoulou et al. 2025 ask it of published claims, with the
agreement of the two models guessed; here it is known.)

What is drawn is a Dirichlet distribution over *agreement cells*: the kinds of images that the two models, over all
their seeds, treated alike. For metrics of a confusion table a cell is (truth, prediction of every model and seed); for
others every image is its own. Weights are held fixed, so this says nothing of other seeds, and the data sets are those
at hand: a claim in general needs a small number here, and more than that.
"""

import math
from collections.abc import Sequence

import numpy as np

from analysis.metrics import LOWER_IS_BETTER
from analysis.predictions import Pairing
from analysis.randomness import check_generator
from analysis.resampling import TABLE_METRICS, TableMetric, unit_codes

# Tables are scaled so that a class never counts less than one: its ratios are guarded below that.
SCALE = 1e9
# Numbers of draws × units at a time.
BLOCK = 4_000_000


def false_claim_probability(
    metric: str, pairings: Sequence[Pairing], *, rng: np.random.Generator, draws: int = 1000
) -> float:
    """P(the variant that looks better is not), by the mean over seeds and data sets: uncertainty over test images.

    pairings: one a data set. Every image (with groups: every group) has a weight from the flat Dirichlet distribution
    (Rubin 1981), which over cells is that with their counts. One image more is added, drawn from those that the models
    treat differently, the models exchanged by the toss of a coin: without it a single image of difference would make a
    certainty. AUCs move with the weights by their images' influence, to first order. The observed data count as one
    draw on the wrong side, so that the answer is never 0.

    Defined answers: 1 where the models never differ (there is nothing to claim); NaN without a pairing, where the
    metric is undefined, and for metrics that are neither of a table nor of ranks or single images (ece, auprc_macro).
    """
    check_generator(rng)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if not pairings or not (metric in TABLE_METRICS or metric in ("macro_auc_ovr", "brier")):
        return math.nan
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    observed, total = 0.0, np.zeros(draws)
    for pairing in pairings:
        codes = unit_codes(pairing.groups, pairing.n_images)
        if metric in TABLE_METRICS:
            difference, drawn = _tables(TABLE_METRICS[metric], pairing, codes, rng, draws)
        else:
            difference, drawn = _linear(metric, pairing, codes, rng, draws)
        observed += difference
        total += drawn
    if math.isnan(observed):
        return math.nan
    # What differs by rounding alone does not differ.
    gain = total * sign * (1.0 if observed * sign >= 0 else -1.0)
    return (1 + int((gain <= 1e-12).sum())) / (1 + draws)


def _tables(
    metric: TableMetric, pairing: Pairing, codes: np.ndarray | None, rng: np.random.Generator, draws: int
) -> tuple[float, np.ndarray]:
    """The difference against − baseline on the images, and in each draw, (draws,)."""
    seeds, _, classes = pairing.baseline.shape
    predicted = np.concatenate([pairing.against, pairing.baseline]).argmax(axis=2)
    columns = np.stack([pairing.labels, *predicted])
    if codes is None:
        cells, counts = np.unique(columns, axis=1, return_counts=True)
        units = _summed(cells, classes, np.arange(len(counts)))
    else:
        units = _summed(columns, classes, codes)
        counts = np.ones(len(units), dtype=np.int64)
    # The tables with the two models exchanged.
    mirrored = np.concatenate([units[:, :1], units[:, 1 + 2 * seeds :], units[:, 1 : 1 + 2 * seeds]], axis=1)
    differing = np.flatnonzero((units != mirrored).any(axis=(1, 2)))

    def difference(tables: np.ndarray) -> np.ndarray:
        values = metric(SCALE * tables[:, 1::2], SCALE * tables[:, :1], SCALE * tables[:, 2::2])
        return values[:, :seeds].mean(axis=1) - values[:, seeds:].mean(axis=1)

    observed = float(difference(np.tensordot(counts, units, axes=1)[None])[0])
    if len(differing) == 0:
        return observed, np.zeros(draws)
    chances = counts[differing] / counts[differing].sum()
    flat, flat_mirrored = units.reshape(len(units), -1), mirrored.reshape(len(units), -1)
    parts = []
    for size in _blocks(draws, len(units)):
        tables = rng.standard_gamma(counts, (size, len(counts))) @ flat
        extra, swapped, mass = (
            rng.choice(differing, size, p=chances),
            rng.random(size) < 0.5,
            rng.standard_gamma(1, size),
        )
        tables += mass[:, None] * np.where(swapped[:, None], flat_mirrored[extra], flat[extra])
        parts.append(difference(tables.reshape(size, *units.shape[1:])))
    return observed, np.concatenate(parts)


def _summed(columns: np.ndarray, classes: int, rows: np.ndarray) -> np.ndarray:
    """What each unit adds to the tables, (units, 1 + 2 · models, classes): truth, then hits and predictions in turn."""
    onehot = np.eye(classes)
    truth = onehot[columns[0]]
    parts = [truth]
    for predicted in columns[1:]:
        parts += [truth * (predicted == columns[0])[:, None], onehot[predicted]]
    stacked = np.stack(parts, axis=1)
    sums = np.zeros((int(rows.max()) + 1, *stacked.shape[1:]))
    np.add.at(sums, rows, stacked)
    return sums


def _linear(
    metric: str, pairing: Pairing, codes: np.ndarray | None, rng: np.random.Generator, draws: int
) -> tuple[float, np.ndarray]:
    """The same for a metric that is, to first order, a weighted mean of one value an image."""
    values = np.mean(
        [
            _image_values(metric, pairing.labels, against) - _image_values(metric, pairing.labels, baseline)
            for against, baseline in zip(pairing.against, pairing.baseline)
        ],
        axis=0,
    )
    observed = float(values.mean())
    sizes = np.ones(len(values))
    if codes is not None:
        values, sizes = np.bincount(codes, weights=values), np.bincount(codes).astype(np.float64)
    differing = np.flatnonzero(np.abs(values) > 1e-12)
    if math.isnan(observed) or len(differing) == 0:
        return observed, np.zeros(draws)
    parts = []
    for size in _blocks(draws, len(values)):
        # Half the digits: what is drawn needs no more, and takes half the time.
        weights = rng.standard_exponential((size, len(values)), dtype=np.float32)
        extra, mass = rng.choice(differing, size), rng.standard_exponential(size)
        side = np.where(rng.random(size) < 0.5, -1.0, 1.0)
        sums = weights @ np.stack([values, sizes], axis=1).astype(np.float32)
        parts.append((sums[:, 0] + mass * side * values[extra]) / (sums[:, 1] + mass * sizes[extra]))
    return observed, np.concatenate(parts)


def _image_values(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Values (images,) whose mean is the metric, and whose weighted mean is so to first order; NaN where undefined."""
    probabilities = probabilities.astype(np.float64)
    images, classes = probabilities.shape
    if metric == "brier":
        return 0.5 * np.square(probabilities - np.eye(classes)[labels]).sum(axis=1)
    parts = []
    for k in [1] if classes == 2 else range(classes):
        positive = labels == k
        n_positive = int(positive.sum())
        n_negative = images - n_positive
        if n_positive == 0 or n_negative == 0:
            continue
        above, below = probabilities[positive, k], probabilities[~positive, k]
        placement = np.empty(images)
        placement[positive] = _share_below(above, below)
        placement[~positive] = 1.0 - _share_below(below, above)
        auc = placement[positive].mean()
        # An influence counts its image among its side alone: in the mean of all images it weighs as much more.
        side = np.where(positive, images / n_positive, images / n_negative)
        parts.append(auc + (placement - auc) * side)
    return np.mean(parts, axis=0) if parts else np.full(images, math.nan)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of `others` below each value, ties counting half."""
    ordered = np.sort(others)
    return (ordered.searchsorted(values, side="left") + ordered.searchsorted(values, side="right")) / (2 * len(ordered))


def _blocks(draws: int, units: int) -> list[int]:
    """Sizes of slices of draws whose weights take some tens of megabytes."""
    rows = max(1, BLOCK // units)
    return [min(rows, draws - start) for start in range(0, draws, rows)]
