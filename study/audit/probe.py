"""A linear model on 16 × 16 pixels: what a network must beat, and whether a set is too easy or pure chance."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from study.audit.pool import small
from study.data.protocol import Dataset, Split

SIDE = 16
# Inverse strengths of the penalty, of which the validation split chooses one; the smaller where two are equal.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
ITERATIONS = 400
# More training images than this are thinned out evenly: a linear model learns little from more.
MOST_TRAINED = 4_000
TOO_EASY = 0.95
DRAWS = 2_000
METRIC = "balanced_accuracy"


def probe(dataset: Dataset, rng: np.random.Generator) -> dict[str, Any]:
    """The probe's balanced accuracy on test with its 95 % interval over test images (or groups), as JSON values.

    Multinomial logistic regression (of several labels an image, a logistic regression of each), classes weighted alike,
    with an L2 penalty whose strength is chosen on val.
    at_chance: the interval holds 1 / classes. too_easy: at least .95. The trained weights are held fixed. rng: for the
    bootstrap.
    """
    # Late: scikit-learn takes a second to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from analysis.metrics import METRICS
    from analysis.paired import bootstrap_metric

    train, val, test = (dataset.splits[name] for name in ("train", "val", "test"))
    kept = np.linspace(0, len(train) - 1, min(len(train), MOST_TRAINED)).round().astype(int)
    # Every class stays, however rare.
    kept = np.union1d(kept, _firsts(train.labels))
    features, seen, unseen = _features(train, kept), _features(val), _features(test)
    centre = features.mean(axis=0)
    best, chosen, model = -1.0, STRENGTHS[0], list[Any]()
    with warnings.catch_warnings():
        # A fit that has not settled is a model all the same, and the split chooses.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            columns = [train.labels] if train.labels.ndim == 1 else list(train.labels.T)
            fitted = [
                LogisticRegression(C=strength, class_weight="balanced", max_iter=ITERATIONS).fit(
                    features - centre, column[kept]
                )
                for column in columns
            ]
            value = METRICS[METRIC](val.labels, _probabilities(fitted, seen - centre))
            if value > best:
                best, chosen, model = value, strength, fitted
    assert model
    found = bootstrap_metric(
        METRIC, test.labels, _probabilities(model, unseen - centre), groups=test.groups, rng=rng, draws=DRAWS
    )
    chance = 1 / len(np.unique(test.labels)) if test.labels.ndim == 1 else 0.5
    ends = [float(found.interval.low), float(found.interval.high)] if found.interval.is_defined else None
    return {
        "metric": METRIC,
        "value": round(float(found.value), 4),
        "interval": ends,
        "over": found.interval.over,
        "n": found.interval.n,
        "chance": chance,
        "strength": chosen,
        "trained": len(kept),
        "at_chance": ends is not None and ends[0] <= chance,
        "too_easy": bool(found.value >= TOO_EASY),
    }


def _firsts(labels: np.ndarray) -> np.ndarray:
    """Places of images that have each class; of several labels an image, of one with each and one without."""
    if labels.ndim == 1:
        return np.unique(labels, return_index=True)[1]
    return np.concatenate([labels.argmax(axis=0), labels.argmin(axis=0)])


def _probabilities(models: list[Any], features: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of one model, or of the label of each model."""
    found = [model.predict_proba(features) for model in models]
    return found[0] if len(found) == 1 else np.stack([each[:, 1] for each in found], axis=1)


def _features(split: Split, rows: np.ndarray | None = None) -> np.ndarray:
    """Images as vectors (n, 256 × channels), in standard deviations of a usual image's pixels (64 levels)."""
    chosen = range(len(split)) if rows is None else rows
    images = [small(split.images[row], SIDE, colour=True).reshape(-1) for row in chosen]
    return np.stack(images).astype(np.float64) / 64
