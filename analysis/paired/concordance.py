"""Exact bounds where two models agree on everything that was tested, and an interval from their variance has no width.

No event in n independent trials does not make its probability 0: with confidence γ it is at most 1 − (1 − γ)^(1/n),
the one-sided bound of Clopper and Pearson (1934, Biometrika 26, 404) for no event, about 3 / n for γ = .95 (the rule of
three; Hanley and Lippman-Hand 1983, JAMA 249, 1743).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.tasks import members


@dataclass(frozen=True)
class Bound:
    """An exact one-sided bound from trials without an event: of a probability, and of any difference that it bounds."""

    value: float
    trials: int
    level: float


def no_event_bound(trials: int, level: float = 0.95) -> Bound:
    """The bound of a probability after so many independent trials without an event; 1 without a trial."""
    return Bound(1.0 - (1.0 - level) ** (1.0 / trials) if trials else 1.0, trials, level)


def ranking_bound(
    labels: np.ndarray,
    models: Sequence[tuple[np.ndarray, np.ndarray]],
    codes: np.ndarray | None = None,
    level: float = 0.95,
) -> Bound | None:
    """The most by which either of two models' AUCs can exceed the other's, where both order all pairs tested alike.

    labels (images,); models: (a, b) of each seed, scores (images, classes), or (images, 1) of class 1; codes (images,):
    of groups, None where each image is its own. A trial is a positive with a negative image, each image (group) in one
    of them only, taken in the order of the files: such pairs are independent, and an AUC is the probability that one is
    ordered rightly, so AUCs differ by no more than the probability that the models order one differently. A macro AUC's
    difference is a mean over classes: where it is as large as t, so is that of some class, whose trials then agree with
    a probability of at most (1 − t)^trials; the class with the fewest trials decides. None where models disagree on a
    trial, or a class has none.
    """
    columns = models[0][0].shape[1]
    fewest = None
    for column, k in enumerate(range(columns) if columns > 1 else (1,)):
        positive = members(labels, k)
        if positive.all() or not positive.any():
            continue
        first, second = _disjoint_pairs(positive, codes)
        for a, b in models:
            if not np.array_equal(*(np.sign(side[first, column] - side[second, column]) for side in (a, b))):
                return None
        fewest = len(first) if fewest is None else min(fewest, len(first))
    return no_event_bound(fewest, level) if fewest else None


def _disjoint_pairs(positive: np.ndarray, codes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Places of positive and of negative images that make pairs, no image (group) in two of them."""
    if codes is None:
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        n = min(len(positives), len(negatives))
        return positives[:n], negatives[:n]
    # The first image of either kind of each group; a group of both kinds can take either side.
    first = [_firsts(codes, side) for side in (positive, ~positive)]
    both = [code for code in first[0] if code in first[1]]
    alone = [[code for code in side if code not in both] for side in first]
    while both:
        # A group of both kinds goes where groups are fewer.
        alone[0 if len(alone[0]) <= len(alone[1]) else 1].append(both.pop(0))
    n = min(len(side) for side in alone)
    found = [np.array([side[code] for code in codes_of[:n]], dtype=np.int64) for side, codes_of in zip(first, alone)]
    return found[0], found[1]


def _firsts(codes: np.ndarray, wanted: np.ndarray) -> dict[int, int]:
    """The place of each group's first wanted image, by its code."""
    found: dict[int, int] = {}
    for place in np.flatnonzero(wanted):
        found.setdefault(int(codes[place]), int(place))
    return found
