"""Dealing out of undivided units to parts, such that every class keeps its share in each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def assigned(units: Sequence[str], labels: Sequence[int], shares: Sequence[float], seed: int) -> list[int]:
    """The part of each item, such that an undivided unit lies in one part and every class has its share in each.

    Units are dealt out, large ones first, then in the order of a hash of their names and the seed, each to the part
    in which its classes are furthest below their share: least sum over classes of (count - quota)² / class size.
    Written out here, since a split is part of a data set's identity and must not change with a library's version.
    """
    known = sorted(set(units))
    place = {unit: number for number, unit in enumerate(known)}
    counts = np.zeros((len(known), max(labels, default=0) + 1))
    np.add.at(counts, ([place[unit] for unit in units], list(labels)), 1)
    sizes = counts.sum(axis=0)
    # Lags behind the quota of each part and class.
    lag = np.outer(shares, sizes)
    found = np.zeros(len(known), dtype=np.int64)
    for number in sorted(range(len(known)), key=lambda n: (-counts[n].sum(), _digest(seed, known[n]))):
        unit = counts[number]
        has = unit > 0
        part = int((((unit[has] - 2 * lag[:, has]) * unit[has]) / sizes[has]).sum(axis=1).argmin())
        lag[part] -= unit
        found[number] = part
    return [int(found[place[unit]]) for unit in units]


def _digest(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}|{unit}".encode()).digest()
