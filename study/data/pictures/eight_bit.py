"""Images of up to eight bits a channel, by Pillow: PNG, JPEG, BMP and TIFF of one page or several."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from study.data.pictures.header import Header, UnfitError

GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
# The tag of EXIF and TIFF that says how a picture is turned, and what turns it upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of a TIFF: bits of each channel, and whether they are floating-point numbers.
BITS, SAMPLE_FORMAT, FLOATING = 258, 339, 3
# Place of the bits a channel in a PNG.
PNG_BITS = 24
# That of its kind of colour, in which a bit says whether there is any.
PNG_COLOUR, PNG_HAS_COLOUR = 25, 2
PHOTOMETRIC = 262


def read_header(path: Path) -> Header:
    """What the file's header says, before a decoder has cut its depth. Raises whatever Pillow does."""
    with opened(path) as image:
        depth = _depth(path, image)
        colour = image.mode not in GREY_MODES if not depth else _deep_colour(path, image)
        return Header(getattr(image, "n_frames", 1), colour, depth)


def frames(path: Path, colour: bool) -> np.ndarray:
    """The pictures of a file, upright: (frames, height, width), or (frames, height, width, 3) where `colour`, uint8.

    Transparency is dropped. Raises whatever Pillow does.
    """
    with opened(path) as image:
        found = []
        for place in range(getattr(image, "n_frames", 1)):
            if place:
                image.seek(place)
            pixels = image.convert("RGB" if colour else "L")
            turn = UPRIGHT.get(orientation(image))
            found.append(np.asarray(pixels if turn is None else pixels.transpose(turn), dtype=np.uint8))
        shapes = sorted({picture.shape[:2] for picture in found})
        if len(shapes) > 1:
            raise UnfitError(f"must have pages of one size, got {' and '.join(f'{h}×{w}' for h, w in shapes[:2])}")
        return np.stack(found)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Context with a file as Pillow opens it, without warnings of odd tags."""
    with warnings.catch_warnings():
        # Of odd tags that nobody reads, and of a palette with transparency, which is dropped.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        # Not by its name: Pillow would map an uncompressed TIFF into memory with the sides of the upright picture.
        with path.open("rb") as file, Image.open(file) as image:
            yield image


def orientation(image: Image.Image) -> int:
    """How a picture is turned, by its tag: 1 to 8, 1 where it is upright."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    # Whatever else stands in the tags is none of ours, so that a fault there is none either.
    except Exception:
        return 1


def _depth(path: Path, image: Image.Image) -> str:
    if image.format == "PNG":
        with path.open("rb") as file:
            bits = file.read(PNG_BITS + 1)[PNG_BITS]
    elif image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if FLOATING in _listed(tags.get(SAMPLE_FORMAT, 1)):
            return "floating-point numbers"
        bits = max(_listed(tags.get(BITS, 1)))
    else:
        return "" if image.mode in GREY_MODES + COLOUR_MODES else f"the mode {image.mode}"
    return f"{bits} bits" if bits > 8 else ""


def _deep_colour(path: Path, image: Image.Image) -> bool:
    """Whether a PNG or TIFF of more than eight bits is coloured, by its header: Pillow may call it otherwise."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(PNG_COLOUR + 1)[PNG_COLOUR] & PNG_HAS_COLOUR != 0
    if image.format == "TIFF":
        return image.tag_v2.get(PHOTOMETRIC, 1) not in (0, 1)  # type: ignore[attr-defined]
    return False


def _listed(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)  # type: ignore[return-value]
