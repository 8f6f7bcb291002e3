"""Structure of a variant: which component stands where, and which axes have an effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

from medmamba_variants.design.axes import (
    AXES,
    DEFAULTS,
    FAMILIES,
    FAMILY_AXES,
    FAMILY_OF,
    MIXER_AXES,
    NEVER_DROPPED,
    NO_HALVING,
    NO_LATE_MIXER,
    NO_SUCH_BRANCH,
    NO_TWINS,
    NOWHERE,
    OF_HALVINGS,
    OF_NETWORK,
    SINGLE_BRANCH,
    SINGLE_STAGE,
    or_,
)
from medmamba_variants.design.branches import (
    Branch,
    Branches,
    branch_widths,
    has_twins,
    is_parallel,
    is_per_stage,
    word_of,
)
from medmamba_variants.design.components import Component, Fusion, Halving, Mixer, Operator, Stem
from medmamba_variants.design.kinds import Given, Keys, OrEach, SettingError, short, to_json
from medmamba_variants.design.mixers import MIXERS


@dataclass(frozen=True)
class Stage:
    """A stage: how many blocks, how wide, and the components of each. `fusion` joins two branches or more."""

    depth: int
    channels: int
    shares: tuple[float, ...]
    mixers: tuple[Mixer, ...]
    fusion: Fusion
    channel_mixer: Operator | None = None
    attention: Operator | None = None
    residual: Component | None = None
    norm: str = "layer_norm"
    cpe: str = "none"
    cascade: bool = False
    shares_weights: bool = False
    shifts: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each branch, which add up to the stage's, or are all of them for parallel branches."""
        return (self.channels,) * len(self.shares) if self.parallel else branch_widths(self.shares, self.channels)

    @property
    def attention_place(self) -> str | None:
        """What the attention module weighs, if there is one."""
        return None if self.attention is None else self.attention.own()["attention_place"]

    @property
    def weighed(self) -> tuple[int, ...]:
        """Channels of each map that an attention module of its own weighs."""
        return self.widths if self.attention_place == "branches" else (self.channels,)

    @property
    def parallel(self) -> bool:
        """Whether two branches or more all read every channel, instead of dividing them."""
        return len(self.shares) > 1 and is_parallel(self.shares)

    def in_block(self, index: int) -> Stage:
        """The stage as one block has it, counted from the stem through all stages."""
        mixers = tuple(mixer.in_block(index) for mixer in self.mixers)
        # What shifts does so in every second block.
        return replace(self, mixers=mixers, fusion=self.fusion.in_block(index), shifts=self.shifts and index % 2 == 1)


@dataclass(frozen=True)
class Structure:
    """The structure of a network: its stem, stages, the halvings between them, and what comes before the head."""

    stem: Stem
    position: Component | None
    stages: tuple[Stage, ...]
    halvings: tuple[Halving, ...]

    @property
    def blocks(self) -> tuple[tuple[Stage, ...], ...]:
        """Each stage as its blocks have it, one after another."""
        counter = count()
        return tuple(tuple(stage.in_block(next(counter)) for _ in range(stage.depth)) for stage in self.stages)


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
        of_halvings = FAMILY_OF.get(name, name) in OF_HALVINGS
        count, what = (len(depths) - 1, "halvings") if of_halvings else (len(depths), "stages")
        value = values[name]
        if isinstance(axis.kind, OrEach) and axis.kind.is_each(value) and len(value) != count:
            raise SettingError((name,), f"must have one entry for each of {count} {what}, got {len(value)}")


class _Values:
    """Values of all axes as a key: equal where they read the same, so that 1 and 1.0 stay apart."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values, self._text = values, repr(values)

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Values) and self._text == other._text


def structure_of(values: Mapping[str, Any]) -> Structure:
    """The structure that canonical values of all axes describe; kept, since one variant asks for it several times."""
    return _structure_of(_Values(dict(values)))


@lru_cache(maxsize=1024)
def _structure_of(key: _Values) -> Structure:
    values = key.values

    def chosen(family: str, index: int) -> Any:
        """The component of a family that stands in a stage, at a halving, or in the network; None for none."""
        kind = FAMILIES[family].get(at(family, values[family], index))
        return kind and kind(**{name: at(name, values[name], index) for name in kind.declared()})

    stages = []
    for index, (branches, depth, channels) in enumerate(
        zip(stages_of_branches(values), values["depths"], values["dims"], strict=True)
    ):
        mixers = []
        for _, operator in branches:
            kind = MIXERS[word_of(operator)]
            own = dict(operator.values) if isinstance(operator, Given) else {}
            common = {name: at(name, values[name], index) for name in kind.declared()}
            mixers.append(kind(**common | own).settled())
        stages.append(
            Stage(
                depth,
                channels,
                tuple(share for share, _ in branches),
                tuple(mixers),
                fusion=chosen("fusion", index),
                channel_mixer=chosen("channel_mixer", index),
                attention=chosen("attention", index),
                residual=chosen("residual", index),
                norm=at("block_norm", values["block_norm"], index),
                cpe=at("cpe", values["cpe"], index),
                cascade=at("cascade", values["cascade"], index),
                shares_weights=at("branch_weights", values["branch_weights"], index) == "shared",
                shifts=at("shift_round", values["shift_round"], index),
            )
        )
    halvings = tuple(chosen("downsampling", index) for index in range(len(stages) - 1))
    return Structure(chosen("stem", 0), chosen("position", 0), tuple(stages), halvings)


def standing(family: str, structure: Structure) -> list[Component | None]:
    """The components of a family, one for each place; None where none stands, or where it would have no effect."""
    if family in OF_NETWORK:
        return [getattr(structure, family)]
    if family in OF_HALVINGS:
        return list(structure.halvings)
    if family == "fusion":
        return [stage.fusion if len(stage.mixers) > 1 else None for stage in structure.stages]
    return [getattr(stage, family) for stage in structure.stages]


def dead_axes(values: Mapping[str, Any]) -> dict[str, str]:
    """The axes that have no effect under the choices made, each with the reason in words.

    Takes values of all axes, and looks only at depths, branches and the choices that own axes. Raises SettingError
    where lists with one value per stage differ in length.
    """
    check_lengths(values)
    structure = structure_of(values)
    stages = structure.stages
    mixers = [mixer for stage in stages for mixer in stage.mixers]
    dead = {}
    for family, owned in {**FAMILY_AXES, "branches": MIXER_AXES}.items():
        components = mixers if family == "branches" else [each for each in standing(family, structure) if each]
        absent = NO_SUCH_BRANCH if family == "branches" else f"{family} is not {{}}"
        if family in NOWHERE and not components:
            dead[family] = absent = NOWHERE[family]
        for name, owner in owned.items():
            reasons = [component.unmet(name) for component in components if component.word in owner]
            if None not in reasons:
                dead[name] = next(filter(None, reasons), absent.format(or_(owner)))
    if all(len(stage.mixers) == 1 for stage in stages):
        dead |= {"cascade": SINGLE_BRANCH, "shift_round": SINGLE_BRANCH}
    if not any(has_twins(branches) for branches in stages_of_branches(values)):
        dead["branch_weights"] = NO_TWINS
    if not any(halving.halves for halving in structure.halvings):
        dead["odd_maps"] = NO_HALVING if structure.halvings else SINGLE_STAGE
    # Drop path rises linearly from zero in the very first block.
    late = [stage for index, stage in enumerate(stages) if index > 0 or stage.depth > 1]
    if not any(stage.channel_mixer or any(mixer.drops_path for mixer in stage.mixers) for stage in late):
        dead["drop_path_rate"] = NO_LATE_MIXER.format(NEVER_DROPPED)
    return dead


def branches_without_dead(
    values: Mapping[str, Any],
) -> tuple[Branches | tuple[Branches, ...], list[tuple[Keys, Any, str]]]:
    """The branches without what is given to one of them and has no effect there, and what that is.

    Of each such value its key path, the value itself and the reason in words; none for one that is the default.
    """
    written, dead = [], []
    for index, (branches, stage) in enumerate(zip(stages_of_branches(values), structure_of(values).stages)):
        pairs: list[Branch] = []
        for place, ((share, operator), mixer) in enumerate(zip(branches, stage.mixers)):
            if isinstance(operator, Given):
                reasons = {name: mixer.unmet(name) for name, _ in operator.values}
                path = ("branches", *((index,) if is_per_stage(values["branches"]) else ()), place, operator.word)
                dead += [
                    ((*path, name), value, reason)
                    for name, value in operator.values
                    if (reason := reasons[name]) and value != DEFAULTS[name]
                ]
                kept = tuple(pair for pair in operator.values if reasons[pair[0]] is None)
                operator = Given(operator.word, kept) if kept else operator.word
            pairs.append((share, operator))
        written.append(tuple(pairs))
    return tuple(written) if is_per_stage(values["branches"]) else written[0], dead


def dead_error(path: Keys, reason: str, value: Any) -> SettingError:
    """The error for an axis that is set where it has no effect."""
    got = f"{path[-1]}={short(to_json(value))}"
    return SettingError(path, f"must be left out where it has no effect: {reason}; got {got}")


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values rewritten in the one way that describes their structure: one network, one id.

    A value that all owners of an axis share stands at the axis, one that a stage shares in the axis's list, and only
    what differs within a stage stands at the branch. Entries of a list where the axis has no effect repeat the stage
    before.
    """
    settled = dict(values)
    stages = stages_of_branches(values)
    structure = structure_of(values)
    for family, owned in FAMILY_AXES.items():
        components = standing(family, structure)
        chosen = [at(family, values[family], index) for index in range(len(components))]
        nowhere = family in NOWHERE
        words = [None if nowhere and each is None else word for word, each in zip(chosen, components)]
        settled[family] = _hoisted(words, DEFAULTS[family])
        for name in owned:
            settled[name] = _hoisted([each.own().get(name) if each else None for each in components], DEFAULTS[name])
    without = {SINGLE_BRANCH: [len(stage) == 1 for stage in stages], NO_TWINS: [not has_twins(s) for s in stages]}
    for name, axis in AXES.items():
        if isinstance(axis.kind, OrEach) and name not in FAMILIES and name not in FAMILY_OF and name not in MIXER_AXES:
            idle = without.get(axis.no_effect[0] if axis.no_effect else "", [False] * len(stages))
            each = [None if none else at(name, values[name], index) for index, none in enumerate(idle)]
            settled[name] = _hoisted(each, DEFAULTS[name])
    own: list[list[dict[str, Any]]] = [[mixer.own() for mixer in stage.mixers] for stage in structure.stages]
    for name in MIXER_AXES:
        in_stages = [[values[name] for values in stage if name in values] for stage in own]
        settled[name] = _hoisted([_common(name, stage) for stage in in_stages], DEFAULTS[name])
    written = []
    for index, (branches, stage_own) in enumerate(zip(stages, own, strict=True)):
        pairs = []
        for (share, operator), resolved in zip(branches, stage_own, strict=True):
            differing = {k: v for k, v in resolved.items() if v != at(k, settled[k], index)}
            word = word_of(operator)
            pairs.append((share, Given(word, tuple(sorted(differing.items()))) if differing else word))
        written.append(tuple(pairs))
    settled["branches"] = written[0] if len(set(written)) == 1 else tuple(written)
    for name in dead_axes(settled):
        settled[name] = DEFAULTS[name]
    return settled


def _common(name: str, values: list[Any]) -> Any:
    """The value that stands for all branches of a stage; None where no branch owns the axis."""
    if not values:
        return None
    return DEFAULTS[name] if DEFAULTS[name] in values else values[0]


def _hoisted(values: list[Any], default: Any) -> Any:
    """One value where all stages agree, else one per stage; a stage without any takes that of a neighbour.

    The default where no stage has one.
    """
    known = [value for value in values if value is not None] or [default]
    if all(value == known[0] for value in known):
        return known[0]
    filled, last = [], known[0]
    for value in values:
        last = last if value is None else value
        filled.append(last)
    return tuple(filled)
