"""DeLong's test of two AUCs on the same images, binary and macro one-vs-rest.

The uncertainty is that of the test images, drawn anew with their labels; both sets of weights are held fixed. Nothing
here says how another training run would fare.

An AUC is a mean over pairs (positive, negative). The *placement* of a positive image is the share of negatives below
it, of a negative image the share of positives above it, ties counting half (DeLong, DeLong and Clarke-Pearson 1988,
eq. 3–4). A placement minus the AUC, over the number of images on its side, is that image's *influence*: the sum of
their products over images is DeLong's covariance (eq. 5–6), each side scaled by count / (count − 1). Placements come
from mid-ranks in O(n log n) (Sun and Xu 2014).

A macro AUC is a mean of one-vs-rest AUCs over the same images, so an image's influences are averaged over classes
before they are squared: the covariance between classes is in. With two classes that is the binary test exactly.
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis.distributions import t_quantile, t_tail
from analysis.interval import Interval
from analysis.paired.concordance import Bound, ranking_bound
from analysis.paired.models import unit_codes
from analysis.tasks import members

# AUCs move in steps of at least 1 / (2 · positives · negatives): a smaller standard error than this is rounding.
SMALLEST_ERROR = 1e-13


@dataclass(frozen=True)
class DeLong:
    """Two AUCs on the same images and their difference a − b: the uncertainty is that of the test images alone.

    variance is that of the difference. missing_classes: indices of classes without positives or without negatives,
    which take no part. Undefined values are NaN. bound: where the variance is 0 because the models order the images
    alike, the exact one-sided bound of either AUC's lead over the other; lowest_a, lowest_b: that of a perfect AUC, as
    low as it may be. None elsewhere.
    """

    auc_a: float
    auc_b: float
    difference: float
    interval: Interval
    z: float
    p_value: float
    variance: float
    variance_a: float
    variance_b: float
    covariance: float
    missing_classes: tuple[int, ...]
    interval_a: Interval
    interval_b: Interval
    n_images: int
    bound: Bound | None = None
    lowest_a: float | None = None
    lowest_b: float | None = None


def delong(
    labels: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> DeLong:
    """DeLong's paired two-sided test that two fixed models have equal AUC: the uncertainty over test images.

    labels: (images,) integers. Scores, not only probabilities: (images,) of class 1 or (images, 2), of which column 1
    counts, for the binary AUC; (images, classes) for the macro one-vs-rest AUC. Where an image may have several labels,
    0 and 1 (images, labels), scores have that shape and the macro AUC is the mean over labels.

    groups: (images,) what images share (a patient, a lesion): influences are summed within a group before they are
    squared, and groups are what is drawn anew (Obuchowski 1997; each side is scaled by the groups that have an image on
    it, the covariance of both sides by the geometric mean of the two factors). Quantiles are then those of t with
    groups − 1 degrees of freedom: normal ones reject equal models in 9 % of samples of 10 groups, these in 5 %.

    Defined answers: equal rankings give difference 0 and p = 1. With one class present there is no AUC: all NaN. A
    class with a single image (or group) on one side says nothing about that side's variance: variance, interval, z and
    p are NaN. Where the variance is 0 and the difference is not (a perfect model against a constant one) there is
    nothing to judge the difference by: z, p and interval are NaN; the randomisation test has an answer. Intervals are
    cut to the range of an AUC; a perfect model's has no width, nor has that of two which rank alike: a flaw of DeLong's
    method, and no certainty. There `bound` and `lowest_a` have the exact one-sided bounds of `level`
    (`analysis.paired.concordance`).

    Raises ValueError, one line, for NaN, infinite or non-numeric scores, unequal lengths or classes, labels out of
    range, no image.
    """
    labels, scores_a, scores_b = _checked(labels, probabilities_a, probabilities_b)
    codes = unit_codes(groups, len(labels))
    auc_a, influence_a, missing, single = _influences(labels, scores_a, codes)
    auc_b, influence_b, _, _ = _influences(labels, scores_b, codes)
    over, n = "test images", len(labels)
    if codes is not None:
        over, n = "groups of test images", int(codes.max()) + 1
        influence_a = np.bincount(codes, weights=influence_a)
        influence_b = np.bincount(codes, weights=influence_b)
    # t with infinitely many degrees of freedom is the normal distribution.
    df = math.inf if codes is None else max(1, n - 1)
    scale = math.nan if single or math.isnan(auc_a) else 1.0
    difference = auc_a - auc_b
    equal = auc_a == auc_b and np.array_equal(influence_a, influence_b)
    # From the difference of influences, not from three sums: equal models must give exactly 0.
    variance = 0.0 if equal else _variance(influence_a - influence_b, scale)
    variance_a, variance_b = _variance(influence_a, scale), _variance(influence_b, scale)

    def interval(estimate: float, variance: float, low: float) -> Interval:
        half = t_quantile((1 + level) / 2, df) * math.sqrt(variance)
        if math.isnan(half):
            return Interval(math.nan, math.nan, level, over, n)
        return Interval(max(low, estimate - half), min(1.0, estimate + half), level, over, n)

    # The variance of a difference that was observed cannot be 0: this sample is too small or too clear to show it.
    judged = math.nan if variance == 0 and difference != 0 else variance
    z = 0.0 if judged == 0 else difference / math.sqrt(judged)
    return DeLong(
        auc_a=auc_a,
        auc_b=auc_b,
        difference=difference,
        interval=interval(difference, judged, -1.0),
        z=z,
        p_value=2 * t_tail(abs(z), df),
        variance=variance,
        variance_a=variance_a,
        variance_b=variance_b,
        covariance=scale * float(influence_a @ influence_b),
        missing_classes=missing,
        interval_a=interval(auc_a, variance_a, 0.0),
        interval_b=interval(auc_b, variance_b, 0.0),
        n_images=len(labels),
        bound=ranking_bound(labels, [(scores_a, scores_b)], codes, level) if judged == 0 else None,
        lowest_a=_lowest(labels, scores_a, auc_a, codes, level),
        lowest_b=_lowest(labels, scores_b, auc_b, codes, level),
    )


def _lowest(labels: np.ndarray, scores: np.ndarray, auc: float, codes: np.ndarray | None, level: float) -> float | None:
    """The exact one-sided lower bound of a perfect AUC; None for any other."""
    if auc != 1.0:
        return None
    # A perfect ranking agrees with itself on every pair: as many trials as there are.
    bound = ranking_bound(labels, [(scores, scores)], codes, level)
    return None if bound is None else 1.0 - bound.value


def _checked(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels as int64, scores as float64 (images, classes); binary scores become a single column, that of class 1."""
    labels = np.asarray(labels)
    many = labels.ndim == 2 and labels.shape[1] > 1
    if not (labels.ndim == 1 or many) or labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be one-dimensional integers, got {labels.dtype} of shape {labels.shape}")
    if len(labels) == 0:
        raise ValueError("labels must hold at least one image, got none")
    scores_a, scores_b = _checked_scores("a", a, len(labels), many), _checked_scores("b", b, len(labels), many)
    if many and scores_a.shape != labels.shape:
        raise ValueError(f"probabilities must have the shape of several labels, {labels.shape}, got {np.shape(a)}")
    if scores_a.shape != scores_b.shape:
        raise ValueError(f"probabilities of a and b must have one shape, got {np.shape(a)} and {np.shape(b)}")
    classes = 2 if many else max(2, scores_a.shape[1])
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be 0 … {classes - 1}, got {labels.min()} … {labels.max()}")
    return labels.astype(np.int64, copy=False), scores_a, scores_b


def _checked_scores(name: str, scores: np.ndarray, images: int, many: bool) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim not in (1, 2) or scores.dtype.kind not in "fiub" or scores.shape[1:] in ((0,), (1,)):
        raise ValueError(
            f"probabilities_{name} must be numbers of shape (images,) or (images, classes), "
            f"got {scores.dtype} of shape {scores.shape}"
        )
    if len(scores) != images:
        raise ValueError(f"labels and probabilities_{name} must have the same length, got {images} and {len(scores)}")
    scores = scores.astype(np.float64, copy=False)
    if not np.isfinite(scores).all():
        raise ValueError(f"probabilities_{name} must be finite, got {scores[~np.isfinite(scores)][0]}")
    if scores.ndim == 1:
        return scores[:, None]
    return scores[:, 1:] if scores.shape[1] == 2 and not many else scores


def _influences(
    labels: np.ndarray, scores: np.ndarray, codes: np.ndarray | None
) -> tuple[float, np.ndarray, tuple[int, ...], bool]:
    """Macro AUC, each image's influence on it (images,), classes left out, whether a side has a single unit.

    The influences carry the square root of units / (units − 1), of the images (or groups) on their side, so that their
    squares add up to the unbiased variance of each class.
    """
    images, columns = scores.shape
    classes = range(columns) if columns > 1 else (1,)
    total = np.zeros(images)
    areas, missing, single = [], [], False
    for column, k in enumerate(classes):
        positive = members(labels, k)
        n_positive = int(positive.sum())
        n_negative = images - n_positive
        if n_positive == 0 or n_negative == 0:
            missing.append(k)
            continue
        twice = doubled_placements(scores[:, column], positive)
        # Integers until the division: the same number as the metric, to the last bit.
        area = int(twice[positive].sum()) / (2 * n_positive * n_negative)
        areas.append(area)
        for side, own, other in ((positive, n_positive, n_negative), (~positive, n_negative, n_positive)):
            units = own if codes is None else len(np.unique(codes[side]))
            single |= units == 1
            weight = math.sqrt(units / (units - 1)) if units > 1 else 1.0
            total[side] += (twice[side] / (2 * other) - area) * (weight / own)
    if not areas:
        return math.nan, total, (0, 1) if columns == 1 else tuple(missing), False
    return float(np.mean(areas)), total / len(areas), tuple(missing), single


def doubled_placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Twice the number of negatives below each positive, of positives above each negative; ties once. (images,)."""
    order = np.argsort(scores)
    ordered, is_positive = scores[order], positive[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], len(scores))
    positives_before = np.concatenate(([0], np.cumsum(is_positive)))
    # The positives below, and up to, each run of equal scores; from these the doubled mid-ranks of both sides.
    positives = positives_before[starts] + positives_before[ends]
    negatives = starts + ends - positives
    runs = ends - starts
    by_image = np.where(is_positive, np.repeat(negatives, runs), 2 * positives_before[-1] - np.repeat(positives, runs))
    result = np.empty(len(scores), dtype=np.int64)
    result[order] = by_image
    return result


def _variance(influence: np.ndarray, scale: float) -> float:
    variance = scale * float(influence @ influence)
    return 0.0 if variance < SMALLEST_ERROR**2 else variance
