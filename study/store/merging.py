"""Merger of ledgers: the cells of several stores in one, each once, with their files, manifests and launches."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.json_file import read_object
from analysis.records.launches import merged_launches, read_launches
from analysis.records.places import ledger_folder
from analysis.records.schema import Record, shortened
from study.store.ledger import Ledger, whole_file

# What a finished cell found out; the rest says when, where and for which study.
RESULTS = ("classes", "cost", "best_epoch", "curves", "validation", "test")
# Files beside the records that a record names, and folders of files whose names say what they hold.
NAMED = ("probabilities", "weights")
FOLDERS = ("audits",)


@dataclass(frozen=True)
class Held:
    """A record as one of the stores holds it."""

    ledger: Ledger
    record: Record

    def file(self, kind: str) -> Path | None:
        """The file of a kind that the record names."""
        name = self.record.get(kind)
        return self.ledger.folder / name if isinstance(name, str) else None


@dataclass
class Merged:
    """What a merger found: cells that are new in the target, how many stores shared, and where stores disagree."""

    cells: list[Held] = field(default_factory=list)
    total: int = 0
    shared: int = 0
    conflicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def merge(stores: Sequence[Path], into: Path, *, first: bool = False) -> Merged:
    """Brings all that several stores hold into one, which may hold something already; a second time changes nothing.

    A finished cell of several stores is kept once: as the target has it, else as the store named first has it, with
    weights where any has them. Where two results of a cell differ, nothing is written, unless `first` says that the
    earlier store is right. Raises ValueError, one line, for a store without a ledger, and for what is wrong in one.
    """
    ledgers = [Ledger(ledger_folder(store)) for store in stores]
    target = Ledger(into / "ledger")
    if target.folder in [ledger.folder for ledger in ledgers]:
        raise ValueError(f"--into must be a folder of its own (it keeps what it holds), got {into} among the stores")
    found = Merged()
    chosen: dict[str, Held] = {}
    for ledger in (target, *ledgers):
        for record in ledger.reading().records:
            _take(chosen, Held(ledger, record), found)
        found.notes += ledger.warnings
    found.total = len(chosen)
    found.cells = [held for held in chosen.values() if held.ledger is not target]
    # In the order in which they ended, as one store would have them.
    found.cells.sort(key=lambda held: str(held.record.get("finished") or ""))
    if found.conflicts and not first:
        return found
    launches = merged_launches(
        [read_launches(ledger.folder) for ledger in (target, *ledgers)],
        [record for ledger in (target, *ledgers) for record in ledger.reading().records],
    )
    for held in found.cells:
        _copy_files(held, target)
    # Launches and manifests first: a record without them would look as if nobody had asked.
    target.replace_launches(launches)
    _merge_manifests(ledgers, target)
    for folder in FOLDERS:
        for ledger in ledgers:
            for path in _files(ledger.folder / folder):
                _copy(path, target.folder / folder / path.name)
    target.adopt([held.record for held in found.cells])
    found.notes += _merge_journals(stores, into)
    return found


def _take(chosen: dict[str, Held], held: Held, found: Merged) -> None:
    """Puts a record where it counts: finished before failed, and of two that finished the first."""
    cell_id = held.record["cell_id"]
    earlier = chosen.get(cell_id)
    if earlier is None:
        chosen[cell_id] = held
        return
    found.shared += 1
    done = [each.record["status"] == "done" for each in (earlier, held)]
    if done == [True, True]:
        found.conflicts += differences(earlier, held)
        kept = earlier.file("weights")
        if kept is None and held.file("weights") is not None and not differences(earlier, held):
            chosen[cell_id] = held
    elif done[1] or (not done[0] and _ended(held) > _ended(earlier)):
        chosen[cell_id] = held


def _ended(held: Held) -> str:
    return str(held.record.get("finished") or "")


def differences(one: Held, other: Held) -> list[str]:
    """Where two finished records of one cell disagree: one line, or none where results and probabilities are equal."""
    where = f"{one.ledger.folder.parent} and {other.ledger.folder.parent}"
    record = one.record
    cell = f"cell {record['cell_id']} ({record.get('variant_label') or record['variant_id']} · {record['dataset']} · "
    cell += f"seed {record['seed']})"
    for key in RESULTS:
        path = _first_difference(record.get(key), other.record.get(key), key)
        if path is not None:
            name, mine, theirs = path
            return [f"{cell}: {name} is {shortened(mine)} and {shortened(theirs)} in {where}"]
    files = [each.file("probabilities") for each in (one, other)]
    if all(file is not None and file.is_file() for file in files) and not _equal_arrays(*files):
        return [f"{cell}: its probabilities differ in {where}"]
    return []


def _first_difference(one: Any, other: Any, where: str) -> tuple[str, Any, Any] | None:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        pairs: Iterator[tuple[str, Any, Any]] = (
            (f"{where}.{key}", one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other])
        )
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = ((f"{where}[{index}]", *pair) for index, pair in enumerate(zip(one, other, strict=True)))
    else:
        return None if one == other else (where, one, other)
    return next((found for name, a, b in pairs if (found := _first_difference(a, b, name)) is not None), None)


def _equal_arrays(one: Path | None, other: Path | None) -> bool:
    assert one is not None and other is not None
    if one.read_bytes() == other.read_bytes():
        return True
    with np.load(one, allow_pickle=False) as first, np.load(other, allow_pickle=False) as second:
        return set(first.files) == set(second.files) and all(
            np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f") for name in first.files
        )


def _copy_files(held: Held, target: Ledger) -> None:
    for kind in NAMED:
        path = held.file(kind)
        if path is None:
            continue
        if not path.is_file():
            raise ValueError(f"{path}: must be there, since a record names it, got nothing")
        place = target.folder / str(held.record[kind])
        # One of the same name belongs to a record that no longer counts.
        if not place.is_file() or not filecmp.cmp(path, place, shallow=False):
            _write(path, place)


def _merge_manifests(ledgers: Sequence[Ledger], target: Ledger) -> None:
    """Every study's manifest once: that of the target, else of the first store, with the cells that any knows."""
    names = {path.name for ledger in ledgers for path in _files(ledger.studies_folder, ".json")}
    for name in sorted(names):
        places = [ledger.studies_folder / name for ledger in (target, *ledgers)]
        found = [read_object(path, "a study's manifest") for path in places if path.is_file()]
        merged = dict(found[0])
        lists = [manifest["cell_ids"] for manifest in found if manifest.get("cell_ids") is not None]
        if lists:
            merged["cell_ids"] = list(dict.fromkeys(cell_id for cells in lists for cell_id in cells))
        if "tuning" in merged:
            choices: dict[str, Any] = {}
            for manifest in reversed(found):
                choices |= manifest.get("tuning", {}).get("choices", {})
            merged["tuning"] = {**merged["tuning"], "choices": choices}
        if not places[0].is_file() or merged != found[0]:
            target.write_manifest(Path(name).stem, merged)


def _merge_journals(stores: Sequence[Path], into: Path) -> list[str]:
    """Copies the proposals of searches; where two stores have gone different ways, says which was kept."""
    notes = []
    for store in stores:
        for path in _files(store / "optuna"):
            place = into / "optuna" / path.name
            if not place.is_file():
                _copy(path, place)
            elif not place.read_bytes().startswith(path.read_bytes()):
                if path.read_bytes().startswith(place.read_bytes()):
                    _write(path, place)
                else:
                    notes.append(f"{path}: the proposals of this search were left out, {place} has others")
    return notes


def _files(folder: Path, suffix: str = "") -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and p.name.endswith(suffix))


def _copy(path: Path, place: Path) -> None:
    if not place.is_file():
        _write(path, place)


def _write(path: Path, place: Path) -> None:
    with whole_file(place) as file, path.open("rb") as source:
        shutil.copyfileobj(source, file)
