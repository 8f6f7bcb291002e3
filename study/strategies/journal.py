"""Repair of Optuna's journal file after a kill: a torn line is removed, and an error names a bad one."""

from __future__ import annotations

import json
import os
from pathlib import Path


def cut_torn_line(journal: Path) -> None:
    """Removes a last line that a kill left half-written: Optuna can neither read past it nor append after it."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def check_lines(journal: Path) -> None:
    """Raises ValueError naming file and line, as Optuna does not, where a line other than a torn last is no entry."""
    *lines, _ = journal.read_bytes().split(b"\n") if journal.exists() else [b""]
    for number, line in enumerate(lines, start=1):
        try:
            known = "op_code" in json.loads(line)
        except (ValueError, TypeError):
            known = False
        if not known:
            raise ValueError(
                f"{journal}: line {number} must be an entry of Optuna's journal, got {line[:60]!r}; without the file "
                "the search proposes the same again and keeps its finished cells"
            )
