"""Ledger: every record of a store, append-only, safe against a kill at any byte and against concurrent drivers.

    <folder>/records.jsonl                  one record per line; which of a cell's counts, `analysis.records.lines` says
    <folder>/probabilities/<cell_id>.npz    per-image probabilities, on disk before the line that names them
    <folder>/weights/<cell_id>.safetensors  the trained network, where it was to be kept: likewise
    <folder>/studies/<study_hash>.json      what a study asked, word for word, when it ran
    <folder>/checkpoints/                   of cells under way, removed as they end: `study.store.checkpoints`
    <folder>/launches.jsonl                 what each launch declared, and which cells had finished before

JSON has no NaN and no infinity: such a number is written as null and read as None.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import lock_descriptor

from analysis.records.launches import LAUNCHES, declares_alike, parsed_launch, read_launches
from analysis.records.lines import Lines, Reading, parsed
from analysis.records.places import RECORDS
from analysis.records.schema import STATUSES, Record
from study.store.paths import without_places

# No space, no quota, and the most that a file of this process may hold.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ledger:
    """The ledger in one folder, which is created on the first write: all records of a store.

    `warnings` collects, once each, what a user should know about the folder (a torn line, missing probabilities).
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        self.records_path = self.folder / RECORDS
        self.probabilities_folder = self.folder / "probabilities"
        self.studies_folder = self.folder / "studies"
        self.warnings: list[str] = []
        self._lines = Lines(self.records_path)

    def append(self, record: Mapping[str, Any], probabilities: Mapping[str, np.ndarray] | None = None) -> Record:
        """Appends a record, on disk on return; returns it as written, `probabilities` set to the file's name or null.

        `weights` in it, the bytes of a file, are written likewise and named in their place.

        Raises ValueError when the record has no cell_id or no known status, or holds what JSON cannot express.
        """
        cell_id, status = record.get("cell_id"), record.get("status")
        if not (isinstance(cell_id, str) and cell_id.isalnum()):
            raise ValueError(f"record.cell_id must be letters and digits, got {cell_id!r}")
        if status not in STATUSES:
            raise ValueError(f"record.status must be one of {', '.join(STATUSES)}, got {status!r}")
        name = f"probabilities/{cell_id}.npz" if probabilities else None
        weights = record.get("weights")
        kept = {"weights": f"weights/{cell_id}.safetensors"} if isinstance(weights, bytes) else {}
        written = without_places(plain_json({**record, "probabilities": name, **kept}, "record"))
        line = _as_line(written)
        needed = len(line) + sum(array.nbytes for array in (probabilities or {}).values() if hasattr(array, "nbytes"))
        with _room_for(needed + (len(weights) if isinstance(weights, bytes) else 0)):
            if probabilities:
                self._write_probabilities(cell_id, probabilities)
            if isinstance(weights, bytes):
                with whole_file(self.folder / kept["weights"]) as whole:
                    whole.write(weights)
            self._append(line)
        return written

    def adopt(self, records: Iterable[Record]) -> None:
        """Appends records of other ledgers as they stand, on disk on return; the files they name must be there."""
        lines = b"".join(_as_line(record) for record in records)
        if lines:
            self._append(lines)

    def _append(self, lines: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.records_path) as file:
            _mend_tail(file, parsed)
            before = os.lseek(file, 0, os.SEEK_END)
            # One write under O_APPEND: lines of two drivers never mix, and a kill leaves at most one torn line.
            if os.write(file, lines) != len(lines):
                os.ftruncate(file, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)

    def records(self) -> dict[str, Record]:
        """The record that counts for each cell, by cell_id, in the order in which the cells first appeared.

        The last one wins, except that a finished cell is never replaced by a later failure (of a second driver).
        Raises ValueError naming file and line when a line other than a torn last one is not a record.
        """
        latest = self._lines.latest()
        self._tell_torn()
        return {cell_id: record for cell_id, (_, record) in latest.items()}

    def reading(self) -> Reading:
        """The records that count, each checked against the schema, as analysis reads them; empty where there is none.

        Raises ValueError, one line naming file and line, also for a record that breaks the schema.
        """
        found = self._lines.reading()
        self._tell_torn()
        return found

    def finished(self) -> dict[str, Record]:
        """The records with status done whose probabilities, where named, are on disk: the cells not to run again."""
        try:
            present = {entry.name for entry in os.scandir(self.probabilities_folder)}
        except FileNotFoundError:
            present = set()
        finished = {}
        for cell_id, record in self.records().items():
            if record["status"] != "done":
                continue
            name = record.get("probabilities")
            if name is not None and Path(name).name not in present:
                self._warn(
                    f"{self.folder / name}: the probabilities of a finished cell must exist, the cell will rerun"
                )
                continue
            finished[cell_id] = record
        return finished

    def probabilities(self, cell_id: str) -> dict[str, np.ndarray]:
        """The arrays that were appended with this cell's record. Raises FileNotFoundError when there are none."""
        with np.load(self.probabilities_folder / f"{cell_id}.npz", allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def write_manifest(self, study_hash: str, manifest: Mapping[str, Any]) -> Path:
        """Writes a study's manifest completely or not at all and returns its path; the same hash is overwritten."""
        written = without_places(plain_json(dict(manifest), "manifest"))
        text = json.dumps(written, ensure_ascii=False, allow_nan=False, indent=1)
        path = self.studies_folder / f"{study_hash}.json"
        with whole_file(path) as file:
            file.write(text.encode() + b"\n")
        return path

    def register(self, launch: Mapping[str, Any]) -> None:
        """Appends a launch to the register, on disk on return, unless an earlier one declared the same."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = plain_json(dict(launch), "launch")
        with _locked(self.folder / LAUNCHES) as file:
            if any(declares_alike(earlier, written) for earlier in read_launches(self.folder)):
                return
            line = _as_line(written)
            _mend_tail(file, parsed_launch)
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)

    def replace_launches(self, launches: Iterable[Mapping[str, Any]]) -> None:
        """Writes the register anew, completely or not at all; without a launch it stays as it is."""
        lines = [_as_line(plain_json(dict(launch), "launch")) for launch in launches]
        if lines:
            with _locked(self._made() / LAUNCHES), whole_file(self.folder / LAUNCHES) as file:
                file.write(b"".join(lines))

    def _made(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def _write_probabilities(self, cell_id: str, probabilities: Mapping[str, np.ndarray]) -> None:
        arrays: dict[str, Any] = dict(probabilities)
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.hasobject:
                raise ValueError(f"probabilities.{name} must be a plain array, got {type(array).__name__} of objects")
        with whole_file(self.probabilities_folder / f"{cell_id}.npz") as file:
            np.savez_compressed(file, **arrays)

    def _tell_torn(self) -> None:
        torn = self._lines.torn
        if torn is not None:
            self._warn(f"{self.records_path}: line {torn} is torn (a driver was killed) and does not count")

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def _as_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def open_ledger(store: Path) -> Ledger:
    """The ledger of a store, with every record in it checked.

    Raises ValueError, one line naming file and line, for a record that breaks the schema, which would otherwise be
    found only after hours of training.
    """
    ledger = Ledger(store / "ledger")
    ledger.reading()
    return ledger


def plain_json(value: Any, where: str) -> Any:
    """A value in plain JSON types: tuples as lists, numpy scalars as numbers, NaN and infinity as None.

    Raises ValueError naming the key path of what JSON cannot express.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} must have strings as keys, got {key!r}")
        return {key: plain_json(item, f"{where}.{key}") for key, item in value.items()}
    raise ValueError(f"{where} must be a JSON value, got {type(value).__name__}")


def _mend_tail(file: int, is_whole: Callable[[bytes], object]) -> None:
    """Ends a last line that a kill left open: completes it when only its newline is missing, else cuts it off.

    The caller holds the lock, so nobody is still writing that line.
    """
    size = os.lseek(file, 0, os.SEEK_END)
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        step = min(start, 1 << 16)
        start -= step
        tail = os.pread(file, step, start) + tail
    tail = tail[tail.rfind(b"\n") + 1 :]
    if not tail:
        return
    if is_whole(tail):
        os.write(file, b"\n")
    else:
        os.ftruncate(file, size - len(tail))


@contextmanager
def _room_for(needed: int) -> Iterator[None]:
    """Context that says in an error of a full disk how many bytes a record and its files need at most."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = None if error.filename is None else str(error.filename)
        what = f"{error.strerror}: a record with its files needs {needed:,} bytes"
        raise OSError(error.errno, what, place) from None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Context with a file descriptor for appending, of which this process is the only writer until the block ends."""
    file = _locked_file(path)
    try:
        yield file
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(file)


def _locked_file(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            lock_descriptor(file, poll_interval=0.001)
            # Whoever held the lock may have put another file in this one's place.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except OSError as error:
            os.close(file)
            error.filename = error.filename or str(path)
            raise
        os.close(file)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Context with a file that becomes `path`, on disk, when the block ends, and disappears when the block fails.

    Raises OSError that names the path, for example when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
