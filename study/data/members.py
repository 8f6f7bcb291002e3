"""Images of an npz file without reading it whole: in chunks, and where they lie if the file keeps them as they are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from study.data.shelf import Place

# Bytes of a chunk.
CHUNK = 1 << 26
# Fixed part of a member's own header in a zip file, and the two lengths at its end.
LOCAL_HEADER, LENGTHS_AT = 30, 26


def image_bytes(path: Path) -> int:
    """Bytes of all images in an npz file, by its table of contents; 0 for what is no zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist() if info.filename.endswith("_images.npy"))
    except (OSError, RuntimeError, zipfile.BadZipFile):
        return 0


class Member:
    """An array in an npz file: its type and shape by its header, before any of its numbers are read.

    Raises ValueError for what has no header of an array.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._name = f"{key}.npy"
        with zipfile.ZipFile(path) as archive, archive.open(self._name) as file:
            try:
                shape, self._by_columns, self.dtype = _header(file)
            except ValueError:
                raise ValueError(f"{path}: {key} must be an array in .npy format, got other bytes") from None
            self._start = file.tell()
            self._info = archive.getinfo(self._name)
        self.shape: tuple[int, ...] = shape

    def like(self) -> np.ndarray:
        """An array of this type and shape that takes no memory, for checks."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)

    def place(self) -> Place | None:
        """Where the numbers lie, as (n, height, width, channels); None where they are compressed or lie by columns."""
        if self._by_columns or self._info.compress_type != zipfile.ZIP_STORED:
            return None
        with self._path.open("rb") as file:
            # The member's own header may have other lengths than the table of contents.
            file.seek(self._info.header_offset + LENGTHS_AT)
            name, extra = np.frombuffer(file.read(4), dtype="<u2")
        start = self._info.header_offset + LOCAL_HEADER + int(name) + int(extra) + self._start
        return Place(self._path.absolute(), start, self.shape if len(self.shape) == 4 else (*self.shape, 1))

    def chunks(self) -> Iterator[np.ndarray]:
        """The images in order, (n, height, width, channels); the zip file's checksum is verified with the last."""
        if self._by_columns:
            raise ValueError(f"{self._path}: {self._name} must lie by rows (order C) to be read in parts, got order F")
        each = int(np.prod(self.shape[1:]))
        rows = max(1, CHUNK // max(each, 1))
        with zipfile.ZipFile(self._path) as archive, archive.open(self._name) as file:
            _header(file)
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                data = file.read(count * each)
                if len(data) < count * each:
                    raise EOFError(f"{self._name} ends early")
                images = np.frombuffer(data, dtype=np.uint8).reshape(count, *self.shape[1:])
                yield images if images.ndim == 4 else images[..., np.newaxis]
            # To the end, where the checksum is verified.
            file.read()


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
