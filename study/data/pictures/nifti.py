"""NIfTI volumes as slices along an axis of the body, by nibabel: rows run downwards, as radiologists look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from study.data.pictures.header import Header, UnfitError
from study.data.pictures.raw import Raw, needed

# The axis of a volume turned to R, A, S that a slice lies across.
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


def read_header(path: Path, axis: str) -> Header:
    """What the header says of the slices across an axis. Raises UnfitError for what is no volume of numbers."""
    nibabel = needed("nibabel")
    volume = _opened(path)
    turned = nibabel.orientations.io_orientation(volume.affine)[:3, 0]
    own = int(np.flatnonzero(turned == AXES[axis])[0])
    return Header(volume.shape[own], False, _depth(volume))


def frames(path: Path, axis: str) -> Raw:
    """The slices of a volume across an axis, from the right, back or bottom on; head or front above."""
    nibabel = needed("nibabel")
    volume = _opened(path)
    values = np.asanyarray(nibabel.as_closest_canonical(volume).dataobj)
    slices = np.moveaxis(values.reshape(values.shape[:3]), AXES[axis], 0)
    return Raw(np.rot90(slices, axes=(1, 2)), _ends(volume))


def _opened(path: Path) -> Any:
    nibabel = needed("nibabel")
    volume = nibabel.load(path)
    shape = volume.shape
    if len(shape) < 3 or any(side != 1 for side in shape[3:]) or volume.get_data_dtype().kind not in "iuf":
        words = "×".join(map(str, shape))
        raise UnfitError(f"must be a volume of three axes of numbers, got {words} of {volume.get_data_dtype()}")
    return volume


def _scaling(volume: Any) -> tuple[float, float]:
    slope, intercept = volume.dataobj.slope, volume.dataobj.inter
    return float(slope), float(intercept)


def _ends(volume: Any) -> tuple[float, float] | None:
    kind = volume.get_data_dtype()
    if kind.kind == "f":
        return None
    slope, intercept = _scaling(volume)
    low, high = sorted(slope * end + intercept for end in (np.iinfo(kind).min, np.iinfo(kind).max))
    return float(low), float(high)


def _depth(volume: Any) -> str:
    kind = volume.get_data_dtype()
    if kind == np.uint8 and _scaling(volume) == (1.0, 0.0):
        return ""
    return "floating-point numbers" if kind.kind == "f" else f"{kind.name} numbers"
