"""Reader of image tables: `root/<name>.csv`, a row an image with its label, beside a folder of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records.origins import source_key
from analysis.tasks import CLASSIFICATION, TASKS, Task
from analysis.words import counted
from study.data.catalogue import FILE_NAME, read_entry
from study.data.declared import COLUMNS, SPLIT
from study.data.files.beside import LeftOut, companions_among, is_system
from study.data.files.grouping import divided_group
from study.data.files.samples import Files, Sample, read_files
from study.data.files.sheet import Sheet, as_path, read_sheet
from study.data.files.splitting import PATH, chosen_fold, divided, folded
from study.data.intake import About
from study.data.names import child, difference, fold_of, normal
from study.data.npz import file_stamp
from study.data.pictures.decoding import Decoder
from study.data.pictures.kinds import stem_of
from study.data.protocol import SPLITS, Dataset, unknown_name
from study.data.shelf import Shelf

ENDING = ".csv"
# What tables call the splits.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "tune"), "val"),
    **dict.fromkeys(("test", "testing", "te", "holdout"), "test"),
}
YES, NO = ("1", "1.0", "true"), ("0", "0.0", "", "false")


@dataclass(frozen=True)
class Layout:
    """Where a table and its images lie and what its columns are called; None: by the data set's name.

    `label` is one column, or one for each class.
    """

    table: str | None = None
    images: str | None = None
    image: str = "image"
    label: str | tuple[str, ...] = "label"
    split: str = "split"
    group: str = "group"
    source: str = "source"
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, table: str | None, images: str | None, columns: Mapping[str, Any] | None) -> Layout:
        """The layout with the columns that a study names; those it names must be there."""
        given = COLUMNS.parse(dict(columns or {}), ("source", "columns"))
        return cls(table, images, **given, named=frozenset(given))


class TableFolder:
    """Reader of tables in one folder; images lie anywhere below the folder of the table's name, or the one declared.

    `image_size` resizes every image to that many pixels a side; `split` declares the shares of splits that no column
    names; `window` and `axis` are those of `study.data.declared`. `folds`: how many sets each is. `task`: what labels
    mean; that of the catalogue unless it is given.
    """

    def __init__(
        self,
        root: str,
        layout: Layout,
        image_size: int | None = None,
        split: Mapping[str, Any] | None = None,
        window: str | Mapping[str, Any] | None = None,
        axis: str | None = None,
        folds: int | None = None,
        task: str | None = None,
        repeats: int | None = None,
    ) -> None:
        self.root = Path(root)
        self._task = task
        self._layout = layout
        self._image_size = image_size
        self._decoding = window, axis
        self._folds, self._repeats = folds, repeats
        Decoder(*self._decoding)
        self._split = None if split is None else SPLIT.parse(dict(split), PATH)
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing there"
            raise ValueError(f"{self.root}: must be a folder of tables, got {found}")

    def names(self) -> list[str]:
        """Names of the tables with a folder of images, without their ending, in order."""
        tables = sorted(path for path in self.root.iterdir() if path.name.lower().endswith(ENDING))
        return [path.stem for path in tables if self._layout.images or (self.root / path.stem).is_dir()]

    def stamp(self, name: str) -> Hashable:
        """A value that changes when the table does, or when an image is added, removed or rewritten."""
        table, folder = self._places(name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return (
            tuple((str(path), file_stamp(path)) for path in files),
            file_stamp(table),
            file_stamp(self.root / FILE_NAME),
        )

    def read(self, name: str) -> Dataset:
        """The data set, checked and held in memory; ValueErrors begin with the path of what is wrong."""
        return self.read_onto(name, None)

    def read_onto(self, name: str, shelf: Shelf | None) -> Dataset:
        """The data set, checked; on the shelf, if there is one, where it is too large to be held."""
        table, folder = self._places(name)
        base, fold = chosen_fold(name, self._folds, self._repeats)
        entry = read_entry(self.root, base)
        task = entry.task or CLASSIFICATION if self._task is None else TASKS[self._task]
        files = _files(read_sheet(table), folder, self._layout, self._split, self._folds, fold, task, self._repeats)
        about = About(name, entry.modality, source_key(base, entry.source_key), task)
        return read_files(about, files, Decoder(*self._decoding), self._image_size, shelf)

    def _places(self, name: str) -> tuple[Path, Path]:
        layout = self._layout
        name, _ = fold_of(name)
        table = child(self.root, layout.table or f"{name}{ENDING}")
        if Path(name).name != name or table is None or not table.is_file():
            raise unknown_name(str(self.root), name, self.names())
        folder = child(self.root, layout.images or name)
        if folder is None or not folder.is_dir():
            raise ValueError(
                f"{self.root / (layout.images or name)}: must be the folder of the images that {table.name} names, "
                "got nothing there (source.images names another)"
            )
        return table, folder


def _files(
    sheet: Sheet,
    folder: Path,
    layout: Layout,
    split: Mapping[str, Any] | None,
    folds: int | None,
    fold: int | None,
    task: Task,
    repeats: int | None,
) -> Files:
    if task.has_many and isinstance(layout.label, str):
        raise ValueError(
            f"{sheet.path}: must have a column for each label where an image may have several, got the column "
            f"{layout.label} (source.columns.label lists them)"
        )
    labels = (layout.label,) if isinstance(layout.label, str) else layout.label
    optional = [getattr(layout, key) for key in ("split", "group", "source") if key in layout.named]
    sheet.need([layout.image, *labels, *optional])
    if not sheet.rows:
        raise ValueError(f"{sheet.path}: must hold a row an image, got none below the head")
    has_split, has_group = layout.split in sheet.columns, layout.group in sheet.columns
    images = _Images(sheet.path, folder)
    rows: dict[Path, tuple[tuple[str, ...], str, str | None]] = {}
    repeats = 0
    for number, row in enumerate(sheet.rows):
        path = images.of(row[layout.image])
        facts = (
            _labels(sheet, row, layout, number, task),
            _split_of(sheet, row[layout.split], row[layout.image]) if has_split else "train",
            _present(sheet, row, layout.group, layout.image) if has_group else None,
        )
        repeats += path in rows
        if rows.setdefault(path, facts) != facts:
            raise ValueError(f"{sheet.path}: must say one thing of an image, got two of {row[layout.image]}")
    classes = list(labels) if len(labels) > 1 else _ordered({label for own, _, _ in rows.values() for label in own})
    numbers = {path: tuple(classes.index(label) for label in own) for path, (own, _, _) in rows.items()}
    samples = [
        Sample(
            path,
            normal(path.relative_to(folder).as_posix()),
            part,
            numbers[path] if task.has_many else numbers[path][0],
            group,
        )
        for path, (_, part, group) in sorted(rows.items(), key=lambda item: (numbers[item[0]], item[0]))
    ]
    there = {sample.split for sample in samples}
    if folds is not None and fold is not None:
        samples, notes = folded(samples, folds, fold, split, repeats)
    else:
        if "train" not in there:
            came = ", ".join(sorted(there))
            raise ValueError(f"{sheet.path}: must name images of train in {layout.split}, got {came}")
        absent = [name for name in SPLITS if name not in there]
        found = ", ".join(sorted(there)) if has_split else "no column split"
        samples, notes = divided(samples, split, absent, str(sheet.path), f"must name images of {{}}, got {found}")
    told = [*notes, *images.left_out(rows), *_sources(sheet, layout)]
    if repeats:
        told.append(f"{counted(repeats, 'row')} of {sheet.path.name} that say the same again are counted once")
    return Files(folder, classes, samples, tuple(told), divided_group(samples, sheet.path))


class _Images:
    """The image files below a folder, found by path or name, with their ending or without."""

    def __init__(self, table: Path, folder: Path) -> None:
        self._table, self._folder = table, folder
        self._all: list[Path] = []
        self._by_key: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parents
            if path.is_dir() or path == table or is_system(path) or any(is_system(above) for above in parts):
                continue
            self._all.append(path)
            relative = normal(path.relative_to(folder).as_posix())
            bare = relative[: len(relative) - len(path.name)] + normal(stem_of(path))
            for key in {relative, bare, relative.rsplit("/", 1)[-1], bare.rsplit("/", 1)[-1]}:
                self._by_key.setdefault(key, []).append(path)

    def of(self, text: str) -> Path:
        """The file that a row names. Raises ValueError where there is none, or more than one."""
        name = as_path(text)
        if not name:
            raise ValueError(f"{self._table}: must name an image in every row, got an empty name")
        # Paths may begin with the folder's own name, or with folders of the machine that the table was written on.
        for key in (name, name.removeprefix(f"{normal(self._folder.name)}/"), name.rsplit("/", 1)[-1]):
            found = self._by_key.get(key, [])
            exact = [path for path in found if normal(path.relative_to(self._folder).as_posix()) == key]
            if len(exact or found) == 1:
                return (exact or found)[0]
            if found:
                names = " and ".join(path.relative_to(self._folder).as_posix() for path in found[:2])
                raise ValueError(f"{self._table}: must name one file a row, got {text}, which is {names}")
        but = difference(name, self._by_key)
        raise ValueError(f"{self._table}: must name images that lie in {self._folder}, got {text}{but}")

    def left_out(self, named: Mapping[Path, object]) -> tuple[str, ...]:
        """Notes of the files that no row names."""
        others = [path for path in self._all if path not in named]
        by_folder: dict[Path, list[Path]] = {}
        for path in self._all:
            by_folder.setdefault(path.parent, []).append(path)
        companions = {path for paths in by_folder.values() for path in companions_among(paths)}
        left_out = LeftOut([path for path in others if path in companions])
        notes = list(left_out.notes(self._folder))
        rest = [path.relative_to(self._folder).as_posix() for path in others if path not in companions]
        if rest:
            names = ", ".join(rest[:3]) + (", …" if len(rest) > 3 else "")
            verb = "is" if len(rest) == 1 else "are"
            notes.append(f"{counted(len(rest), 'file')} that {self._table.name} does not name {verb} left out: {names}")
        return tuple(notes)


def _labels(sheet: Sheet, row: Mapping[str, str], layout: Layout, number: int, task: Task) -> tuple[str, ...]:
    """The label of a row, or its labels, where an image may have several or none."""
    if isinstance(layout.label, str):
        return (_present(sheet, row, layout.label, layout.image),)
    values = {name: row[name].lower() for name in layout.label}
    hits = [name for name, value in values.items() if value in YES]
    if (len(hits) != 1 and not task.has_many) or any(value not in YES + NO for value in values.values()):
        where = "or 0 in each of the columns {}" if task.has_many else "in one of the columns {} and 0 in the others"
        came = ", ".join(f"{name}: {row[name]}" for name in layout.label)
        raise ValueError(
            f"{sheet.path}: must have 1 {where.format(', '.join(layout.label))}, got "
            f"{came} for {row[layout.image] or f'row {number + 1}'}"
        )
    return tuple(hits)


def _present(sheet: Sheet, row: Mapping[str, str], column: str, image: str) -> str:
    if not row[column]:
        raise ValueError(f"{sheet.path}: must give the {column} of every image, got none for {row[image]}")
    return row[column]


def _split_of(sheet: Sheet, word: str, image: str) -> str:
    found = SPLIT_WORDS.get(word.lower())
    if found is None:
        raise ValueError(f"{sheet.path}: must name the split of an image train, val or test, got {word!r} for {image}")
    return found


def _ordered(labels: set[str]) -> list[str]:
    """Class names in order: whole numbers by size, others by letters."""
    return sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)


def _sources(sheet: Sheet, layout: Layout) -> Sequence[str]:
    if layout.source not in sheet.columns:
        return ()
    counts = Counter(row[layout.source] or "unnamed" for row in sheet.rows)
    words = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(6))
    more = "" if len(counts) <= 6 else f" and {len(counts) - 6} more"
    return (f"images of {counted(len(counts), 'source')}: {words}{more}",)
