"""Two levels of a difference on one data set, seeds and test images, and the mean of such differences over data sets.

A difference between two variants, averaged over n paired seeds, varies for three reasons: training seeds; what the test
images do to each seed on its own; and what they do to all seeds alike. The spread between seeds shows the first two
together, with n − 1 degrees of freedom; draws of images show the last two, and tell them apart. So the variance is that
of the spread plus the shared part. With few seeds their spread may be far too small by chance, and is known to be where
it leaves less than the images alone: no interval over seeds and images is narrower than that over images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.distributions import t_quantile, t_tail


@dataclass(frozen=True)
class Parts:
    """Variances of a mean difference over seeds on one data set.

    seeds: by the spread between seeds, in which is what images do to each on its own; `df` degrees of freedom. shared:
    what images do to all seeds alike. images: of images alone, weights held fixed. images_df: groups − 1 where images
    share groups, else infinite. units: images, or groups.
    """

    seeds: float
    df: int
    shared: float
    images: float
    images_df: float
    units: int


@dataclass(frozen=True)
class Stratified:
    """A weighted mean of differences on fixed data sets, with two standard errors and their degrees of freedom.

    error: over seeds and test images; floor: over test images alone, below which no uncertainty of both can lie.
    """

    difference: float
    error: float
    df: float
    floor: float
    floor_df: float

    def half_width(self, tail: float) -> float:
        """Half of the interval that leaves out this share at each end: the wider one of both."""
        return max(
            -t_quantile(tail, self.df) * self.error,
            -t_quantile(tail, self.floor_df) * self.floor if self.floor else 0.0,
        )

    def p_beyond(self, distance: float) -> float:
        """The one-sided p of a difference this far from what the null hypothesis says: the larger one of both."""
        return max(_tail(distance, self.error, self.df), _tail(distance, self.floor, self.floor_df))


def student_parts(
    observed: np.ndarray, by_seed: np.ndarray, units: int, images_df: float
) -> tuple[np.ndarray, Parts | None]:
    """Means over seeds (draws,) of differences under draws of images, and the parts of the variance.

    observed: (seeds,) differences on all images; by_seed: (draws, seeds) on draws of the images. None without a draw.
    """
    means = by_seed.mean(axis=1)
    if len(by_seed) == 0:
        return means, None
    n_seeds = len(observed)
    images = float(means.var())
    # What images do to each seed on its own is already in the spread between seeds.
    apart = float((by_seed - means[:, None]).var(axis=0).sum()) / (n_seeds - 1)
    shared = max(0.0, 1.0 - apart / n_seeds / images) if images > 0 else 0.0
    seeds = float(observed.var(ddof=1)) / n_seeds
    return means, Parts(seeds, n_seeds - 1, shared * images, images, images_df, units)


def stratified(
    differences: Sequence[float], parts: Sequence[Parts], weights: Sequence[float], sources: Sequence[int]
) -> Stratified:
    """The mean of differences on fixed data sets (strata), their seeds and test images drawn anew.

    weights: of the data sets, adding up to 1. sources: a number for each data set's source. Variances of data sets add
    up; degrees of freedom are Satterthwaite's (1946). Files of one source may hold the same images, whose parts are
    added as if they went together entirely; seeds are each data set's own.
    """
    w = np.asarray(weights, dtype=np.float64)
    seeds = w**2 * np.array([part.seeds for part in parts])
    shared, images = (
        _by_source(w * np.sqrt([getattr(part, name) for part in parts]), sources) ** 2 for name in ("shared", "images")
    )
    images_df = np.full(len(shared), math.inf)
    np.minimum.at(images_df, np.unique(sources, return_inverse=True)[1], [part.images_df for part in parts])
    variances = np.concatenate([seeds, shared])
    df = np.concatenate([[float(part.df) for part in parts], images_df])
    return Stratified(
        difference=float(w @ np.asarray(differences, dtype=np.float64)),
        error=math.sqrt(float(variances.sum())),
        df=_satterthwaite(variances, df),
        floor=math.sqrt(float(images.sum())),
        floor_df=_satterthwaite(images, images_df),
    )


def _by_source(values: np.ndarray, sources: Sequence[int]) -> np.ndarray:
    return np.bincount(np.unique(sources, return_inverse=True)[1], weights=values)


def _satterthwaite(variances: np.ndarray, df: np.ndarray) -> float:
    """Degrees of freedom of a sum of independent estimated variances; infinite where nothing is uncertain."""
    below = float((variances**2 / df).sum())
    return float(variances.sum()) ** 2 / below if below > 0 else math.inf


def _tail(distance: float, error: float, df: float) -> float:
    if error > 0:
        return t_tail(distance / error, df)
    return 0.0 if distance > 0 else 1.0
