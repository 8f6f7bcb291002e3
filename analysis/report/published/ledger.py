"""The part of a store that a study's numbers rest on, small enough for a repository."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.records.launches import LAUNCHES
from analysis.records.ledger import load_manifest, read_records
from analysis.records.manifests import parsed_manifests
from analysis.records.npz import read_arrays
from analysis.records.places import RECORDS, ledger_folder, predictions_path

# Parts of a record that no table shows: learning curves are most of its bytes.
LEFT_OUT = ("curves", "peak_bytes")
# What a published folder may weigh, in bytes.
LIMIT = 6 * 2**20


def copy_ledger(store: Path | str, study: str, folder: Path) -> None:
    """Copies what a study's page rests on from a store into `folder/ledger`, in place of what stands there.

    That is: the records of its variants, those of other studies and trials too, for earlier looks are told beside a
    verdict, all without learning curves; the predictions of its cells on test images, as they are; the manifests,
    without folders of the machine; and the register of launches. Raises ValueError, one line, for an unknown study.
    """
    source, ledger = ledger_folder(store), folder / "ledger"
    manifest = load_manifest(source, study)
    own = set(manifest.get("cell_ids") or [])
    files: dict[Path, bytes] = {}
    lines = []
    for record in read_records(source).records:
        if record["cell_id"] not in own and record["variant_id"] not in manifest["variants"]:
            continue
        lines.append({key: value for key, value in record.items() if key not in LEFT_OUT})
        if record["cell_id"] in own and record["status"] == "done" and record.get("probabilities"):
            place = f"probabilities/{record['cell_id']}.npz"
            files[ledger / place] = _test_images(predictions_path(source, record["cell_id"]))
    files[ledger / RECORDS] = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    for study_hash, each in parsed_manifests(source).items():
        text = json.dumps(_without_places(each), indent=1) + "\n"
        files[ledger / "studies" / f"{study_hash}.json"] = text.encode()
    if (source / LAUNCHES).exists():
        files[ledger / LAUNCHES] = (source / LAUNCHES).read_bytes()
    # Only now: a published folder may be its own source.
    shutil.rmtree(ledger, ignore_errors=True)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _test_images(path: Path) -> bytes:
    """An npz file with the arrays of the test split alone, compressed; the same arrays give the same bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in read_arrays(path, "test").items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            # A date of its own would make every copy another file.
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue(), zipfile.ZIP_DEFLATED
            )
    return made.getvalue()


def _without_places(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest whose paths say where in the repository a file lies, and not on which machine."""
    kept = dict(manifest)
    if kept.get("file"):
        parts = Path(str(kept["file"])).parts
        first = next((place for place, part in enumerate(parts) if part == "search_spaces"), len(parts) - 1)
        kept["file"] = "/".join(parts[first:])
    if isinstance(kept.get("source"), Mapping) and kept["source"].get("root"):
        kept["source"] = {**kept["source"], "root": "DIR"}
    return kept
