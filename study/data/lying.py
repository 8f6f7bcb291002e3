"""Arrays that lie in files and are mapped into memory, so that a process holds only what it looks at."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType

import numpy as np

# Bytes of images up to which a data set is held in memory whole; a larger one is mapped from a file.
HELD = 1 << 28
# Bytes that are looked at between two releases of what was looked at before.
LOOKED_AT = 1 << 27


def mapped(path: Path, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of a shape that lies in a file from an offset on, never to be written to."""
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)


def mapping_of(array: np.ndarray) -> np.memmap | None:
    """The whole mapped array that an array is, or is a view of; None where it is held in memory."""
    base: object = array
    found = None
    while isinstance(base, np.ndarray):
        # A view of a mapped array says that it is one too; what tells is the last before the file itself.
        found = base if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap) else found
        base = base.base
    return found


def released(array: np.ndarray) -> None:
    """Gives back the memory of what was looked at of a mapped array: the system reads it again when it is needed."""
    whole = mapping_of(array)
    if whole is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping: mmap.mmap = whole.base  # type: ignore[assignment]
        mapping.madvise(mmap.MADV_DONTNEED)


class Rows:
    """Rows of a mapped array, read from its file by number.

    Looking at the mapped array would take the neighbours of each row into memory as well. To be used as a context, by
    one thread at a time.
    """

    def __init__(self, array: np.ndarray) -> None:
        whole = mapping_of(array)
        assert whole is not None and array.flags.c_contiguous
        self._path = Path(str(whole.filename))
        self._start = whole.offset + array.ctypes.data - whole.ctypes.data
        self._shape = array.shape[1:]
        self._file: FileIO | None = None

    def __enter__(self) -> Rows:
        self._file = FileIO(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """A new array of some rows, in the order of their numbers. Raises OSError where the file ends before one."""
        assert self._file is not None
        rows = np.empty((len(numbers), *self._shape), dtype=np.uint8)
        size = rows[0].nbytes
        # In the order in which they lie, so that a disk is read forwards.
        for place in np.argsort(numbers):
            self._file.seek(self._start + int(numbers[place]) * size)
            if self._file.readinto(rows[place].reshape(-1).data) != size:
                raise OSError(f"{self._path}: must hold row {numbers[place]} of the images, and ends before it")
        return rows


def blocks(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """An array in blocks of `size` rows, in order; one that is mapped is released on the way."""
    seen = 0
    for start in range(0, len(array), size):
        block = array[start : start + size]
        yield block
        seen += block.nbytes
        if seen >= LOOKED_AT:
            released(array)
            seen = 0
    released(array)
