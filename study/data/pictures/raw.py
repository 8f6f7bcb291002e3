"""Pixels of more than eight bits as a file holds them, and their mapping to eight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from study.data.pictures.header import UnfitError

INSTALL = "pip install -e '.[medical]'"


@dataclass(frozen=True)
class Raw:
    """The pictures of a file before the mapping: (frames, height, width) or (frames, height, width, 3) of numbers.

    full: the ends of what their type can hold, after the file's own rescaling; None for floating-point numbers.
    tag: the window in the file's tags, which turns values into shares from black to white; None without one.
    inverted: whether small values are bright.
    """

    values: np.ndarray
    full: tuple[float, float] | None = None
    tag: Callable[[np.ndarray], np.ndarray] | None = None
    inverted: bool = False


def eight_bits(raw: Raw, window: str | Mapping[str, Any]) -> np.ndarray:
    """The pictures in 0 … 255, uint8: linear from the window's low end to the high one, rounded, cut beyond them.

    Raises UnfitError where the file lacks what the window asks for.
    """
    shares = _shares(raw, window)
    mapped = np.empty(raw.values.shape, dtype=np.uint8)
    # Frame by frame: a volume in double precision may be larger than the file by far.
    for place, frame in enumerate(raw.values):
        levels = np.rint(255 * np.clip(shares(frame), 0.0, 1.0)).astype(np.uint8)
        mapped[place] = 255 - levels if raw.inverted else levels
    return mapped


def _shares(raw: Raw, window: str | Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    if window == "tag":
        if raw.tag is None:
            raise UnfitError("must have a window in its tags, for source.window: tag, got none")
        return raw.tag
    if window == "full":
        if raw.full is None:
            raise UnfitError("must hold whole numbers, for source.window: full, got floating-point numbers")
        low, high = raw.full
    elif isinstance(window, Mapping) and "percentiles" in window:
        if not np.isfinite(raw.values).all():
            raise UnfitError("must hold finite numbers alone, got some that are not")
        low, high = np.percentile(raw.values, window["percentiles"])
    else:
        assert isinstance(window, Mapping)
        low, high = window["low"], window["high"]
    # A file of one value alone is black.
    span = float(high) - float(low) or 1.0
    return lambda values: (np.nan_to_num(values.astype(np.float64), nan=low) - low) / span


def needed(module: str) -> ModuleType:
    """A module of the optional extra. Raises UnfitError with the line that installs it."""
    try:
        return import_module(module)
    except ImportError:
        raise UnfitError(f"must be read by {module}, which is not installed: {INSTALL}") from None
