"""Samples of a data set that lies in image files: which file is in which split and class, and the reading of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.data.intake import About, Incoming, take_in
from study.data.pictures.decoding import Decoder
from study.data.pictures.header import Header
from study.data.protocol import SPLITS, Dataset, DividedGroupsError
from study.data.shelf import Shelf

# Bytes of decoded images that are on their way at a time.
CHUNK_BYTES = 1 << 26


@dataclass(frozen=True)
class Sample:
    """A file of one picture or several, its split, its class by number, and its group, such as a patient, if known.

    `name` is the file's path below the data set's folder, in one Unicode form and with slashes alone. `label` is the
    numbers of several, in order, where an image may have several or none.
    """

    path: Path
    name: str
    split: str
    label: int | tuple[int, ...]
    group: str | None = None


@dataclass(frozen=True)
class Files:
    """A data set in image files: its folder, class names, samples, and what a reader of results must know of it.

    divided: what is wrong with its groups, where one stands in two splits.
    """

    folder: Path
    classes: Sequence[str]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()
    divided: str = ""


def read_files(
    about: About, files: Files, decoder: Decoder, image_size: int | None, shelf: Shelf | None = None
) -> Dataset:
    """The data set in some files, each decoded once. Raises ValueErrors that begin with the path of what is wrong.

    image_size: pixels a side to which every image is resized. shelf: where a set goes that is too large to be held.
    Pictures of one file share its group, by default the file's own.
    """
    headers = {sample.path: decoder.header(sample.path) for sample in files.samples}
    colour = any(header.colour for header in headers.values())
    told = (*files.notes, *decoder.notes(len(headers)))
    groups = _groups(files, headers)
    shape = _Shape(image_size)
    splits: dict[str, Incoming] = {}
    for split in SPLITS:
        here = [sample for sample in files.samples if sample.split == split]
        repeats = [headers[sample.path].frames for sample in here]
        numbers = None if groups is None else np.array([groups[sample.path] for sample in here], dtype=np.int64)
        splits[split] = Incoming(
            labels=np.repeat(_labels(here, len(files.classes)), repeats, axis=0),
            ids=np.array([name for sample in here for name in _ids(files.folder, sample.path, headers[sample.path])]),
            groups=None if numbers is None else np.repeat(numbers, repeats),
            chunks=_chunks([sample.path for sample in here], decoder, colour, shape),
        )
    try:
        return take_in(about, list(files.classes), splits, str(files.folder), told, shelf)
    except DividedGroupsError as error:
        # The files know the group's name, and two of its images.
        raise DividedGroupsError(files.divided or str(error), error.dataset) from None


class _Shape:
    """The one size of all images of a data set: that of the first, or the one to which all are resized."""

    def __init__(self, image_size: int | None) -> None:
        self._image_size = image_size
        self._first: tuple[Path, tuple[int, int]] | None = None

    def fitted(self, path: Path, pictures: np.ndarray) -> np.ndarray:
        if self._image_size is not None:
            return _resized(pictures, self._image_size)
        size = pictures.shape[1:3]
        first, expected = self._first = self._first or (path, (size[0], size[1]))
        if size != expected:
            wanted, found = (f"{height}×{width}" for height, width in (expected, size))
            raise ValueError(f"{path}: must be {wanted} like {first}, got {found} (source.image_size resizes all)")
        return pictures


def _resized(pictures: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    each = (Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR) for picture in pictures)
    return np.stack([np.asarray(picture) for picture in each])


def _chunks(paths: Sequence[Path], decoder: Decoder, colour: bool, shape: _Shape) -> Iterator[np.ndarray]:
    """The pictures of some files in order, (n, height, width, channels), some 64 MB at a time."""
    held: list[np.ndarray] = []
    held_bytes = 0
    for path in paths:
        pictures = shape.fitted(path, decoder.frames(path, colour))
        held.append(pictures if colour else pictures[..., np.newaxis])
        held_bytes += pictures.nbytes
        if held_bytes >= CHUNK_BYTES:
            yield np.concatenate(held)
            held, held_bytes = [], 0
    if held:
        yield np.concatenate(held)


def _labels(samples: Sequence[Sample], classes: int) -> np.ndarray:
    """The class of each sample (n,), or 0 and 1 for each label of several, (n, classes)."""
    if not any(isinstance(sample.label, tuple) for sample in samples):
        return np.array([sample.label for sample in samples], dtype=np.int64)
    found = np.zeros((len(samples), classes), dtype=np.int64)
    for row, sample in zip(found, samples):
        row[list(sample.label) if isinstance(sample.label, tuple) else sample.label] = 1
    return found


def _ids(folder: Path, path: Path, header: Header) -> list[str]:
    name = path.relative_to(folder).as_posix()
    return [name] if header.frames == 1 else [f"{name}#{frame}" for frame in range(header.frames)]


def _groups(files: Files, headers: Mapping[Path, Header]) -> dict[Path, int] | None:
    """The group of each file as a number; None where there is none and no file has several pictures."""
    names = {sample.path: sample.group for sample in files.samples}
    if all(group is None for group in names.values()) and all(header.frames == 1 for header in headers.values()):
        return None
    named = {path: str(path) if group is None else group for path, group in names.items()}
    numbers = {group: number for number, group in enumerate(sorted(set(named.values())))}
    return {path: numbers[group] for path, group in named.items()}
