"""Fills MLflow from the ledger: python -m study.sync [STUDY …] [--store DIR] [--tracking-uri URI]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import Timeout

from analysis.records.manifests import load_manifest, parsed_manifests
from analysis.records.schema import Record
from analysis.words import counted
from study.store.database import absolute_uri, default_uri
from study.store.ledger import Ledger, open_ledger
from study.store.lock import file_lock
from study.store.tracking import StudyTags, Tracker
from study.telling.command import DEFAULT_STORE
from study.telling.progress import say

SECONDS_TO_LOG = 3600.0


def main(arguments: list[str] | None = None) -> int:
    """Logs what MLflow lacks. Returns the exit status: 0, 1 where MLflow takes no records, 2 for a wrong option."""
    options = _parser().parse_args(arguments)
    store = options.store.absolute()
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(store)
    try:
        ledger = open_ledger(store)
        known = parsed_manifests(ledger.folder)
        chosen = [load_manifest(ledger.folder, name) for name in options.study] or list(known.values())
        if not chosen:
            raise ValueError(f"{store}: the store must hold a study, got none")
        # A list: a fault of one study shall not keep the next from being tried.
        whole = [_filled(ledger, manifest, absolute_uri(uri), store) for manifest in chosen]
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0 if all(whole) else 1


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m study.sync",
        description="Log to MLflow what it lacks of a store's ledger, after its server was down, slow or dying.",
        allow_abbrev=False,
    )
    made.add_argument("study", nargs="*", metavar="STUDY", help="a name or hash of a study (default: all of the store)")
    made.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    made.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's (default: MLFLOW_TRACKING_URI, else a database in the store)"
    )
    return made


def _filled(ledger: Ledger, manifest: Mapping[str, Any], uri: str, store: Path) -> bool:
    """Logs a study's records that MLflow lacks, and says how it went; whether MLflow now has them all."""
    name, study_hash = manifest["name"], manifest["study_hash"]
    try:
        held = file_lock(ledger.folder / f".{study_hash}.lock").acquire(blocking=False)
    except Timeout:
        say(f"{name}: a launch of it is under way, and logs by itself")
        return True
    with held:
        records = _records(ledger, manifest)
        faults: list[str] = []
        tracker = Tracker(uri, store, StudyTags(name, study_hash, manifest["question"]), faults.append)
        tracker.start()
        for record in records:
            file = record.get("probabilities")
            tracker.log(record, _label(record, manifest), [ledger.folder / file] if file else [])
        failed = sum(record["status"] == "failed" for record in records)
        counts = {"cells_done": sum(record["status"] == "done" for record in records), "cells_failed": failed}
        asked = manifest.get("cell_ids")
        complete = asked is not None and counts["cells_done"] == len(asked)
        status = "FINISHED" if complete else "FAILED" if failed else "KILLED"
        in_time = tracker.close(status, counts, SECONDS_TO_LOG)
    if faults or not in_time:
        say(faults[0] if faults else f"warning: MLflow at {uri} is too slow; the same command goes on")
        return False
    say(f"{name}: MLflow at {uri} has {counted(len(records), 'cell')}")
    return True


def _records(ledger: Ledger, manifest: Mapping[str, Any]) -> list[Record]:
    found = ledger.records()
    asked = manifest.get("cell_ids")
    if asked is None:
        return [record for record in found.values() if record.get("study_hash") == manifest["study_hash"]]
    return [found[cell_id] for cell_id in asked if cell_id in found]


def _label(record: Record, manifest: Mapping[str, Any]) -> str:
    """The label under which the study knows the variant; another study may have made the record under its own."""
    known = manifest.get("variants") or {}
    return str(known.get(record["variant_id"]) or record.get("variant_label") or record["variant_id"])


if __name__ == "__main__":
    sys.exit(main())
