"""Names of files, folders and classes in one normal form, in which two that look alike are equal."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path


def normal(name: str) -> str:
    """A name in Unicode's composed form (NFC): archives made on a Mac hold the decomposed one."""
    return unicodedata.normalize("NFC", name)


# What follows the name of a data set that is one of its folds, before the fold's number.
FOLD = "@fold"


def fold_names(name: str, folds: int) -> list[str]:
    """The names of a data set's folds."""
    return [f"{name}{FOLD}{number}" for number in range(1, folds + 1)]


def fold_of(name: str) -> tuple[str, int | None]:
    """A data set's name without its fold, and the number of the fold; None where it is none."""
    base, _, number = name.rpartition(FOLD)
    return (base, int(number)) if base and number.isdecimal() else (name, None)


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
