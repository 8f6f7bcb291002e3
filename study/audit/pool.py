"""All images of a data set, one row each: split, label, group, a small grey copy, and which have equal pixels."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from PIL import Image

from study.data.lying import blocks
from study.data.protocol import SPLITS, Dataset

# Pixels a side of the small copies that are compared.
SIDE = 32
# Images at a time.
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Pool:
    """All images of a data set in one row each, in the order train, val, test.

    splits (n,): place in SPLITS. labels (n,), ids (n,), groups (n,) or None: as in the data set; where an image may
    have several labels, each combination of them counts as a class here, which names them. copies (n, 32, 32) uint8:
    grey, resized by Pillow's bilinear filter. contents (n,): the same number for images of equal pixels.
    constant (n,): whether all pixels are equal, so that there is nothing to compare.
    """

    classes: tuple[str, ...]
    splits: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    copies: np.ndarray
    contents: np.ndarray
    constant: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, split: str) -> np.ndarray:
        """Whether each image belongs to a split (n,)."""
        return self.splits == SPLITS.index(split)


def spaced(n: int, most: int) -> np.ndarray:
    """Rows of n, all of them or `most` that are evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)


def thinned(pool: Pool, most: int) -> Pool:
    """A pool of at most so many images, evenly spaced ones of a larger."""
    rows = spaced(len(pool), most)
    return Pool(
        classes=pool.classes,
        splits=pool.splits[rows],
        labels=pool.labels[rows],
        ids=pool.ids[rows],
        groups=None if pool.groups is None else pool.groups[rows],
        copies=pool.copies[rows],
        contents=pool.contents[rows],
        constant=pool.constant[rows],
    )


def pool_of(dataset: Dataset, most: int | None = None) -> Pool:
    """The pool of a data set; its images are read once, in order. most: of so many images at most, as `thinned`."""
    splits = [dataset.splits[name] for name in SPLITS]
    sizes = [len(split) for split in splits]
    rows = spaced(sum(sizes), sum(sizes) if most is None else most)
    starts = np.cumsum([0, *sizes[:-1]])
    places = np.searchsorted(starts, rows, side="right") - 1
    seen: dict[bytes, int] = {}
    copies, contents, constant = [], [], []
    for image in _images(dataset, rows, places, starts):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        contents.append(seen.setdefault(digest, len(seen)))
        constant.append(bool((image == image[:1, :1]).all()))
        copies.append(small(image))
    titles, labels = combinations(dataset.info.classes, np.concatenate([split.labels for split in splits]))
    groups = [split.groups for split in splits if split.groups is not None]
    return Pool(
        classes=titles,
        splits=places.astype(np.int8),
        labels=labels[rows],
        ids=np.concatenate([split.ids for split in splits])[rows],
        groups=np.concatenate(groups)[rows] if len(groups) == len(SPLITS) else None,
        copies=np.stack(copies),
        contents=np.array(contents),
        constant=np.array(constant),
    )


def combinations(classes: tuple[str, ...], labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names and labels (n,) as they are; of several labels an image, each combination as a class of its own."""
    if labels.ndim == 1:
        return classes, labels
    kinds, codes = np.unique(labels, axis=0, return_inverse=True)
    titles = [" + ".join(name for name, there in zip(classes, kind) if there) or "no label" for kind in kinds]
    return tuple(titles), codes.reshape(-1)


def _images(dataset: Dataset, rows: np.ndarray, places: np.ndarray, starts: np.ndarray) -> Iterator[np.ndarray]:
    """The images of some rows, in order: block by block where they are all."""
    for place, name in enumerate(SPLITS):
        images, here = dataset.splits[name].images, rows[places == place] - starts[place]
        yield from chain.from_iterable(blocks(images, BLOCK)) if len(here) == len(images) else (images[k] for k in here)


def small(image: np.ndarray, side: int = SIDE, colour: bool = False) -> np.ndarray:
    """An image (height, width, channels) uint8 at `side` pixels a side, grey (side, side) unless colour is kept."""
    whole = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if not colour:
        whole = whole.convert("L")
    return np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR))
