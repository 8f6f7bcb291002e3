"""The audit of a data set: everything that `study.audit` looks for, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.tasks import supports
from study.audit.alike import TURNS, Pairs, find_pairs
from study.audit.files import mixture
from study.audit.overlap import EARLIER, overlap
from study.audit.pixels import looks, looks_of
from study.audit.pool import Pool, pool_of
from study.audit.probe import probe
from study.data.protocol import SPLITS, Dataset

# Findings of another version are made anew.
VERSION = 3
# Pairs of images, times turns, that the short form compares: two seconds of one core.
BUDGET = 100_000_000
# How many of TURNS the short form tries, if its budget allows: all, mirrored ones, none.
FEWER_TURNS = (len(TURNS), 4, 1)
NAMED = 24
SEED = 20_250_101


def audit(
    dataset: Dataset,
    source: Mapping[str, Any] | None = None,
    pool: Pool | None = None,
    pairs: Pairs | None = None,
) -> dict[str, Any]:
    """The full audit of a data set as JSON values.

    source: the spec of its source, where its files shall be looked at. pool, pairs: its own, where they are made
    already.
    """
    pool = pool_of(dataset) if pool is None else pool
    pairs = find_pairs(pool) if pairs is None else pairs
    return {
        **_about(dataset, "full"),
        "alike": overlap(pool, pairs),
        "looks": looks(dataset, looks_of(dataset)),
        "files": None if source is None else mixture(dataset, source),
        "probe": probe(dataset, np.random.default_rng(SEED)),
    }


def short_audit(dataset: Dataset, pool: Pool | None = None) -> dict[str, Any]:
    """Look-alikes, labels, groups and classes alone, of a data set of any size in bounded time; as JSON values.

    Where all images are too many to be compared with all, evenly spaced ones of val and test are. pool: the set's own,
    where it is made already.
    """
    pool = pool_of(dataset) if pool is None else pool
    pairs_of_all = len(pool) * (len(pool) - 1) // 2
    turns = next((turns for turns in FEWER_TURNS if pairs_of_all * turns <= BUDGET), 1)
    rows = None
    if pairs_of_all > BUDGET:
        later = np.flatnonzero(np.isin(pool.splits, [SPLITS.index(name) for name in EARLIER]))
        most = max(1, BUDGET // len(pool))
        rows = later[np.unique(np.linspace(0, len(later) - 1, min(len(later), most)).round().astype(int))]
    return {**_about(dataset, "short"), "alike": overlap(pool, find_pairs(pool, rows, turns), listed=2)}


def _about(dataset: Dataset, form: str) -> dict[str, Any]:
    info, splits = dataset.info, dataset.splits
    return {
        "version": VERSION,
        "form": form,
        "name": info.name,
        "modality": info.modality,
        "fingerprint": info.fingerprint,
        "classes": list(info.classes),
        "channels": info.channels,
        "image_size": list(splits["train"].images.shape[1:3]),
        "n": {split: len(splits[split]) for split in SPLITS},
        "class_counts": {
            split: dict(zip(info.classes, map(int, supports(splits[split].labels, len(info.classes)))))
            for split in SPLITS
        },
        "groups": _groups(dataset),
        "notes": list(info.notes),
    }


def _groups(dataset: Dataset) -> dict[str, Any]:
    """How many groups each split has, and those that stand in two, which only an unchecked data set may hold."""
    groups: Mapping[str, np.ndarray] = {
        name: np.unique(split.groups) for name, split in dataset.splits.items() if split.groups is not None
    }
    values, counts = np.unique(np.concatenate([*groups.values(), np.empty(0, dtype=np.int64)]), return_counts=True)
    shared = values[counts > 1]
    return {
        "counts": {name: len(found) for name, found in groups.items()},
        "shared": {"count": len(shared), "names": [str(int(group)) for group in shared[:NAMED]]},
    }
