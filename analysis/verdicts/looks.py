"""Looks at a question: when it was first asked as it is asked today, and what of it had been seen by then.

A *question* is a contrast's variants and metric, on data sets with their content, seeds and a recipe. It is *asked* by
a launch. A *look* is a pair of finished cells of both variants, of one seed on one data set: once it is there, it may
have been seen, and whoever changes the question thereafter may do so because of it. That holds for looks under any
recipe, content of the file, grid, metric, margin or study's name.

The register of launches tells which cells had finished when a question was asked. For studies from before there was
one, the order of records stands in: a question is then as old as the first record that a study of it has run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.records.launches import Launch
from analysis.records.schema import Record
from analysis.words import listed

# Groups of looks, and data sets of each, that are named.
LISTED = 4
Pair = tuple[str, int]


@dataclass(frozen=True)
class Look:
    """A seed on a data set that both variants of a contrast have finished. place: of the later record in the ledger.

    recipe: the one of both variants; where each has its own, that of the baseline. is_todays: whether it is the
    question's own, or each variant's own.
    """

    dataset: str
    seed: int
    recipe: str
    numerics: int
    content: str
    source: str
    cells: tuple[str, str]
    place: int
    studies: tuple[str, ...]
    is_todays: bool


@dataclass(frozen=True)
class Asking:
    """A launch that asked a question of some variants on some pairs of data set and seed.

    order: sorts askings by age. seen: ids of the cells that had finished before; None where only `place` is known, the
    ledger's first record that could be the launch's own.
    """

    study: str
    pairs: frozenset[Pair]
    order: tuple[int, float]
    seen: frozenset[str] | None = None
    place: float = math.inf

    def had_seen(self, look: Look) -> bool:
        """Whether both cells of a look had finished when this was asked."""
        return look.place < self.place if self.seen is None else self.seen.issuperset(look.cells)


@dataclass(frozen=True)
class Today:
    """The question as a report asks it: pairs, and the recipes, versions of numbers, contents and sources behind it.

    recipes: of the baseline and of the variant under test, which differ where each was tuned on its own.
    """

    pairs: frozenset[Pair]
    recipes: tuple[frozenset[str], frozenset[str]]
    numerics: frozenset[int]
    contents: Mapping[str, str]
    sources: Mapping[str, str] = field(default_factory=dict)

    def owns(self, look: Look) -> bool:
        """Whether a look is at cells of the question itself, perhaps by an earlier version of the numbers."""
        return (look.dataset, look.seed) in self.pairs and self._is_of(look)

    def is_alike(self, look: Look) -> bool:
        """Whether a look's cells could stand beside the question's in one table, whatever their data set and seed."""
        return look.numerics in self.numerics and self._is_of(look)

    def _is_of(self, look: Look) -> bool:
        known = self.contents.get(look.dataset, look.content)
        return look.is_todays and look.content == known

    @property
    def all_recipes(self) -> frozenset[str]:
        """The recipes of either variant."""
        return self.recipes[0] | self.recipes[1]

    def same_data(self, look: Look) -> list[str]:
        """The question's data sets that a look was at: of that name, content or source."""
        names = dict.fromkeys(dataset for dataset, _ in self.pairs)
        return [
            name
            for name in names
            if name == look.dataset
            or self.contents.get(name) == look.content
            or self.sources.get(name, name) == look.source
        ]


class Records:
    """The records of a ledger by variant, read once for all contrasts."""

    def __init__(self, records: Iterable[Record]) -> None:
        # By variant, then by version of the numbers, content, data set and seed: place and record by recipe.
        self.done: dict[str, dict[tuple[Any, ...], dict[str, tuple[int, Record]]]] = {}
        self.unfinished: dict[str, set[tuple[str, str, int]]] = {}
        # The first records that each study was the first to run: place, recipe, data set, content.
        self.own: dict[str, list[tuple[int, str, str, str]]] = {}
        for place, record in enumerate(records):
            variant, recipe = record["variant_id"], record["recipe_id"]
            dataset, content, seed = record["dataset"], record.get("data_fingerprint") or "", record["seed"]
            study = record.get("study_hash")
            if study:
                self.own.setdefault(study, []).append((place, recipe, dataset, content))
            if record["status"] == "done":
                key = (record["numerics_version"], content, dataset, seed)
                self.done.setdefault(variant, {}).setdefault(key, {})[recipe] = (place, record)
            else:
                self.unfinished.setdefault(variant, set()).add((recipe, dataset, seed))

    def looks(self, baseline: str, against: str, today: Today) -> list[Look]:
        """Every look at two variants under one recipe, or each under today's own, in the order they could be had."""
        first, second = self.done.get(baseline, {}), self.done.get(against, {})
        found = []
        for key, by_recipe in first.items():
            numerics, content, dataset, seed = key
            for recipe, (place, record) in by_recipe.items():
                for other_recipe, (other_place, other) in second.get(key, {}).items():
                    is_todays = recipe in today.recipes[0] and other_recipe in today.recipes[1]
                    if not (is_todays or recipe == other_recipe):
                        continue
                    found.append(
                        Look(
                            dataset, seed, recipe, numerics, content,
                            str(record.get("source_key") or dataset),
                            (str(record.get("cell_id")), str(other.get("cell_id"))),
                            max(place, other_place),
                            tuple(dict.fromkeys(str(r["study"]) for r in (record, other) if r.get("study"))),
                            is_todays,
                        )
                    )  # fmt: skip
        return sorted(found, key=lambda look: look.place)

    def had_its_chance(self, variants: Sequence[str], recipes: Iterable[str], pair: Pair) -> bool:
        """Whether some cell of a pair has run without finishing, so that the pair cannot be finished."""
        return any((recipe, *pair) in self.unfinished.get(variant, ()) for variant in variants for recipe in recipes)

    def first_place(self, study: str, today: Today) -> float:
        """The place of the first record that a study was the first to run of today's recipe and content."""
        places = [
            place
            for place, recipe, dataset, content in self.own.get(study, ())
            if recipe in today.all_recipes and today.contents.get(dataset, content) == content
        ]
        return min(places, default=math.inf)


@dataclass(frozen=True)
class Seen:
    """What had been seen when a question was asked: any of its own cells, looks elsewhere with its seeds, and others.

    again: on the same data by another recipe or content, with some of the question's seeds. apart: with none of them.
    """

    own: bool
    again: tuple[Look, ...]
    apart: tuple[Look, ...]


def seen_by(asking: Asking | None, looks: Iterable[Look], today: Today) -> Seen:
    """The looks that an asking had seen; None: all of them, for it asks now."""
    seen = [look for look in looks if asking is None or asking.had_seen(look)]
    before = [(look, today.same_data(look)) for look in seen if not today.owns(look)]
    again = [look for look, names in before if any((name, look.seed) in today.pairs for name in names)]
    apart = [look for look, names in before if names and look not in again]
    return Seen(any(today.owns(look) for look in seen), tuple(again), tuple(apart))


def told(looks: Sequence[Look], today: Today) -> str:
    """Looks in words, by study and by what differs from today's question."""
    groups: dict[tuple[tuple[str, ...], str], list[Pair]] = {}
    for look in looks:
        differs = [] if look.is_todays else [f"recipe {look.recipe[:8]}"]
        if look.dataset not in today.contents:
            differs.append("another file of the source")
        elif look.content != today.contents[look.dataset]:
            differs.append("other content of the file")
        groups.setdefault((look.studies, ", ".join(differs)), []).append((look.dataset, look.seed))
    parts = []
    for (studies, how), pairs in groups.items():
        seeds = sorted({seed for _, seed in pairs})
        where = listed(list(dict.fromkeys(dataset for dataset, _ in pairs)), LISTED)
        by = ", ".join(filter(None, [f"study {listed(list(studies))}" if studies else "", how]))
        shown = f"seed{'' if len(seeds) == 1 else 's'} {listed([str(seed) for seed in seeds])} on {where}"
        parts.append(f"{shown} ({by})" if by else shown)
    rest = f"; {len(parts) - LISTED} more" if len(parts) > LISTED else ""
    return "; ".join(parts[:LISTED]) + rest


def asked_at_launches(launches: Sequence[Launch], question: tuple[str, str, str], today: Today) -> list[Asking]:
    """The launches that asked a question (baseline, against, metric) with today's recipe and content."""
    found = []
    for index, launch in enumerate(launches):
        data = launch["data"]
        contents = {name: (facts or {}).get("fingerprint") for name, facts in data.items()}
        if (
            list(question) in launch["asked"]
            and today.all_recipes <= {launch["recipe_id"], *launch.get("recipes", ())}
            and all(today.contents.get(name, content) == content for name, content in contents.items())
        ):
            pairs = frozenset((name, int(seed)) for name in data for seed in launch["seeds"])
            seen = frozenset(map(str, launch["seen"]))
            found.append(Asking(launch["study_hash"], pairs, (1, index), seen))
    return found
