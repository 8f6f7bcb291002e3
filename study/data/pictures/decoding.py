"""Decoding of image files to eight bits a channel, whatever their kind; every fault names the file in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from study.data.declared import AXIS, WINDOW, window_words
from study.data.pictures import deep, dicom, eight_bit, nifti
from study.data.pictures.header import Header, UnfitError
from study.data.pictures.kinds import DICOM_ENDINGS, NIFTI_ENDINGS, ending_of, kind_of
from study.data.pictures.raw import Raw, eight_bits

Found = TypeVar("Found")
# The name that a library gives the open file.
UNNAMED = re.compile(r" <_io\.[^>]*>")
PROPOSED = "full, tag (of DICOM), {low: 0, high: 4095} or {percentiles: [1, 99]}"
IDENTITY = {"low": 0, "high": 255}


class Decoder:
    """Decoder of a data set's image files, set as a study declares: the window of deep ones, the axis of volumes."""

    def __init__(self, window: str | Mapping[str, Any] | None = None, axis: str | None = None) -> None:
        self._window = None if window is None else WINDOW.parse(window, ("source", "window"))
        self._axis = None if axis is None else AXIS.parse(axis, ("source", "axis"))
        self._deep: set[Path] = set()

    def header(self, path: Path) -> Header:
        """What a file's header says. Raises ValueError, one line, for what cannot be read as this decoder is set."""
        kind = _guarded(path, lambda: _kind(path))
        if kind == "nifti":
            axis = self._axis
            if axis is None:
                raise ValueError(f"{path}: must have source.axis, the axis of its slices ({AXIS.words()}), got none")
            found = _guarded(path, lambda: nifti.read_header(path, axis))
        else:
            found = _guarded(path, lambda: (dicom if kind == "dicom" else eight_bit).read_header(path))
        if found.depth:
            self._deep.add(path)
            if self._window is None:
                raise ValueError(
                    f"{path}: must be an image of eight bits a channel, got {found.depth} (source.window says what "
                    f"becomes black and white: {PROPOSED})"
                )
        return found

    def frames(self, path: Path, colour: bool) -> np.ndarray:
        """The pictures of a file: (frames, height, width), or with 3 channels behind where `colour`, uint8.

        Its header must have been read before.
        """
        kind = _guarded(path, lambda: _kind(path))
        if kind not in ("dicom", "nifti") and path not in self._deep:
            return _guarded(path, lambda: eight_bit.frames(path, colour))
        pictures = _guarded(path, lambda: self._mapped(path, self._raw(path, kind)))
        return np.repeat(pictures[..., np.newaxis], 3, axis=-1) if colour and pictures.ndim == 3 else pictures

    def notes(self, files: int) -> tuple[str, ...]:
        """What a reader of results must know of the mapping of deep files, of `files` in all."""
        if self._window is None:
            return ()
        if not self._deep:
            return ("source.window maps nothing: no file has more than eight bits a channel",)
        words = window_words(self._window)
        return (
            f"{len(self._deep):,} of {files:,} files have more than eight bits a channel: black to white is {words}",
        )

    def _raw(self, path: Path, kind: str) -> Raw:
        if kind == "dicom":
            return dicom.frames(path)
        if kind == "nifti":
            assert self._axis is not None
            return nifti.frames(path, self._axis)
        return deep.read_raw(path)

    def _mapped(self, path: Path, raw: Raw) -> np.ndarray:
        if path not in self._deep:
            return eight_bits(raw, IDENTITY)
        assert self._window is not None
        return eight_bits(raw, self._window)


def _kind(path: Path) -> str:
    ending = ending_of(path)
    by_ending = "dicom" if ending in DICOM_ENDINGS else "nifti" if ending in NIFTI_ENDINGS else ""
    return kind_of(path) or by_ending


def _guarded(path: Path, read: Callable[[], Found]) -> Found:
    """What a function reads from a file; whatever it raises becomes one line that names the file."""
    try:
        return read()
    except MemoryError:
        raise
    except UnfitError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        reason = UNNAMED.sub("", getattr(error, "strerror", None) or str(error)).splitlines()
        text = reason[0] if reason else type(error).__name__
        raise ValueError(f"{path}: must be a readable image, got {text}") from None
