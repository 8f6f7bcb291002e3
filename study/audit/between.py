"""Pictures that two data sets share: then they are one source, and evidence from both counts once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from study.audit.alike import BLOCK, LIKELY, MOST_BITS, SPARE, SURE, TURNS, correlations, distances, unit_vectors
from study.audit.pair import both_ends, described
from study.audit.pool import Pool

LISTED = 24
# Pairs of images that are compared between two sets at most: one second of a core.
BUDGET = 50_000_000
AS_IT_IS = TURNS[0][0]


def shared_pictures(pools: Mapping[str, Pool], listed: int = LISTED) -> list[dict[str, Any]]:
    """What each two data sets share, as JSON values; nothing of those that share no picture."""
    found = [between(one, other, pools[one], pools[other], listed) for one, other in combinations(pools, 2)]
    return [pair for pair in found if pair["images"][0]]


def between(name: str, other_name: str, one: Pool, other: Pool, listed: int = LISTED) -> dict[str, Any]:
    """What two data sets share: how many images of each show a picture of the other, and the first pairs by name.

    Look-alikes as in `study.audit.alike`, as they are, not turned. compared: images of the first, evenly spaced where
    all are too many, that were compared with all of the second.
    """
    chosen = np.flatnonzero(~one.constant)
    most = max(1, BUDGET // len(other))
    if len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    vectors = unit_vectors(other.copies)
    vectors[other.constant] = 0
    parts = []
    for start in range(0, len(chosen), BLOCK):
        block = chosen[start : start + BLOCK]
        i, j = np.nonzero(unit_vectors(one.copies[block]) @ vectors.T >= LIKELY - SPARE)
        parts.append((block[i], j))
    first, second = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    correlation = correlations(one.copies[first], other.copies[second])
    bits = distances(one.copies, first, other.copies, second)
    kept = (correlation >= SURE) | ((correlation >= LIKELY) & (bits <= MOST_BITS))
    first, second, correlation, bits = (column[kept] for column in (first, second, correlation, bits))
    order = both_ends(np.lexsort((second, first, -correlation)), correlation, listed)
    return {
        "sets": [name, other_name],
        "images": [len(np.unique(first)), len(np.unique(second))],
        "of": [len(one), len(other)],
        "compared": len(chosen),
        "pairs": len(first),
        "examples": [described((one, other), (first[k], second[k]), AS_IT_IS, correlation[k], bits[k]) for k in order],
    }
