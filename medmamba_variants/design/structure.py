"""Structure of a variant: which component stands where, which axes have an effect, and what is not a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.axes import (
    AXES,
    DEFAULTS,
    FUSION_AXES,
    HALVING_AXES,
    MIXER_AXES,
    NEVER_DROPPED,
    NO_LATE_MIXER,
    NO_SUCH_BRANCH,
    SINGLE_BRANCH,
    SINGLE_STAGE,
    or_,
)
from medmamba_variants.design.branches import Branches, branch_widths, is_parallel, is_per_stage, word_of
from medmamba_variants.design.components import Fusion, Halving, Mixer
from medmamba_variants.design.joints import FUSIONS, HALVINGS, Apart, Shuffle
from medmamba_variants.design.kinds import Given, OrEach, SettingError, short, to_json
from medmamba_variants.design.mixers import MIXERS


@dataclass(frozen=True)
class Stage:
    """A stage: how many blocks, how wide, and the components of each. `fusion` joins two branches or more."""

    depth: int
    channels: int
    shares: tuple[float, ...]
    mixers: tuple[Mixer, ...]
    fusion: Fusion

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each branch, which add up to the stage's, or are all of them for parallel branches."""
        return (self.channels,) * len(self.shares) if self.parallel else branch_widths(self.shares, self.channels)

    @property
    def parallel(self) -> bool:
        """Whether two branches or more all read every channel, instead of dividing them."""
        return len(self.shares) > 1 and is_parallel(self.shares)


@dataclass(frozen=True)
class Structure:
    """The structure of a network: stages from stem to head, and the halvings between them."""

    stages: tuple[Stage, ...]
    halvings: tuple[Halving, ...]


def stages_of_branches(values: Mapping[str, Any]) -> tuple[Branches, ...]:
    """The branches of every stage."""
    branches = values["branches"]
    return branches if is_per_stage(branches) else (branches,) * len(values["depths"])


def at(name: str, value: Any, stage: int) -> Any:
    """The value of an axis in one stage, or halving."""
    kind = AXES[name].kind
    return value[stage] if isinstance(kind, OrEach) and kind.is_each(value) else value


def check_lengths(values: Mapping[str, Any]) -> None:
    """Raises SettingError where lists with one value per stage differ in length."""
    depths, dims, branches = values["depths"], values["dims"], values["branches"]
    if len(depths) != len(dims):
        raise SettingError(
            ("depths",),
            f"and dims must have one entry for each stage, got {len(depths)} in depths and {len(dims)} in dims",
        )
    if is_per_stage(branches) and len(branches) != len(depths):
        raise SettingError(
            ("branches",),
            f"(or split_ratio) must have one entry for each of {len(depths)} stages, got {len(branches)}",
        )
    for name, axis in AXES.items():
        halves = name == "downsampling" or name in HALVING_AXES
        count, what = (len(depths) - 1, "halvings") if halves else (len(depths), "stages")
        value = values[name]
        if isinstance(axis.kind, OrEach) and axis.kind.is_each(value) and len(value) != count:
            raise SettingError((name,), f"must have one entry for each of {count} {what}, got {len(value)}")


def structure_of(values: Mapping[str, Any]) -> Structure:
    """The structure that canonical values of all axes describe."""
    stages = []
    for index, (branches, depth, channels) in enumerate(
        zip(stages_of_branches(values), values["depths"], values["dims"], strict=True)
    ):
        mixers = []
        for _, operator in branches:
            kind = MIXERS[word_of(operator)]
            own = dict(operator.values) if isinstance(operator, Given) else {}
            common = {name: at(name, values[name], index) for name in kind.declared()}
            mixers.append(kind(**common | own))
        fusion = FUSIONS[at("fusion", values["fusion"], index)]
        joined = fusion(**{name: at(name, values[name], index) for name in fusion.declared()})
        stages.append(Stage(depth, channels, tuple(share for share, _ in branches), tuple(mixers), joined))
    halvings = []
    for index in range(len(stages) - 1):
        halving = HALVINGS[at("downsampling", values["downsampling"], index)]
        halvings.append(halving(**{name: at(name, values[name], index) for name in halving.declared()}))
    return Structure(tuple(stages), tuple(halvings))


def dead_axes(values: Mapping[str, Any]) -> dict[str, str]:
    """The axes that have no effect under the choices made, each with the reason in words.

    Takes values of all axes, and looks only at depths, branches and the choices that own axes.
    """
    stages = stages_of_branches(values)
    words = {word_of(operator) for stage in stages for _, operator in stage}
    joined = [index for index, stage in enumerate(stages) if len(stage) > 1]
    fusions = {at("fusion", values["fusion"], index) for index in joined}
    dead = {}
    if not joined:
        dead["fusion"] = SINGLE_BRANCH
    for name, owner in FUSION_AXES.items():
        if not joined:
            dead[name] = SINGLE_BRANCH
        elif not fusions & set(owner):
            dead[name] = f"fusion is not {or_(owner)}"
    for name, owner in MIXER_AXES.items():
        if not words & set(owner):
            dead[name] = NO_SUCH_BRANCH.format(or_(owner))
    halvings = {at("downsampling", values["downsampling"], index) for index in range(len(stages) - 1)}
    if not halvings:
        dead |= {"downsampling": SINGLE_STAGE, "odd_maps": SINGLE_STAGE}
    for name, owner in HALVING_AXES.items():
        if not halvings & set(owner):
            dead[name] = f"downsampling is not {or_(owner)}" if halvings else SINGLE_STAGE
    # Drop path rises linearly from zero in the very first block.
    late = {
        word_of(operator)
        for index, (stage, depth) in enumerate(zip(stages, values["depths"], strict=True))
        if index > 0 or depth > 1
        for _, operator in stage
    }
    if not any(MIXERS[word].drops_path for word in late):
        dead["drop_path_rate"] = NO_LATE_MIXER.format(NEVER_DROPPED)
    return dead


def dead_error(name: str, reason: str, value: Any) -> SettingError:
    """The error for an axis that is set where it has no effect."""
    got = f"{name}={short(to_json(value))}"
    return SettingError((name,), f"must be left out where it has no effect: {reason}; got {got}")


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values rewritten in the one way that describes their structure: one network, one id.

    A value that all owners of an axis share stands at the axis, one that a stage shares in the axis's list, and only
    what differs within a stage stands at the branch. Entries of a list where the axis has no effect repeat the stage
    before.
    """
    settled = dict(values)
    stages = stages_of_branches(values)
    structure = structure_of(values)
    joined = [len(stage) > 1 for stage in stages]
    settled["fusion"] = _hoisted([at("fusion", values["fusion"], s) if joined[s] else None for s in range(len(stages))])
    for name in FUSION_AXES:
        owned = [
            getattr(stage.fusion, name) if joined[s] and name in stage.fusion.declared() else None
            for s, stage in enumerate(structure.stages)
        ]
        settled[name] = _hoisted(owned)
    own: list[list[dict[str, Any]]] = [[mixer.own() for mixer in stage.mixers] for stage in structure.stages]
    for name in MIXER_AXES:
        in_stages = [[values[name] for values in stage if name in values] for stage in own]
        settled[name] = _hoisted([_common(name, stage) for stage in in_stages])
    written = []
    for index, (branches, stage_own) in enumerate(zip(stages, own, strict=True)):
        pairs = []
        for (share, operator), resolved in zip(branches, stage_own, strict=True):
            differing = {k: v for k, v in resolved.items() if v != at(k, settled[k], index)}
            word = word_of(operator)
            pairs.append((share, Given(word, tuple(sorted(differing.items()))) if differing else word))
        written.append(tuple(pairs))
    settled["branches"] = written[0] if len(set(written)) == 1 else tuple(written)
    if isinstance(settled["downsampling"], tuple):
        settled["downsampling"] = _hoisted(list(settled["downsampling"]))
    for name in HALVING_AXES:
        settled[name] = _hoisted([halving.own().get(name) for halving in structure.halvings])
    for name in dead_axes(settled):
        settled[name] = DEFAULTS[name]
    return settled


def _common(name: str, values: list[Any]) -> Any:
    """The value that stands for all branches of a stage; None where no branch owns the axis."""
    if not values:
        return None
    return DEFAULTS[name] if DEFAULTS[name] in values else values[0]


def _hoisted(values: list[Any]) -> Any:
    """One value where all stages agree, else one per stage; a stage without any takes that of a neighbour."""
    known = [value for value in values if value is not None]
    if not known or all(value == known[0] for value in known):
        return known[0] if known else None
    filled, last = [], known[0]
    for value in values:
        last = last if value is None else value
        filled.append(last)
    return tuple(filled)


def check_structure(values: Mapping[str, Any]) -> None:
    """Raises SettingError for values that do not make a network, or that make the network of another variant."""
    structure = structure_of(values)
    for index, stage in enumerate(structure.stages):
        for share, width, mixer in zip(stage.shares, stage.widths, stage.mixers, strict=True):
            if width == 0:
                none = f"share {share:g} ({mixer.word}) of dims[{index}]={stage.channels} is none"
                raise SettingError((), f"every branch must get a channel: {none}")
            mixer.check(width, index)
        if len(stage.mixers) > 1:
            _check_kind_of_branches(stage, index)
            stage.fusion.check(stage.widths, stage.channels, index)
    joined = [stage for stage in structure.stages if len(stage.mixers) > 1]
    if joined and all(isinstance(s.fusion, Shuffle) and s.channels == s.fusion.shuffle_groups for s in joined):
        raise SettingError(
            ("shuffle_groups",),
            f"must be fewer than the channels, or the shuffle is concat, got {joined[0].channels} of as many",
        )
    if any(isinstance(stage.fusion, Apart) for stage in joined):
        _check_streams(structure)


def _check_kind_of_branches(stage: Stage, index: int) -> None:
    def joins(fusion: type[Fusion] | Fusion) -> bool:
        return fusion.joins_parallel if stage.parallel else fusion.joins_divided

    if not joins(stage.fusion):
        how = "all read every channel (shares of 1)" if stage.parallel else "divide the channels"
        able = or_(word for word, fusion in FUSIONS.items() if joins(fusion))
        raise SettingError(
            ("fusion",),
            f"must be {able} where the branches of a stage {how}, got {stage.fusion.word} in stage {index}",
        )


def _check_streams(structure: Structure) -> None:
    stages = structure.stages
    if len(stages) == 1:
        raise SettingError(
            ("fusion",), "none must have stages between which streams stay apart: in a single one it is concat"
        )
    counts = [len(stage.mixers) for stage in stages]
    if len(set(counts)) > 1:
        raise SettingError(
            ("fusion",),
            "none keeps streams apart from stem to head, so every stage must have the same number of branches; "
            f"got {', '.join(map(str, counts))}",
        )
    if not all(isinstance(stage.fusion, Apart) for stage in stages):
        words = ", ".join(stage.fusion.word for stage in stages)
        raise SettingError(("fusion",), f"none keeps streams apart, so it must stand in every stage, got {words}")
    for index, (stage, halving) in enumerate(zip(stages, structure.halvings)):
        if halving.needs_two_channels and 1 in stage.widths:
            raise SettingError(
                ("fusion",),
                f"none must have streams of at least two channels for downsampling={halving.word}, "
                f"since the layer norm of one is constant; got {to_json(stage.widths)} in stage {index}",
            )
