"""What single images show: constant and saturated ones, uniform bands at the edges, colour channels; as plain JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from analysis.tasks import members, supports
from study.data.lying import blocks
from study.data.protocol import SPLITS, Dataset

# Names that are listed of each kind.
NAMED = 24
# A standard deviation of fewer grey levels than this is hardly an image.
FAINT = 2.0
# The share of pixels at the top, or at the bottom, from which an image is saturated, or black.
SATURATED = 0.5
BLACK = 0.98
# A row or column whose pixels differ by at most so many levels is uniform; JPEG compression alone moves some.
UNIFORM = 3
# The share of an image's area that uniform bands at its edges must take to be called a border.
BORDER = 0.05
# A border, or colour, tells the class where its rates in two classes of at least so many images differ by so much.
TELLING = 0.25
FEWEST = 20
# Images at a time.
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Looks:
    """What each image of a data set shows, (n,) each, in the order train, val, test.

    constant, faint, saturated, black: flags. border: share of the area that uniform bands at the edges take, 0 for a
    constant image. grey: whether its colour channels are equal.
    """

    constant: np.ndarray
    faint: np.ndarray
    saturated: np.ndarray
    black: np.ndarray
    border: np.ndarray
    grey: np.ndarray


def looks_of(dataset: Dataset) -> Looks:
    """What each image shows; memory for some hundred images at a time."""
    parts = [_looks(block) for block in _blocks(dataset)]
    names = [field.name for field in fields(Looks)]
    return Looks(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _blocks(dataset: Dataset) -> Iterator[np.ndarray]:
    for name in SPLITS:
        yield from blocks(dataset.splits[name].images, BLOCK)


def _looks(images: np.ndarray) -> Looks:
    constant = np.all(images == images[:, :1, :1], axis=(1, 2, 3))
    faint = images.mean(axis=3).std(axis=(1, 2)) < FAINT
    return Looks(
        constant=constant,
        faint=faint & ~constant,
        saturated=((images == 255).all(axis=3).mean(axis=(1, 2)) >= SATURATED) & ~constant,
        black=((images == 0).all(axis=3).mean(axis=(1, 2)) >= BLACK) & ~constant,
        border=np.where(constant, 0.0, borders(images)),
        grey=(images == images[..., :1]).all(axis=(1, 2, 3)),
    )


def borders(images: np.ndarray) -> np.ndarray:
    """The share of the area of images (n, height, width, channels) that uniform bands at their four edges take (n,)."""
    height, width = images.shape[1:3]
    # Rows of one colour, and of the colour of the row at the edge: a gradient is no border.
    top, bottom = (_bands(images[:, ::step]) for step in (1, -1))
    left, right = (_bands(images.transpose(0, 2, 1, 3)[:, ::step]) for step in (1, -1))
    inside = np.maximum(height - top - bottom, 0) * np.maximum(width - left - right, 0)
    return 1 - inside / (height * width)


def _bands(images: np.ndarray) -> np.ndarray:
    """How many rows from the first on have the one colour of the first (n,)."""
    edge = images[:, :1, :1].astype(np.int16)
    alike = (np.abs(images.astype(np.int16) - edge) <= UNIFORM).all(axis=(2, 3))
    return np.where(alike.all(axis=1), images.shape[1], alike.argmin(axis=1))


def looks(dataset: Dataset, found: Looks) -> dict[str, Any]:
    """What the images of a data set show, as JSON values: counts, shares by class, names."""
    ids = np.concatenate([dataset.splits[name].ids for name in SPLITS])
    labels = np.concatenate([dataset.splits[name].labels for name in SPLITS])
    classes = dataset.info.classes
    flagged = {
        kind: {"count": int(flags.sum()), "names": [str(name) for name in ids[flags][:NAMED]]}
        for kind, flags in (
            ("constant", found.constant),
            ("faint", found.faint),
            ("saturated", found.saturated),
            ("black", found.black),
        )
    }
    framed = found.border >= BORDER
    order = np.flatnonzero(framed)[np.argsort(-found.border[framed], kind="stable")][:NAMED]
    return {
        **flagged,
        "borders": {
            "count": int(framed.sum()),
            "area": round(float(found.border[framed].mean()), 4) if framed.any() else 0.0,
            "by_class": rates(framed, labels, classes),
            "tell": tells(framed, labels, len(classes)),
            "names": [str(name) for name in ids[order]],
        },
        "colour": {
            "channels": dataset.info.channels,
            "grey": int(found.grey.sum()) if dataset.info.channels > 1 else 0,
            "by_class": rates(found.grey, labels, classes) if dataset.info.channels > 1 else {},
            "tell": dataset.info.channels > 1 and tells(found.grey, labels, len(classes)),
        },
    }


def rates(flags: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """The share of flagged images in each class that has any."""
    return {
        name: round(float(flags[members(labels, label)].mean()), 4)
        for label, name in enumerate(classes)
        if members(labels, label).any()
    }


def tells(flags: np.ndarray, labels: np.ndarray, n_classes: int) -> bool:
    """Whether the flags are so much more frequent in one class than in another that they tell the two apart."""
    counts = supports(labels, n_classes)
    flagged = supports(labels[flags.astype(bool)], n_classes)
    rates = flagged[counts >= FEWEST] / counts[counts >= FEWEST]
    return len(rates) > 1 and float(rates.max() - rates.min()) >= TELLING
