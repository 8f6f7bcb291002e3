"""Short audits of a study's data sets, made once for each content and kept in the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.json_file import read_object
from study.audit.findings import VERSION, short_audit
from study.cells import DataRef
from study.data import open_source
from study.store.ledger import plain_json, whole_file

FOLDER = "ledger/audits"


def short_audits(refs: Iterable[DataRef], store: Path, keep: bool) -> dict[str, dict[str, Any]]:
    """The short audits of data sets by name, from the store where it has them. keep: whether new ones are kept there.

    A kept one belongs to a content and a kind of source, since other kinds name their images otherwise.
    """
    return {ref.name: {**_of(ref, store, keep), "name": ref.name} for ref in refs}


def _of(ref: DataRef, store: Path, keep: bool) -> dict[str, Any]:
    path = store / FOLDER / f"{ref.fingerprint}-{ref.source['kind']}.json"
    if path.is_file():
        found = read_object(path, "an audit")
        if found.get("version") == VERSION:
            return found
    found = plain_json(short_audit(open_source(ref.source).load(ref.name)), "audit")
    if keep:
        with whole_file(path) as file:
            file.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")
    return found
