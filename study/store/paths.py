"""Paths as records keep them: from the current folder, the suite's or a library's on, and never with a user's home."""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path
from typing import Any

SUITE = Path(__file__).resolve().parents[2]
# What a study asked stays word for word.
VERBATIM = ("file_text",)


def without_places(value: Any) -> Any:
    """A JSON value in whose texts no path begins with the current folder, the suite's, a library's or a user's home.

    Of a path below one of the first three, the rest stays; a home becomes ~.
    """
    return _shortened(value, _places())


def _places() -> list[tuple[re.Pattern[str], str]]:
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    short = {_folder(path): "" for path in (os.getcwd(), str(SUITE), *libraries) if path}
    home = {_folder(os.path.expanduser("~")): "~/"}
    places = {path: to for path, to in (home | short).items() if len(Path(path).parts) > 1}
    # From the longest on: the suite may lie in a home.
    ordered = sorted(places.items(), key=lambda place: -len(place[0]))
    return [(re.compile(rf"(?<![\w.~/-]){re.escape(path)}/+"), to) for path, to in ordered]


def _folder(path: str) -> str:
    return os.path.abspath(path).rstrip("/")


def _shortened(value: Any, places: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, str):
        if "/" not in value:
            return value
        for path, to in places:
            value = path.sub(to, value)
        return value
    if isinstance(value, list):
        return [_shortened(item, places) for item in value]
    if isinstance(value, dict):
        return {name: item if name in VERBATIM else _shortened(item, places) for name, item in value.items()}
    return value
