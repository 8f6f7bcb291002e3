"""Reader of MedMNIST-layout files: `<name>.npz` with {train,val,test}_{images,labels} and, if known, _groups."""

import zipfile
import zlib
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from analysis.records.origins import source_key
from analysis.tasks import CLASSIFICATION
from study.data import lying
from study.data.catalogue import FILE_NAME, check_md5, read_entry
from study.data.intake import About, Incoming, take_in
from study.data.members import Member, image_bytes
from study.data.names import child
from study.data.protocol import SPLITS, Dataset, assemble, checked_parts, checked_split, unknown_name
from study.data.shelf import Shelf

KEYS = tuple(f"{split}_{what}" for split in SPLITS for what in ("images", "labels", "groups"))
ZIP_START = b"PK"


class NpzFolder:
    """Reader of the npz files in one folder; datasets.json beside them may add names and checksums."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(f"{self.root}: must be a folder of .npz files, got {_kind_of(self.root)}")

    def names(self) -> list[str]:
        """Names of the npz files in the folder, without their ending, in order."""
        return sorted(path.stem for path in self.root.glob("*.npz"))

    def stamp(self, name: str) -> Hashable:
        """A value that changes whenever the file or its catalogue does."""
        return file_stamp(self._path(name)), file_stamp(self.root / FILE_NAME)

    def read(self, name: str) -> Dataset:
        """The data set, checked and held in memory; ValueErrors begin with the path of the file."""
        return self.read_onto(name, None)

    def read_onto(self, name: str, shelf: Shelf | None) -> Dataset:
        """The data set, checked; on the shelf, if there is one, where it is too large to be held."""
        path = self._path(name)
        entry = read_entry(self.root, name)
        if entry.md5 is not None:
            check_md5(path, entry.md5)
        about = About(name, entry.modality, source_key(name, entry.source_key), entry.task or CLASSIFICATION)
        return read_npz(path, about, entry.classes, shelf)

    def _path(self, name: str) -> Path:
        path = child(self.root, f"{name}.npz") if Path(name).name == name else None
        if path is None or not path.is_file():
            raise unknown_name(str(self.root), name, self.names())
        return path


def read_npz(path: Path, about: About, classes: Sequence[str] | None, shelf: Shelf | None = None) -> Dataset:
    """The data set in one MedMNIST-layout file. `classes` None: as many as train has labels."""
    if shelf is not None and image_bytes(path) > lying.HELD:
        return _read_in_parts(path, about, classes, shelf)
    arrays = _arrays(path)
    splits = {
        split: checked_split(
            str(path),
            split,
            arrays[f"{split}_images"],
            arrays[f"{split}_labels"],
            arrays.get(f"{split}_groups"),
            task=about.task,
        )
        for split in SPLITS
    }
    return assemble(about.name, about.modality, classes, splits, str(path), about.source_key, task=about.task)


def _read_in_parts(path: Path, about: About, classes: Sequence[str] | None, shelf: Shelf) -> Dataset:
    """The data set in a file whose images are too large to be held."""
    arrays = _arrays(path, [key for key in KEYS if not key.endswith("_images")])
    with _readable(path):
        members = {split: Member(path, f"{split}_images") for split in SPLITS}
        incoming = {}
        for split, member in members.items():
            labels, groups = arrays[f"{split}_labels"], arrays.get(f"{split}_groups")
            known = checked_parts(str(path), split, member.like(), labels, groups, None, about.task)
            incoming[split] = Incoming(known.labels, known.ids, known.groups, member.chunks(), member.place())
        train = incoming["train"].labels
        top, noun = (train.shape[1], "label") if about.task.has_many else (int(train.max()) + 1, "class")
        titles = list(classes) if classes is not None else [f"{noun} {label}" for label in range(top)]
        return take_in(about, titles, incoming, str(path), shelf=shelf)


def _arrays(path: Path, keys: Sequence[str] = KEYS) -> dict[str, np.ndarray]:
    with _readable(path), path.open("rb") as file:
        start = file.read(6)
        if not start.startswith(ZIP_START):
            found = "a single .npy array" if start == np.lib.format.MAGIC_PREFIX else "no zip file"
            raise ValueError(f"{path}: must be a zip of arrays (.npz), got {found}")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            _check_keys(path, archive.files)
            return {key: _array(path, archive, key) for key in keys if key in archive.files}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Context in which every fault of a file becomes a line that names it."""
    try:
        yield
    # zipfile raises RuntimeError for an encrypted file and its subclass NotImplementedError for odd compression.
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: must be a readable zip of arrays (.npz), got {_reason(error)}") from None


def _array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path}: {key} must be a plain array, got pickled objects, which are never loaded"
            ) from None
        raise ValueError(f"{path}: {key} must be an array, got {_reason(error)}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: {key} must be an array in .npy format, got other bytes")
    return array


def _check_keys(path: Path, found: Sequence[str]) -> None:
    for key in KEYS:
        if key not in found and not key.endswith("_groups"):
            raise ValueError(f"{path}: must hold {key}, got {', '.join(found) if found else 'an empty archive'}")
    # A misspelt `train_group` would silently turn dependent images into independent ones.
    for key in found:
        if key not in KEYS and key.startswith(tuple(f"{split}_" for split in SPLITS)):
            raise ValueError(f"{path}: {key} must be one of images, labels and groups of a split")


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def file_stamp(path: Path) -> Hashable:
    """A value that changes whenever the file does; None where the file is absent."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _kind_of(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"
