"""Memory that a worker needs for a study: its images, and what the libraries and a training step take."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from analysis.words import counted, quantity
from study.data import DatasetInfo
from study.data.lying import HELD
from study.data.sources import KEPT_BYTES, held_here
from study.declaration.recipe import Recipe
from study.planning.inputs import Inputs

STATUS = Path("/proc/self/status")


def memory_lines(inputs: Inputs, recipe: Recipe, workers: int) -> list[str]:
    """What each worker, and all of them, will hold, and which data sets are mapped from a file instead.

    A worker keeps the data sets that it has met, and a copy of the one that it trains on where that is resized. The
    rest is taken to be what this process holds besides its images, after the timed step of the estimate.
    """
    sizes = inputs.image_bytes
    kept = sum(held for held, _ in sizes.values())
    if kept > KEPT_BYTES:
        kept = max(KEPT_BYTES, max(held for held, _ in sizes.values()))
    images = kept + max(_trained(inputs.infos[name], recipe, mapped) for name, (_, mapped) in sizes.items())
    rest = _resident()
    words = f"{_bytes(images)} of images"
    if rest is not None:
        besides = max(rest - held_here(), 0)
        words = f"{_bytes(images + besides)}, {words} and {_bytes(besides)} besides"
        images += besides
    line = f"memory: a worker takes about {words}"
    if workers > 1:
        line += f"; {counted(workers, 'worker')} {_bytes(workers * images)}"
    machine = _machine()
    if machine is not None and workers * images > machine:
        line += f", more than the {_bytes(machine)} of this machine"
    lines = [line]
    for name, (_, mapped) in sizes.items():
        if mapped:
            lines.append(f"note: {name}: {_bytes(mapped)} of images are mapped from a file, and held by no worker")
    return lines


def _trained(info: DatasetInfo, recipe: Recipe, mapped: int) -> int:
    """Bytes of the copies of a data set's splits that a worker trains on; 0 where it trains on what it holds."""
    stored = info.image_size if isinstance(info.image_size, tuple) else (info.image_size, info.image_size)
    size = recipe.size_for(info.image_size)
    if size == stored and not mapped:
        return 0
    splits = (count * math.prod(size) * info.channels for count in (info.n_train, info.n_val, info.n_test))
    return sum(split for split in splits if not mapped or split <= HELD)


def _resident() -> int | None:
    """Bytes of memory that this process has now, without mapped files; None where the system does not say."""
    return _number(STATUS.read_text().splitlines(), "RssAnon:") if STATUS.is_file() else None


def _machine() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _number(lines: Iterable[str], name: str) -> int | None:
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _bytes(size: float) -> str:
    return f"{quantity(size).replace(' k', ' kB').replace(' M', ' MB').replace(' G', ' GB').replace(' T', ' TB')}"
