"""A pair of look-alikes as plain JSON values: names, splits and classes of both images, and how they are alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from study.audit.pool import Pool
from study.data.protocol import SPLITS


def both_ends(places: np.ndarray, correlation: np.ndarray, listed: int) -> np.ndarray:
    """At most `listed` of the places of pairs in a list: where they are more, the first half, and the least alike.

    By the least alike a reader judges whether the others are what they seem.
    """
    if len(places) <= listed:
        return places
    half = listed // 2
    rest = places[half:]
    least = rest[np.argsort(correlation[rest], kind="stable")][: listed - half]
    return np.concatenate([places[:half], least[::-1]])


def described(
    pools: tuple[Pool, Pool], rows: tuple[int, int], turn: str, correlation: float, bits: int, equal: bool = False
) -> dict[str, Any]:
    """A pair of images by their rows in two pools, or in one given twice; the first leads in every list."""
    both = tuple(zip(pools, rows, strict=True))
    return {
        "images": [str(pool.ids[row]) for pool, row in both],
        "splits": [SPLITS[pool.splits[row]] for pool, row in both],
        "classes": [pool.classes[pool.labels[row]] for pool, row in both],
        "rows": [int(row) for row in rows],
        "equal": bool(equal),
        "turn": turn,
        "correlation": round(float(correlation), 4),
        "bits": int(bits),
    }
