"""Data sets and seeds that a study asks for and has not run yet, and those left out or added once results were there.

Contrasts are held by their hash; which data sets and seeds they are judged on stands beside them, in the study's file.
Whoever takes out the data sets that speak against a variant, or adds some until p is small, changes neither a contrast
nor a record; whoever looks before the last cell has run may stop at the look that pleases. Manifests tell.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.ledger import read_records
from analysis.records.manifests import Manifest, parsed_manifests
from analysis.records.places import records_folder
from analysis.records.schema import Record
from analysis.verdicts.declared import Contrast, read_declaration
from analysis.words import counted, listed

Pair = tuple[str, int]


def revisions(
    contrast: Contrast,
    manifest: Mapping[str, Any],
    table: pd.DataFrame,
    folder: Path | str,
    records: Sequence[Record] | None = None,
) -> tuple[str, ...]:
    """Why a contrast is no more than exploratory by this; empty where nothing was revised.

    Not run yet: a variant has no record there, not even of a failure; at such an interim look α does not hold.
    Left out: another stored study asked the same of more data sets or seeds, and both variants finished there, by the
    recipe of the table. Added: cells of the table ran first in a study that asked the same of fewer
    (who looks at 6 data sets and at each further one up to 20 finds a difference that is none in 16 % at α = 5 %).
    records: every one that counts in the folder, where it has been read already.
    """
    today = _pairs_of(manifest)
    if not today:
        return ()
    reasons = []
    ran = {variant: set(zip(rows["dataset"], rows["seed"])) for variant, rows in table.groupby("variant_id")}
    waiting = today - (ran.get(contrast.baseline, set()) & ran.get(contrast.against, set()))
    if waiting:
        reasons.append(f"{len(waiting)} of {counted(len(today), 'pair')} of cells have not run yet (an interim look)")
    place, artifacts = records_folder(folder)
    if artifacts:
        return tuple(reasons)
    others = {key: kept for key, kept in parsed_manifests(place).items() if key != manifest.get("study_hash")}
    alike = {key: _pairs_of(kept) for key, kept in others.items() if _asks(kept, contrast)}
    more = {pair for pairs in alike.values() for pair in pairs} - today
    left_out = more & _finished_pairs(contrast, table, place, records) if more else set()
    if left_out:
        reasons.append(f"{_named(left_out, today)} left out, on which both variants had finished in another run of it")
    first = set(table["study_hash"].dropna()) if "study_hash" in table else set()
    earlier = {pair for key, pairs in alike.items() if key in first for pair in pairs}
    added = today - earlier
    if earlier and added:
        reasons.append(
            f"{_named(added, earlier)} added after the first cells had run: p knows nothing of looks between"
        )
    return tuple(reasons)


def _pairs_of(manifest: Mapping[str, Any]) -> set[Pair]:
    return {(str(d), int(s)) for d in manifest.get("datasets") or () for s in manifest.get("seeds") or ()}


def _asks(manifest: Manifest, contrast: Contrast) -> bool:
    try:
        return any(asked.asks_like(contrast) for asked in read_declaration(manifest).contrasts)
    except ValueError:
        return False


def _finished_pairs(
    contrast: Contrast, table: pd.DataFrame, folder: Path, records: Sequence[Record] | None
) -> set[Pair]:
    """Data sets and seeds on which both variants of a contrast have finished, anywhere in the ledger."""
    alike = {name: set(table[name]) for name in ("recipe_id", "numerics_version") if name in table}
    sides: dict[str, set[Pair]] = {contrast.baseline: set(), contrast.against: set()}
    for record in read_records(folder).records if records is None else records:
        same = record["status"] == "done" and all(record[name] in values for name, values in alike.items())
        if same and record["variant_id"] in sides:
            sides[record["variant_id"]].add((record["dataset"], record["seed"]))
    return sides[contrast.baseline] & sides[contrast.against]


def _named(pairs: Iterable[Pair], known: Iterable[Pair]) -> str:
    """Data sets that are new as a whole, then seeds of those that are not."""
    pairs, datasets = sorted(pairs), {dataset for dataset, _ in known}
    whole = list(dict.fromkeys(dataset for dataset, _ in pairs if dataset not in datasets))
    seeds = sorted({seed for dataset, seed in pairs if dataset in datasets})
    parts = [_counted("data set", whole)] if whole else []
    parts += [_counted("seed", [str(seed) for seed in seeds])] if seeds else []
    return f"{' and '.join(parts)} {'was' if len(whole) + len(seeds) == 1 else 'were'}"


def _counted(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'' if len(names) == 1 else 's'} {listed(list(names))}"
