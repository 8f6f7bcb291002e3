"""Kinds of data sources by name: a reader of files is one class and one entry here, with its own settings.

The keys of a study file's `source`, their checks and schema, and the way to open a source all follow from an entry.
Readers are imported when opened: a study of phantoms needs neither Pillow nor medmnist, which pulls in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from analysis.tasks import TASKS
from medmamba_variants.design.kinds import UNSET, Choice, Flag, Setting, Text, whole
from study.data.declared import AXIS, COLUMNS, SPLIT, WINDOW
from study.data.names import child
from study.data.phantoms.dials import COMMON_DIALS
from study.data.protocol import Dataset

if TYPE_CHECKING:
    from study.data.shelf import Shelf

PHANTOM_PREFIX = "phantom_"


class Reader(Protocol):
    """The interface of readers: the names in a source, a set read from scratch, and a stamp of what would be read."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> Dataset: ...

    def stamp(self, name: str) -> Hashable: ...


@runtime_checkable
class ShelvingReader(Reader, Protocol):
    """The interface of readers that put a set on a shelf where it is too large to be held."""

    def read_onto(self, name: str, shelf: Shelf | None) -> Dataset: ...


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: `open(root, settings)` makes its reader, where `settings` are the kind's own keys.

    `holds(root, name)`: whether a set of this name is of this kind where no kind is named; the root is None where none
    is named either. `folder`: whether the sets lie in a folder that must be named, in one that may be, or in none.
    """

    open: Callable[[str | None, Mapping[str, Any]], Reader]
    holds: Callable[[Path | None, str], bool]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    folder: Literal["required", "optional", "none"] = "required"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a spec other than `kind`."""
        return (*(("root",) if self.folder != "none" else ()), *self.settings)

    def settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The kind's own settings: those given, else defaults, where there are any."""
        values = {name: given.get(name, setting.default) for name, setting in self.settings.items()}
        return {name: value for name, value in values.items() if value is not UNSET}


def _phantom(root: str | None, settings: Mapping[str, Any]) -> Reader:
    from study.data.phantoms.sets import PhantomSets

    return PhantomSets(settings)


def _npz(root: str | None, settings: Mapping[str, Any]) -> Reader:
    from study.data.npz import NpzFolder

    return NpzFolder(str(root))


def _lies_there(root: Path | None, name: str, kind: Callable[[Path], bool]) -> bool:
    path = None if root is None else child(root, name)
    return path is not None and kind(path)


def _medmnist(root: str | None, settings: Mapping[str, Any]) -> Reader:
    from study.data.medmnist import MedMnistSets

    return MedMnistSets(root, settings["size"], settings["download"])


def _is_medmnist(root: Path | None, name: str) -> bool:
    from study.data.medmnist import flags

    # A folder may hold files of the same names: there its own kinds decide.
    return root is None and name in flags()


def _folder(root: str | None, settings: Mapping[str, Any]) -> Reader:
    from study.data.files.folder import ImageFolder

    return ImageFolder(str(root), *_decoding(settings))


def _table(root: str | None, settings: Mapping[str, Any]) -> Reader:
    from study.data.files.table import Layout, TableFolder

    layout = Layout.of(settings.get("table"), settings.get("images"), settings.get("columns"))
    return TableFolder(str(root), layout, *_decoding(settings))


def _decoding(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    return settings["image_size"], *(
        settings.get(key) for key in ("split", "window", "axis", "folds", "task", "repeats")
    )


# Without a default, which the process decides.
CACHE = {"cache": Setting(Text(), "folder in which images that are too many to be held in memory are kept decoded")}
# Without defaults, but for the first: a spec names them only where the study declares them.
OF_IMAGE_FILES = {
    "image_size": Setting(whole(8, 4096), "pixels a side that image files are read at", default=None),
    "split": Setting(SPLIT, "shares of val and test for data that come without, by class and group, with a seed"),
    "folds": Setting(whole(2, 100), "in place of a split: each set is that many, NAME@fold1 and so on, of one source"),
    "repeats": Setting(whole(2, 100), "times that folds are dealt out, each anew: their numbers go on"),
    "task": Setting(
        Choice(tuple(TASKS)), "what labels mean: classes, classes in the order of their names, several labels"
    ),
    "window": Setting(WINDOW, "what becomes black and what white where a channel has more than eight bits"),
    "axis": Setting(AXIS, "the axis of the body across which volumes are cut into slices"),
    **CACHE,
}

READERS: dict[str, SourceKind] = {
    "phantom": SourceKind(
        _phantom,
        lambda root, name: name.startswith(PHANTOM_PREFIX),
        # Without defaults: the phantom decides on a dial that nobody sets.
        {name: Setting(dial.kind, dial.meaning) for name, dial in COMMON_DIALS.items()},
        "none",
    ),
    "npz": SourceKind(_npz, lambda root, name: _lies_there(root, f"{name}.npz", Path.is_file), CACHE),
    "medmnist": SourceKind(
        _medmnist,
        _is_medmnist,
        {
            "size": Setting(whole(8, 1024), "side of MedMNIST's images in pixels", default=28),
            "download": Setting(Flag(), "whether MedMNIST's files may be downloaded into root", default=False),
            **CACHE,
        },
        "optional",
    ),
    "table": SourceKind(
        _table,
        # Beside a folder with splits of its own a table is somebody's notes.
        lambda root, name: (
            _lies_there(root, f"{name}.csv", Path.is_file) and not _lies_there(root, f"{name}/train", Path.is_dir)
        ),
        {
            **OF_IMAGE_FILES,
            "table": Setting(Text(), "the table's file under root, where it is not NAME.csv"),
            "images": Setting(Text(), "the folder of the table's images under root, where it is not NAME"),
            "columns": Setting(COLUMNS, "what the table's columns are called, where not as here"),
        },
    ),
    "folder": SourceKind(
        _folder,
        lambda root, name: _lies_there(root, name, Path.is_dir),
        OF_IMAGE_FILES,
    ),
}

# A study names phantoms, and their dials, in `datasets`; its `source` is about files only.
FILE_KINDS = tuple(name for name, kind in READERS.items() if kind.folder != "none")


def file_settings() -> dict[str, Setting]:
    """Every kind's own settings, as a study file may give them; kinds that share a setting declare it alike."""
    found: dict[str, Setting] = {}
    for name in FILE_KINDS:
        for key, setting in READERS[name].settings.items():
            found.setdefault(key, Setting(setting.kind, setting.meaning))
    return found
