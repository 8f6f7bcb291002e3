"""Files of an audit: findings as JSON and the page, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.report.write import write_files
from study.audit.page import page
from study.data.protocol import Dataset
from study.store.ledger import plain_json, whole_file


def write(audited: Sequence[tuple[Dataset, Mapping[str, Any]]], folder: Path) -> dict[str, Path]:
    """Writes the findings on data sets into a folder; returns the files by what they are."""
    findings = folder / "audit.json"
    text = json.dumps(plain_json([dict(found) for _, found in audited], "audit"), ensure_ascii=False, indent=1)
    with whole_file(findings) as file:
        file.write(text.encode() + b"\n")
    text, parts = page(audited)
    write_files(folder, parts)
    with whole_file(folder / "audit.html") as file:
        file.write(text.encode())
    return {"findings": findings, "page": folder / "audit.html"}
