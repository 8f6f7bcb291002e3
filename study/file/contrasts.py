"""Contrasts of a study file, declared before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from analysis.verdicts.levels import IN_GENERAL
from medmamba_variants.design.kinds import Keys, SettingError
from medmamba_variants.networks import Network
from study.declaration.definition import Contrast


def parse_contrasts(
    values: list[Mapping[str, Any]],
    grid: tuple[tuple[str, Network], ...],
    named: Mapping[str, Network],
    read_point: Callable[[Mapping[str, Any], Keys], Network],
    scaled: Mapping[str, Network],
    elsewhere: Mapping[tuple[int, str], tuple[str, Network]],
) -> tuple[Contrast, ...]:
    """The contrasts of a study whose variants are `grid` (label, variant); `named` are the variants with a name.

    scaled: by the id of a variant as the file writes it, the one that runs in its place. elsewhere: variants of other
    studies, by the contrast's index and its side. Raises SettingError for a variant outside the grid, for one compared
    with itself, and for a repeated contrast.
    """
    labels = {variant.variant_id: label for label, variant in grid}
    contrasts: list[Contrast] = []
    for index, value in enumerate(values):
        path: Keys = ("contrasts", index)
        sides = {}
        for side in ("baseline", "against"):
            if (index, side) in elsewhere:
                sides[side] = elsewhere[index, side][1]
                continue
            written = read_side(value[side], (*path, side), named, read_point)
            variant = scaled.get(written.variant_id, written)
            if variant.variant_id not in labels:
                raise SettingError(
                    (*path, side),
                    f"must be a variant of the study ({', '.join(labels.values())}), got {value[side]}",
                )
            sides[side] = variant
        contrast = Contrast(
            name=value["name"],
            baseline=sides["baseline"],
            against=sides["against"],
            baseline_label=labels[sides["baseline"].variant_id],
            against_label=labels[sides["against"].variant_id],
            metric=value["metric"],
            margin=float(value["margin"]),
            family=value.get("family", "primary"),
            kind=value.get("kind", "confirmatory"),
            level=value.get("level", IN_GENERAL),
        )
        if contrast.baseline == contrast.against:
            raise SettingError((*path, "against"), f"must differ from baseline, got {value['against']} twice")
        for earlier in contrasts:
            if earlier.name == contrast.name:
                raise SettingError((*path, "name"), f"must be used once, got '{contrast.name}' twice")
            if {earlier.baseline, earlier.against} == {contrast.baseline, contrast.against} and (
                earlier.metric == contrast.metric
            ):
                raise SettingError(
                    path,
                    f"must compare what no other contrast does, got {contrast.metric} of the variants of "
                    f"'{earlier.name}'",
                )
        contrasts.append(contrast)
    return tuple(contrasts)


def read_side(
    value: Any,
    path: Keys,
    named: Mapping[str, Network],
    read_point: Callable[[Mapping[str, Any], Keys], Network],
) -> Network:
    """The variant that a side of a contrast names: by the name it has in the file, or by axes and values."""
    if not isinstance(value, str):
        return read_point(value, path)
    if value not in named:
        known = f"one of variants ({', '.join(named)})" if named else "a mapping of axes to values"
        raise SettingError(path, f"must be {known}, got '{value}'")
    return named[value]
