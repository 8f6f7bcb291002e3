"""Files of an audit: findings as JSON and the page, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.report.write import write_page
from study.audit.page import page
from study.data.protocol import Dataset
from study.store.ledger import plain_json, whole_file


def write(
    audited: Sequence[tuple[Dataset, Mapping[str, Any]]], shared: Sequence[Mapping[str, Any]], folder: Path
) -> dict[str, Path]:
    """Writes findings on data sets and pictures that they share into a folder; returns the files by what they are."""
    findings = folder / "audit.json"
    values = {"sets": {dataset.info.name: dict(found) for dataset, found in audited}, "shared": list(shared)}
    text = json.dumps(plain_json(values, "audit"), ensure_ascii=False, indent=1)
    with whole_file(findings) as file:
        file.write(text.encode() + b"\n")
    return {"findings": findings, "page": write_page(folder, *page(audited, shared))}
