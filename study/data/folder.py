"""Reader of image folders by data set, split and class: `root/<name>/<split>/<class>/*.png` or `.jpg`."""

import csv
from collections.abc import Hashable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from analysis.records.origins import source_key
from study.data.catalogue import FILE_NAME, read_entry
from study.data.npz import file_stamp
from study.data.protocol import SPLITS, Dataset, Split, assemble, checked_split, unknown_name

ENDINGS = (".png", ".jpg", ".jpeg")
# Images and volumes that Pillow does not read: leaving them out silently would lose data.
OTHER_ENDINGS = (".dcm", ".dicom", ".ima", ".nii", ".gz", ".mha", ".mhd", ".nrrd", ".npy", ".npz")
GROUPS_FILE = "groups.csv"
# Modes of eight bits per channel; sixteen-bit images would need a window that nobody has stated.
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


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
        folder = self._path(name)
        for split in SPLITS:
            if not (folder / split).is_dir():
                there = sorted(path.name for path in folder.iterdir() if path.is_dir())
                raise ValueError(f"{folder}: must hold the folder {split}, got {', '.join(there) or 'no folder'}")
        entry = read_entry(self.root, name)
        classes = sorted(path.name for path in (folder / "train").iterdir() if _is_class(path))
        if not classes:
            raise ValueError(f"{folder / 'train'}: must hold a folder a class, got none")
        for title in classes:
            try:
                title.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{folder / 'train'}: must hold folders named in UTF-8, got {title!a}") from None
        files = {split: _files(folder / split, classes) for split in SPLITS}
        modes = {_mode(path) for paths in files.values() for path, _ in paths}
        colour = not modes.isdisjoint(COLOUR_MODES)
        groups = _groups(folder, [path for paths in files.values() for path, _ in paths])
        size: tuple[Path, tuple[int, int]] | None = None
        splits: dict[str, Split] = {}
        for split, paths in files.items():
            images = []
            for path, _ in paths:
                image = _image(path, colour, self._image_size)
                size = size or (path, image.shape[:2])
                if image.shape[:2] != size[1]:
                    expected, found = (f"{height}×{width}" for height, width in (size[1], image.shape[:2]))
                    raise ValueError(
                        f"{path}: must be {expected} like {size[0]}, got {found} (source.image_size resizes all)"
                    )
                images.append(image)
            ids = np.array([path.relative_to(folder).as_posix() for path, _ in paths])
            labels = np.array([label for _, label in paths], dtype=np.int64)
            split_groups = None if groups is None else np.array([groups[path] for path, _ in paths], dtype=np.int64)
            splits[split] = checked_split(str(folder), split, np.stack(images), labels, split_groups, ids)
        return assemble(name, entry.modality, classes, splits, str(folder), source_key(name, entry.source_key))

    def _path(self, name: str) -> Path:
        path = self.root / name
        if Path(name).name != name or not path.is_dir():
            raise unknown_name(str(self.root), name, self.names())
        return path


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for path in sorted(folder.iterdir()):
        if _is_class(path) and path.name not in classes:
            raise ValueError(f"{path}: must be a class that train has, {', '.join(classes)}, got {path.name}")
        if path.suffix.lower() in ENDINGS:
            raise ValueError(f"{path}: must lie in the folder of its class, got it beside the classes")
    for label, title in enumerate(classes):
        inside = sorted((folder / title).iterdir()) if (folder / title).is_dir() else []
        images = [path for path in inside if _is_image(path)]
        if not images and folder.name == "train":
            raise ValueError(f"{folder / title}: must hold images ({', '.join(ENDINGS)}), got none")
        found += [(path, label) for path in images]
    if not found:
        raise ValueError(f"{folder}: must hold at least one image ({', '.join(ENDINGS)}), got an empty split")
    return found


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    """Whether an entry of a class's folder is one of its images. Raises ValueError where images would be left out."""
    ending = path.suffix.lower()
    if path.name.startswith("."):
        return False
    if path.is_dir():
        raise ValueError(f"{path}: must be an image, which lie in the folder of their class itself, got a folder")
    if ending not in ENDINGS and (ending in OTHER_ENDINGS or ending in Image.registered_extensions()):
        raise ValueError(f"{path}: must be an image of the kind {', '.join(ENDINGS)}, got {ending}")
    return ending in ENDINGS


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None
    if mode not in GREY_MODES + COLOUR_MODES:
        raise ValueError(f"{path}: must be an image of eight bits a channel, got the mode {mode}")
    return mode


def _image(path: Path, colour: bool, image_size: int | None) -> np.ndarray:
    """Pixels (height, width) or (height, width, 3), rotated as the camera recorded, resized if required."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB" if colour else "L")
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path, error) from None
    if image_size is not None:
        upright = upright.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(upright, dtype=np.uint8)


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (getattr(error, "strerror", None) or str(error)).replace(f" {str(path)!r}", "").splitlines()
    return ValueError(f"{path}: must be a readable image, got {reason[0] if reason else type(error).__name__}")


def _groups(folder: Path, images: list[Path]) -> dict[Path, int] | None:
    """The group of each image as a number, or None where the folder does not name groups."""
    path = folder / GROUPS_FILE
    if not path.is_file():
        return None
    try:
        # Spreadsheet programs begin their files with a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: must be a table of text in UTF-8, got {error}") from None
    if not {"image", "group"} <= set(columns):
        raise ValueError(f"{path}: must have the columns image and group, got {', '.join(columns) or 'none'}")
    named: dict[Path, str] = {}
    for row in rows:
        image, group = folder / (row["image"] or ""), row["group"]
        if named.setdefault(image, group) != group:
            raise ValueError(f"{path}: must name one group an image, got {named[image]} and {group} for {row['image']}")
    for image in images:
        if not named.get(image):
            raise ValueError(f"{path}: must name the group of every image, got none for {image.relative_to(folder)}")
    firsts: dict[str, Path] = {}
    for image in images:
        one, other = (shown.relative_to(folder) for shown in (firsts.setdefault(named[image], image), image))
        if one.parts[0] != other.parts[0]:
            raise ValueError(f"{path}: a group must stand in one split only, got {named[image]} for {one} and {other}")
    numbers = {group: number for number, group in enumerate(sorted({named[image] for image in images}))}
    return {image: numbers[named[image]] for image in images}
