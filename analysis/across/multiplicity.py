"""One correction for all contrasts of a declared family."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

Correction = Literal["holm", "bh", "none"]
CORRECTIONS = ("holm", "bh", "none")


def adjust(p_values: Sequence[float] | np.ndarray, method: Correction = "holm") -> tuple[float, ...]:
    """Adjusted p values of one family, in the order given: compare each with α.

    "holm": family-wise error (Holm 1979), whatever the dependence. "bh": false discovery rate (Benjamini & Hochberg
    1995), for independent or positively dependent contrasts. "none": as they came.
    A p value of NaN (a contrast that could not be tested) stays NaN and still counts in the family, as 1 would: a
    declaration does not become easier to satisfy when part of it fails. An empty family is empty.
    """
    if method not in CORRECTIONS:
        raise ValueError(f"method must be one of {', '.join(CORRECTIONS)}, got {method!r}")
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p values must be one-dimensional, got shape {values.shape}")
    wrong = values[~np.isnan(values) & ~((values >= 0) & (values <= 1))]
    if len(wrong):
        raise ValueError(f"p values must be between 0 and 1, got {wrong[0]}")
    if method == "none" or len(values) == 0:
        return tuple(float(value) for value in values)
    # statsmodels has these few lines, too, but takes a second to import; the tests compare the two.
    counted = np.where(np.isnan(values), 1.0, values)
    order = np.argsort(counted)
    ranked, places = counted[order], np.arange(1, len(counted) + 1)
    if method == "holm":
        steps = np.maximum.accumulate(ranked * places[::-1])
    else:
        steps = np.minimum.accumulate((ranked / (places / len(counted)))[::-1])[::-1]
    adjusted = np.empty_like(counted)
    adjusted[order] = np.minimum(steps, 1.0)
    return tuple(math.nan if math.isnan(p) else float(a) for p, a in zip(values, adjusted))
