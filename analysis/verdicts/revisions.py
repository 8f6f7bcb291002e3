"""Data sets and seeds that a study asks for and has not run yet, and those left out or added once results were there.

Contrasts are held by their hash; which data sets and seeds they are judged on stands beside them, in the study's file.
Whoever takes out the data sets that speak against a variant, or adds some until p is small, changes neither a contrast
nor a record; whoever looks before the last cell has run may stop at the look that pleases. Manifests tell.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
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
# What of a record tells where its variant has finished.
TOLD = ("status", "recipe_id", "numerics_version", "variant_id", "dataset", "seed")


class Revisions:
    """What a ledger tells of how a study came about, read once for all contrasts of its manifest and table.

    records: every one that counts in the folder, with the keys `TOLD` at least, where it has been read already.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        table: pd.DataFrame,
        folder: Path | str,
        records: Sequence[Record] | None = None,
    ) -> None:
        self._today = _pairs_of(manifest)
        self._table, self._records = table, records
        self._ran: dict[str, set[Pair]] = {}
        if not self._today:
            return
        for variant, dataset, seed in zip(table["variant_id"], table["dataset"], table["seed"]):
            self._ran.setdefault(variant, set()).add((dataset, seed))
        self._place, artifacts = records_folder(folder)
        others = {} if artifacts else parsed_manifests(self._place)
        others.pop(str(manifest.get("study_hash")), None)
        self._others = {key: (_contrasts(kept), _pairs_of(kept)) for key, kept in others.items()}
        self._first = set(table["study_hash"].dropna()) if "study_hash" in table else set()

    def reasons(self, contrast: Contrast) -> tuple[str, ...]:
        """Why a contrast is no more than exploratory by this; empty where nothing was revised.

        Not run yet: a variant has no record there, not even of a failure; at such an interim look α does not hold.
        Left out: another stored study asked the same of more data sets or seeds, and both variants finished there, by
        the recipe of the table. Added: cells of the table ran first in a study that asked the same of fewer
        (who looks at 6 data sets and at each further one up to 20 finds a difference that is none in 16 % at α = 5 %).
        """
        today, reasons = self._today, []
        if not today:
            return ()
        waiting = today - (self._ran.get(contrast.baseline, set()) & self._ran.get(contrast.against, set()))
        if waiting:
            reasons.append(
                f"{len(waiting)} of {counted(len(today), 'pair')} of cells have not run yet (an interim look)"
            )
        alike = {
            key: pairs
            for key, (contrasts, pairs) in self._others.items()
            if any(asked.asks_like(contrast) for asked in contrasts)
        }
        more = {pair for pairs in alike.values() for pair in pairs} - today
        left_out = more & self._finished_on_both(contrast) if more else set()
        if left_out:
            named = _named(left_out, today)
            reasons.append(f"{named} left out, on which both variants had finished in another run of it")
        earlier = {pair for key, pairs in alike.items() if key in self._first for pair in pairs}
        added = today - earlier
        if earlier and added:
            reasons.append(
                f"{_named(added, earlier)} added after the first cells had run: p knows nothing of looks between"
            )
        return tuple(reasons)

    def _finished_on_both(self, contrast: Contrast) -> set[Pair]:
        """Data sets and seeds on which both variants of a contrast have finished, anywhere in the ledger."""
        return self._finished.get(contrast.baseline, set()) & self._finished.get(contrast.against, set())

    @cached_property
    def _finished(self) -> dict[str, set[Pair]]:
        names = ("recipe_id", "numerics_version")
        alike = {name: set(self._table[name]) for name in names if name in self._table}
        found: dict[str, set[Pair]] = {}
        for record in read_records(self._place).records if self._records is None else self._records:
            if record["status"] == "done" and all(record[name] in values for name, values in alike.items()):
                found.setdefault(record["variant_id"], set()).add((record["dataset"], record["seed"]))
        return found


def _pairs_of(manifest: Mapping[str, Any]) -> set[Pair]:
    return {(str(d), int(s)) for d in manifest.get("datasets") or () for s in manifest.get("seeds") or ()}


def _contrasts(manifest: Manifest) -> tuple[Contrast, ...]:
    """What a manifest declares; nothing where it breaks the rules."""
    try:
        return read_declaration(manifest).contrasts
    except ValueError:
        return ()


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
