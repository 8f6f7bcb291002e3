"""DICOM files of one frame or several, by pydicom: grey either way round, RGB, YBR and palettes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from study.data.pictures.header import Header, UnfitError
from study.data.pictures.raw import Raw, needed

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
SHAPES = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def read_header(path: Path) -> Header:
    """What the file's tags say of its pixels. Raises UnfitError for a file without any."""
    data = _read(path, stop_before_pixels=True)
    colour = data.PhotometricInterpretation not in GREY
    return Header(int(data.get("NumberOfFrames") or 1), colour, _depth(data))


def frames(path: Path) -> Raw:
    """The pictures of a file after its rescaling (modality LUT), with the window of its tags.

    PS3.3 C.11.2 says how a window maps values. Raises whatever pydicom does.
    """
    pydicom = needed("pydicom")
    data = _read(path)
    with _quiet():
        values = pydicom.pixels.pixel_array(data)
        colour = data.PhotometricInterpretation not in GREY
        if data.PhotometricInterpretation == PALETTE:
            values = pydicom.pixels.apply_color_lut(values, data)
            if values.dtype.itemsize > 1:
                values = (values >> 8).astype(np.uint8)
        elif not colour and _rescaled(data):
            values = pydicom.pixels.apply_rescale(values, data)
    if int(data.get("NumberOfFrames") or 1) == 1 and values.ndim == (3 if colour else 2):
        values = values[np.newaxis]
    bits, signed = int(data.BitsStored), int(data.PixelRepresentation) == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float64)
    if not colour and "RescaleSlope" in data:
        ends = ends * float(data.RescaleSlope) + float(data.RescaleIntercept)
    low, high = sorted(map(float, ends))
    return Raw(values, (low, high), _window(data), data.PhotometricInterpretation == "MONOCHROME1")


def _read(path: Path, stop_before_pixels: bool = False) -> Any:
    pydicom = needed("pydicom")
    with _quiet():
        # A file of this ending may come without the preamble.
        data = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=True)
    for tag in ("Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
        if tag not in data:
            kind = getattr(data.get("SOPClassUID"), "name", "") or "other data"
            raise UnfitError(f"must be a DICOM file with pixels, got one without {tag} ({kind})")
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Of values that break the standard's rules for texts, which say nothing of the pixels.
        warnings.simplefilter("ignore")
        yield


def _rescaled(data: Any) -> bool:
    if "ModalityLUTSequence" in data:
        return True
    return (float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))) != (1.0, 0.0)


def _depth(data: Any) -> str:
    if data.PhotometricInterpretation == PALETTE:
        return ""
    if int(data.BitsStored) > 8:
        return f"{int(data.BitsStored)} bits"
    if int(data.PixelRepresentation) == 1:
        return "signed numbers"
    return "rescaled numbers" if data.PhotometricInterpretation in GREY and _rescaled(data) else ""


def _window(data: Any) -> Any:
    if "WindowCenter" not in data or "WindowWidth" not in data:
        return None
    # The first of several is the one to show by default.
    centre, width = (float(np.atleast_1d(data[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    shape = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if shape not in SHAPES:
        raise UnfitError(f"must have a VOI LUT function of {', '.join(SHAPES)}, got {shape}")

    def share(values: np.ndarray) -> np.ndarray:
        x = values.astype(np.float64)
        if shape == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (x - centre) / width))
        if shape == "LINEAR_EXACT":
            return (x - centre) / width + 0.5
        if width <= 1:
            return (x > centre - 0.5).astype(np.float64)
        return (x - (centre - 0.5)) / (width - 1) + 0.5

    return share
