"""Revisions of a study: data sets and seeds not run yet, and those left out or added after results were known.

A hash pins contrasts, but not the data sets and seeds that they are judged on. Removing the data sets that speak
against a variant, or adding some until p is small, changes neither a contrast nor a record; and looking before the last
cell has run allows stopping at a look that pleases. Comparing manifests reveals both.
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
# The keys of a record that say where its variant has finished.
TOLD = ("status", "recipe_id", "numerics_version", "variant_id", "dataset", "seed")


class Revisions:
    """What a ledger says about how a study came about, read once for all contrasts of its manifest and table.

    records: every one that counts in the folder, with at least the keys `TOLD`, if they have already been read.
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
        """Why revisions make a contrast exploratory; empty where nothing was revised.

        Not run yet: a variant has no record there, not even of a failure; at such an interim look α does not hold.
        Left out: another stored study had the same contrast on more data sets or seeds, and both variants finished
        there, with the table's recipe. Added: cells of the table ran first in a study that had it on fewer (looking at
        6 data sets and again at each further one up to 20 finds a difference where there is none in 16 % of studies at
        α = 5 %).
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
    """The contrasts that a manifest declares; none where it breaks the rules."""
    try:
        return read_declaration(manifest).contrasts
    except ValueError:
        return ()


def _named(pairs: Iterable[Pair], known: Iterable[Pair]) -> str:
    """Data sets and seeds in words: first data sets that are new as a whole, then seeds of those that are not."""
    pairs, datasets = sorted(pairs), {dataset for dataset, _ in known}
    whole = list(dict.fromkeys(dataset for dataset, _ in pairs if dataset not in datasets))
    seeds = sorted({seed for dataset, seed in pairs if dataset in datasets})
    parts = [_counted("data set", whole)] if whole else []
    parts += [_counted("seed", [str(seed) for seed in seeds])] if seeds else []
    return f"{' and '.join(parts)} {'was' if len(whole) + len(seeds) == 1 else 'were'}"


def _counted(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'' if len(names) == 1 else 's'} {listed(list(names))}"
