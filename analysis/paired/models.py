"""Models on the same labelled images, with what tests need of each computed once, however many tests need it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.metrics import DECLARED, METRICS, Scored, checked
from analysis.records.predictions import Pairing
from analysis.tasks import supports

Metric = str | Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Ranking:
    """One class's images from the lowest score up.

    order (images,): their places. positives (positives,): places of the class's own, in that order; below, upto: how
    many images lie below the run of scores equal to theirs, and up to its end.
    """

    order: np.ndarray
    positives: np.ndarray
    below: np.ndarray
    upto: np.ndarray


class Model:
    """One model's probabilities (images, classes) and the labels (images,), as `analysis.metrics.checked` has them."""

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        self._scored = Scored(labels, probabilities)
        self.labels, self.probabilities = self._scored.labels, self._scored.probabilities
        self._values: dict[str, float] = {}
        self._image_values: dict[str, np.ndarray] = {}
        self._rankings: list[Ranking] | None = None

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]

    @property
    def has_many(self) -> bool:
        """Whether an image may have several labels; labels are then (images, labels)."""
        return self._scored.has_many

    def value(self, metric: Metric) -> float:
        """A metric on all images."""
        if not isinstance(metric, str):
            return float(metric(self.labels, self.probabilities))
        if metric not in self._values:
            # Refused here where nobody has declared it.
            metric_function(metric)
            self._values[metric] = float(DECLARED[metric].value(self._scored))
        return self._values[metric]

    def image_values(self, metric: str) -> np.ndarray | None:
        """The values (images,) that were kept for a metric; None where none were."""
        return self._image_values.get(metric)

    def keep_image_values(self, metric: str, values: np.ndarray) -> None:
        """Keeps what a metric makes of each image, values (images,), for whoever asks next."""
        self._image_values[metric] = values

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class of the largest probability of each image, (images,); of many labels, (images, labels)."""
        return self._scored.predicted

    @property
    def rankings(self) -> list[Ranking]:
        """A ranking for each class that some images have and others have not; of two classes, that of class 1."""
        if self._rankings is None:
            rank([self])
        return self._rankings or []

    def keep_rankings(self, rankings: list[Ranking], area: float) -> None:
        """Keeps the rankings, and the macro-AUC that they give."""
        self._rankings, self._values["macro_auc_ovr"] = rankings, area

    @property
    def is_ranked(self) -> bool:
        """Whether the rankings are known."""
        return self._rankings is not None


def rank(models: Sequence[Model]) -> None:
    """Makes the rankings of models of the same images, all at once: one by one, small ones would take far longer."""
    waiting = [model for model in models if not model.is_ranked]
    if not waiting:
        return
    labels, images = waiting[0].labels, len(waiting[0].labels)
    present = ranked_classes(labels, waiting[0].classes)
    if not present:
        for model in waiting:
            model.keep_rankings([], math.nan)
        return
    scores = np.concatenate([model.probabilities.T[present] for model in waiting])
    order = scores.argsort(axis=1)
    own = owned(labels, order, np.tile(present, len(waiting)))
    rows, below = own.nonzero()
    upto = below + 1
    ends = np.searchsorted(rows, np.arange(len(scores)), side="right")
    starts = np.concatenate([[0], ends[:-1]])
    ordered = np.take_along_axis(scores, order, axis=1)
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)):
        here = slice(starts[row], ends[row])
        positives = ordered[row, below[here]]
        below[here] = ordered[row].searchsorted(positives, side="left")
        upto[here] = ordered[row].searchsorted(positives, side="right")
    # Mann–Whitney from twice the mid-ranks, in integers, hence exact until the division, as in the metric itself.
    counts = ends - starts
    areas = (np.add.reduceat(below + upto, starts) - counts**2) / (2 * counts * (images - counts))
    # Unsigned: compiled code need not check whether an index counts from the end.
    columns = [array.astype(np.uint32) for array in (order[own], below, upto)]
    order = order.astype(np.uint32)
    for place, model in enumerate(waiting):
        first = place * len(present)
        model.keep_rankings(
            [
                Ranking(order[row], *(column[starts[row] : ends[row]] for column in columns))
                for row in range(first, first + len(present))
            ],
            float(areas[first : first + len(present)].mean()),
        )


def ranked_classes(labels: np.ndarray, classes: int) -> list[int]:
    """The classes that have a one-vs-rest AUC of their own."""
    # Two classes share one ranking, that of class 1; a class that is never, or always, true has none.
    counts, shared = supports(labels, classes), classes == 2 and labels.ndim == 1
    return [k for k in ([1] if shared else range(classes)) if 0 < counts[k] < len(labels)]


def owned(labels: np.ndarray, order: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether the images at some places (rows, images) have each row's class or label, columns (rows,)."""
    return labels[order] == columns[:, None] if labels.ndim == 1 else labels[order, columns[:, None]] == 1


def ranking(scores: np.ndarray, positive: np.ndarray) -> Ranking:
    """The ranking of scores (images,), given which are positive."""
    order = np.argsort(scores)
    ordered = scores[order]
    places = np.flatnonzero(positive[order])
    below, upto = places, places + 1
    if (ordered[1:] == ordered[:-1]).any():
        own = ordered[places]
        below, upto = ordered.searchsorted(own, side="left"), ordered.searchsorted(own, side="right")
    # Unsigned: compiled code need not check whether an index counts from the end.
    return Ranking(*(array.astype(np.uint32) for array in (order, order[places], below, upto)))


def checked_pair(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and both models' probabilities as `analysis.metrics.checked` returns them, of one shape."""
    labels, checked_a = checked(labels, a)
    _, checked_b = checked(labels, b)
    if checked_a.shape != checked_b.shape:
        raise ValueError(f"a and b must have one shape, got {np.shape(a)} and {np.shape(b)}")
    return labels, checked_a, checked_b


def metric_function(metric: Metric) -> Callable[[np.ndarray, np.ndarray], float]:
    """The function of a metric's name, or the function itself. Raises ValueError for an unknown name."""
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ValueError(f"metric must be a function or one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


def unit_codes(groups: np.ndarray | None, images: int) -> np.ndarray | None:
    """The unit of each image as integers 0 … units − 1; None where every image is its own unit.

    Raises ValueError for groups of another length or of a kind that cannot name anything.
    """
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (images,):
        raise ValueError(f"groups must name one group for each of {images} images, got shape {groups.shape}")
    if groups.dtype.kind == "O" and all(isinstance(name, str) for name in groups):
        # Text as pandas keeps it.
        groups = groups.astype(str)
    if groups.dtype.kind not in "iubUS":
        raise ValueError(f"groups must be integers or strings, got {groups.dtype}")
    names, codes = np.unique(groups, return_inverse=True)
    return None if len(names) == images else codes.astype(np.int64)


@dataclass(frozen=True)
class Joint:
    """Images that all models treated alike, as one cell each, in the order of truth and predictions.

    truth (cells,), predicted (cells, models), counts (cells,): images of each; cell (images,): that of each image.
    """

    truth: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    cell: np.ndarray


def joint(models: Sequence[Model]) -> Joint:
    """The joint table of models of the same images."""
    columns = np.stack([models[0].labels, *(model.predicted for model in models)])
    keys = [columns[0]]
    size, classes = models[0].classes, models[0].classes
    for column in columns[1:]:
        # As many columns in one number as fit.
        if size > (1 << 62) // classes:
            keys.append(column)
            size = classes
        else:
            keys[-1] = keys[-1] * classes + column
            size *= classes
    if len(keys) == 1:
        _, first, cell, counts = np.unique(keys[0], return_index=True, return_inverse=True, return_counts=True)
    else:
        order = np.lexsort(keys[::-1])
        new = np.zeros(len(order), dtype=bool)
        new[0] = True
        for key in keys:
            new[1:] |= key[order[1:]] != key[order[:-1]]
        first = order[new]
        cell = np.empty(len(order), dtype=np.int64)
        cell[order] = np.cumsum(new) - 1
        counts = np.bincount(cell)
    cells = columns[:, first]
    return Joint(cells[0], np.ascontiguousarray(cells[1:].T), counts, cell)


class Matched:
    """Two variants on the same images: models of paired seeds, one of each beside the other.

    Raises ValueError, one line, for unequal numbers of seeds and of images or classes, and for what `unit_codes`
    refuses.
    """

    def __init__(self, against: Sequence[Model], baseline: Sequence[Model], groups: np.ndarray | None = None) -> None:
        if len(against) != len(baseline) or len(against) == 0:
            raise ValueError(f"a and b must hold the same seeds, one at least, got {len(against)} and {len(baseline)}")
        self.against, self.baseline, self.groups = tuple(against), tuple(baseline), groups
        shapes = {model.probabilities.shape for model in self.models}
        if len(shapes) > 1:
            raise ValueError(
                f"seeds must share one shape, got {', '.join(str(m.probabilities.shape) for m in against)}"
            )
        self.labels = self.against[0].labels

    @property
    def models(self) -> tuple[Model, ...]:
        return (*self.against, *self.baseline)

    @property
    def n_seeds(self) -> int:
        return len(self.against)

    @property
    def n_images(self) -> int:
        return len(self.labels)

    @cached_property
    def codes(self) -> np.ndarray | None:
        """The unit of each image, None where every image is its own."""
        return unit_codes(self.groups, self.n_images)

    @cached_property
    def joint(self) -> Joint:
        return joint(self.models)

    @property
    def are_equal(self) -> bool:
        """Whether both sides have the same probabilities, seed by seed."""
        return all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(self.against, self.baseline))


def matched(pairing: Pairing | Matched) -> Matched:
    """A pairing of predictions as matched models."""
    if isinstance(pairing, Matched):
        return pairing
    sides = [[Model(pairing.labels, seed) for seed in side] for side in (pairing.against, pairing.baseline)]
    return Matched(sides[0], sides[1], pairing.groups)
