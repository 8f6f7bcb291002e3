"""VariantConfig: a point of the design space as a value, and the named points (presets).

A variant is its difference from the published MedMamba-T: `variant_id` hashes that difference alone, so a new axis
never renames an old result. Hence a default must never change. No torch here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.axes import AXES, find_axis, parse_axis
from medmamba_variants.design.branches import Branches, branch_widths, branches_from_split_ratio, is_per_stage
from medmamba_variants.design.kinds import SettingError, short, to_json
from medmamba_variants.design.orders import directions_of
from medmamba_variants.hints import one_of


@dataclass(frozen=True)
class VariantConfig:
    """One variant: one field an axis, the defaults being the published MedMamba-T. See `axes.AXES` for the meanings.

    Raises ValueError for a value out of bounds, for choices that contradict each other, and for an axis that has no
    effect under another choice (it must then keep its default, so that one network has one id).
    """

    patch_size: int = 4
    depths: tuple[int, ...] = (2, 2, 4, 2)
    dims: tuple[int, ...] = (96, 192, 384, 768)
    branches: Branches | tuple[Branches, ...] = ((0.5, "conv"), (0.5, "ss2d"))
    fusion: str = "shuffle"
    shuffle_groups: int = 2
    d_state: int = 16
    expand: float = 2.0
    d_conv: int = 3
    dt_rank: int | str = "auto"
    scan_directions: str | tuple[str, ...] = "cross4"
    downsampling: str = "patch_merging"
    odd_maps: str = "truncate"
    drop_path_rate: float = 0.1
    input_channels: int | str = "data"

    def __post_init__(self) -> None:
        for name in AXES:
            object.__setattr__(self, name, parse_axis(name, getattr(self, name)))
        _check_stages(self)
        if is_per_stage(self.branches) and len(set(self.branches)) == 1:
            object.__setattr__(self, "branches", self.branches[0])
        for name, reason in dead_axes(self).items():
            if getattr(self, name) != _DEFAULTS[name]:
                raise _dead(name, reason, getattr(self, name))
        _check_widths(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], base: VariantConfig | str | None = None) -> VariantConfig:
        """The variant that `mapping` makes of `base` (a variant, a preset's name, or nothing for MedMamba-T).

        Keys are axes or `split_ratio`. What the base sets on an axis that the mapping makes dead is forgotten; what the
        mapping itself sets on a dead axis raises ValueError, as do unknown keys and bad values.
        """
        start = preset(base) if isinstance(base, str) else base or cls()
        given = {name: parse_axis(name, value) for name, value in mapping.items()}
        if "split_ratio" in given:
            if "branches" in given:
                raise SettingError(("split_ratio",), "and branches set the same axis: give one of them")
            given["branches"] = branches_from_split_ratio(given.pop("split_ratio"))
        fields = start._fields() | given
        _check_stages_of(fields)
        for name, reason in dead_axes(_Fields(fields)).items():
            # Repeating the base's value is no step along the axis, so it is not an error either.
            if name in given and given[name] not in (getattr(start, name), _DEFAULTS[name]):
                raise _dead(name, reason, given[name])
            fields[name] = _DEFAULTS[name]
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Every axis as plain JSON values."""
        return {name: to_json(value) for name, value in self._fields().items()}

    def diff(self, other: VariantConfig | None = None) -> dict[str, Any]:
        """The axes on which this variant differs from `other` (or from MedMamba-T), as plain JSON values, sorted."""
        reference = _DEFAULTS if other is None else other._fields()
        mine = self._fields()
        return {name: to_json(mine[name]) for name in sorted(mine) if mine[name] != reference[name]}

    @property
    def variant_id(self) -> str:
        """Twelve hexadecimal digits that name the design: a hash of the sorted difference from the defaults."""
        text = json.dumps(self.diff(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def label(self, base: VariantConfig) -> str:
        """A short human text of the difference from `base`, such as `split_ratio=0.25`, or `baseline`."""
        dead = dead_axes(self)
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
        """The share of channels through ss2d, where the branches can be written that way; otherwise None."""
        ratios = []
        for stage in self.stages_of_branches():
            # Rounded shares may add up to a little more: six sixths make 1.000002.
            ratio = min(sum(share for share, operator in stage if operator == "ss2d"), 1.0)
            if branches_from_split_ratio(parse_axis("split_ratio", ratio)) != stage:
                return None
            ratios.append(parse_axis("split_ratio", ratio))
        return tuple(ratios) if is_per_stage(self.branches) else ratios[0]

    def stages_of_branches(self) -> tuple[Branches, ...]:
        """The branches of every stage."""
        return _stages_of_branches(self)

    def widths(self, stage: int) -> tuple[int, ...]:
        """Channels of each branch of a stage; they add up to the stage's channels."""
        return branch_widths(self.stages_of_branches()[stage], self.dims[stage])

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of the map of every stage, for images of that height and width in pixels.

        Raises ValueError where a stage is left without a pixel, naming the stage and the setting that mends it.
        """
        sizes = [(height // self.patch_size, width // self.patch_size)]
        for _ in self.depths[1:]:
            up = 1 if self.odd_maps == "pad" else 0
            sizes.append(((sizes[-1][0] + up) // 2, (sizes[-1][1] + up) // 2))
        for stage, size in enumerate(sizes):
            if 0 in size:
                mend = "odd_maps=pad or " if self.odd_maps == "truncate" and 0 not in sizes[0] else ""
                raise ValueError(
                    f"every stage must keep a pixel, but stage {stage} is empty for images of {height}×{width} with "
                    f"patch_size={self.patch_size} and odd_maps={self.odd_maps}: set {mend}a smaller patch_size"
                )
        return sizes

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the scan directions, in the order of their parameters."""
        return directions_of(self.scan_directions)

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in AXES}


# What an axis may need to have any effect: key → (what is missing, in words; whether a variant has it).
NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "ss2d": (
        "branches (or split_ratio) hold no ss2d",
        lambda v: any(operator == "ss2d" for stage in _stages_of_branches(v) for _, operator in stage),
    ),
    "late_ss2d": (
        "branches (or split_ratio) hold no ss2d after the first block",
        lambda v: _has_late_ss2d(v),
    ),
    "two_branches": (
        "branches (or split_ratio) leave every stage a single branch",
        lambda v: any(len(stage) > 1 for stage in _stages_of_branches(v)),
    ),
    "shuffle": ("fusion is not shuffle", lambda v: v.fusion == "shuffle"),
    "two_stages": ("depths name a single stage", lambda v: len(v.depths) > 1),
}


def dead_axes(variant: Any) -> dict[str, str]:
    """The axes that have no effect in a variant, each with the reason in words. Takes anything with the fields."""
    return {
        axis.name: NEEDS[need][0]
        for axis in AXES.values()
        for need in reversed(axis.needs)
        if not NEEDS[need][1](variant)
    }


def preset(name: str) -> VariantConfig:
    """A named variant. Raises ValueError with a suggestion for an unknown name."""
    if name not in PRESETS:
        raise SettingError((), f"preset {one_of(name, PRESETS)}")
    return PRESETS[name]


def axis_schema(name: str) -> dict[str, Any]:
    """The JSON schema of one value of an axis (or of split_ratio)."""
    axis = find_axis(name)
    return axis.kind.schema() | {"description": axis.meaning}


class _Fields:
    """A mapping read by attribute: fields that are not yet known to make a variant."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(fields)


def _stages_of_branches(variant: Any) -> tuple[Branches, ...]:
    if is_per_stage(variant.branches):
        return variant.branches
    return (variant.branches,) * len(variant.depths)


def _has_late_ss2d(variant: Any) -> bool:
    # Drop path rises linearly from zero in the very first block.
    return any(
        operator == "ss2d"
        for index, (stage, depth) in enumerate(zip(_stages_of_branches(variant), variant.depths))
        if index > 0 or depth > 1
        for _, operator in stage
    )


def _dead(name: str, reason: str, value: Any) -> SettingError:
    got = f"{name}={short(to_json(value))}"
    return SettingError((name,), f"must be left out where it has no effect: {reason}; got {got}")


def _check_stages_of(fields: Mapping[str, Any]) -> None:
    depths, dims, branches = fields["depths"], fields["dims"], fields["branches"]
    if len(depths) != len(dims):
        raise SettingError(
            ("depths",),
            f"and dims must have one entry for each stage, got {len(depths)} in depths and {len(dims)} in dims",
        )
    if is_per_stage(branches) and len(branches) != len(depths):
        raise SettingError(
            ("branches",), f"(or split_ratio) must have one entry for each of {len(depths)} stages, got {len(branches)}"
        )


def _check_stages(variant: VariantConfig) -> None:
    _check_stages_of(variant._fields())


def _check_widths(variant: VariantConfig) -> None:
    stages = variant.stages_of_branches()
    for index, (stage, channels) in enumerate(zip(stages, variant.dims)):
        for width, (share, operator) in zip(branch_widths(stage, channels), stage):
            if width == 0:
                none = f"share {share:g} ({operator}) of dims[{index}]={channels} is none"
                raise SettingError((), f"every branch must get a channel: {none}")
            inner = int(variant.expand * width)
            if operator == "ss2d" and min(width, inner) < 2:
                raise SettingError(
                    (),
                    "ss2d must have at least two channels and two inner ones, since the layer norm of one is constant; "
                    f"got {width}, and {inner} inner ones with expand={variant.expand:g}, in stage {index}",
                )
        if variant.fusion == "shuffle" and len(stage) > 1 and channels % variant.shuffle_groups:
            raise SettingError(
                ("dims",), f"must be divisible by shuffle_groups={variant.shuffle_groups}, got dims[{index}]={channels}"
            )
    shuffled = {channels for stage, channels in zip(stages, variant.dims) if len(stage) > 1}
    if variant.fusion == "shuffle" and shuffled == {variant.shuffle_groups}:
        raise SettingError(
            ("shuffle_groups",),
            f"must be fewer than the channels, or the shuffle is concat, got {shuffled.pop()} of as many",
        )
    if variant.fusion == "none":
        _check_streams(variant)


def _check_streams(variant: VariantConfig) -> None:
    stages = variant.stages_of_branches()
    if len(stages) == 1:
        raise SettingError(
            ("fusion",), "none must have stages between which streams stay apart: in a single one it is concat"
        )
    if len({len(stage) for stage in stages}) > 1:
        raise SettingError(
            ("fusion",),
            "none keeps streams apart from stem to head, so every stage must have the same number of branches; "
            f"got {', '.join(str(len(stage)) for stage in stages)}",
        )
    for index in range(len(stages) - 1):
        if variant.downsampling != "patch_merging" and 1 in variant.widths(index):
            raise SettingError(
                ("fusion",),
                f"none must have streams of at least two channels for downsampling={variant.downsampling}, "
                f"since the layer norm of one is constant; got {to_json(variant.widths(index))} in stage {index}",
            )


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(VariantConfig)}

PRESETS: dict[str, VariantConfig] = {
    "medmamba_t": VariantConfig(),
    "medmamba_s": VariantConfig(depths=(2, 2, 8, 2)),
    "medmamba_b": VariantConfig(depths=(2, 2, 12, 2), dims=(128, 256, 512, 1024)),
    # For 28-pixel images on a CPU: maps of 14, 7 and 4.
    "nano": VariantConfig(patch_size=2, depths=(1, 2, 1), dims=(32, 64, 128), d_state=8, odd_maps="pad"),
    # For 64-pixel images on a CPU: maps of 16, 8, 4 and 2.
    "micro": VariantConfig(depths=(1, 1, 2, 1), dims=(32, 64, 128, 256), d_state=8, odd_maps="pad"),
}
