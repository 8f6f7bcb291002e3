"""Variants as values: VariantConfig, a point of the design space, and the named points (presets).

A variant is its difference from the published MedMamba-T: `variant_id` hashes that difference alone, so a new axis
never renames an old result. Hence a default must never change. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from medmamba_variants.design import presets
from medmamba_variants.design.axes import DEFAULTS, find_axis, parse_axis
from medmamba_variants.design.branches import branches_from_split_ratio, is_per_stage, word_of
from medmamba_variants.design.kinds import SettingError, short, to_json
from medmamba_variants.design.rules import check_structure
from medmamba_variants.design.structure import (
    Structure,
    branches_without_dead,
    canonical,
    check_lengths,
    dead_axes,
    dead_error,
    stages_of_branches,
    structure_of,
)
from medmamba_variants.hints import one_of


class VariantConfig:
    """A variant: a value for every axis, the defaults being the published MedMamba-T. See `AXES` for the meanings.

    Axes are read as attributes (`config.d_state`), each in canonical form; `structure` says which component stands
    where. Variants are immutable and hashable, and equal where the network is the same. Raises SettingError (a
    ValueError) for an unknown axis, a value out of bounds, contradictory choices, and an axis that has no effect under
    another choice (which must then keep its default, so that one network has one id).
    """

    def __init__(self, **axes: Any) -> None:
        values = DEFAULTS | {name: parse_axis(name, value) for name, value in axes.items()}
        if "split_ratio" in values:
            raise SettingError(("split_ratio",), "must be given to from_dict, which writes branches; got it here")
        check_lengths(values)
        for name, reason in dead_axes(values).items():
            if values[name] != DEFAULTS[name]:
                raise dead_error((name,), reason, values[name])
        for path, value, reason in branches_without_dead(values)[1]:
            raise dead_error(path, reason, value)
        values = canonical(values)
        check_structure(values)
        self.__dict__["_values"] = values

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], base: VariantConfig | str | None = None) -> VariantConfig:
        """The variant made by applying `mapping` to `base` (a variant, a preset's name, or None for MedMamba-T).

        Keys are axes or `split_ratio`. If the mapping leaves an axis without effect, the base's value there is dropped;
        setting such an axis in the mapping itself raises ValueError, as do unknown keys and bad values.
        """
        start = preset(base) if isinstance(base, str) else base or cls()
        given = {name: parse_axis(name, value) for name, value in mapping.items()}
        if "split_ratio" in given:
            if "branches" in given:
                raise SettingError(("split_ratio",), "and branches set the same axis: give one of them")
            given["branches"] = branches_from_split_ratio(given.pop("split_ratio"))
        values = start._values | given
        check_lengths(values)
        for name, reason in dead_axes(values).items():
            # Repeating the base's value is not a step along the axis, so it is not an error either.
            if name in given and given[name] not in (start._values[name], DEFAULTS[name]):
                raise dead_error((name,), reason, given[name])
            values[name] = DEFAULTS[name]
        if "branches" not in given:
            values["branches"], _ = branches_without_dead(values)
        return cls(**values)

    @property
    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = self.__dict__["_values"]
        return values

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name not in values:
            raise AttributeError(f"a variant has no axis {name!r}")
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a variant never changes: {name} must be given where it is made")

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, VariantConfig) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"VariantConfig({', '.join(f'{name}={value!r}' for name, value in self.diff().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.diff(),)

    def to_dict(self) -> dict[str, Any]:
        """Every axis as plain JSON values."""
        return {name: to_json(value) for name, value in self._values.items()}

    def diff(self, other: VariantConfig | None = None) -> dict[str, Any]:
        """The axes on which this variant differs from `other` (or from MedMamba-T), as plain JSON values, sorted."""
        reference = DEFAULTS if other is None else other._values
        mine = self._values
        return {name: to_json(mine[name]) for name in sorted(mine) if mine[name] != reference[name]}

    @property
    def variant_id(self) -> str:
        """Twelve hexadecimal digits that name the design: a hash of the sorted difference from the defaults."""
        text = json.dumps(self.diff(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def label(self, base: VariantConfig) -> str:
        """A short text for the difference from `base`, such as `split_ratio=0.25`, or `baseline`."""
        dead = dead_axes(self._values)
        parts = []
        for name, value in self.diff(base).items():
            ratio = self.split_ratio if name == "branches" else None
            if ratio is not None:
                parts.append(f"split_ratio={short(to_json(ratio))}")
            elif name not in dead:
                parts.append(f"{name}={short(value)}")
        return " ".join(parts) or "baseline"

    @property
    def split_ratio(self) -> float | tuple[float, ...] | None:
        """The share of channels through ss2d if the branches can be written that way, else None."""
        ratios = []
        for stage in stages_of_branches(self._values):
            # Rounded shares may add up to a little more: six sixths make 1.000002.
            ratio = min(sum(share for share, operator in stage if word_of(operator) == "ss2d"), 1.0)
            if branches_from_split_ratio(parse_axis("split_ratio", ratio)) != stage:
                return None
            ratios.append(parse_axis("split_ratio", ratio))
        return tuple(ratios) if is_per_stage(self.branches) else ratios[0]

    @cached_property
    def structure(self) -> Structure:
        """The components of every stage, and the halvings between them."""
        return structure_of(self._values)

    def dead_axes(self) -> dict[str, str]:
        """The axes that have no effect here, each with the reason in words."""
        return dead_axes(self._values)

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of the map of every stage, for images of a height and width in pixels.

        Raises ValueError where a stage is left without a pixel, naming the stage and the setting that fixes it.
        """
        sizes = [(height // self.patch_size, width // self.patch_size)]
        up = 1 if self.odd_maps == "pad" else 0
        for halving in self.structure.halvings:
            rows, columns = sizes[-1]
            sizes.append(((rows + up) // 2, (columns + up) // 2) if halving.halves else (rows, columns))
        for stage, size in enumerate(sizes):
            if 0 in size:
                mend = "odd_maps=pad or " if self.odd_maps == "truncate" and 0 not in sizes[0] else ""
                raise ValueError(
                    f"every stage must keep a pixel, but stage {stage} is empty for images of {height}×{width} with "
                    f"patch_size={self.patch_size} and odd_maps={self.odd_maps}: set {mend}a smaller patch_size"
                )
        return sizes


def _made(values: dict[str, Any]) -> VariantConfig:
    return VariantConfig(**values)


def preset(name: str) -> VariantConfig:
    """The variant of a preset's name. Raises ValueError with a suggestion for an unknown name."""
    if name not in PRESETS:
        raise SettingError((), f"preset {one_of(name, PRESETS)}")
    return PRESETS[name]


def axis_schema(name: str) -> dict[str, Any]:
    """The JSON schema of one value of an axis (or of split_ratio)."""
    axis = find_axis(name)
    return axis.kind.schema() | {"description": axis.meaning}


PRESETS: dict[str, VariantConfig] = {name: VariantConfig(**axes) for name, (_, axes) in presets.PRESETS.items()}
