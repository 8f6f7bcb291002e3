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
from collections.abc import Callable, Sequence

import numpy as np

from analysis.interval import check_generator
from analysis.metrics import ECE_BINS, LOWER_IS_BETTER, METRICS, confidence_gaps
from analysis.paired.auc import doubled_placements
from analysis.paired.resampling import TABLE_METRICS, unit_codes
from analysis.records.predictions import Pairing

# Tables are scaled so that a class never counts less than one: its ratios are guarded below that.
SCALE = 1e9
# Numbers of draws × units at a time.
BLOCK = 4_000_000
# What all models share (draws, width) and the sums of each (draws, models, kinds, width) to the metric (draws, models).
OfSums = Callable[[np.ndarray, np.ndarray], np.ndarray]


def false_claim_probability(
    metric: str, pairings: Sequence[Pairing], *, rng: np.random.Generator, draws: int = 1000
) -> float:
    """P(the variant that looks better is not), by the mean over seeds and data sets: uncertainty over test images.

    pairings: one a data set. Every image (with groups: every group) has a weight from the flat Dirichlet distribution
    (Rubin 1981), which over cells is that with their counts. One image more is added, drawn from those that the models
    treat differently, the models exchanged by the toss of a coin: without it a single image of difference would make a
    certainty. Areas (AUC, AUPRC) move with the weights by their images' influence, to first order. The observed data
    count as one draw on the wrong side, so that the answer is never 0.

    Defined answers: 1 where the models never differ (there is nothing to claim); NaN without a pairing, and where the
    metric is undefined.
    """
    check_generator(rng)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if not pairings:
        return math.nan
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    observed, total = 0.0, np.zeros(draws)
    for pairing in pairings:
        codes = unit_codes(pairing.groups, pairing.n_images)
        drawing = _of_sums if metric in TABLE_METRICS or metric == "ece" else _linear
        difference, drawn = drawing(metric, pairing, codes, rng, draws)
        observed += difference
        total += drawn
    if math.isnan(observed):
        return math.nan
    # What differs by rounding alone does not differ.
    gain = total * sign * (1.0 if observed * sign >= 0 else -1.0)
    return (1 + int((gain <= 1e-12).sum())) / (1 + draws)


def _of_sums(
    metric: str, pairing: Pairing, codes: np.ndarray | None, rng: np.random.Generator, draws: int
) -> tuple[float, np.ndarray]:
    """The difference against − baseline on the images, and in each draw, (draws,), for a metric of weighted sums."""
    seeds = len(pairing.baseline)
    models = np.concatenate([pairing.against, pairing.baseline])
    if metric == "ece":
        of_sums, shared, own, counts = _calibration(pairing.labels, models)
    else:
        of_sums, shared, own, counts = _tables(metric, pairing.labels, models, codes is None)
    if codes is not None:
        shared, own = _by_group(shared, codes), _by_group(own, codes)
        counts = np.ones(len(shared), dtype=np.int64)
    # The sums with the two variants exchanged.
    exchanged = np.roll(own, seeds, axis=1)
    differing = np.flatnonzero((own != exchanged).any(axis=(1, 2, 3)))
    width = shared.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        values = of_sums(sums[:, :width], sums[:, width:].reshape(len(sums), *own.shape[1:]))
        return values[:, :seeds].mean(axis=1) - values[:, seeds:].mean(axis=1)

    flat, flat_exchanged = (np.concatenate([shared, side.reshape(len(own), -1)], axis=1) for side in (own, exchanged))
    observed = float(difference((counts @ flat)[None])[0])
    if len(differing) == 0:
        return observed, np.zeros(draws)
    chances = counts[differing] / counts[differing].sum()
    parts = []
    for size in _blocks(draws, len(counts)):
        sums = rng.standard_gamma(counts, (size, len(counts))) @ flat
        extra = rng.choice(differing, size, p=chances)
        swapped, mass = rng.random(size) < 0.5, rng.standard_gamma(1, size)
        sums += mass[:, None] * np.where(swapped[:, None], flat_exchanged[extra], flat[extra])
        parts.append(difference(sums))
    return observed, np.concatenate(parts)


def _tables(
    metric: str, labels: np.ndarray, models: np.ndarray, merge: bool
) -> tuple[OfSums, np.ndarray, np.ndarray, np.ndarray]:
    """For a metric of a confusion table: images' truth, hits and predictions (kinds); with merge, one row a cell."""
    columns = np.stack([labels, *models.argmax(axis=2)])
    counts = np.ones(len(labels), dtype=np.int64)
    if merge:
        columns, counts = np.unique(columns, axis=1, return_counts=True)
    onehot = np.eye(models.shape[2])
    truth, predicted = onehot[columns[0]], onehot[columns[1:].T]
    own = np.stack([truth[:, None] * predicted, predicted], axis=2)

    def of_sums(truth: np.ndarray, own: np.ndarray) -> np.ndarray:
        return TABLE_METRICS[metric](SCALE * own[:, :, 0], SCALE * truth[:, None], SCALE * own[:, :, 1])

    return of_sums, truth, own, counts


def _calibration(labels: np.ndarray, models: np.ndarray) -> tuple[OfSums, np.ndarray, np.ndarray, np.ndarray]:
    """For the calibration error: each image's share, and its gap between hit and confidence in its bin (width)."""
    own = np.zeros((len(labels), len(models), 1, ECE_BINS))
    for model, probabilities in enumerate(models):
        bins, gaps = confidence_gaps(labels, probabilities)
        own[np.arange(len(labels)), model, 0, bins] = gaps

    def of_sums(weight: np.ndarray, own: np.ndarray) -> np.ndarray:
        return np.abs(own[:, :, 0]).sum(axis=2) / weight

    return of_sums, np.ones((len(labels), 1)), own, np.ones(len(labels), dtype=np.int64)


def _by_group(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums of rows (images, …) over the images of each group."""
    sums = np.zeros((int(codes.max()) + 1, *rows.shape[1:]))
    np.add.at(sums, codes, rows)
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
    """Values (images,) whose mean is the metric, and whose weighted mean is so to first order; NaN where unknown."""
    probabilities = probabilities.astype(np.float64)
    images, classes = probabilities.shape
    if metric == "brier":
        return 0.5 * np.square(probabilities - np.eye(classes)[labels]).sum(axis=1)
    if metric not in VALUES_OF_CLASS:
        return np.full(images, math.nan)
    # Two classes have one ranking: 1 − p would lose the order of small p to rounding.
    scores = np.stack([-probabilities[:, 1], probabilities[:, 1]], axis=1) if classes == 2 else probabilities
    parts = [VALUES_OF_CLASS[metric](scores[:, k], labels == k) for k in range(classes)]
    defined = [values for values in parts if values is not None]
    return np.mean(defined, axis=0) if defined else np.full(images, math.nan)


def _auc_values(scores: np.ndarray, positive: np.ndarray) -> np.ndarray | None:
    """The same of one class's AUC; None where it has none."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    placements = doubled_placements(scores, positive) / np.where(positive, 2 * n_negative, 2 * n_positive)
    auc = placements[positive].mean()
    # An influence counts its image among its side alone: in the mean of all images it weighs as much more.
    return auc + (placements - auc) * len(positive) / np.where(positive, n_positive, n_negative)


def _average_precision_values(scores: np.ndarray, positive: np.ndarray) -> np.ndarray | None:
    """The same of one class's average precision; None where it has none."""
    count = int(positive.sum())
    if count == 0:
        return None
    # At the threshold of each positive, lowest first: positives and images at least as high.
    ordered, thresholds = np.sort(scores), np.sort(scores[positive])
    positives = count - thresholds.searchsorted(thresholds, side="left")
    images = len(scores) - ordered.searchsorted(thresholds, side="left")
    average = float(np.mean(positives / images))
    # An image of more weight counts at every threshold up to its own score, as a positive above and below the line.
    reached = thresholds.searchsorted(scores, side="right")
    above = np.concatenate([[0.0], np.cumsum(1 / images)])[reached]
    below = np.concatenate([[0.0], np.cumsum(positives / images**2)])[reached]
    own = np.zeros(len(scores))
    own[positive] = (positives / images)[thresholds.searchsorted(scores[positive], side="left")] - average
    return average + len(scores) / count * (own + positive * above - below)


# The values of one class's images for metrics that are a mean over classes. A metric for which nothing is known has no
# probability of a false claim, rather than that of another.
VALUES_OF_CLASS = {"macro_auc_ovr": _auc_values, "auprc_macro": _average_precision_values}


def _blocks(draws: int, units: int) -> list[int]:
    """Sizes of slices of draws whose weights take some tens of megabytes."""
    rows = max(1, BLOCK // units)
    return [min(rows, draws - start) for start in range(0, draws, rows)]
