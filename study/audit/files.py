"""The files of a data set in a folder: how many sizes and kinds of pixels they have, and whether those tell classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from study.audit.pixels import rates, tells
from study.data.protocol import SPLITS, Dataset

# Kinds of sources whose images are files below a folder of the set's name, or of the one named by `images`.
KINDS = ("folder", "table")
LISTED = 12


def mixture(dataset: Dataset, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Sizes and modes of a set's files as JSON values, the most frequent first; None where a set is no folder of files.

    As Pillow reads them off the headers; a file of another kind counts by its ending. Reading may have resized them
    all, yet a network can tell what was resized: `tell` says whether the most frequent size, or mode, does.
    """
    if source["kind"] not in KINDS:
        return None
    folder = Path(source["root"]) / (source.get("images") or dataset.info.name)
    names = np.concatenate([dataset.splits[split].ids for split in SPLITS])
    labels = np.concatenate([dataset.splits[split].labels for split in SPLITS])
    headers: dict[str, tuple[str, str]] = {}
    # The pictures of one file are named by its name and their number.
    found = [
        headers.setdefault(name, _header(folder / name)) for name in (str(each).partition("#")[0] for each in names)
    ]
    return {
        "count": len(headers),
        **{
            kind: _told(
                [header[place] for header in found], [header[place] for header in headers.values()], labels, dataset
            )
            for place, kind in enumerate(("sizes", "modes"))
        },
    }


def _told(each: list[str], files: list[str], labels: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    counts = Counter(files).most_common()
    usual = np.array([value == counts[0][0] for value in each])
    classes = dataset.info.classes
    return {
        "kinds": len(counts),
        "counts": dict(counts[:LISTED]),
        "by_class": rates(usual, labels, classes),
        "tell": tells(usual, labels, len(classes)),
    }


def _header(path: Path) -> tuple[str, str]:
    """The size, such as 480×640 (height first), and the mode of a file."""
    try:
        with Image.open(path) as image:
            return f"{image.height}×{image.width}", image.mode
    except OSError:
        kind = path.suffix.lower() or "no ending"
        return kind, kind
