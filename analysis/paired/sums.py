"""Metrics that are functions of sums over images, beyond those of a confusion table: quadratic kappa, and many labels.

A resample of images, or a draw of their weights, changes such a metric by its sums alone, so that thousands of them are
one product of matrices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.metrics import class_f1, kappa_of_sums, label_balance
from analysis.paired.models import Model
from analysis.tasks import QUADRATIC_KAPPA

# Numbers of draws × columns at a time.
BLOCK = 4_000_000


@dataclass(frozen=True)
class ImageSums:
    """What each image adds, and the metric of what they add up to.

    shared (images, columns): to what all models share. own (images, models, columns): to what each has of its own.
    value: sums of the two, (draws, columns) and (draws, models, columns), to the metric (draws, models).
    """

    shared: np.ndarray
    own: np.ndarray
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]


def image_sums(metric: object, models: Sequence[Model]) -> ImageSums | None:
    """The sums of a metric of models of the same images; None where it is no function of such."""
    labels = models[0].labels
    if metric == QUADRATIC_KAPPA and labels.ndim == 1:
        truth = labels.astype(np.float64)
        predicted = np.stack([model.predicted for model in models], axis=1).astype(np.float64)
        shared = np.stack([np.ones(len(truth)), truth, truth**2], axis=1)
        return ImageSums(shared, np.stack([predicted, predicted**2, predicted * truth[:, None]], axis=2), _kappa)
    value = OF_LABELS.get(metric) if isinstance(metric, str) else None
    if value is None or labels.ndim == 1:
        return None
    predicted = np.stack([model.predicted for model in models], axis=1)
    hits = predicted & (labels[:, None] == 1)
    shared = np.concatenate([np.ones((len(labels), 1)), labels], axis=1)
    return ImageSums(shared, np.concatenate([hits, predicted], axis=2).astype(np.float64), _of_labels(value))


def resampled_sums(sums: ImageSums, codes: np.ndarray | None, units: int, indices: np.ndarray) -> np.ndarray:
    """The metric (draws, models) on resamples of units, indices (draws, units); codes (images,): the unit of each."""
    images, models, width = sums.own.shape
    rows = np.concatenate([sums.shared, sums.own.reshape(images, -1)], axis=1)
    if codes is not None:
        merged = np.zeros((units, rows.shape[1]))
        np.add.at(merged, codes, rows)
        rows = merged
    first, parts = sums.shared.shape[1], []
    step = max(1, BLOCK // units)
    for start in range(0, len(indices), step):
        drawn = indices[start : start + step]
        weights = np.stack([np.bincount(row, minlength=units) for row in drawn]).astype(np.float64)
        total = weights @ rows
        parts.append(sums.value(total[:, :first], total[:, first:].reshape(len(drawn), models, width)))
    return np.concatenate(parts)


def _kappa(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    images, t, tt = (shared[:, None, column] for column in range(3))
    return kappa_of_sums(images, t, own[..., 0], tt, own[..., 1], own[..., 2])


# Hits, true and predicted counts (…, labels) and images (…, 1) to the metric (…).
OfLabels = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _of_labels(value: OfLabels) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def of_sums(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
        labels = own.shape[2] // 2
        return value(own[..., :labels], shared[:, None, 1:], own[..., labels:], shared[:, None, :1])

    return of_sums


def _accuracy(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, images: np.ndarray) -> np.ndarray:
    return ((images - true - predicted + 2 * hits) / images).mean(axis=-1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of the defined values, NaN where there is none."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    return np.where(count > 0, np.where(defined, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


OF_LABELS: dict[str, OfLabels] = {
    "macro_f1": lambda hits, true, predicted, images: _mean(class_f1(hits, true, predicted)),
    "balanced_accuracy": lambda hits, true, predicted, images: _mean(label_balance(hits, true, predicted, images)),
    "accuracy": _accuracy,
}
