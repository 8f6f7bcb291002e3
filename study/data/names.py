"""Names of files, folders and classes in one normal form, in which two that look alike are equal."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from analysis.records.sources import FOLD as FOLD
from analysis.records.sources import fold_of as fold_of


def normal(name: str) -> str:
    """A name in Unicode's composed form (NFC): archives made on a Mac hold the decomposed one."""
    return unicodedata.normalize("NFC", name)


def fold_names(name: str, folds: int, repeats: int = 1) -> list[str]:
    """The names of a data set's folds; those of each further repeat go on in number."""
    return [f"{name}{FOLD}{number}" for number in range(1, folds * repeats + 1)]


def child(folder: Path, name: str) -> Path | None:
    """The entry of a folder that bears a name, in either Unicode form; None where there is none."""
    path = folder / name
    if path.exists():
        return path
    wanted = normal(name)
    return next((there for there in _entries(folder) if normal(there.name) == wanted), None)


def difference(name: str, known: Iterable[str]) -> str:
    """What tells a name from a known one that looks like it, as the end of a message; empty where none does."""
    for other in known:
        if _plain(name) != _plain(other):
            continue
        if name.strip() != name or other.strip() != other:
            return f", which differs from {other!r} by a blank at an end: {name!r}"
        return f", which differs from {other} in capitals alone" if name.split() == name.split() else ""
    return ""


def refuse_odd(path: Path) -> None:
    """Raises ValueError for a name that cannot be told from another in print: blanks at its ends, not in UTF-8."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path.parent}: must hold folders named in UTF-8, got {path.name!a}") from None
    if path.name.strip() != path.name:
        raise ValueError(f"{path.parent}: must hold names without blanks at their ends, got {path.name!r}")


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
