"""Reader of image folders by data set, split and class: `root/<name>/<split>/<class>/*.png` and other endings."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from analysis.records.origins import source_key
from analysis.tasks import CLASSIFICATION, TASKS
from study.data.catalogue import FILE_NAME, read_entry
from study.data.declared import SPLIT
from study.data.files.beside import LeftOut, images_in, is_system, is_unnamed_image, refuse_folder_of_companions
from study.data.files.grouping import GROUPS_FILE, divided_group, with_groups
from study.data.files.samples import Files, Sample, read_files
from study.data.files.splitting import PATH, chosen_fold, divided, folded
from study.data.intake import About
from study.data.names import child, difference, fold_of, normal, refuse_odd
from study.data.npz import file_stamp
from study.data.pictures.decoding import Decoder
from study.data.pictures.kinds import ENDINGS, has_image_ending, stem_of
from study.data.protocol import SPLITS, Dataset, unknown_name
from study.data.shelf import Shelf


class ImageFolder:
    """Reader of data sets in one folder of folders; `image_size` resizes every image to that many pixels a side.

    Classes are the sub-folders of train, ordered by name. `split` declares the shares of splits that a data set comes
    without, which are cut out of train; one without any split is a folder of classes. An optional `groups.csv` in the
    data set's folder, with the columns image and group, names each image's patient. `window` and `axis` are those of
    `study.data.declared`, for images of more than eight bits a channel and for volumes. `folds`: how many sets each is,
    by the names of `study.data.names.fold_names`. `task`: ordinal where classes have an order, that of their names.
    """

    def __init__(
        self,
        root: str,
        image_size: int | None,
        split: Mapping[str, Any] | None = None,
        window: str | Mapping[str, Any] | None = None,
        axis: str | None = None,
        folds: int | None = None,
        task: str | None = None,
        repeats: int | None = None,
    ) -> None:
        if image_size is not None and (type(image_size) is not int or image_size < 1):
            raise ValueError(f"source.image_size must be a positive number of pixels, got {image_size!r}")
        self.root = Path(root)
        self._task = task
        self._image_size = image_size
        self._decoding = window, axis
        self._folds, self._repeats = folds, repeats
        Decoder(*self._decoding)
        self._split = None if split is None else SPLIT.parse(dict(split), PATH)
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing there"
            raise ValueError(f"{self.root}: must be a folder of data sets, got {found}")

    def names(self) -> list[str]:
        """Names of the sub-folders that hold a split (any folder, where splits are declared), in order."""
        return sorted(path.name for path in self.root.iterdir() if not is_system(path) and self._is_set(path))

    def _is_set(self, path: Path) -> bool:
        if (self._split is not None or self._folds is not None) and path.is_dir():
            return any(inside.is_dir() for inside in path.iterdir())
        return any((path / split).is_dir() for split in SPLITS)

    def stamp(self, name: str) -> Hashable:
        """A value that changes when an image is added, removed or rewritten."""
        files = sorted(path for path in self._path(name).rglob("*") if path.is_file())
        return tuple((str(path), file_stamp(path)) for path in files), file_stamp(self.root / FILE_NAME)

    def read(self, name: str) -> Dataset:
        """The data set, checked and held in memory; ValueErrors begin with the path of what is wrong."""
        return self.read_onto(name, None)

    def read_onto(self, name: str, shelf: Shelf | None) -> Dataset:
        """The data set, checked; on the shelf, if there is one, where it is too large to be held."""
        base, fold = chosen_fold(name, self._folds, self._repeats)
        entry = read_entry(self.root, base)
        files = _files(self._path(name), self._split, self._folds, fold, self._repeats)
        task = entry.task or CLASSIFICATION if self._task is None else TASKS[self._task]
        if task.has_many:
            raise ValueError(
                f"{self.root / base}: must hold one class an image, as folders do, got the task {task.name}"
            )
        about = About(name, entry.modality, source_key(base, entry.source_key), task)
        return read_files(about, files, Decoder(*self._decoding), self._image_size, shelf)

    def _path(self, name: str) -> Path:
        base, _ = fold_of(name)
        path = child(self.root, base) if Path(base).name == base else None
        if path is None or not path.is_dir():
            raise unknown_name(str(self.root), name, self.names())
        return path


def _files(
    folder: Path, split: Mapping[str, Any] | None, folds: int | None, fold: int | None, repeats: int | None
) -> Files:
    there = [name for name in SPLITS if (folder / name).is_dir()]
    found = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "no folder"
    if "train" not in there and (there or (split is None and folds is None)):
        hint = "" if there else " (classes without splits take source.split: {val: 0.1, test: 0.2})"
        raise ValueError(f"{folder}: must hold the folder train, got {found}{hint}")
    left_out = LeftOut()
    for path in sorted(folder.iterdir()) if there else ():
        if path.name not in (*there, GROUPS_FILE) and not is_system(path):
            _refuse_stray(path)
            left_out.others.append(path)
    train = folder / "train" if there else folder
    folders = _class_folders(train, left_out)
    classes = sorted(folders)
    if not classes:
        raise ValueError(f"{train}: must hold a folder a class, got none")
    samples: list[Sample] = []
    for name in there or ("train",):
        here = folder / name if there else folder
        titles = folders if name == "train" else _class_folders(here, left_out, classes)
        samples += _samples(folder, here, name, classes, titles, left_out)
    samples = with_groups(folder, samples)
    absent = [name for name in SPLITS if name not in (*there, "train")]
    if folds is not None and fold is not None:
        samples, notes = folded(samples, folds, fold, split, repeats)
    else:
        samples, notes = divided(samples, split, absent, str(folder), f"must hold the folder {{}}, got {found}")
    wrong = divided_group(samples, folder / GROUPS_FILE)
    return Files(folder, classes, samples, (*notes, *left_out.notes(folder)), wrong)


def _class_folders(folder: Path, left_out: LeftOut, known: list[str] | None = None) -> dict[str, Path]:
    """The folders of classes in that of a split by their names in normal form. `known`: the classes that train has."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_system(path) or path.name == GROUPS_FILE:
            continue
        if not path.is_dir() or path.name.startswith("."):
            _refuse_stray(path)
            left_out.others.append(path)
            continue
        refuse_odd(path)
        title = normal(path.name)
        if known is not None and title not in known:
            but = difference(title, known)
            raise ValueError(f"{path}: must be a class that train has, {', '.join(known)}, got {title}{but}")
        if title in found:
            raise ValueError(f"{folder}: must hold one folder a class, got {title} in two forms of Unicode")
        found[title] = path
    return found


def _refuse_stray(path: Path) -> None:
    """Raises ValueError for an image that lies beside the folders of classes."""
    hidden = path.name.startswith(".")
    if path.is_file() and not hidden and (has_image_ending(path) or is_unnamed_image(path, LeftOut())):
        raise ValueError(f"{path}: must lie in the folder of its class, got it beside the classes")


def _samples(
    folder: Path, here: Path, split: str, classes: list[str], folders: dict[str, Path], left_out: LeftOut
) -> list[Sample]:
    images = {title: images_in(folders[title], left_out) if title in folders else [] for title in classes}
    stems = {title: {stem_of(path) for path in paths} for title, paths in images.items()}
    for title in classes:
        if not images[title] and split == "train":
            raise ValueError(f"{folders[title]}: must hold images ({', '.join(ENDINGS)}), got none")
        others = [stems[other] for other in classes if other != title]
        refuse_folder_of_companions(here, title, [stems[title], *others])
    found = [
        Sample(path, normal(path.relative_to(folder).as_posix()), split, label)
        for label, title in enumerate(classes)
        for path in images[title]
    ]
    if not found:
        raise ValueError(f"{here}: must hold at least one image ({', '.join(ENDINGS)}), got an empty split")
    return found
