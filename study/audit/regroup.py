"""A regrouped copy of a data set: look-alikes share a group, and groups are dealt out to the splits anew."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.audits import faults
from analysis.json_file import read_object
from analysis.tasks import CLASSIFICATION
from analysis.words import counted, listed
from study.audit.alike import Pairs
from study.audit.findings import short_audit
from study.audit.overlap import clusters
from study.audit.pool import Pool
from study.data import load_dataset
from study.data.catalogue import FILE_NAME
from study.data.files.splitting import assigned
from study.data.names import fold_of
from study.data.protocol import SPLITS, Dataset
from study.store.ledger import whole_file

SEED = 0
# Images left out that are named on the terminal; the table has all.
NAMED = 12
# What a catalogue says of the collection; all else may be of the old splits.
KEPT = ("task", "image_size", "channels", "licence", "license", "source", "citation")
GROUPING = "look-alike cluster (perceptual hash and correlation over all splits, mirrored and turned copies included)"


@dataclass(frozen=True, eq=False)
class Regrouping:
    """Where each image of a pool goes: split (n,) place in SPLITS, or −1 where left out; group (n,) a new number."""

    split: np.ndarray
    group: np.ndarray

    @property
    def left_out(self) -> np.ndarray:
        """Rows of the images left out."""
        return np.flatnonzero(self.split < 0)


def regroup(pool: Pool, pairs: Pairs) -> Regrouping:
    """New groups and splits of a pool, the same for the same images.

    Images that a chain of look-alikes or a common group joins get one group. Images with a look-alike of another label
    are left out, since nobody knows which label is right; turned copies of another label stay, since a label may name a
    side. Groups are dealt out such that every split keeps its share of the images, in every class. Raises ValueError
    where look-alikes are too many to be listed.
    """
    if not pairs.complete:
        raise ValueError("look-alikes must be few enough to be listed, got images that hardly differ from each other")
    conflict = pairs.straight & (pool.labels[pairs.first] != pool.labels[pairs.second])
    out = np.zeros(len(pool), dtype=bool)
    out[pairs.first[conflict]] = out[pairs.second[conflict]] = True
    group = _joined(pool, pairs)
    kept = np.flatnonzero(~out)
    counts = np.bincount(pool.splits[kept], minlength=len(SPLITS))
    units = [f"group {number}" for number in group[kept]]
    parts = assigned(units, pool.labels[kept].tolist(), (counts / counts.sum()).tolist(), SEED)
    split = np.full(len(pool), -1)
    split[kept] = parts
    return Regrouping(split, group)


def _joined(pool: Pool, pairs: Pairs) -> np.ndarray:
    """The number of each image's new group (n,), in the order of their first images."""
    alike = clusters(len(pool), pairs)
    if pool.groups is None:
        joined = alike
    else:
        # A graph whose nodes are clusters and old groups, and whose edges are images.
        named, old = np.unique(pool.groups, return_inverse=True)
        n_clusters = int(alike.max()) + 1
        size = n_clusters + len(named)
        links = coo_array((np.ones(len(pool), dtype=bool), (alike, n_clusters + old)), shape=(size, size))
        joined = connected_components(links, directed=False)[1][alike]
    _, firsts, numbers = np.unique(joined, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[numbers]


def fixed(dataset: Dataset, pool: Pool, pairs: Pairs, folder: Path, root: str | None) -> list[str]:
    """Writes a regrouped copy, reads it again, and returns lines on what it holds and what is left of the faults.

    Raises ValueError for a fold, and as `regroup`, `write_copy` and the reading do.
    """
    if fold_of(dataset.info.name)[1] is not None:
        raise ValueError(f"--fix must be given whole data sets, got the fold {dataset.info.name}")
    regrouping = regroup(pool, pairs)
    paths = write_copy(dataset, pool, regrouping, folder, root)
    copy = load_dataset({"kind": "npz", "root": str(folder)}, dataset.info.name)
    counts = ", ".join(f"{split} {len(copy.splits[split]):,}" for split in SPLITS)
    groups = len(np.unique(regrouping.group[regrouping.split >= 0]))
    lines = [f"regrouped: {counts} in {counted(groups, 'group')}; fingerprint {copy.info.fingerprint}"]
    out = regrouping.left_out
    if len(out):
        names = listed([str(pool.ids[row]) for row in out], NAMED)
        lines.append(f"left out, since a look-alike bears another label: {counted(len(out), 'image')}, {names}")
    lines += [f"! {fault}" for fault in faults(short_audit(copy))]
    return [*lines, *(f"wrote  {path}" for path in paths)]


def write_copy(dataset: Dataset, pool: Pool, regrouping: Regrouping, folder: Path, root: str | None) -> list[Path]:
    """Writes the copy as `NAME.npz`, with its entry in datasets.json and `audit/NAME.csv`, which says what went where.

    root: the folder of the original, whose catalogue's entry is kept where it speaks of the collection.
    Raises ValueError where there is such a file already.
    """
    name = dataset.info.name
    path = folder / f"{name}.npz"
    if path.exists():
        raise ValueError(f"{path}: must not be there yet, got a file (--fix never writes over one)")
    images = [dataset.splits[split].images for split in SPLITS]
    starts = np.cumsum([0, *(len(part) for part in images)])
    arrays: dict[str, Any] = {}
    labels = np.concatenate([dataset.splits[split].labels for split in SPLITS])
    kind = np.uint8 if len(dataset.info.classes) <= 256 else np.int64
    for place, split in enumerate(SPLITS):
        rows = np.flatnonzero(regrouping.split == place)
        found = np.stack([images[pool.splits[row]][row - starts[pool.splits[row]]] for row in rows])
        arrays[f"{split}_images"] = found[..., 0] if found.shape[-1] == 1 else found
        own = labels[rows].astype(kind)
        arrays[f"{split}_labels"] = own if own.ndim == 2 else own[:, None]
        arrays[f"{split}_groups"] = regrouping.group[rows].astype(np.int32)
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)
    table = folder / "audit" / f"{name}.csv"
    with whole_file(table) as file:
        file.write(_table(pool, regrouping).encode())
    catalogue = folder / FILE_NAME
    entries = read_object(catalogue, "a catalogue of data sets") if catalogue.is_file() else {}
    entries[name] = _entry(dataset, regrouping, arrays, path, root)
    with whole_file(catalogue) as file:
        file.write(json.dumps(entries, ensure_ascii=False, indent=1).encode() + b"\n")
    return [path, catalogue, table]


def _entry(
    dataset: Dataset,
    regrouping: Regrouping,
    arrays: Mapping[str, np.ndarray],
    path: Path,
    root: str | None,
) -> dict[str, Any]:
    """The copy's entry of datasets.json, with what the original's says of the collection."""
    origin = None if root is None else Path(root) / FILE_NAME
    known = read_object(origin, "a catalogue of data sets") if origin is not None and origin.is_file() else {}
    entry = known.get(dataset.info.name)
    note = f"regrouped and split anew from the set with the fingerprint {dataset.info.fingerprint}"
    if len(regrouping.left_out):
        note += f"; left out: {counted(len(regrouping.left_out), 'image')} whose look-alike bears another label"
    return {
        **{key: value for key, value in (entry if isinstance(entry, dict) else {}).items() if key in KEPT},
        "modality": dataset.info.modality,
        "classes": list(dataset.info.classes),
        **({"task": dataset.info.task} if dataset.info.task != CLASSIFICATION.name else {}),
        "n": {split: len(arrays[f"{split}_labels"]) for split in SPLITS},
        "grouping": GROUPING,
        "source_key": dataset.info.source_key,
        "md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
        "note": note,
    }


def _table(pool: Pool, regrouping: Regrouping) -> str:
    """What went where, an image a row: its new name (empty where it was left out), its old one, class and group."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "was", "class", "group"])
    places = [0] * len(SPLITS)
    for row, split in enumerate(regrouping.split):
        name = "" if split < 0 else f"{SPLITS[split]}/{places[split]}"
        if split >= 0:
            places[split] += 1
        rows.writerow([name, pool.ids[row], pool.classes[pool.labels[row]], int(regrouping.group[row])])
    return text.getvalue()
