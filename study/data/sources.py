"""Where data sets come from: a spec opens a source, a source lists, describes and loads sets by name."""

import json
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from medmamba_variants.hints import did_you_mean
from study.data.protocol import Dataset, DatasetInfo, unknown_name

# Keys of a spec beside "kind", by kind.
SPEC_KEYS: dict[str, tuple[str, ...]] = {
    "phantom": ("size", "n_train", "n_val", "n_test", "imbalance", "noise", "seed"),
    "npz": ("root",),
    "medmnist": ("root", "size", "download"),
    "folder": ("root", "image_size"),
}
# Kinds that lie in a folder of the user's own, which must be named; MedMNIST's package has a place for its files.
OWN_FOLDER = ("npz", "folder")
# Data sets a process keeps in memory: more than a study names, fewer than fill a machine.
KEPT = 16
PHANTOM_PREFIX = "phantom_"

_kept: OrderedDict[Hashable, Dataset] = OrderedDict()


class Reader(Protocol):
    """One kind of source: knows its names, reads a set from scratch, and stamps what it would read."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> Dataset: ...

    def stamp(self, name: str) -> Hashable: ...


class Source:
    """A reader with the process's memory of what was read: a set is read once until its files change."""

    def __init__(self, key: str, reader: Reader) -> None:
        self._key = key
        self._reader = reader
        self._infos: dict[Hashable, DatasetInfo] = {}

    def names(self) -> list[str]:
        """Names this source knows, in order."""
        return self._reader.names()

    def describe(self, name: str) -> DatasetInfo:
        """Name, modality, classes, sizes and fingerprint; reads the set the first time, to hash its content."""
        key = (name, self._reader.stamp(name))
        if key not in self._infos:
            self._infos[key] = self.load(name).info
        return self._infos[key]

    def load(self, name: str) -> Dataset:
        """The whole data set; a ValueError of one line says what is wrong with its files."""
        key = (self._key, name, self._reader.stamp(name))
        if key not in _kept:
            _kept[key] = self._reader.read(name)
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]


def open_source(spec: Mapping[str, Any]) -> Source:
    """The source a spec names, the same object for the same spec; nothing is read but its folder's name.

    Specs: {"kind": "phantom", …common dials}, {"kind": "npz", "root": DIR}, {"kind": "medmnist", "root": DIR or None,
    "size": 28, "download": False}, {"kind": "folder", "root": DIR, "image_size": pixels or None}.
    """
    _check_spec(spec)
    settled = dict(spec)
    if settled.get("root") is not None:
        settled["root"] = str(Path(settled["root"]).expanduser().absolute())
    return _opened(json.dumps(settled, sort_keys=True))


def load_dataset(spec: Mapping[str, Any], name: str) -> Dataset:
    """The data set of this name from the source of this spec, remembered by the process."""
    return open_source(spec).load(name)


def source_for(
    datasets: Sequence[str],
    data_root: str | None = None,
    kind: str | None = None,
    *,
    size: int | None = None,
    download: bool = False,
    image_size: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The spec of each data set's source, by name; phantoms and files may stand in one list.

    Names that begin with "phantom_" are phantoms. `kind` decides for all others; without it the data root does
    (`<name>.npz`, or a folder `<name>`), and without a data root the name must be one of MedMNIST's. Roots come back
    absolute, for workers may run elsewhere. `size` and `download` are MedMNIST's, `image_size` an image folder's.
    """
    if kind is not None and kind not in SPEC_KEYS:
        raise ValueError(f"source.kind must be {', '.join(SPEC_KEYS)}, got '{kind}'")
    root = None if data_root is None else Path(data_root).expanduser().absolute()
    specs: dict[str, dict[str, Any]] = {}
    for name in datasets:
        chosen = "phantom" if name.startswith(PHANTOM_PREFIX) else kind or _kind_by_place(name, root)
        if chosen == "phantom":
            specs[name] = {"kind": "phantom"}
            continue
        if root is None and chosen != "medmnist":
            raise ValueError(
                f"{name}: a data set of kind {chosen} must come with a data root (--data-root DIR), got none"
            )
        specs[name] = {"kind": chosen, "root": None if root is None else str(root)}
        if chosen == "medmnist":
            specs[name] |= {"size": size or 28, "download": download}
        elif chosen == "folder":
            specs[name]["image_size"] = image_size
    return specs


def _kind_by_place(name: str, root: Path | None) -> str:
    if root is None:
        from study.data.medmnist import flags
        from study.data.phantoms.sets import PHANTOMS

        if name in flags():
            return "medmnist"
        own = "name a data root (--data-root DIR) for files of your own"
        hint = did_you_mean(name, [*PHANTOMS, *flags()], count=3, otherwise=own)
        raise ValueError(f"{name}: without a data root a data set must be a phantom or one of MedMNIST's; {hint}")
    if not root.is_dir():
        raise ValueError(
            f"{root}: the data root must be a folder, got {'a file' if root.exists() else 'nothing there'}"
        )
    if (root / f"{name}.npz").is_file():
        return "npz"
    if (root / name).is_dir():
        return "folder"
    files = [path.stem for path in root.glob("*.npz")]
    folders = [path.name for path in root.iterdir() if (path / "train").is_dir()]
    raise unknown_name(str(root), name, sorted({*files, *folders}))


def _check_spec(spec: Mapping[str, Any]) -> None:
    kind = spec.get("kind")
    if kind not in SPEC_KEYS:
        raise ValueError(f"source.kind must be {', '.join(SPEC_KEYS)}, got {kind!r}")
    known = ("kind", *SPEC_KEYS[kind])
    for key in spec:
        if key not in known:
            hint = did_you_mean(key, known, otherwise=f"known are {', '.join(known)}")
            raise ValueError(f"source.{key} must be a setting of kind {kind}, and is not; {hint}")
    root = spec.get("root")
    if root is None and kind in OWN_FOLDER:
        raise ValueError(f"source.root must be a folder for kind {kind}, got none")
    if root is not None and not isinstance(root, str):
        raise ValueError(f"source.root must be the name of a folder, got {root!r}")
    if not isinstance(spec.get("download", False), bool):
        raise ValueError(f"source.download must be true or false, got {spec['download']!r}")
    size = spec.get("image_size")
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"source.image_size must be a positive number of pixels, got {size!r}")


# Sources import late: a study of phantoms needs neither Pillow nor medmnist, which pulls in torch.
@cache
def _opened(key: str) -> Source:
    spec = json.loads(key)
    root = spec.get("root")
    if spec["kind"] == "phantom":
        from study.data.phantoms.sets import PhantomSets

        return Source(key, PhantomSets({dial: value for dial, value in spec.items() if dial != "kind"}))
    if spec["kind"] == "npz":
        from study.data.npz import NpzFolder

        return Source(key, NpzFolder(root))
    if spec["kind"] == "medmnist":
        from study.data.medmnist import MedMnistSets

        return Source(key, MedMnistSets(root, spec.get("size", 28), spec.get("download", False)))
    from study.data.folder import ImageFolder

    return Source(key, ImageFolder(root, spec.get("image_size")))
