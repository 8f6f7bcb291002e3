"""Corrected resampled t test: differences over folds or random splits of one data set, which share training images.

Trainings on overlapping images are alike, so the spread between folds shows too little of how another sample of the
data set would turn out: Student's t takes ten repeats of ten folds for a hundred data sets, and rejects equal learners
far too often. Nadeau and Bengio (2003, Machine Learning 52, 239, equation 4 and section 5) put (1/n + test/train) × s²
in place of s²/n; Bouckaert and Frank (2004, PAKDD, 3) do so for folds that are dealt out several times.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.across.mean_tests import checked_differences
from analysis.distributions import t_quantile, t_tail
from analysis.interval import Interval


@dataclass(frozen=True)
class Resampled:
    """The test of a mean over n folds: the uncertainty over training and test images of this data set drawn anew.

    ratio: test images for each training image. standard_error: √(1/n + ratio) × the spread between folds. p_value: of
    no difference, two-sided. equivalence_p: of a mean beyond the margin, the larger of two one-sided tests; 1 without a
    margin.
    """

    estimate: float
    interval: Interval
    standard_error: float
    df: int
    p_value: float
    equivalence_p: float
    ratio: float
    n: int


def corrected_t(
    differences: Sequence[float] | np.ndarray, ratio: float, *, margin: float = 0.0, level: float = 0.95
) -> Resampled:
    """The corrected resampled t test of differences, one a fold, its seeds averaged.

    A single fold says nothing: p = 1 and no interval. Where all differences are equal: p = 1 for 0, else 0. Raises
    ValueError for no difference, or one not finite, and for a ratio that is no positive number.
    """
    values = checked_differences(differences)
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"ratio must be test images for each training image, above 0, got {ratio!r}")
    n, estimate = len(values), float(values.mean())
    over = "folds"
    if n < 2:
        nan = math.nan
        return Resampled(estimate, Interval(nan, nan, level, over, n), nan, 0, 1.0, 1.0, ratio, n)
    error = math.sqrt(1 / n + ratio) * float(values.std(ddof=1))
    half = t_quantile((1 + level) / 2, n - 1) * error
    return Resampled(
        estimate=estimate,
        interval=Interval(estimate - half, estimate + half, level, over, n),
        standard_error=error,
        df=n - 1,
        p_value=min(1.0, 2 * _tail(abs(estimate), error, n - 1)),
        equivalence_p=_tail(margin - abs(estimate), error, n - 1) if margin > 0 else 1.0,
        ratio=ratio,
        n=n,
    )


def _tail(distance: float, error: float, df: int) -> float:
    """One-sided p of a distance from what the null hypothesis says, half of it where there is none at all."""
    if error > 0:
        return t_tail(distance / error, df)
    return 0.5 if distance == 0 else float(distance < 0)
