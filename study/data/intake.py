"""Intake of a data set's images as they come, in chunks: checked, hashed, and held in memory or put on a shelf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import IO

import numpy as np

from analysis.tasks import CLASSIFICATION, Task
from study.data import lying
from study.data.protocol import Dataset, Digest, Split, assemble, checked_split
from study.data.shelf import Place, Shelf, Writing


@dataclass(frozen=True)
class Incoming:
    """A split that has not been read yet: what is known of its images, and the images in chunks, in order.

    chunks: arrays (images, height, width, channels) uint8, all of one size, `len(labels)` images together. lies: where
    the images lie as they are, so that nobody need write them.
    """

    labels: np.ndarray
    ids: np.ndarray | None
    groups: np.ndarray | None
    chunks: Iterator[np.ndarray]
    lies: Place | None = None


@dataclass(frozen=True)
class About:
    """What is known of a data set before it is read."""

    name: str
    modality: str
    source_key: str
    task: Task = CLASSIFICATION


def take_in(
    about: About,
    classes: list[str],
    splits: Mapping[str, Incoming],
    where: str,
    notes: tuple[str, ...] = (),
    shelf: Shelf | None = None,
) -> Dataset:
    """The data set made of splits that are read one after the other. Raises ValueError as `assemble` does.

    One of more than `study.data.lying.HELD` bytes is put on the shelf, if there is one, and mapped.
    """
    begun = {name: _begun(incoming) for name, incoming in splits.items()}
    count = sum(len(incoming.labels) for incoming in splits.values())
    first, _ = begun["train"]
    size = count * int(np.prod(first.shape[1:]))
    if shelf is None or size <= lying.HELD:
        return _taken(about, classes, splits, begun, where, notes, None)
    written = sum(len(each.labels) for each in splits.values() if each.lies is None) * int(np.prod(first.shape[1:]))
    with shelf.writing(written) as writing:
        if writing is not None:
            _taken(about, classes, splits, begun, where, notes, writing)
    found = shelf.find()
    assert found is not None
    return found


def _begun(incoming: Incoming) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first chunk of a split, and all of them; decoding has begun with it."""
    first = next(incoming.chunks)
    return first, chain([first], incoming.chunks)


def _taken(
    about: About,
    classes: list[str],
    splits: Mapping[str, Incoming],
    begun: Mapping[str, tuple[np.ndarray, Iterator[np.ndarray]]],
    where: str,
    notes: tuple[str, ...],
    writing: Writing | None,
) -> Dataset:
    digest = Digest(classes, about.task)
    taken: dict[str, Split] = {}
    places: dict[str, Place] = {}
    for split, incoming in splits.items():
        first, chunks = begun[split]
        shape = (len(incoming.labels), *first.shape[1:])
        digest.begin(split, shape, incoming.groups is not None)
        with ExitStack() as stack:
            if writing is None:
                sink: _Memory | _File = _Memory(shape)
            else:
                places[split] = incoming.lies or writing.place(split, shape)
                sink = stack.enter_context(_File(places[split], incoming.lies is None))
            for chunk in chunks:
                digest.add(chunk)
                sink.add(chunk)
        images = sink.images()
        assert sink.filled == shape[0], f"{where}: {split} has {sink.filled} of {shape[0]} images"
        taken[split] = checked_split(where, split, images, incoming.labels, incoming.groups, incoming.ids, about.task)
        digest.end(taken[split].labels, taken[split].groups)
    dataset = assemble(
        about.name, about.modality, classes, taken, where, about.source_key, notes=notes, digest=digest, task=about.task
    )
    if writing is not None:
        writing.keep(dataset, places)
    return dataset


class _Memory:
    """Images that are gathered in memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._images = np.empty(shape, dtype=np.uint8)
        self.filled = 0

    def add(self, chunk: np.ndarray) -> None:
        self._images[self.filled : self.filled + len(chunk)] = chunk
        self.filled += len(chunk)

    def images(self) -> np.ndarray:
        return self._images


class _File:
    """Images that are written to a file, or that lie in one already."""

    def __init__(self, place: Place, write: bool) -> None:
        self._place = place
        self._write = write
        self._file: IO[bytes] | None = None
        self.filled = 0

    def __enter__(self) -> _File:
        if self._write:
            self._file = self._place.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, chunk: np.ndarray) -> None:
        if self._file is not None:
            self._file.write(np.ascontiguousarray(chunk).data)
        self.filled += len(chunk)

    def images(self) -> np.ndarray:
        return lying.mapped(self._place.path, self._place.offset, self._place.shape)
