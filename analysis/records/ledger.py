"""A ledger read as a tidy table: one row per cell.

A ledger is a folder with `records.jsonl` (one record per line; of several lines of one cell the last counts, except
that a finished cell is never replaced by a later failure), `probabilities/<cell_id>.npz` and
`studies/<study_hash>.json`. Wherever a folder is asked for, the store that holds the ledger as `ledger/` will do; where
only records and predictions are read, so will the artifacts that MLflow keeps of the cells (see
`analysis.records.places`). Prediction files of MedMNIST are read into such a table, and written, by
`analysis.records.medmnist`.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics import METRICS
from analysis.records.lines import Lines, Reading, parsed, take, validate_at
from analysis.records.manifests import load_manifest
from analysis.records.places import RECORDS, records_folder
from analysis.records.predictions import SPLITS
from analysis.records.schema import COSTS, DRIVER, STATUSES, Record, shortened
from analysis.records.sources import manifest_sources
from analysis.tasks import CLASSIFICATION

NEVER_RAN = "no record in the ledger: not run yet"
# Columns of the table that are copied as they stand, None where a record lacks them.
PLAIN = (
    "modality",
    "channels",
    "image_size",
    "n_train",
    "n_val",
    "n_test",
    "best_epoch",
    "seconds",
    "train_seconds",
    "images_per_second",
    "peak_bytes",
    "commit",
    "started",
    "finished",
    "probabilities",
)


def read_records(folder: Path | str) -> Reading:
    """The record that counts for each cell, in the order the cells first appeared, and the number of torn lines (≤ 1).

    A last line that a kill left half-written is counted as torn and left out. If one cell has several artifacts, logged
    for two studies or after a failure, the last to finish counts. Raises ValueError, one line starting with the file,
    for anything else that is not a record, for a record that breaks the schema, and when there is no record at all.
    """
    folder, artifacts = records_folder(folder)
    if artifacts:
        return Reading(_artifact_records(artifacts), 0)
    lines = Lines(folder / RECORDS)
    found = lines.reading()
    if not found.records:
        came = "a half-written one" if found.torn else "none"
        raise ValueError(f"{lines.path}: must hold at least one record, got {came}")
    return found


def _artifact_records(paths: list[Path]) -> list[Record]:
    """The record that counts for each cell, from artifacts; none of them is torn."""
    found = []
    for path in paths:
        text = path.read_bytes()
        record = parsed(text)
        if record is None:
            raise ValueError(f"{path}: must be a record, got {shortened(text.decode(errors='replace'))}")
        found.append((path, record))
    latest: dict[str, tuple[Path, Record]] = {}
    for path, record in sorted(found, key=lambda item: str(item[1].get("finished") or "")):
        take(latest, path, record)
    for path, record in latest.values():
        validate_at(str(path), record)
    return [record for _, record in latest.values()]


def load_ledger(
    folder: Path | str,
    *,
    study: str | None = None,
    cell_ids: Collection[str] | None = None,
    numerics_version: int | None = None,
    fingerprints: Mapping[str, str] | None = None,
    records: Reading | None = None,
) -> pd.DataFrame:
    """A ledger as a tidy table, one row per cell, the record that counts for each.

    Columns: ids and labels; `source_key`, the collection that a data set comes from, as the study's manifest, else the
    record has it (empty for one of its own name); `axis.<name>` for every axis that a variant here sets away from the
    published MedMamba-T (empty means that default; JSON text where the choice is a list); dataset, modality, seed,
    status; `validation.<metric>` and `test.<metric>`; `cost.<name>`; seconds, images_per_second and the like. Cells
    that failed or were stopped keep their row, without metrics: nothing is imputed.

    study: a study's hash or name; keeps only its cells (those its manifest lists, else those with its hash) and labels
    variants as it does, for all studies with a cell share its record, which the first of them labelled. Artifacts hold
    no manifest: there a study keeps the cells that it was the first to run.
    cell_ids, numerics_version, fingerprints (by data set name): keep only these cells, this version, this content.
    records: the result of `read_records` for this folder, if it has already been read.
    `attrs` says what is behind the table: `done`, `failed`, `stopped`, `torn` (counts), `errors` (cell_id → message),
    `missing` (requested ids without a record), `folder`. `absent_cells` names all cells that have no result.

    Raises ValueError, one line, for a missing or empty ledger, when finished cells of one data set name stem from
    different contents or numerics versions (select one), and when two cells are one variant, recipe, data set and seed.
    """
    folder, artifacts = records_folder(folder)
    found, torn = read_records(folder) if records is None else records
    labels: dict[str, str] = {}
    sources: dict[str, str] = {}
    wanted = None if cell_ids is None else set(cell_ids)
    if study is not None and artifacts:
        found = [r for r in found if study in (r.get("study"), r.get("study_hash"))]
    elif study is not None:
        manifest = load_manifest(folder, study)
        labels, sources = manifest.get("variants") or {}, manifest_sources(manifest)
        listed = manifest.get("cell_ids")
        # Trials of a tuning are never judged, not even while there is nothing else.
        if not listed and not manifest.get("tuning"):
            listed = [r["cell_id"] for r in found if r.get("study_hash") == manifest["study_hash"]]
        wanted = set(listed or ()) if wanted is None else wanted & set(listed or ())
    if wanted is not None:
        found = [r for r in found if r["cell_id"] in wanted]
    if numerics_version is not None:
        found = [r for r in found if r["numerics_version"] == numerics_version]
    if fingerprints is not None:
        found = [r for r in found if r["data_fingerprint"] == fingerprints.get(r["dataset"], r["data_fingerprint"])]
    if not found:
        place = folder if artifacts else folder / RECORDS
        raise ValueError(f"{place}: must hold a record of what was selected, got none")
    _refuse_mixtures(found, folder)

    axes, names = _axes(found), _metrics(found)
    table = pd.DataFrame([_row(record, axes, names) for record in found])
    known = [sources.get(r["dataset"], r.get("source_key")) for r in found]
    table["source_key"] = [None if key == name else key for name, key in zip(table["dataset"], known)]
    numbers = [
        c for c in table if c.startswith(("validation.", "test.", "cost.")) and not c.endswith("missing_classes")
    ]
    numbers += ["seconds", "train_seconds", "images_per_second", "peak_bytes"]
    table["variant_label"] = [labels.get(r["variant_id"], label) for r, label in zip(found, table["variant_label"])]
    # None becomes NaN, even where no cell at all has a number.
    table[numbers] = table[numbers].astype(np.float64)
    counts = Counter(table["status"])
    table.attrs = {
        **{status: counts[status] for status in STATUSES},
        "torn": torn,
        "errors": {r["cell_id"]: _message(r) for r in found if r["status"] == "failed"},
        "missing": sorted((wanted or set()) - {r["cell_id"] for r in found}),
        "folder": str(folder),
    }
    return table


def absent_cells(table: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The cells of a study without a result, one row each: variant_id, variant (label), dataset, seed, status, reason.

    table: the study's, from `load_ledger`. status: failed, stopped, or missing (the study includes the variant, data
    set and seed, and there is no record). A search names no variant beforehand: those that have a record count.
    """
    seen = dict(zip(table["variant_id"], table["variant_label"]))
    labels = dict(manifest.get("variants") or {}) | seen
    datasets = dict.fromkeys([*(manifest.get("datasets") or ()), *table["dataset"]])
    seeds = dict.fromkeys([*(manifest.get("seeds") or ()), *table["seed"]])
    columns = ["variant_id", "dataset", "seed", "status", "error"]
    found = {key[:3]: key[3:] for key in table[columns].itertuples(index=False, name=None)}
    rows = []
    for variant_id, dataset, seed in product(labels, datasets, seeds):
        status, error = found.get((variant_id, dataset, seed), ("missing", None))
        if status != "done":
            reason = {"failed": error, "stopped": "stopped before it ended"}.get(status, NEVER_RAN)
            rows.append((variant_id, labels[variant_id], dataset, seed, status, reason))
    return pd.DataFrame(rows, columns=["variant_id", "variant", "dataset", "seed", "status", "reason"])


def _refuse_mixtures(records: list[Record], folder: Path) -> None:
    done = [r for r in records if r["status"] == "done"]
    versions = Counter(r["numerics_version"] for r in done)
    if len(versions) > 1:
        counts = ", ".join(f"{version} ({cells} cells)" for version, cells in sorted(versions.items()))
        raise ValueError(f"{folder}: cells must share a numerics version, got {counts}; select with numerics_version=")
    contents: dict[str, Counter[str]] = {}
    for record in done:
        contents.setdefault(record["dataset"], Counter())[record["data_fingerprint"]] += 1
    for name, prints in contents.items():
        if len(prints) > 1:
            counts = ", ".join(f"{fingerprint} ({cells} cells)" for fingerprint, cells in prints.items())
            raise ValueError(
                f"{folder}: cells on {name} must share one fingerprint, got {counts}; select with fingerprints="
            )
    seen: dict[tuple[Any, ...], str] = {}
    for record in done:
        key = tuple(record[name] for name in ("variant_id", "recipe_id", "dataset", "seed"))
        if key in seen:
            raise ValueError(
                f"{folder}: variant, recipe, data set and seed must name one cell, "
                f"got {seen[key]} and {record['cell_id']} (variant {key[0]}, {key[2]}, seed {key[3]})"
            )
        seen[key] = record["cell_id"]


def _row(record: Record, axes: list[str], names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: record[name] for name in ("cell_id", "variant_id", "recipe_id")}
    row |= {name: record.get(name) for name in DRIVER}
    row["variant_label"] = record.get("variant_label") or record["variant_id"]
    row |= {f"axis.{name}": _scalar(record["variant"].get(name)) for name in axes}
    row |= {name: record[name] for name in ("dataset", "seed", "status")}
    row["source_key"] = None
    row |= {"fingerprint": record["data_fingerprint"], "numerics_version": record["numerics_version"]}
    row |= {name: _scalar(record.get(name)) for name in PLAIN}
    row["classes"] = len(record.get("classes") or ()) or None
    row["error"] = _message(record) if record["status"] == "failed" else None
    for split in SPLITS:
        metrics = record.get(split) or {}
        row |= {f"{split}.{name}": metrics.get(name) for name in names}
        row[f"{split}.missing_classes"] = _scalar(metrics.get("missing_classes") or None)
    cost = record.get("cost") or {}
    return row | {f"cost.{name}": cost.get(name) for name in COSTS}


def _axes(records: list[Record]) -> list[str]:
    """Every axis that some variant sets, in the order of appearance."""
    return list(dict.fromkeys(name for record in records for name in record["variant"]))


def _metrics(records: list[Record]) -> list[str]:
    """The metrics that are columns: all, but for one that needs classes in an order where no record has it."""
    measured = {name for record in records for name in record.get("test") or ()}
    return [name for name in METRICS if CLASSIFICATION.defines(name) or name in measured]


def _scalar(value: Any) -> Any:
    """The value, or its JSON text where it has parts: a table's cell must be comparable and hashable."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _message(record: Record) -> str:
    return f"{record['error']['type']}: {record['error']['message']}"
