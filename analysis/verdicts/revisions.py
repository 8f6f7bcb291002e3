"""Revisions of a study: what was changed, left out, added or asked again once results could be seen.

A hash pins contrasts, but not the data sets and seeds that they are judged on, nor the recipe. Removing the data sets
that speak against a variant, adding seeds until p is small, or trying recipes, metrics and files changes neither a
contrast nor a record; and looking before the last cell has run allows stopping at a look that pleases. So a verdict is
confirmatory only where its question was asked before any look at the same variants and data, or on fresh seeds after
it (`analysis.verdicts.looks`); whatever was looked at before is told beside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.launches import read_launches
from analysis.records.ledger import read_records
from analysis.records.manifests import Manifest, parsed_manifests
from analysis.records.places import RECORDS, records_folder
from analysis.records.schema import Record
from analysis.records.sources import manifest_sources
from analysis.records.table import sources_of
from analysis.verdicts.declared import Contrast, read_declaration
from analysis.verdicts.looks import Asking, Pair, Records, Today, asked_at_launches, seen_by, told
from analysis.words import counted, listed

# The keys of a record that say which variant has finished where, and when: in the order of the ledger.
TOLD = (
    "status",
    "recipe_id",
    "numerics_version",
    "variant_id",
    "dataset",
    "seed",
    "cell_id",
    "data_fingerprint",
    "source_key",
    "study",
    "study_hash",
)


@dataclass(frozen=True)
class History:
    """What revisions say of a contrast: why it is only exploratory, and what else a reader must know."""

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Revisions:
    """What a ledger says about how a study came about, read once for all contrasts of its manifest and table.

    records: every one that counts in the folder, in its order, with at least the keys `TOLD`, if they have already been
    read.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        table: pd.DataFrame,
        folder: Path | str,
        records: Sequence[Record] | None = None,
    ) -> None:
        self._today = frozenset(_pairs_of(manifest))
        self._table, self._told = table, records
        self._ran: dict[str, set[Pair]] = {}
        if not self._today:
            return
        for variant, dataset, seed in zip(table["variant_id"], table["dataset"], table["seed"]):
            self._ran.setdefault(variant, set()).add((dataset, seed))
        self._place, artifacts = records_folder(folder)
        self._key = str(manifest.get("study_hash"))
        self._is_artifacts = bool(artifacts)
        manifests = {} if artifacts else parsed_manifests(self._place)
        self._launches = [] if artifacts else read_launches(self._place)
        self._studies = {key: (_contrasts(kept), _pairs_of(kept)) for key, kept in manifests.items()}
        self._studies[self._key] = (_contrasts(manifest), set(self._today))
        self._sources = {**sources_of(table), **manifest_sources(manifest)}
        self._moved = self._moved_sources(manifest_sources(manifest))

    def history(self, contrast: Contrast, others: Sequence[str] = ()) -> History:
        """What revisions say of a contrast; nothing where the study is as it was first asked.

        Not run yet: a variant has no record there, not even of a failure; at such an interim look α does not hold.
        Left out, or added: the question was first asked with more, or fewer, data sets or seeds, and looked at (looking
        at 6 data sets and again at each further one up to 20 finds a difference where there is none in 16 % of studies
        at α = 5 %). Compared before: the same variants on the same data, under another recipe or content, with some of
        today's seeds. With none of them, today's seeds are fresh, and it is only told. others: reasons found elsewhere,
        which may say the same.
        """
        if not self._today:
            return History()
        reasons = []
        waiting = self._today - (self._ran.get(contrast.baseline, set()) & self._ran.get(contrast.against, set()))
        if waiting:
            reasons.append(
                f"{len(waiting)} of {counted(len(self._today), 'pair')} of cells have not run yet (an interim look)"
            )
        today = self._question(contrast)
        looks = self._records.looks(contrast.baseline, contrast.against, today)
        finished = {(look.dataset, look.seed) for look in looks if today.is_alike(look)}
        askings = self._askings(contrast, today)
        first = next(asking for asking in askings if self._covers(asking, contrast, today, finished))
        seen = seen_by(first, looks, today)
        changed = self._changes(askings, contrast, today, finished) if seen.own else []
        if seen.own and not changed and not others:
            changed.append("its cells had run before it was asked")
        reasons += [*changed, *self._moved]
        if seen.again:
            looked = told(seen.again, today)
            reasons.append(f"compared before on these data with some of these seeds: {looked}; fresh seeds would tell")
        # Those of today's recipe that are no longer in it have been named where it was looked at.
        apart = [look for look in seen.apart if not (seen.own and today.is_alike(look))]
        notes = [f"compared before on these data with other seeds: {told(apart, today)}"] if apart else []
        also = {a.pairs for a in askings if a.pairs & today.pairs and not self._covers(a, contrast, today, finished)}
        if also and not changed:
            notes.append(f"asked in this store on {counted(len(also), 'other choice')} of data sets and seeds, too")
        return History(tuple(reasons), tuple(notes))

    def _moved_sources(self, now: Mapping[str, str]) -> list[str]:
        """Data sets whose source has changed since the study's first launch: its hash holds only those it names."""
        first = next((launch for launch in self._launches if launch["study_hash"] == self._key), None)
        then = {} if first is None else {name: facts.get("source_key") for name, facts in first["data"].items()}
        return [
            f"the source of {name} was {key} at its first launch, and is {now[name]} now"
            for name, key in then.items()
            if now.get(name, key) != key
        ]

    def _question(self, contrast: Contrast) -> Today:
        sides = [self._by_variant.get(variant, []) for variant in (contrast.baseline, contrast.against)]
        first, second = (frozenset(row["recipe_id"] for row in side) for side in sides)
        rows = [row for side in sides for row in side]
        return Today(
            pairs=self._today,
            # Of a variant without a cell, what the other one has.
            recipes=(first or second, second or first),
            numerics=frozenset(row["numerics_version"] for row in rows),
            contents={row["dataset"]: row["data_fingerprint"] for row in rows},
            sources=self._sources,
        )

    def _askings(self, contrast: Contrast, today: Today) -> list[Asking]:
        """Every time that the contrast was asked with today's recipe and content, oldest first, today's among them."""
        question = (contrast.baseline, contrast.against, contrast.metric)
        found = asked_at_launches(self._launches, question, today)
        registered = {asking.study for asking in found}
        for key, (contrasts, pairs) in self._studies.items():
            is_alike = any(asked.asks_like(contrast) for asked in contrasts)
            place = self._records.first_place(key, today)
            # Of a study that ran nothing of its own nobody knows when it asked; today's has been asked by now.
            if key not in registered and (key == self._key or (is_alike and place < math.inf)):
                found.append(Asking(key, frozenset(pairs), (0 if place < math.inf else 2, place), None, place))
        return sorted(found, key=lambda asking: asking.order)

    def _covers(self, asking: Asking, contrast: Contrast, today: Today, finished: set[Pair]) -> bool:
        """Whether an asking was of today's pairs and of no others, but such as ran in vain."""
        if asking.study == self._key:
            return True
        others = asking.pairs - today.pairs
        return (
            asking.pairs >= today.pairs and not others & finished and others <= self._in_vain(contrast, today, others)
        )

    def _in_vain(self, contrast: Contrast, today: Today, pairs: Iterable[Pair]) -> set[Pair]:
        sides = (contrast.baseline, contrast.against)
        return {pair for pair in pairs if self._records.had_its_chance(sides, today.all_recipes, pair)}

    def _changes(self, askings: Sequence[Asking], contrast: Contrast, today: Today, finished: set[Pair]) -> list[str]:
        """What other askings of some of today's pairs had beyond them, and what today's has beyond the oldest."""
        others = [asking for asking in askings if asking.study != self._key and asking.pairs & today.pairs]
        more = {pair for asking in others for pair in asking.pairs} - today.pairs
        reasons = []
        if more & finished:
            named = _named(more & finished, today.pairs)
            reasons.append(f"{named} left out, on which both variants had finished in another run of it")
        own = next(asking.order for asking in askings if asking.study == self._key)
        older = [asking for asking in others if asking.order < own]
        if not older:
            return reasons
        planned = {pair for asking in older for pair in asking.pairs} - today.pairs - finished
        never = planned - self._in_vain(contrast, today, planned)
        if never:
            reasons.append(
                f"{_named(never, today.pairs)} left out before running: whoever looks may stop when p is small"
            )
        added = today.pairs - older[0].pairs
        if added:
            named = _named(added, older[0].pairs)
            reasons.append(f"{named} added after the first cells had run: p knows nothing of looks between")
        return reasons

    @cached_property
    def _by_variant(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for row in _rows(self._table):
            found.setdefault(row["variant_id"], []).append(row)
        return found

    @cached_property
    def _records(self) -> Records:
        if self._told is not None:
            return Records(self._told)
        # A table without a ledger is all that is known.
        has_ledger = self._is_artifacts or (self._place / RECORDS).is_file()
        return Records(read_records(self._place).records if has_ledger else _rows(self._table))


def _rows(table: pd.DataFrame) -> list[Record]:
    """A table's rows with the keys of `TOLD`, as records have them."""
    blank: dict[str, Any] = {"recipe_id": "", "numerics_version": 0, "status": "done", "cell_id": ""}
    names = {name: {"data_fingerprint": "fingerprint"}.get(name, name) for name in TOLD}
    columns = {
        name: table[column].tolist() if column in table else [blank.get(name)] * len(table)
        for name, column in names.items()
    }
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    for row in rows:
        row["data_fingerprint"] = row["data_fingerprint"] or ""
    return rows


def _pairs_of(manifest: Mapping[str, Any]) -> set[Pair]:
    return {(str(d), int(s)) for d in manifest.get("datasets") or () for s in manifest.get("seeds") or ()}


def _contrasts(manifest: Manifest | Mapping[str, Any]) -> tuple[Contrast, ...]:
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
