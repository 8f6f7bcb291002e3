"""The probability that a claim of outperformance is false, from per-image predictions.

"A is better than B by 0.004" is claimed from one set of test images. Given what both models predicted on each, how
probable is it that over all such images A is no better? (Christodoulou et al. 2025 ask this of published claims, with
the agreement of the two models guessed; here it is known.)

What is drawn is a Dirichlet distribution over *agreement cells*: the kinds of images that the two models, over all
their seeds, treated alike. For metrics of a confusion table a cell is (truth, prediction of every model and seed); for
others every image is its own. Weights are held fixed, so this says nothing of other seeds, and the data sets are those
at hand: a claim in general needs a small number here, and more than that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from analysis.interval import check_generator
from analysis.metrics import ECE_BINS, LOWER_IS_BETTER, METRICS, confidence_gaps
from analysis.paired.auc import doubled_placements
from analysis.paired.models import Matched, Model, matched, owned, rank, ranked_classes
from analysis.paired.resampling import TABLE_METRICS
from analysis.paired.sums import ImageSums, image_sums
from analysis.records.predictions import Pairing
from analysis.tasks import members

# Tables are scaled so that a class never counts less than one: its ratios are guarded below that.
SCALE = 1e9
# Numbers of draws × units at a time.
BLOCK = 4_000_000
# Numbers of draws × units that lie in a processor's own memory while they are multiplied.
ROWS = 1 << 16
# What all models share (draws, width), then hits and the rest of each (draws, models, width).
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]
# Those to the metric (draws, models).
OfSums = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def false_claim_probability(
    metric: str,
    pairings: Sequence[Pairing | Matched],
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    weights: Sequence[float] | None = None,
) -> float:
    """P(the variant that looks better is not), by the mean over seeds and data sets: uncertainty over test images.

    pairings: one per data set. Every image (with groups: every group) has a weight from the flat Dirichlet distribution
    (Rubin 1981), which over cells is that with their counts. One image more is added, drawn from those that the models
    treat differently, the models exchanged by the toss of a coin: without it a single image of difference would make a
    certainty. Areas (AUC, AUPRC) move with the weights by their images' influence, to first order. The observed data
    count as one draw on the wrong side, so that the answer is never 0. weights: what each data set counts in the mean,
    by default all alike; less than 1 where files of one source are averaged.

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
    for pairing, weight in zip(pairings, weights or [1.0] * len(pairings), strict=True):
        images = matched(pairing)
        own = image_sums(metric, images.models)
        if own is not None:
            difference, drawn = _of_sums(metric, images, rng, draws, own)
        elif metric == "macro_f1" and images.codes is None:
            difference, drawn = _of_f1(images, rng, draws)
        elif metric in TABLE_METRICS or metric == "ece":
            difference, drawn = _of_sums(metric, images, rng, draws)
        else:
            difference, drawn = _linear(metric, images, rng, draws)
        observed += weight * difference
        total += weight * drawn
    if math.isnan(observed):
        return math.nan
    # A difference of mere rounding is none.
    gain = total * sign * (1.0 if observed * sign >= 0 else -1.0)
    return (1 + int((gain <= 1e-12).sum())) / (1 + draws)


def _of_f1(images: Matched, rng: np.random.Generator, draws: int) -> tuple[float, np.ndarray]:
    """What `_of_sums` gives for macro-F1 of images that share no groups, by compiled code."""
    # Late: importing numba takes half a second, which --help should not pay.
    from analysis.paired.kernels import weighted_f1

    seeds, cells = images.n_seeds, images.joint
    truth, predicted = cells.truth.astype(np.uint32), cells.predicted.astype(np.uint32)

    def difference(weights: np.ndarray, *extra: np.ndarray) -> np.ndarray:
        values = np.empty((len(weights), 2 * seeds))
        weighted_f1(weights, truth, predicted, images.models[0].classes, *extra, values)
        return values[:, :seeds].mean(axis=1) - values[:, seeds:].mean(axis=1)

    observed = float(difference(cells.counts[None].astype(np.float64), *np.zeros((2, 1), np.int64), np.zeros(1))[0])
    differing = np.flatnonzero((predicted[:, :seeds] != predicted[:, seeds:]).any(axis=1))
    if len(differing) == 0:
        return observed, np.zeros(draws)
    chances = cells.counts[differing] / cells.counts[differing].sum()
    parts = []
    for size in _blocks(draws, len(truth)):
        weights = rng.standard_gamma(cells.counts, (size, len(truth)))
        extra = rng.choice(differing, size, p=chances)
        swapped, mass = rng.random(size) < 0.5, rng.standard_gamma(1, size)
        parts.append(difference(weights, extra, swapped.astype(np.int64), mass))
    return observed, np.concatenate(parts)


def _of_sums(
    metric: str, images: Matched, rng: np.random.Generator, draws: int, known: ImageSums | None = None
) -> tuple[float, np.ndarray]:
    """The difference against − baseline on the images, and in each draw, (draws,), for a metric of weighted sums."""
    seeds, codes = images.n_seeds, images.codes
    if known is not None:
        of_sums, units = _known(known)
    elif metric == "ece":
        of_sums, units = _calibration(images)
    else:
        of_sums, units = _tables(metric, images, codes is None)
    if codes is not None:
        units = units.by_group(codes)

    def difference(sums: Sums) -> np.ndarray:
        values = of_sums(*sums)
        return values[:, :seeds].mean(axis=1) - values[:, seeds:].mean(axis=1)

    observed = float(difference(units.sums(units.counts[None].astype(np.float64)))[0])
    differing = np.flatnonzero(units.differ(seeds))
    if len(differing) == 0:
        return observed, np.zeros(draws)
    chances = units.counts[differing] / units.counts[differing].sum()
    parts = []
    for size in _blocks(draws, len(units.counts)):
        rows = max(1, ROWS // len(units.counts))
        slices = [
            units.sums(rng.standard_gamma(units.counts, (min(rows, size - start), len(units.counts))))
            for start in range(0, size, rows)
        ]
        sums = [np.concatenate(part) for part in zip(*slices)]
        extra = rng.choice(differing, size, p=chances)
        swapped, mass = rng.random(size) < 0.5, rng.standard_gamma(1, size)
        for total, added in zip(sums, units.of(extra, swapped, seeds)):
            total += mass.reshape(-1, *[1] * (added.ndim - 1)) * added
        parts.append(difference((sums[0], sums[1], sums[2])))
    return observed, np.concatenate(parts)


@dataclass(frozen=True)
class Units:
    """Images, cells or groups, with what they add to each sum.

    shared (units, width): to what all models share. hits (units, models, width) and own (units, models, kinds): to
    those of each model; where `truth` (units,) is given, a hit counts in that column alone, and hits has no other.
    counts (units,): images of each.
    """

    shared: np.ndarray
    hits: np.ndarray
    own: np.ndarray
    counts: np.ndarray
    truth: np.ndarray | None = None

    def by_group(self, codes: np.ndarray) -> "Units":
        """The units merged by group of images."""
        groups = int(codes.max()) + 1
        sums = []
        for rows in (self.shared, self.hits, self.own):
            sums.append(np.zeros((groups, *rows.shape[1:])))
            np.add.at(sums[-1], codes, rows)
        return Units(sums[0], sums[1], sums[2], np.ones(groups, dtype=np.int64))

    def sums(self, weights: np.ndarray) -> Sums:
        """What weights (draws, units) add up to."""
        draws = len(weights)
        own = (weights @ self.own.reshape(len(self.own), -1)).reshape(draws, *self.own.shape[1:])
        if self.truth is None:
            hits = (weights @ self.hits.reshape(len(self.hits), -1)).reshape(draws, *self.hits.shape[1:])
            return weights @ self.shared, hits, own
        # Cells are in the order of their truth: a class's hits are those of its own cells.
        width = self.shared.shape[1]
        shared, hits = np.zeros((draws, width)), np.zeros((draws, self.hits.shape[1], width))
        ends = np.searchsorted(self.truth, np.arange(width + 1))
        for k, (start, end) in enumerate(pairwise(ends)):
            shared[:, k] = weights[:, start:end].sum(axis=1)
            hits[:, :, k] = weights[:, start:end] @ self.hits[start:end, :, 0]
        return shared, hits, own

    def of(self, units: np.ndarray, swapped: np.ndarray, seeds: int) -> Sums:
        """What each of these units adds, (draws, …), the two variants exchanged where it is swapped."""
        hits, own = (
            np.where(swapped[:, None, None], np.roll(rows[units], seeds, axis=1), rows[units])
            for rows in (self.hits, self.own)
        )
        if self.truth is None:
            return self.shared[units], hits, own
        truth = np.eye(self.shared.shape[1])[self.truth[units]]
        return truth, hits * truth[:, None], own

    def differ(self, seeds: int) -> np.ndarray:
        """Which units would contribute something else if the two variants were exchanged, (units,)."""
        sides = [(rows != np.roll(rows, seeds, axis=1)).any(axis=(1, 2)) for rows in (self.hits, self.own)]
        return sides[0] | sides[1]


def _tables(metric: str, images: Matched, merge: bool) -> tuple[OfSums, Units]:
    """Units for a metric of a confusion table: images' truth, hits and predictions; with merge, one unit per cell."""
    if merge:
        truth, predicted, counts = images.joint.truth, images.joint.predicted, images.joint.counts
    else:
        truth, predicted = images.labels, np.stack([model.predicted for model in images.models], axis=1)
        counts = np.ones(len(truth), dtype=np.int64)
    onehot = np.eye(images.models[0].classes)
    shared, own, right = onehot[truth], onehot[predicted], (predicted == truth[:, None])[:, :, None]

    def of_sums(truth: np.ndarray, hits: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return TABLE_METRICS[metric](SCALE * hits, SCALE * truth[:, None], SCALE * predicted)

    if merge:
        return of_sums, Units(shared, right.astype(np.float64), own, counts, truth)
    return of_sums, Units(shared, right * shared[:, None], own, counts)


def _known(known: ImageSums) -> tuple[OfSums, Units]:
    """Units for a metric that says itself what images add."""

    def of_sums(shared: np.ndarray, hits: np.ndarray, own: np.ndarray) -> np.ndarray:
        return known.value(SCALE * shared, SCALE * own)

    none = np.zeros((*known.own.shape[:2], 0))
    return of_sums, Units(known.shared, none, known.own, np.ones(len(known.shared), dtype=np.int64))


def _calibration(images: Matched) -> tuple[OfSums, Units]:
    """Units for the calibration error: each image's share, and the gap of hit and confidence in its bin (width)."""
    own = np.zeros((images.n_images, len(images.models), ECE_BINS))
    for place, model in enumerate(images.models):
        bins, gaps = confidence_gaps(images.labels, model.probabilities)
        own[np.arange(images.n_images), place, bins] = gaps

    def of_sums(weight: np.ndarray, hits: np.ndarray, own: np.ndarray) -> np.ndarray:
        return np.abs(own).sum(axis=2) / weight

    none = np.zeros((*own.shape[:2], 0))
    return of_sums, Units(np.ones((images.n_images, 1)), none, own, np.ones(images.n_images, dtype=np.int64))


def _linear(metric: str, images: Matched, rng: np.random.Generator, draws: int) -> tuple[float, np.ndarray]:
    """The difference on the images and in each draw, for a metric that is, to first order, a mean over images."""
    own = _values_of_images(metric, images.models)
    values = np.mean([own[place] - own[place + images.n_seeds] for place in range(images.n_seeds)], axis=0)
    observed = float(values.mean())
    sizes, codes = np.ones(len(values)), images.codes
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


def _values_of_images(metric: str, models: Sequence[Model]) -> list[np.ndarray]:
    """What `_image_values` makes of each model, (images,) each, computed once for each of them."""
    waiting = [model for model in models if model.image_values(metric) is None]
    made = _area_values(waiting) if metric == "macro_auc_ovr" else map(partial(_model_values, metric), waiting)
    for model, values in zip(waiting, made):
        model.keep_image_values(metric, values)
    kept = [model.image_values(metric) for model in models]
    return [values for values in kept if values is not None]


def _model_values(metric: str, model: Model) -> np.ndarray:
    return _image_values(metric, model.labels, model.probabilities)


def _area_values(models: Sequence[Model]) -> list[np.ndarray]:
    """What `_image_values` makes of the macro-AUC of models of the same images, (images,) each, all models at once."""
    if not models:
        return []
    rank(models)
    labels, classes, images = models[0].labels, models[0].classes, len(models[0].labels)
    present = ranked_classes(labels, classes)
    if not present:
        return [np.full(images, math.nan)] * len(models)
    rankings = [ranking for model in models for ranking in model.rankings]
    order = np.stack([ranking.order for ranking in rankings])
    own = owned(labels, order, np.tile(present, len(models)))
    above = np.cumsum(own, axis=1)
    placed = np.where(own, 2 * (np.arange(1, images + 1) - above), 2 * (above[:, -1:] - above))
    twice = np.empty_like(placed)
    np.put_along_axis(twice, order.astype(np.int64), placed, axis=1)
    for row, ranking in enumerate(rankings):
        if (ranking.upto - ranking.below != 1).any():
            scores = models[row // len(present)].probabilities[:, present[row % len(present)]]
            twice[row] = doubled_placements(scores, members(labels, present[row % len(present)]))
    by_class = twice.reshape(len(models), len(present), images)
    # Both of two classes place the images alike.
    shared = classes == 2 and labels.ndim == 1
    sides = [(k, 0) for k in range(2)] if shared else [(k, column) for column, k in enumerate(present)]
    parts = []
    for k, column in sides:
        positive = members(labels, k)
        n_positive = int(positive.sum())
        n_negative = images - n_positive
        shares = by_class[:, column] / np.where(positive, 2 * n_negative, 2 * n_positive)
        areas = np.ascontiguousarray(shares[:, positive]).mean(axis=1)[:, None]
        # An influence counts its image among its side alone: in the mean of all images it weighs as much more.
        parts.append(areas + (shares - areas) * images / np.where(positive, n_positive, n_negative))
    return list(np.mean(parts, axis=0))


def _image_values(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Values (images,) whose mean is the metric, and whose weighted mean is so to first order; NaN where unknown."""
    probabilities = probabilities.astype(np.float64, copy=False)
    images, classes = probabilities.shape
    many = labels.ndim == 2
    if metric == "brier" and many:
        return np.square(probabilities - labels).mean(axis=1)
    if metric == "brier":
        return 0.5 * np.square(probabilities - np.eye(classes)[labels]).sum(axis=1)
    if metric == "macro_auc_ovr":
        return _area_values([Model(labels, probabilities)])[0]
    if metric not in VALUES_OF_CLASS:
        return np.full(images, math.nan)
    # Two classes have one ranking: 1 − p would lose the order of small p to rounding.
    shared = classes == 2 and not many
    scores = np.stack([-probabilities[:, 1], probabilities[:, 1]], axis=1) if shared else probabilities
    parts = [VALUES_OF_CLASS[metric](scores[:, k], members(labels, k)) for k in range(classes)]
    defined = [values for values in parts if values is not None]
    return np.mean(defined, axis=0) if defined else np.full(images, math.nan)


def _average_precision_values(scores: np.ndarray, positive: np.ndarray) -> np.ndarray | None:
    """Values (images,) for the average precision of one class, as in `_image_values`; None where it has none."""
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
VALUES_OF_CLASS = {"auprc_macro": _average_precision_values}


def _blocks(draws: int, units: int) -> list[int]:
    """Sizes of slices of draws whose weights take some tens of megabytes."""
    rows = max(1, BLOCK // units)
    return [min(rows, draws - start) for start in range(0, draws, rows)]
