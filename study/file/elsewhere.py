"""Variants of other studies, which a contrast may name where recipe, data and seeds are those of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmamba_variants.design.kinds import Keys, SettingError, checked_names
from medmamba_variants.hints import one_of, shown
from medmamba_variants.networks import Network
from study.declaration.definition import GRID, Study
from study.declaration.recipe import Recipe

# What names a variant of another study: the study's file, beside this one where it is a bare name, and a label there.
NAMES = ("study", "variant")
# Keys that decide which cells a study has; options for them hold for the other study, too.
SHARED = ("recipe", "source", "sources", "datasets", "seeds")
Place = tuple[int, str]


def is_elsewhere(value: Any) -> bool:
    """Whether a side of a contrast is a variant of another study."""
    return isinstance(value, Mapping) and "study" in value


def variants_elsewhere(
    contrasts: Sequence[Mapping[str, Any]],
    here: Path,
    own: Mapping[str, Any],
    load: Callable[[Path], Study],
) -> dict[Place, tuple[str, Network]]:
    """The label and variant of each side that stands in another study, by its contrast's index and its name.

    here: the study's file. own: its recipe, source, data sets and seeds. load: reads another file, without its own
    contrasts. Raises SettingError for an unknown label, and where the studies differ, in words.
    """
    found: dict[Place, tuple[str, Network]] = {}
    read: dict[Path, Study] = {}
    for place, value, path in _sides(contrasts):
        checked_names(value, NAMES, path)
        for name in NAMES:
            if not isinstance(value.get(name), str):
                raise SettingError((*path, name), f"must be a text, got {shown(value.get(name))}")
        file = _file(here, value["study"])
        if not file.is_file():
            raise SettingError(
                (*path, "study"), f"must be a study's file or a name beside this one, got {value['study']}"
            )
        if file not in read:
            read[file] = load(file)
        study = read[file]
        difference = _difference(own, study)
        if difference:
            raise SettingError((*path, "study"), f"must have this study's recipe, data and seeds, got {difference}")
        labels = dict(study.variants()) if study.strategy.name == GRID else {}
        if value["variant"] not in labels:
            raise SettingError((*path, "variant"), one_of(value["variant"], labels))
        found[place] = value["variant"], labels[value["variant"]]
    return found


def added(
    grid: Sequence[tuple[str, Network]],
    contrasts: Sequence[Mapping[str, Any]],
    found: Mapping[Place, tuple[str, Network]],
) -> tuple[tuple[str, Network], ...]:
    """A study's grid with the variants of others at its end, each once; a label that is taken names its study, too."""
    grown = list(grid)
    for (index, side), (label, variant) in found.items():
        if any(variant.variant_id == known.variant_id for _, known in grown):
            continue
        taken = any(label == known for known, _ in grown)
        grown.append((f"{label} ({Path(contrasts[index][side]['study']).stem})" if taken else label, variant))
    return tuple(grown)


def _sides(contrasts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Place, Mapping[str, Any], Keys]]:
    for index, contrast in enumerate(contrasts):
        for side in ("baseline", "against"):
            if is_elsewhere(contrast[side]):
                yield (index, side), contrast[side], ("contrasts", index, side)


def _file(here: Path, name: str) -> Path:
    return (here.parent / name if Path(name).suffix in (".yaml", ".yml") else here.with_name(f"{name}.yaml")).resolve()


def _difference(own: Mapping[str, Any], other: Study) -> str:
    """How another study differs from this one in what its cells are, in words; empty where it does not."""
    recipe: Recipe = own["recipe"]
    mine, theirs = recipe.to_dict(), other.recipe.to_dict()
    for key in dict.fromkeys([*mine, *theirs]):
        if mine.get(key) != theirs.get(key):
            return f"recipe.{key} {shown(theirs.get(key))} in {other.name}, {shown(mine.get(key))} here"
    if own["source"] != other.source:
        return f"source {shown(dict(other.source))} in {other.name}, {shown(dict(own['source']))} here"
    if own["tuned"] or other.tuning is not None:
        return f"recipe_axes {'here' if own['tuned'] else f'in {other.name}'}, by which every variant has its own"
    for key in ("datasets", "seeds"):
        absent = [value for value in own[key] if value not in getattr(other, key)]
        if absent:
            return f"{key} {', '.join(map(str, getattr(other, key)))} in {other.name}, without {absent[0]}"
    return ""
