"""PNG and TIFF of more than eight bits a channel: grey ones by Pillow, others by torchvision and tifffile."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from study.data.pictures.eight_bit import BITS, ORIENTATION, PHOTOMETRIC, opened, orientation
from study.data.pictures.header import UnfitError
from study.data.pictures.raw import Raw, needed

# Modes in which Pillow keeps every bit; its 32-bit one has a sign that a TIFF's numbers may lack.
WHOLE_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
# How an array of rows and columns is turned upright, by the tag.
TURNS: dict[int, Any] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
# Photometric interpretations of a TIFF.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2


def read_raw(path: Path) -> Raw:
    """The pictures of a PNG or TIFF, upright, with all their bits; transparency is dropped.

    Raises UnfitError for inks and palettes, and whatever the readers do.
    """
    with opened(path) as image:
        if image.mode in WHOLE_MODES:
            return _by_pillow(image)
        if image.format == "PNG":
            return Raw(_by_torchvision(path, orientation(image))[np.newaxis], (0, 65535))
    return _by_tifffile(path)


def _by_pillow(image: Image.Image) -> Raw:
    tags = getattr(image, "tag_v2", {})
    (bits,) = tags.get(BITS, (16,))
    pages = []
    for place in range(getattr(image, "n_frames", 1)):
        if place:
            image.seek(place)
        page = np.asarray(image)
        pages.append(TURNS.get(orientation(image), lambda a: a)(page))
    return Raw(np.stack(pages), (0, 2**bits - 1), inverted=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)


def _by_torchvision(path: Path, turn: int) -> np.ndarray:
    """The pixels of a PNG of 16 bits a channel, which Pillow would cut to eight: (height, width) or (…, 3)."""
    import torch
    from torchvision import io

    if not hasattr(io, "decode_png"):
        raise UnfitError("must be grey, or read by a torchvision that decodes PNG, which this version does not")
    with warnings.catch_warnings():
        # Newer versions announce that they will leave decoding to another package.
        warnings.simplefilter("ignore")
        data = torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        pixels = io.decode_png(data, io.ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    pixels = TURNS.get(turn, lambda a: a)(pixels)
    return pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]


def _by_tifffile(path: Path) -> Raw:
    tifffile = needed("tifffile")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with tifffile.TiffFile(path) as file:
            pages = list(file.pages)
            first = pages[0]
            if first.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
                raise UnfitError(f"must be grey or RGB, got {first.photometric.name} of {first.bitspersample} bits")
            values = np.stack([_page(page) for page in pages])
    kind = values.dtype
    full = None if kind.kind == "f" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    # Bits that do not fill a type, such as 12, are unpacked into the next larger one.
    if kind.kind == "u" and first.bitspersample < 8 * kind.itemsize:
        full = (0, 2**first.bitspersample - 1)
    return Raw(values, full, inverted=first.photometric == WHITE_IS_ZERO)


def _page(page: Any) -> np.ndarray:
    pixels = page.asarray()
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise UnfitError(f"must have pages of rows and columns, got the axes {page.axes}")
    tag = page.tags.get(ORIENTATION)
    pixels = TURNS.get(1 if tag is None else int(tag.value), lambda a: a)(pixels)
    if pixels.ndim == 2:
        return pixels
    return pixels[..., :3] if page.photometric == RGB else pixels[..., 0]
