"""Files beside images: those of the operating system, masks and other companions of an image, and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from analysis.words import counted
from study.data.pictures.kinds import ENDINGS, OTHER_ENDINGS, ending_of, has_image_ending, kind_of, stem_of

# What systems and programs leave in folders, in small letters: passed over without a word.
SYSTEM = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store", ".localized", ".directory", "icon\r",
    ".nomedia", "picasa.ini", ".picasa.ini", ".gitkeep", ".gitignore", ".gitattributes", ".keep", "__macosx", "@eadir",
    ".git", ".ipynb_checkpoints", "__pycache__", ".trashes", ".spotlight-v100", ".fseventsd", "$recycle.bin",
    "system volume information", "lost+found", "dicomdir",
}  # fmt: skip
# A Mac's file of attributes beside each file of another system's disk.
MAC_ATTRIBUTES = "._"
# What is added to an image's name for what was drawn on it or derived from it.
COMPANION = (
    "masks?|segm?|segmentations?|segmented|gts?|ground[ _-]?truth|labels?|labelled|labeled|annotations?|annotated|"
    "lesions?|contours?|outlines?|borders?|overlays?|heat[ _-]?maps?|rois?|super[ _-]?pixels?|bbox(?:es)?"
)
PARTS = re.compile(rf"[ _.\-]+(?:{COMPANION})(?:[ _.\-]*\(?\d+\)?)?$", re.IGNORECASE)
FIRST_PARTS = re.compile(rf"^(?:{COMPANION})[ _.\-]+", re.IGNORECASE)
WHOLE = re.compile(rf"(?:{COMPANION})", re.IGNORECASE)
NAMED = 3


@dataclass
class LeftOut:
    """What a reader has left out of a data set, for the notes that tell of it."""

    companions: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def notes(self, folder: Path) -> tuple[str, ...]:
        """A line for each kind of what was left out, with its count and some names below the folder."""
        found = []
        for paths, noun, what in (
            (self.companions, "companion file", "of images (masks, outlines and the like)"),
            (self.others, "entry", "that no image lies in"),
        ):
            if paths:
                names = [path.relative_to(folder).as_posix() for path in paths[:NAMED]]
                more = ", …" if len(paths) > NAMED else ""
                count = counted(len(paths), noun).replace("entrys", "entries")
                verb = "is" if len(paths) == 1 else "are"
                found.append(f"{count} {what} {verb} left out: {', '.join(names)}{more}")
        return tuple(found)


def is_system(path: Path) -> bool:
    """Whether an entry is one that an operating system or a program leaves in any folder."""
    return path.name.lower() in SYSTEM or path.name.startswith(MAC_ATTRIBUTES)


def images_in(folder: Path, left_out: LeftOut) -> list[Path]:
    """The images in a folder, in order, without their companions. Raises ValueError where one would be lost."""
    found = [path for path in sorted(folder.iterdir()) if _is_image(path, left_out)]
    companions = companions_among(found)
    left_out.companions += [path for path in found if path in companions]
    return [path for path in found if path not in companions]


def companions_among(images: Iterable[Path]) -> set[Path]:
    """Those of some images in one folder that bear the name of another and a word such as mask: `a_mask.png` of `a`."""
    images = list(images)
    stems = {stem_of(path).casefold() for path in images}
    return {path for path in images if any(own in stems for own in _owners(stem_of(path).casefold()))}


def refuse_folder_of_companions(folder: Path, title: str, stems: Iterable[set[str]]) -> None:
    """Raises ValueError for a class that is a folder of masks: such a name, and its files are named as other classes'.

    stems: the names without endings of the class's own files, then those of each other class.
    """
    own, *others = stems
    if not WHOLE.fullmatch(title) or not own:
        return
    known = {stem.casefold() for other in others for stem in other}
    if all(stem.casefold() in known or any(owner in known for owner in _owners(stem.casefold())) for stem in own):
        raise ValueError(
            f"{folder / title}: must be a class, got a folder named {title} whose files bear the names of images in "
            "other classes (move it elsewhere)"
        )


def _owners(stem: str) -> list[str]:
    """The names that an image would have if this were the name of its companion."""
    cut = [PARTS.sub("", stem), FIRST_PARTS.sub("", stem)]
    return [name for name in cut if name != stem and name]


def _is_image(path: Path, left_out: LeftOut) -> bool:
    if is_system(path):
        return False
    if path.name.startswith("."):
        left_out.others.append(path)
        return False
    if path.is_dir():
        raise ValueError(f"{path}: must be an image, which lie in the folder of their class itself, got a folder")
    if has_image_ending(path):
        return True
    return is_unnamed_image(path, left_out)


def is_unnamed_image(path: Path, left_out: LeftOut) -> bool:
    """Whether a file without an image's ending is one all the same; the rest is noted as left out.

    Raises ValueError for a kind of image that is not read.
    """
    ending = ending_of(path)
    kind = kind_of(path)
    if kind == "dicom":
        return True
    if kind or ending in OTHER_ENDINGS or ending in Image.registered_extensions():
        raise ValueError(f"{path}: must be an image of the kind {', '.join(ENDINGS)}, got {ending or 'no ending'}")
    left_out.others.append(path)
    return False
