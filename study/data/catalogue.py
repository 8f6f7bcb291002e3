"""Catalogue of a folder of data sets: datasets.json, which describes them beside their files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from analysis.json_file import read_object
from analysis.tasks import Task, task_named

FILE_NAME = "datasets.json"


@dataclass(frozen=True)
class Entry:
    """What the catalogue says about one data set; None where it is silent."""

    modality: str = "unknown"
    classes: tuple[str, ...] | None = None
    md5: str | None = None
    source_key: str | None = None
    task: Task | None = None


def read_entry(root: Path, name: str) -> Entry:
    """The catalogue's entry for a data set of this folder, empty where the folder has no catalogue or no such entry."""
    path = root / FILE_NAME
    if not path.is_file():
        return Entry()
    entry = read_object(path, "a catalogue of data sets").get(name, {})
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: {name} must be a mapping, got a {type(entry).__name__}")
    return Entry(
        modality=_text(path, name, "modality", entry.get("modality")) or "unknown",
        classes=_classes(path, name, entry.get("classes")),
        md5=_text(path, name, "md5", entry.get("md5")),
        source_key=_text(path, name, "source_key", entry.get("source_key")) or None,
        task=_task(path, name, _text(path, name, "task", entry.get("task"))),
    )


def check_md5(path: Path, expected: str) -> None:
    """Raises ValueError when the file does not have this MD5."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected.lower():
        raise ValueError(f"{path}: must have the MD5 {expected.lower()}, got {found} (damaged, or another version)")


def _text(path: Path, name: str, key: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{path}: {name}.{key} must be text, got {value!r}")
    return value


def _task(path: Path, name: str, value: str | None) -> Task | None:
    return None if value is None else task_named(value, f"{path}: {name}.task")


def _classes(path: Path, name: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(title, str) and title for title in value):
        raise ValueError(f"{path}: {name}.classes must be a list of names, got {value!r}")
    if len(set(value)) != len(value):
        raise ValueError(f"{path}: {name}.classes must differ from each other, got {', '.join(value)}")
    return tuple(value)
