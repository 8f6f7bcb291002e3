"""Splits that a study declares for data that come without: deterministic, by group, and stratified by class."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medmamba_variants.design.kinds import SettingError
from study.data.declared import SPLIT
from study.data.files.samples import Sample
from study.data.names import FOLD, fold_of

PATH = ("source", "split")
# What a message proposes.
SHARES = {"val": 0.1, "test": 0.2}


def divided(
    samples: Sequence[Sample], split: Mapping[str, Any] | None, absent: Sequence[str], where: str, lack: str
) -> tuple[list[Sample], tuple[str, ...]]:
    """Samples whose absent splits are cut out of train as `split` declares, and a note that says so.

    absent: the splits, val and test or one of them, that the data come without. Raises ValueError, beginning with
    `where`, for one that nobody declares (`lack` says what must hold, with {} for its name, and what came), and
    SettingError for one that is there and declared all the same.
    """
    given = SPLIT.parse(dict(split or {}), PATH)
    seed = given.get("seed", 0)
    # Whichever way round they were written.
    declared = {name: given[name] for name in SHARES if name in given}
    for name in declared:
        if name not in absent:
            raise SettingError((*PATH, name), f"must be left out where the data have a {name} split, got {where}")
    for name in absent:
        if name not in declared:
            proposed = ", ".join(f"{each}: {SHARES[each]}" for each in absent)
            raise ValueError(f"{where}: {lack.format(name)} (source.split cuts it out of train: {{{proposed}}})")
    if not absent:
        return list(samples), ()
    if sum(declared.values()) >= 1:
        raise SettingError(PATH, f"must leave images for train, got shares of {sum(declared.values()):g} together")
    pool = [sample for sample in samples if sample.split == "train"]
    names = ["train", *declared]
    shares = [1 - sum(declared.values()), *declared.values()]
    parts = assigned([unit_of(sample) for sample in pool], [sample.label for sample in pool], shares, seed)
    cut = [replace(sample, split=names[part]) for sample, part in zip(pool, parts)]
    words = ", ".join(f"{name} {share:g}" for name, share in declared.items())
    by = "class and group" if any(sample.group is not None for sample in pool) else "class"
    note = f"split here by {by} with seed {seed}: {words} of {len(pool):,} files"
    return [*cut, *(sample for sample in samples if sample.split != "train")], (note,)


def chosen_fold(name: str, folds: int | None, repeats: int | None = None) -> tuple[str, int | None]:
    """A data set's name without its fold, and the fold. Raises ValueError where the study declares no such fold."""
    base, fold = fold_of(name)
    if repeats is not None and folds is None:
        raise SettingError(("source", "repeats"), f"must be left out where source.folds is not given, got {repeats}")
    last = (folds or 0) * (repeats or 1)
    if (fold is None) != (folds is None) or (fold is not None and not 1 <= fold <= last):
        expected = f"{base}, without source.folds" if folds is None else f"{base}{FOLD}1 … {base}{FOLD}{last}"
        raise ValueError(f"the data set must be {expected}, got {name}")
    return base, fold


def folded(
    samples: Sequence[Sample], folds: int, fold: int, split: Mapping[str, Any] | None, repeats: int | None = None
) -> tuple[list[Sample], tuple[str, ...]]:
    """Samples of all splits dealt out anew for one of several folds, and a note that says so.

    The test splits of all folds are disjoint and hold every image; fold `folds` + 1 is the first of the second repeat,
    and so on: each repeat deals the images out anew. `split` may declare the share of val, of all images,
    and the seed. Raises SettingError for a share of test, which is that of a fold.
    """
    given = SPLIT.parse(dict(split or {}), PATH)
    if "test" in given:
        raise SettingError((*PATH, "test"), f"must be left out where source.folds is given, got {given['test']:g}")
    seed, share = given.get("seed", 0), given.get("val", SHARES["val"])
    if share >= 1 - 1 / folds:
        raise SettingError((*PATH, "val"), f"must leave images for train beside a fold of {folds}, got {share:g}")
    units, labels = [unit_of(sample) for sample in samples], [sample.label for sample in samples]
    repeat, place_in_repeat = divmod(fold - 1, folds)
    # Beyond what a study can declare, so that no seed's second repeat is another seed's first.
    drawn = seed + repeat * (1 << 32)
    parts = assigned(units, labels, [1 / folds] * folds, drawn)
    rest = [place for place, part in enumerate(parts) if part != place_in_repeat]
    of_rest = share / (1 - 1 / folds)
    cut = assigned([units[place] for place in rest], [labels[place] for place in rest], [1 - of_rest, of_rest], drawn)
    names = dict(zip(rest, (("train", "val")[part] for part in cut)))
    by = "class and group" if any(sample.group is not None for sample in samples) else "class"
    which = f"fold {place_in_repeat + 1} of {folds}" + (f", repeat {repeat + 1} of {repeats}" if repeats else "")
    note = (
        f"{which}, by {by} with seed {seed}, val {share:g} of the {len(samples):,} files: folds share "
        "training images, so that they are one source and no independent data sets"
    )
    return [replace(sample, split=names.get(place, "test")) for place, sample in enumerate(samples)], (note,)


def unit_of(sample: Sample) -> str:
    """What must not be divided: a group, else the file."""
    return f"group {sample.group}" if sample.group is not None else f"file {sample.name}"


def assigned(
    units: Sequence[str], labels: Sequence[int | tuple[int, ...]], shares: Sequence[float], seed: int
) -> list[int]:
    """The part of each item, such that an undivided unit lies in one part and every class has its share in each.

    An item of several labels counts in each of them, one of none among those of none.

    Units are dealt out, large ones first, then in the order of a hash of their names and the seed, each to the part
    in which its classes are furthest below their share: least sum over classes of (count - quota)² / class size.
    Written out here, since a split is part of a data set's identity and must not change with a library's version.
    """
    known = sorted(set(units))
    place = {unit: number for number, unit in enumerate(known)}
    several = [label if isinstance(label, tuple) else (label,) for label in labels]
    # One more than the last label stands for none.
    none = max((label for each in several for label in each), default=-1) + 1
    counts = np.zeros((len(known), none + (() in several) or 1))
    pairs = [(place[unit], label) for unit, each in zip(units, several) for label in each or (none,)]
    np.add.at(counts, ([unit for unit, _ in pairs], [label for _, label in pairs]), 1)
    sizes = counts.sum(axis=0)
    # Lags behind the quota of each part and class.
    lag = np.outer(shares, sizes)
    found = np.zeros(len(known), dtype=np.int64)
    for number in sorted(range(len(known)), key=lambda n: (-counts[n].sum(), _digest(seed, known[n]))):
        unit = counts[number]
        has = unit > 0
        part = int((((unit[has] - 2 * lag[:, has]) * unit[has]) / sizes[has]).sum(axis=1).argmin())
        lag[part] -= unit
        found[number] = part
    return [int(found[place[unit]]) for unit in units]


def _digest(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}|{unit}".encode()).digest()
