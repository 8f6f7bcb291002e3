"""Kinds of image files: by their ending where it is known, else by their content."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz")
# Images and volumes that nothing here reads: leaving them out silently would lose data.
OTHER_ENDINGS = (".gz", ".mha", ".mhd", ".nrrd", ".npy", ".npz", ".mat", ".h5", ".svs", ".czi", ".lsm", ".ndpi", ".zip")
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
NIFTI_ENDINGS = (".nii", ".nii.gz")
# What an image file begins with; a DICOM file has 128 bytes of its own choice before it.
STARTS = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "pillow",
    b"BM": "pillow",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
}
DICOM_PLACE, DICOM_START = 128, b"DICM"
# Where a NIfTI header says that it is one.
NIFTI_PLACE, NIFTI_STARTS = 344, (b"n+1\x00", b"ni1\x00")
HEAD = 352


def ending_of(path: Path) -> str:
    """A file's ending in small letters, the double one of a compressed volume included."""
    name = path.name.lower()
    return next((ending for ending in NIFTI_ENDINGS if name.endswith(ending)), path.suffix.lower())


def stem_of(path: Path) -> str:
    """A file's name without its ending."""
    return path.name[: len(path.name) - len(ending_of(path))]


def kind_of(path: Path) -> str:
    """The kind of an image file, png, tiff, dicom, nifti or pillow, by its content; empty where that tells none."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:2] == b"\x1f\x8b" and ending_of(path) == ".nii.gz":
        try:
            with gzip.open(path) as file:
                head = file.read(HEAD)
        except (OSError, EOFError, zlib.error):
            return "nifti"
    if head[DICOM_PLACE:].startswith(DICOM_START):
        return "dicom"
    if head[NIFTI_PLACE:].startswith(NIFTI_STARTS):
        return "nifti"
    return next((kind for start, kind in STARTS.items() if head.startswith(start)), "")


def has_image_ending(path: Path) -> bool:
    """Whether a file's ending is that of a kind that is read here."""
    return ending_of(path) in ENDINGS
