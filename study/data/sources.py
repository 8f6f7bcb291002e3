"""Sources of data sets: a spec opens a source, which lists, describes and loads sets by name."""

import json
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from medmamba_variants.hints import did_you_mean
from study.data.lying import mapping_of
from study.data.names import fold_of
from study.data.protocol import Dataset, DatasetInfo, unknown_name
from study.data.readers import FILE_KINDS, PHANTOM_PREFIX, READERS, Reader, ShelvingReader, file_settings
from study.data.shelf import Shelf, default_folder

# Data sets that a process keeps in memory, and their bytes: more than a study names, fewer than would fill a machine.
KEPT = 16
KEPT_BYTES = 1 << 30

_kept: OrderedDict[Hashable, Dataset] = OrderedDict()


class Source:
    """A source of data sets: a reader that keeps them in memory, so that each is read once until its files change."""

    def __init__(self, key: str, reader: Reader, shelves: Path) -> None:
        self._key = key
        self._reader = reader
        self._shelves = shelves
        self._infos: dict[Hashable, DatasetInfo] = {}

    def names(self) -> list[str]:
        """Names of the data sets in this source, in order."""
        return self._reader.names()

    def describe(self, name: str) -> DatasetInfo:
        """A data set's name, modality, classes, sizes and fingerprint; the first call reads the set to hash it."""
        key = (name, self._reader.stamp(name))
        if key not in self._infos:
            self._infos[key] = self.load(name).info
        return self._infos[key]

    def load(self, name: str) -> Dataset:
        """The whole data set, its images mapped from a file where they are too many to be held.

        Raises ValueError, one line, for what is wrong with its files.
        """
        stamp = self._reader.stamp(name)
        key = (self._key, name, stamp)
        if key not in _kept:
            _kept[key] = self._read(name, stamp)
            while len(_kept) > KEPT or (len(_kept) > 1 and held_here() > KEPT_BYTES):
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]

    def _read(self, name: str, stamp: Hashable) -> Dataset:
        if not isinstance(self._reader, ShelvingReader):
            return self._reader.read(name)
        shelf = Shelf(self._shelves, f"{self._key}|{name}", stamp)
        return shelf.find() or self._reader.read_onto(name, shelf)


def image_bytes(dataset: Dataset) -> tuple[int, int]:
    """Bytes of a data set's images that each process holds in memory, and that it maps from a file."""
    held, mapped = 0, 0
    for split in dataset.splits.values():
        if mapping_of(split.images) is None:
            held += split.images.nbytes
        else:
            mapped += split.images.nbytes
    return held, mapped


def held_here() -> int:
    """Bytes of images that this process holds in memory now."""
    return sum(image_bytes(dataset)[0] for dataset in _kept.values())


def open_source(spec: Mapping[str, Any]) -> Source:
    """The source that a spec names, the same object for the same spec; nothing is read yet.

    A spec holds a kind of `study.data.readers.READERS`, the root where sets of that kind lie in a folder, and any of
    the kind's settings: {"kind": "phantom", …common dials}, {"kind": "npz", "root": DIR}, {"kind": "medmnist", "root":
    DIR or None, "size": 28, "download": False}, {"kind": "folder", "root": DIR, "image_size": 64}. `cache` is the
    folder of images that are too many to be held.
    """
    _check_spec(spec)
    settled = dict(spec)
    for key in ("root", "cache"):
        if settled.get(key) is not None:
            settled[key] = str(Path(settled[key]).expanduser().absolute())
    return _opened(json.dumps(settled, sort_keys=True))


def load_dataset(spec: Mapping[str, Any], name: str) -> Dataset:
    """The data set of a name, from the source that a spec names; kept in memory."""
    return open_source(spec).load(name)


def source_for(
    datasets: Sequence[str], data_root: str | None = None, kind: str | None = None, **settings: Any
) -> dict[str, dict[str, Any]]:
    """The specs of data sets' sources, by name; phantoms and files may be mixed.

    Names that begin with "phantom_" are phantoms. `kind` decides for all others; without it the data root does
    (`<name>.npz`, or a folder `<name>`), and without a data root the name must be one of MedMNIST's. Roots come back
    absolute, since workers may run elsewhere. `settings` are those that kinds declare in `study.data.readers`: each
    spec takes its own, and None stands for the default. Raises ValueError for one that no kind has.
    """
    if kind is not None and kind not in READERS:
        raise ValueError(f"source.kind must be {', '.join(READERS)}, got '{kind}'")
    for name in settings:
        if name not in file_settings():
            raise ValueError(f"source.{name} must be a setting, and is not; {_known(name, file_settings())}")
    given = {name: value for name, value in settings.items() if value is not None}
    root = None if data_root is None else Path(data_root).expanduser().absolute()
    specs: dict[str, dict[str, Any]] = {}
    for name in datasets:
        base, fold = fold_of(name)
        chosen = "phantom" if name.startswith(PHANTOM_PREFIX) else kind or _kind_by_place(base, root)
        if fold is not None and "folds" not in READERS[chosen].settings:
            kinds = " or ".join(each for each in FILE_KINDS if "folds" in READERS[each].settings)
            raise ValueError(f"{base}: must be of the kind {kinds} to be taken in folds, got {chosen}")
        if READERS[chosen].folder == "none":
            specs[name] = {"kind": chosen}
            continue
        if root is None and READERS[chosen].folder == "required":
            raise ValueError(
                f"{name}: a data set of kind {chosen} must come with a data root (--data-root DIR), got none"
            )
        place = None if root is None else str(root)
        specs[name] = {"kind": chosen, "root": place, **READERS[chosen].settled(given)}
    return specs


def _kind_by_place(name: str, root: Path | None) -> str:
    if root is not None and not root.is_dir():
        raise ValueError(
            f"{root}: the data root must be a folder, got {'a file' if root.exists() else 'nothing there'}"
        )
    for kind in FILE_KINDS:
        if READERS[kind].holds(root, name):
            return kind
    if root is not None:
        here = [
            open_source({"kind": kind, "root": str(root)}).names()
            for kind in FILE_KINDS
            if READERS[kind].folder == "required"
        ]
        raise unknown_name(str(root), name, sorted({each for names in here for each in names}))
    from study.data.medmnist import flags
    from study.data.phantoms.sets import PHANTOMS

    own = "name a data root (--data-root DIR) for files of your own"
    hint = did_you_mean(name, [*PHANTOMS, *flags()], count=3, otherwise=own)
    raise ValueError(f"{name}: without a data root a data set must be a phantom or one of MedMNIST's; {hint}")


def _check_spec(spec: Mapping[str, Any]) -> None:
    kind = spec.get("kind")
    if kind not in READERS:
        raise ValueError(f"source.kind must be {', '.join(READERS)}, got {kind!r}")
    known = ("kind", *READERS[kind].keys)
    for key in spec:
        if key not in known:
            raise ValueError(f"source.{key} must be a setting of kind {kind}, and is not; {_known(key, known)}")
    root = spec.get("root")
    if root is None and READERS[kind].folder == "required":
        raise ValueError(f"source.root must be a folder for kind {kind}, got none")
    if root is not None and not isinstance(root, str):
        raise ValueError(f"source.root must be the name of a folder, got {root!r}")


def _known(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known, otherwise=f"known are {', '.join(known)}")


@cache
def _opened(key: str) -> Source:
    spec = json.loads(key)
    kind = READERS[spec["kind"]]
    shelves = spec.pop("cache", None)
    # The same shelf wherever it stands.
    origin = json.dumps(spec, sort_keys=True)
    reader = kind.open(spec.get("root"), kind.settled(spec))
    return Source(origin, reader, Path(shelves) if shelves else default_folder())
