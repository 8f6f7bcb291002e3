"""Decoding of image files to eight bits a channel, whatever their kind; every fault names the file in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from study.data.pictures import eight_bit
from study.data.pictures.header import Header
from study.data.pictures.kinds import kind_of

Found = TypeVar("Found")
# The name that a library gives the open file.
UNNAMED = re.compile(r" <_io\.[^>]*>")


class Decoder:
    """Decoder of a data set's image files."""

    def header(self, path: Path) -> Header:
        """What a file's header says. Raises ValueError, one line, for what cannot be read as this decoder is set."""
        kind = kind_of(path)
        if kind in ("dicom", "nifti"):
            raise ValueError(f"{path}: must be an image of the kinds that Pillow reads, got {kind.upper()}")
        found = _guarded(path, lambda: eight_bit.read_header(path))
        if found.depth:
            raise ValueError(f"{path}: must be an image of eight bits a channel, got {found.depth}")
        return found

    def frames(self, path: Path, colour: bool) -> np.ndarray:
        """The pictures of a file: (frames, height, width), or with 3 channels behind where `colour`, uint8."""
        return _guarded(path, lambda: eight_bit.frames(path, colour))


def _guarded(path: Path, read: Callable[[], Found]) -> Found:
    """What a function reads from a file; whatever it raises becomes one line that names the file."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:
        reason = UNNAMED.sub("", getattr(error, "strerror", None) or str(error)).splitlines()
        text = reason[0] if reason else type(error).__name__
        raise ValueError(f"{path}: must be a readable image, got {text}") from None
