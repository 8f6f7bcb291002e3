"""Reader of image folders by data set, split and class: `root/<name>/<split>/<class>/*.png` and other endings."""

from collections.abc import Hashable
from pathlib import Path

from study.data.beside import LeftOut, images_in, is_system, is_unnamed_image, refuse_folder_of_companions
from study.data.catalogue import FILE_NAME, read_entry
from study.data.grouping import GROUPS_FILE, group_names
from study.data.names import child, difference, normal, refuse_odd
from study.data.npz import file_stamp
from study.data.pictures.decoding import Decoder
from study.data.pictures.kinds import ENDINGS, has_image_ending, stem_of
from study.data.protocol import SPLITS, Dataset, unknown_name
from study.data.samples import Files, Sample, read_files


class ImageFolder:
    """Reader of data sets in one folder of folders; `image_size` resizes every image to that many pixels a side.

    Classes are the sub-folders of train, ordered by name. An optional `groups.csv` in the data set's folder, with the
    columns image and group, names each image's patient.
    """

    def __init__(self, root: str, image_size: int | None) -> None:
        if image_size is not None and (type(image_size) is not int or image_size < 1):
            raise ValueError(f"source.image_size must be a positive number of pixels, got {image_size!r}")
        self.root = Path(root)
        self._image_size = image_size
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing there"
            raise ValueError(f"{self.root}: must be a folder of data sets, got {found}")

    def names(self) -> list[str]:
        """Names of the sub-folders that hold a split, in order."""
        return sorted(path.name for path in self.root.iterdir() if any((path / split).is_dir() for split in SPLITS))

    def stamp(self, name: str) -> Hashable:
        """A value that changes when an image is added, removed or rewritten."""
        files = sorted(path for path in self._path(name).rglob("*") if path.is_file())
        return tuple((str(path), file_stamp(path)) for path in files), file_stamp(self.root / FILE_NAME)

    def read(self, name: str) -> Dataset:
        """The data set, checked; ValueErrors begin with the path of what is wrong."""
        entry = read_entry(self.root, name)
        return read_files(name, entry.modality, _files(self._path(name)), Decoder(), self._image_size)

    def _path(self, name: str) -> Path:
        path = child(self.root, name) if Path(name).name == name else None
        if path is None or not path.is_dir():
            raise unknown_name(str(self.root), name, self.names())
        return path


def _files(folder: Path) -> Files:
    for split in SPLITS:
        if not (folder / split).is_dir():
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise ValueError(f"{folder}: must hold the folder {split}, got {', '.join(there) or 'no folder'}")
    left_out = LeftOut()
    for path in sorted(folder.iterdir()):
        if path.name not in (*SPLITS, GROUPS_FILE) and not is_system(path):
            _refuse_stray(path)
            left_out.others.append(path)
    folders = _class_folders(folder / "train", left_out)
    classes = sorted(folders)
    if not classes:
        raise ValueError(f"{folder / 'train'}: must hold a folder a class, got none")
    samples: list[Sample] = []
    for split in SPLITS:
        here = folders if split == "train" else _class_folders(folder / split, left_out, classes)
        samples += _samples(folder / split, classes, here, left_out)
    groups = group_names(folder, {sample.path: sample.split for sample in samples})
    if groups is not None:
        samples = [Sample(each.path, each.split, each.label, groups[each.path]) for each in samples]
    return Files(folder, classes, samples, left_out.notes(folder))


def _class_folders(folder: Path, left_out: LeftOut, known: list[str] | None = None) -> dict[str, Path]:
    """The folders of classes in that of a split by their names in normal form. `known`: the classes that train has."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_system(path):
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


def _samples(folder: Path, classes: list[str], folders: dict[str, Path], left_out: LeftOut) -> list[Sample]:
    images = {title: images_in(folders[title], left_out) if title in folders else [] for title in classes}
    stems = {title: {stem_of(path) for path in paths} for title, paths in images.items()}
    for title in classes:
        if not images[title] and folder.name == "train":
            raise ValueError(f"{folders[title]}: must hold images ({', '.join(ENDINGS)}), got none")
        others = [stems[other] for other in classes if other != title]
        refuse_folder_of_companions(folder, title, [stems[title], *others])
    found = [Sample(path, folder.name, label) for label, title in enumerate(classes) for path in images[title]]
    if not found:
        raise ValueError(f"{folder}: must hold at least one image ({', '.join(ENDINGS)}), got an empty split")
    return found
