"""Intake of a data set's images as they come, in chunks: checked, hashed, and kept in one array a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from study.data.protocol import Dataset, Digest, Split, assemble, checked_split


@dataclass(frozen=True)
class Incoming:
    """A split that has not been read yet: what is known of its images, and the images in chunks, in order.

    chunks: arrays (images, height, width, channels) uint8, all of one size, `len(labels)` images together.
    """

    labels: np.ndarray
    ids: np.ndarray | None
    groups: np.ndarray | None
    chunks: Iterator[np.ndarray]


@dataclass(frozen=True)
class About:
    """What is known of a data set before it is read."""

    name: str
    modality: str
    source_key: str


def take_in(
    about: About,
    classes: list[str],
    splits: dict[str, Incoming],
    where: str,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set made of splits that are read one after the other. Raises ValueError as `assemble` does."""
    digest = Digest(classes)
    taken: dict[str, Split] = {}
    for split, incoming in splits.items():
        count = len(incoming.labels)
        images: np.ndarray | None = None
        filled = 0
        for chunk in incoming.chunks:
            if images is None:
                images = np.empty((count, *chunk.shape[1:]), dtype=np.uint8)
                digest.begin(split, images.shape, incoming.groups is not None)
            digest.add(chunk)
            images[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        assert images is not None and filled == count, f"{where}: {split} has {filled} of {count} images"
        taken[split] = checked_split(where, split, images, incoming.labels, incoming.groups, incoming.ids)
        digest.end(taken[split].labels, taken[split].groups)
    return assemble(about.name, about.modality, classes, taken, where, about.source_key, notes=notes, digest=digest)
