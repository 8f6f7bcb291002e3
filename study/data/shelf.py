"""Shelf of data sets that are too large to be held: written once, and mapped by every process that reads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from study.data.lying import mapped
from study.data.protocol import SPLITS, Dataset, DatasetInfo, Split

ENVIRONMENT = "MEDMAMBA_CACHE"
ABOUT, REST = "about.json", "rest.npz"
# Goes up when the form of a shelf changes: older ones are then written anew.
FORM = 1


def default_folder() -> Path:
    """The folder of shelves that a study does not name: that of MEDMAMBA_CACHE, else one in the user's cache."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "medmamba-suite"


@dataclass(frozen=True)
class Place:
    """Where the images of a split lie uncompressed: a file, the place of the first byte, and (n, height, width, c)."""

    path: Path
    offset: int
    shape: tuple[int, ...]


class Shelf:
    """The place of one data set in a folder of shelves.

    `origin` is where and how the set is read, `stamp` what its files looked like then: a set whose files have changed
    stands elsewhere, and the earlier one of the same origin goes when it is written.
    """

    def __init__(self, folder: Path, origin: str, stamp: object) -> None:
        self.folder = folder
        self._origin = _short(f"{FORM}|{origin}")
        self.path = folder / f"{self._origin}-{_short(repr(stamp))}"

    def find(self) -> Dataset | None:
        """The data set, its images mapped; None where it does not stand here whole."""
        try:
            about = json.loads((self.path / ABOUT).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        info = about["info"]
        size = info["image_size"]
        size = tuple(size) if isinstance(size, list) else size
        described = DatasetInfo(
            **{**info, "classes": tuple(info["classes"]), "notes": tuple(info["notes"]), "image_size": size}
        )
        with np.load(self.path / REST, allow_pickle=False) as rest:
            splits = {
                name: Split(
                    mapped(self.path / place["path"], place["offset"], tuple(place["shape"])),
                    rest[f"{name}_labels"],
                    rest[f"{name}_ids"],
                    rest[f"{name}_groups"] if f"{name}_groups" in rest.files else None,
                )
                for name, place in about["images"].items()
            }
        return Dataset(described, splits)

    @contextmanager
    def writing(self, size: int) -> Iterator[Writing | None]:
        """Context in which this process alone may write the set; None where another has written it meanwhile.

        size: bytes that will be written. Raises ValueError where the folder cannot be written to or has no room.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self.path}.lock")
            lock.acquire()
        except OSError as error:
            raise self._refusal(
                f"be a folder to write {_gigabytes(size)} of decoded images to", str(error.strerror)
            ) from None
        try:
            if (self.path / ABOUT).is_file():
                yield None
                return
            free = shutil.disk_usage(self.folder).free
            if size > free:
                raise self._refusal(f"have room for {_gigabytes(size)} of decoded images", _gigabytes(free))
            part = self.path.with_name(f"{self.path.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                yield Writing(part)
                self._tidy()
                part.rename(self.path)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        finally:
            lock.release()
            with suppress(OSError):
                Path(lock.lock_file).unlink()

    def _refusal(self, what: str, came: str) -> ValueError:
        remedy = f"source.cache or {ENVIRONMENT} names another, source.image_size makes them smaller"
        return ValueError(f"{self.folder}: must {what}, got {came} ({remedy})")

    def _tidy(self) -> None:
        """Removes what stands here of the same origin: its files have changed since."""
        for path in self.folder.glob(f"{self._origin}-*"):
            if path.is_dir() and path.suffix != ".part":
                shutil.rmtree(path, ignore_errors=True)


class Writing:
    """A data set that is being written to its shelf."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, split: str, shape: tuple[int, ...]) -> Place:
        """A new place for the images of a split, whose file holds their bytes alone."""
        return Place(self.folder / f"{split}_images", 0, shape)

    def keep(self, dataset: Dataset, places: Mapping[str, Place]) -> None:
        """Writes all but the images, which lie at their places."""
        rest: dict[str, np.ndarray] = {}
        for name in SPLITS:
            split = dataset.splits[name]
            rest |= {f"{name}_labels": split.labels, f"{name}_ids": np.asarray(split.ids, dtype=np.str_)}
            if split.groups is not None:
                rest[f"{name}_groups"] = split.groups
        np.savez(self.folder / REST, **rest)  # type: ignore[arg-type]
        images = {name: self._lies(place) for name, place in places.items()}
        text = json.dumps({"info": asdict(dataset.info), "images": images}, ensure_ascii=False)
        (self.folder / ABOUT).write_text(text, encoding="utf-8")

    def _lies(self, place: Place) -> dict[str, Any]:
        own = place.path.parent == self.folder
        return {"path": place.path.name if own else str(place.path), "offset": place.offset, "shape": place.shape}


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
