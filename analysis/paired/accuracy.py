"""McNemar's test of two models' accuracies on the same images.

Only images that exactly one of the two classifies correctly tell them apart. Under the null hypothesis either model is
the correct one with probability one half (McNemar 1947).
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis.paired.models import checked_pair


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two accuracies on the same images: the uncertainty is that of the test images alone.

    only_a, only_b: images that only a, only b, classified correctly. p_value: exact binomial, two-sided. p_mid: its
    mid-p form (less conservative, and not guaranteed to keep the level). z: (only_a − only_b) / √(only_a + only_b),
    whose square is McNemar's statistic without continuity correction, chi-squared with 1 degree of freedom in large
    samples.
    """

    only_a: int
    only_b: int
    p_value: float
    p_mid: float
    z: float


def mcnemar(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> McNemar:
    """McNemar's test that two models have equal accuracy: the uncertainty over test images, weights fixed.

    labels (images,); a and b (images, classes), or (images,) probabilities of class 1. Without an image that only one
    model classifies correctly, p = 1. Raises ValueError for what analysis.metrics.checked refuses.
    """
    labels, a, b = checked_pair(labels, a, b)
    if labels.ndim == 2:
        raise ValueError(f"labels must be one class an image for McNemar's test, got {labels.shape[1]} an image")
    right_a, right_b = a.argmax(axis=1) == labels, b.argmax(axis=1) == labels
    return mcnemar_counts(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()))


def mcnemar_counts(only_a: int, only_b: int) -> McNemar:
    """McNemar's test from the two counts that matter: images that only a, and only b, classified correctly."""
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts must not be negative, got {only_a} and {only_b}")
    # Late: statsmodels takes a second to import.
    from scipy.stats import binom
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    total, smaller = only_a + only_b, min(only_a, only_b)
    p_value = min(1.0, float(exact_mcnemar(np.array([[0, only_a], [only_b, 0]]), exact=True).pvalue))
    # Half of the observed outcome's probability on either side.
    p_mid = 2 * float(binom.cdf(smaller, total, 0.5)) - float(binom.pmf(smaller, total, 0.5))
    return McNemar(
        only_a=only_a,
        only_b=only_b,
        p_value=p_value,
        p_mid=min(1.0, p_mid),
        z=(only_a - only_b) / math.sqrt(total) if total else 0.0,
    )
