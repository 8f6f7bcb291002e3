"""Checkpoints of cells under way: one file a cell, written whole or not at all, and checked when it is read.

    <ledger>/checkpoints/<cell_id>.pt             of a cell that steps through whole batches
    <ledger>/checkpoints/<cell_id>-micro<n>.pt    of one that was tried again in parts of n images

A file begins with MARK and the CRC-32 of what follows, so that a damaged one is recognised before it is read.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from study.store.ledger import whole_file

FOLDER = "checkpoints"
MARK = b"medmamba-suite checkpoint 1\n"
SUM_DIGITS = 8
# Seconds. A checkpoint that nobody came back for in so long is of a cell that is no longer wanted.
KEPT_AT_MOST = 30 * 86400.0


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of a ledger lie, and how many seconds lie between two of a cell.

    Workers write them, and the driver removes them, once the cell's record is on disk.
    """

    folder: Path
    seconds: float

    def path(self, cell_id: str, micro_batch: int | None) -> Path:
        """The file of a cell."""
        return self.folder / (f"{cell_id}.pt" if micro_batch is None else f"{cell_id}-micro{micro_batch}.pt")

    def there(self) -> bool:
        """Whether this machine has the ledger: a node of a cluster that does not share it keeps no checkpoints."""
        return self.folder.parent.is_dir()

    def remove(self, cell_id: str) -> None:
        """Removes every file of a cell, half-written ones among them."""
        _remove(self.folder, lambda name: name.removeprefix(".").startswith(cell_id))

    def sweep(self, finished: Container[str]) -> None:
        """Removes the files of finished cells, which a kill between record and removal left, and very old ones."""
        before = time.time() - KEPT_AT_MOST

        def is_left_over(name: str) -> bool:
            cell_id = name.removeprefix(".").partition(".")[0].partition("-")[0]
            with suppress(OSError):
                return cell_id in finished or (self.folder / name).stat().st_mtime < before
            return False

        _remove(self.folder, is_left_over)


def write_checked(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file completely or not at all: mark, sum, and what `write` writes. Raises OSError, as of a full disk."""
    with whole_file(path) as file:
        file.write(MARK + b"0" * SUM_DIGITS + b"\n")
        summing = _Summing(file)
        write(cast(BinaryIO, summing))
        file.seek(len(MARK))
        file.write(b"%08x" % summing.sum)


def read_checked(path: Path) -> bytes | None:
    """What was written to a file of `write_checked`; None where there is none. Raises ValueError for a damaged one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    head = len(MARK) + SUM_DIGITS + 1
    body = content[head:]
    if content[: len(MARK)] != MARK or content[len(MARK) : head] != b"%08x\n" % zlib.crc32(body):
        raise ValueError(f"{path}: must be a whole checkpoint, got a damaged one")
    return body


class _Summing:
    """A file that adds up what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = 0

    def write(self, data: Any) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _remove(folder: Path, chosen: Callable[[str], bool]) -> None:
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if chosen(entry.name):
                with suppress(OSError):
                    os.unlink(entry.path)
        # Only where nothing is left.
        folder.rmdir()
