"""What single test images say beyond a metric: decisions that flip between seeds, the worst class, rare classes.

Numbers are of one variant on one data set, from per-image predictions of all its seeds. None of them is declared before
a study runs, so they describe, and decide nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from analysis.distributions import normal_quantile, t_quantile
from analysis.interval import Interval
from analysis.metrics import checked
from analysis.records.predictions import Predictions
from analysis.tasks import decided, members, supports

BINS = 10
LEVEL = 0.95


@dataclass(frozen=True)
class Instability:
    """How often decisions differ between seeds: the share of pairs of seeds that disagree on an image, its mean.

    unsettled: the share of images on which not all seeds agree. The interval is over test images (groups, where images
    share one), seeds held fixed.
    """

    share: float
    interval: Interval
    unsettled: float
    n_seeds: int


@dataclass(frozen=True)
class WorstClass:
    """The lowest recall of a data set's classes, seeds averaged: its class by number, and an interval for it.

    The interval is over test images (groups), seeds held fixed. It holds for the lowest recall, whichever class has it:
    the intervals of all classes hold at once (Bonferroni), so the lowest lies between their lowest ends.
    """

    label: int
    recall: float
    interval: Interval
    n_images: int


@dataclass(frozen=True)
class ClassCalibration:
    """Calibration class by class, (classes,) each, means over seeds: how frequent a class is, and how far from it.

    bias: mean probability minus frequency, above 0 where a class is promised too often. error: mean distance of the
    probability from the frequency in its bin (classwise calibration error, Kull et al. 2019, without its mean over
    classes), biased upwards on few images.
    """

    frequency: np.ndarray
    bias: np.ndarray
    error: np.ndarray


@dataclass
class Decisions:
    """The decisions of one variant on one data set, collected seed by seed; images in the order of the first."""

    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    n_classes: int
    predicted: list[np.ndarray] = field(default_factory=list)
    bias: list[np.ndarray] = field(default_factory=list)
    error: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, first: Predictions) -> Decisions:
        """Decisions on the images of a cell, none taken yet."""
        return cls(first.labels, first.ids, first.groups, first.probabilities.shape[1])

    def add(self, found: Predictions) -> None:
        """Takes in the predictions of a seed. Those on other images are left out: nothing pairs them."""
        order: np.ndarray | None = None
        if not np.array_equal(found.ids, self.ids):
            if not np.array_equal(np.sort(found.ids), np.sort(self.ids)):
                return
            order = np.argsort(found.ids)[np.argsort(np.argsort(self.ids))]
        labels, probabilities = checked(found.labels, found.probabilities)
        predicted = decided(probabilities, labels.ndim == 2)
        self.predicted.append((predicted if order is None else predicted[order]).astype(np.int32))
        bias, error = _calibration(labels, probabilities)
        self.bias.append(bias)
        self.error.append(error)

    @property
    def _codes(self) -> np.ndarray:
        """The group of each image as a number, each image its own where there are no groups."""
        if self.groups is None:
            return np.arange(len(self.labels))
        return np.unique(self.groups, return_inverse=True)[1]

    @property
    def _over(self) -> str:
        return "test images" if self.groups is None else "groups of test images"

    def instability(self) -> Instability | None:
        """How often decisions flip between seeds; None with fewer than two of them."""
        n_seeds = len(self.predicted)
        if n_seeds < 2:
            return None
        answers = np.stack(self.predicted, axis=1)
        # Of several labels an image each has two answers, and their shares are averaged.
        kinds = 2 if self.labels.ndim == 2 else self.n_classes
        counts = np.stack([(answers == k).sum(axis=1) for k in range(kinds)], axis=1)
        pairs = n_seeds * (n_seeds - 1) / 2
        differing = 1.0 - (counts * (counts - 1) / 2).sum(axis=1) / pairs
        settled = counts.max(axis=1) == n_seeds
        if self.labels.ndim == 2:
            differing, settled = differing.mean(axis=1), settled.all(axis=1)
        mean, error, n = _clustered(differing, self._codes)
        half = t_quantile((1 + LEVEL) / 2, n - 1) * error if n > 1 else math.nan
        ends = (max(0.0, mean - half), min(1.0, mean + half)) if n > 1 else (math.nan, math.nan)
        unsettled = float((~settled).mean())
        return Instability(mean, Interval(*ends, LEVEL, self._over, n), unsettled, n_seeds)

    def worst_class(self) -> WorstClass | None:
        """The class with the lowest recall among those with test images; None without any seed."""
        if not self.predicted:
            return None
        hits = (np.stack(self.predicted, axis=1) == self.labels[:, None]).mean(axis=1)
        present = np.flatnonzero(supports(self.labels, self.n_classes))
        level = 1 - (1 - LEVEL) / len(present)
        found = []
        for label in map(int, present):
            here = members(self.labels, label)
            own = hits[here] if hits.ndim == 1 else hits[here, label]
            mean, error, n = _clustered(own, self._codes[here])
            found.append((mean, *_wilson(mean, error, int(here.sum()), len(self.predicted), level), label, n))
        recall, _, _, label, n = min(found)
        low, high = min(row[1] for row in found), min(row[2] for row in found)
        interval = Interval(low, high, LEVEL, self._over, n)
        return WorstClass(label, recall, interval, int(members(self.labels, label).sum()))

    def by_class(self) -> ClassCalibration | None:
        """Calibration of each class; None without any seed."""
        if not self.predicted:
            return None
        frequency = supports(self.labels, self.n_classes) / len(self.labels)
        return ClassCalibration(frequency, np.mean(self.bias, axis=0), np.mean(self.error, axis=0))


def _calibration(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability minus frequency, and calibration error in ten bins, of each class, (classes,) both."""
    count, classes = probabilities.shape
    gaps = probabilities.copy()
    if labels.ndim == 2:
        gaps -= labels
    else:
        gaps[np.arange(count), labels] -= 1.0
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(classes)
    sums = np.bincount(bins.ravel(), weights=gaps.ravel(), minlength=BINS * classes).reshape(classes, BINS)
    return gaps.mean(axis=0), np.abs(sums).sum(axis=1) / count


def _clustered(values: np.ndarray, codes: np.ndarray) -> tuple[float, float, int]:
    """The mean of values, its standard error where values of one code are drawn together, and how many codes.

    The linearised variance of a ratio of totals (Cochran 1977, section 6): with a code for each value it is the usual
    one of a mean.
    """
    mean = float(values.mean())
    _, places = np.unique(codes, return_inverse=True)
    totals = np.bincount(places, weights=values - mean)
    n = len(totals)
    if n < 2:
        return mean, math.nan, n
    return mean, math.sqrt(n / (n - 1) * float(np.square(totals).sum())) / len(values), n


def _wilson(share: float, error: float, count: int, n_seeds: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share at the number of images that its standard error is worth.

    Averaged over seeds an image is worth more than one draw and no more than one for each seed; images of one group are
    worth less than as many. A share of 0 or 1 has no error of its own: there it is the number of images.
    """
    worth = float(count)
    if 0 < share < 1 and not math.isnan(error):
        worth = min(share * (1 - share) / error**2, float(count * n_seeds)) if error > 0 else float(count * n_seeds)
    z2 = normal_quantile((1 + level) / 2) ** 2
    centre = (share + z2 / (2 * worth)) / (1 + z2 / worth)
    half = math.sqrt(z2 * (share * (1 - share) / worth + z2 / (4 * worth**2))) / (1 + z2 / worth)
    return max(0.0, centre - half), min(1.0, centre + half)
