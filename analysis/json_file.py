"""JSON files that hold one object, read or refused in one line."""

import json
from pathlib import Path
from typing import Any


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file. Raises a ValueError that begins with the file and says that it must be `what`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ValueError(f"{path}: must be {what}, whole JSON, got {problem}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must be {what}, a JSON object, got {type(found).__name__}")
    return found
