"""Learning curves of records: how much a cell still gained at the end of its training."""

from __future__ import annotations

import math

from analysis.metrics import LOWER_IS_BETTER
from analysis.records.schema import Record


def late_gain(record: Record, metric: str, share: float = 0.2) -> float:
    """What the best validation value gained in the last share of the epochs over the best before; 0 where nothing.

    NaN where the record has no curve of the metric, or no epoch before its last share. A budget at which the median
    cell gains next to nothing is long enough for most.
    """
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    values = [point.get(f"val_{metric}") for point in record.get("curves") or []]
    known = [-math.inf if value is None else sign * value for value in values]
    first = len(known) - max(1, round(share * len(known)))
    if first < 1 or max(known[:first]) == -math.inf:
        return math.nan
    return max(0.0, max(known) - max(known[:first]))
