"""Metrics of one set of predictions: every function maps labels and probabilities to a number.

labels: (images,) integers 0 … classes − 1. probabilities: (images, classes), rows summing to 1, or (images,)
probabilities of class 1. The predicted class is the largest probability, the lowest index where several tie.

Where an image may have several labels, or none, both are (images, labels): 0 or 1, and probabilities that are free of
each other; a label is predicted above .5, and what is said of a class below holds of a label.

What is undefined is not guessed. The rules, the same everywhere:

- A class without an image ("missing") takes no part in macro AUC, macro AUPRC and balanced accuracy; `all_metrics`
  names it.
- With one class present there is no AUC (no negatives): the function returns NaN, the record says null. AUPRC is 1.
- F1 of a class is 2·tp / (2·tp + fp + fn). A class that is neither present nor predicted has none and leaves the mean;
  one that is only predicted, or only present, counts 0 (as scikit-learn and torchmetrics do).
- MCC is 0 where its denominator is 0: a constant predictor, one class in the labels.
- Equal probabilities count half in the AUC, and share one threshold in the AUPRC.

These are point values on fixed images and fixed weights: none of them carries an uncertainty.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

import numpy as np

from analysis.tasks import MULTILABEL, Task, decided, members, supports, task_of

ECE_BINS = 15
# Softmax in float32 is within 1e-6 of 1; probabilities printed with four digits are within 1e-3.
SUM_TOLERANCE = 1e-3

Function = Callable[[np.ndarray, np.ndarray], float]


class Scored:
    """Checked labels and probabilities, with what several metrics need of them counted once."""

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        self.labels, self.probabilities = checked(labels, probabilities)
        self.has_many = self.labels.ndim == 2

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class of the largest probability of each image, (images,); of many labels, which are predicted."""
        return decided(self.probabilities, self.has_many)

    @cached_property
    def counts(self) -> np.ndarray:
        """Counts (true class, predicted class)."""
        return confusion(self.labels, self.probabilities)

    @cached_property
    def margins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hits, images and predictions of each class, (classes,) each."""
        if self.has_many:
            hits = ((self.labels == 1) & self.predicted).sum(axis=0)
            return hits, supports(self.labels, self.labels.shape[1]), self.predicted.sum(axis=0)
        return margins(self.counts)

    @cached_property
    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """One-vs-rest AUC and average precision of every class, (classes,) each; NaN where undefined."""
        return _ranking(self.labels, self.probabilities)


@dataclass(frozen=True)
class Metric:
    """A declared metric: its value (NaN where undefined), its printed name, its direction, its range."""

    value: Callable[[Scored], float]
    printed: str
    lower_is_better: bool = False
    low: float = 0.0
    high: float = 1.0


class LessIsBetter(set[str]):
    """Names of metrics of which less is better: those declared so, and quoted ones, whose name ends in ↓."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.endswith("↓"))


# Filled by the declarations below, whose order is that of tables and messages.
DECLARED: dict[str, Metric] = {}
METRICS: dict[str, Function] = {}
LOWER_IS_BETTER: set[str] = LessIsBetter()


def is_quoted(name: str) -> bool:
    """Whether a metric is one that somebody else measured and printed: its name ends in ↑ or ↓, its better side."""
    return name.endswith(("↑", "↓"))


def metric(
    printed: str, *, lower_is_better: bool = False, low: float = 0.0, high: float = 1.0
) -> Callable[[Callable[[Scored], float]], Function]:
    """Decorator that declares a function as the metric of its name and makes it one of (labels, probabilities)."""

    def declare(value: Callable[[Scored], float]) -> Function:
        def of_predictions(labels: np.ndarray, probabilities: np.ndarray) -> float:
            return where_defined(Scored(labels, probabilities))

        @wraps(value)
        def where_defined(scored: Scored) -> float:
            return math.nan if scored.has_many and not MULTILABEL.defines(name) else value(scored)

        name = value.__name__
        of_predictions.__name__ = of_predictions.__qualname__ = name
        of_predictions.__doc__ = value.__doc__
        DECLARED[name] = Metric(where_defined, printed, lower_is_better, low, high)
        METRICS[name] = of_predictions
        if lower_is_better:
            LOWER_IS_BETTER.add(name)
        return of_predictions

    return declare


@metric("macro-F1")
def macro_f1(scored: Scored) -> float:
    """Mean F1 over the classes that are present or predicted."""
    return _nanmean(class_f1(*scored.margins))


@metric("macro-AUC")
def macro_auc_ovr(scored: Scored) -> float:
    """Mean area under the one-vs-rest ROC curve over the classes present; NaN with one class present.

    With two classes both one-vs-rest areas are the area of class 1.
    """
    return _nanmean(scored.areas[0])


@metric("balanced accuracy")
def balanced_accuracy(scored: Scored) -> float:
    """Mean recall over the classes present; of many labels, the mean of recall and specificity over labels with both.

    A label with both is one that some images have and others have not.
    """
    if scored.has_many:
        return _nanmean(label_balance(*scored.margins, np.array(len(scored.labels))))
    return _nanmean(class_recall(*scored.margins[:2]))


@metric("accuracy")
def accuracy(scored: Scored) -> float:
    """Share of images whose predicted class is right; of many labels, the share of single decisions that are."""
    if scored.has_many:
        return float((scored.predicted == scored.labels).mean())
    return float(scored.margins[0].sum() / len(scored.labels))


@metric("ECE", lower_is_better=True)
def ece(scored: Scored) -> float:
    """Expected calibration error: |accuracy − confidence| averaged over bins of confidence (Guo et al. 2017, eq. 3).

    Bins weigh by their images. Confidence is the probability of the predicted class; 15 equal-width bins, open below
    and closed above, so that 1.0 shares the last bin (torchmetrics closes them below and gives 1.0 a bin of its own:
    the two differ only where a confidence is a bin's edge). Biased upwards on few images, as every binned estimate is.
    """
    bins, gaps = confidence_gaps(scored.labels, scored.probabilities)
    # A bin's share × |accuracy − confidence| is |sum of (hit − confidence)| / images: an empty bin adds 0.
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=ECE_BINS)).sum() / len(scored.labels))


@metric("macro-AUPRC")
def auprc_macro(scored: Scored) -> float:
    """Mean average precision, one-vs-rest, over the classes present (with two classes: the mean of both)."""
    return _nanmean(scored.areas[1])


@metric("MCC", low=-1.0)
def mcc(scored: Scored) -> float:
    """Matthews correlation coefficient in its multi-class form (Gorodkin 2004, R_K); 0 where undefined."""
    return float(table_mcc(*scored.margins))


@metric("Brier score", lower_is_better=True)
def brier(scored: Scored) -> float:
    """Brier score: mean over images of half the squared distance between probabilities and the one-hot label, 0 … 1.

    Half, so that two classes give the usual mean of (p − y)² and data sets with more classes stay on the same scale. Of
    many labels it is that mean over images and labels.
    """
    if scored.has_many:
        return float(np.square(scored.probabilities - scored.labels).mean())
    distance = scored.probabilities.copy()
    distance[np.arange(len(scored.labels)), scored.labels] -= 1.0
    return float(0.5 * np.square(distance).sum() / len(scored.labels))


@metric("quadratic kappa", low=-1.0)
def quadratic_kappa(scored: Scored) -> float:
    """Agreement of ordered classes beyond chance: Cohen's kappa with quadratic weights (1968); NaN where undefined.

    1 − Σ (t − p)² / the mean of that sum over all ways to deal the predictions out; undefined where all are one class.
    """
    t, p = scored.labels.astype(np.float64), scored.predicted.astype(np.float64)
    return float(kappa_of_sums(*(np.array(values.sum()) for values in (np.ones(len(t)), t, p, t**2, p**2, t * p))))


def per_class(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Results by class, one row each, ready for JSON: class, precision, recall, f1, auc, support; None where undefined.

    Precision of a class that is present and never predicted is 0. classes: names, by default the index as text.
    """
    scored = Scored(labels, probabilities)
    return _per_class(scored, _names(classes, scored.probabilities.shape[1]))


def all_metrics(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str] | None = None, task: Task | None = None
) -> dict[str, Any]:
    """Every metric by name, ready for JSON (None where undefined), with `per_class` rows and `missing_classes` by name.

    classes: names, by default the index as text. task: by default what the shape of labels says, classes without an
    order. Raises ValueError for what `checked` refuses.
    """
    scored = Scored(labels, probabilities)
    task = task_of(scored.labels) if task is None else task
    names = _names(classes, scored.probabilities.shape[1])
    shown = {name: declared for name, declared in DECLARED.items() if name not in task.absent}
    return {
        **{name: _json(declared.value(scored)) for name, declared in shown.items()},
        "per_class": _per_class(scored, names),
        "missing_classes": [name for name, images in zip(names, scored.margins[1]) if images == 0],
    }


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 (images,) and probabilities as float64 (images, classes); scores (images,) become two columns.

    Beside labels of 0 and 1 (images, labels) sums are free. Raises ValueError, one line, for wrong shapes, no image,
    labels out of range, and probabilities that are not finite, not in 0 … 1 or do not sum to 1 within 1e-3.
    """
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities)
    many = labels.ndim == 2 and labels.shape[1] > 1
    if not (labels.ndim == 1 or many) or labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be one-dimensional integers, got {labels.dtype} of shape {labels.shape}")
    if many and labels.shape != probabilities.shape:
        raise ValueError(
            f"probabilities must have the shape of several labels, {labels.shape}, got {probabilities.shape}"
        )
    if probabilities.ndim not in (1, 2) or probabilities.dtype.kind not in "fiu":
        raise ValueError(
            "probabilities must be numbers of shape (images,) or (images, classes), "
            f"got {probabilities.dtype} of shape {probabilities.shape}"
        )
    if len(labels) != len(probabilities):
        raise ValueError(
            f"labels and probabilities must have the same length, got {len(labels)} and {len(probabilities)}"
        )
    if len(labels) == 0:
        raise ValueError("labels must hold at least one image, got none")
    probabilities = probabilities.astype(np.float64, copy=False)
    # NaN fails both comparisons, so one pass for each end finds it too.
    if not (probabilities.min() >= 0.0 and probabilities.max() <= 1.0 + SUM_TOLERANCE):
        bad = probabilities[~((probabilities >= 0.0) & (probabilities <= 1.0 + SUM_TOLERANCE))]
        raise ValueError(f"probabilities must be finite and between 0 and 1, got {bad[0]} ({bad.size} such values)")
    if probabilities.ndim == 1:
        probabilities = np.stack([1.0 - probabilities, probabilities], axis=1)
    elif probabilities.shape[1] < 2:
        raise ValueError(f"probabilities must have at least 2 classes, got shape {probabilities.shape}")
    elif not many:
        sums = probabilities @ np.ones(probabilities.shape[1])
        worst = int(np.abs(sums - 1.0).argmax())
        if abs(sums[worst] - 1.0) > SUM_TOLERANCE:
            raise ValueError(f"probabilities must sum to 1 for every image, got {sums[worst]:.6g} for image {worst}")
    if many and (labels.min() < 0 or labels.max() > 1):
        raise ValueError(f"several labels an image must be 0 or 1, got {labels.min()} … {labels.max()}")
    if not many and (labels.min() < 0 or labels.max() >= probabilities.shape[1]):
        raise ValueError(f"labels must be 0 … {probabilities.shape[1] - 1}, got {labels.min()} … {labels.max()}")
    return labels.astype(np.int64, copy=False), probabilities


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts (true class, predicted class) of checked labels and probabilities."""
    classes = probabilities.shape[1]
    pairs = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _ranking(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-vs-rest AUC and average precision of every class, (classes,) each; NaN where undefined."""
    images, classes = probabilities.shape
    # Two classes have one ranking: 1 − p would lose the order of small p to rounding.
    one_ranking = classes == 2 and labels.ndim == 1
    scores = np.array([-probabilities[:, 1], probabilities[:, 1]] if one_ranking else probabilities.T, order="C")
    ordered = np.sort(scores, axis=1)
    auc = np.full(classes, np.nan)
    average_precision = np.full(classes, np.nan)
    for k in range(classes):
        positive = np.sort(scores[k, members(labels, k)])
        count = len(positive)
        if count == 0:
            continue
        below = ordered[k].searchsorted(positive, side="left")
        up_to = ordered[k].searchsorted(positive, side="right")
        at_least = count - positive.searchsorted(positive, side="left")
        # Average precision steps through the scores of positives: each adds the precision at its own threshold.
        average_precision[k] = np.mean(at_least / (images - below))
        if count < images:
            # Mann–Whitney from twice the mid-ranks (below + up_to + 1), in integers, hence exact until the division.
            twice = int(below.sum() + up_to.sum()) + count - count * (count + 1)
            auc[k] = twice / (2 * count * (images - count))
    return auc, average_precision


def margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, images and predictions of each class of a confusion table, (classes,) each."""
    return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


# For one confusion table or many: hits, true and predicted counts are (…, classes).


def class_f1(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """F1 of each class, NaN where it is neither present nor predicted."""
    return ratio(2.0 * hits, true + predicted)


def class_recall(hits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Recall of each class, NaN where it has no image."""
    return ratio(hits, true)


def label_balance(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean of recall and specificity of each label, NaN where no image has it or all have; images (…) broadcasts."""
    without = images - true
    return (ratio(hits, true) + ratio(without - predicted + hits, without)) / 2


def kappa_of_sums(
    images: np.ndarray, t: np.ndarray, p: np.ndarray, tt: np.ndarray, pp: np.ndarray, tp: np.ndarray
) -> np.ndarray:
    """Quadratic kappa of sums over images of truth t, prediction p, their squares and product; NaN where undefined."""
    spread = tt + pp
    by_chance = spread - 2 * t * p / images
    with np.errstate(divide="ignore", invalid="ignore"):
        # Sums of weights that are not whole leave a rest of rounding where there is nothing to agree on.
        return np.where(by_chance > 1e-9 * spread, 1 - (spread - 2 * tp) / by_chance, np.nan)


def table_mcc(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Matthews correlation of each table, 0 where undefined."""
    hits, true, predicted = (part.astype(np.float64) for part in (hits, true, predicted))
    images = true.sum(axis=-1)
    covariance = hits.sum(axis=-1) * images - (true * predicted).sum(axis=-1)
    variance = (images**2 - np.square(true).sum(axis=-1)) * (images**2 - np.square(predicted).sum(axis=-1))
    return np.where(variance > 0, covariance / np.sqrt(np.maximum(variance, 1.0)), 0.0)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient of counts, NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def confidence_gaps(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bin of confidence of each image, and hit − confidence, (images,) both, of checked input: see `ece`."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), predicted]
    inner_edges = np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1]
    return inner_edges.searchsorted(confidence, side="left"), (predicted == labels) - confidence


def _per_class(scored: Scored, names: list[str]) -> list[dict[str, Any]]:
    hits, support, predicted = scored.margins
    precision = np.where((predicted == 0) & (support > 0), 0.0, ratio(hits, predicted))
    recall, f1, auc = class_recall(hits, support), class_f1(hits, support, predicted), scored.areas[0]
    columns = zip(names, precision, recall, f1, auc, support)
    return [
        {"class": name, "precision": _json(p), "recall": _json(r), "f1": _json(f), "auc": _json(a), "support": int(n)}
        for name, p, r, f, a, n in columns
    ]


def _names(classes: Sequence[str] | None, count: int) -> list[str]:
    if classes is None:
        return [str(k) for k in range(count)]
    if len(classes) != count:
        raise ValueError(f"classes must name the {count} columns of probabilities, got {len(classes)} names")
    return [str(name) for name in classes]


def _nanmean(values: np.ndarray) -> float:
    """Mean of the defined values, NaN where there is none (np.nanmean would warn)."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
