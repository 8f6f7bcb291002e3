"""Components, choices that own their axes: torch-free values with word, axes, rule and builder.

    @dataclass(frozen=True)
    class SSD(Mixer):
        \"\"\"State-space duality: one decay for each head and position.\"\"\"

        word = "ssd"
        builds = "medmamba_variants.parts.mixers.ssd:SSDBranch"
        heads: int = axis(4, whole(1, 64), "heads of the state-space dual", "Mamba-2, section 7", probe=2)

Ownership decides where an axis has an effect: wherever some component that owns it is used. Where that is not enough,
because the axis matters only beside some values of another axis of its component, its declaration says so:

    window_shift: str = axis("none", …, probe="half", needs=(Need(("scan_window",), WINDOWED, "scan_window is 0"),))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Self

from medmamba_variants.design.kinds import Kind, SettingError

# Width of a gate's bottleneck, as a fraction of the channels that it reads, and its floor.
GATE_REDUCTION, GATE_MINIMUM = 4, 4


@dataclass(frozen=True)
class Need:
    """What an axis needs to have an effect: a value of another axis of its component.

    `on` names that axis; several where components have it under different names. `holds` tells whether a value of it
    will do, and `words` say where none does: "scan_window is 0". `example` is one that does.
    """

    on: tuple[str, ...]
    holds: Callable[[Any], bool]
    words: str
    example: Any


@dataclass(frozen=True)
class Declared:
    """The declaration of an axis: its kind, meaning and source, and a probe value one step from the default.

    The axis has an effect only where its component meets all `needs`.
    """

    kind: Kind
    meaning: str
    source: str
    probe: Any
    default: Any = None
    needs: tuple[Need, ...] = ()


def axis(default: Any, kind: Kind, meaning: str, source: str, probe: Any, needs: tuple[Need, ...] = ()) -> Any:
    """A dataclass field of a component that is an axis of the design space."""
    return field(default=default, metadata={"axis": Declared(kind, meaning, source, probe, default, needs)})


def shared(declaration: Any) -> Any:
    """The same axis as a field of one more component: what several own means one thing."""
    return field(default=declaration.default, metadata=declaration.metadata)


@dataclass(frozen=True)
class Component:
    """A component: one choice with the values of the axes that it owns."""

    word: ClassVar[str]
    # "module:Class", looked up when the network is built, so that a design needs no torch.
    builds: ClassVar[str]

    @classmethod
    @cache
    def declared(cls) -> dict[str, Declared]:
        """The axes that this choice owns, by name; one dict for all who ask, not to be changed."""
        return {each.name: each.metadata["axis"] for each in fields(cls)}

    def unmet(self, name: str) -> str | None:
        """Why an axis of the component has no effect beside the values of the others, in words; None where it has."""
        declared = self.declared()
        for need in declared[name].needs:
            for other in (name for name in need.on if name in declared):
                deeper = self.unmet(other)
                # What has no effect counts as its default.
                if not need.holds(declared[other].default if deeper else getattr(self, other)):
                    return deeper or need.words
        return None

    def own(self) -> dict[str, Any]:
        """The values of the component's axes by name, without those that have no effect beside the others."""
        return {name: getattr(self, name) for name in self.declared() if self.unmet(name) is None}

    def settled(self) -> Self:
        """The component with the defaults of the axes that have no effect beside the values of the others."""
        idle = {name: each.default for name, each in self.declared().items() if self.unmet(name) is not None}
        return replace(self, **idle) if idle else self

    def in_block(self, index: int) -> Self:
        """The component as it stands in one block, counted from the stem through all stages; most are alike in all."""
        return self

    def builder(self) -> Any:
        """The class that builds the component."""
        module, _, name = self.builds.partition(":")
        return getattr(import_module(module), name)


@dataclass(frozen=True)
class Operator(Component):
    """An operator on maps: map in, map of the same shape out. Built as `builder(channels, component)`."""

    def check(self, channels: int, stage: int) -> None:
        """Raises SettingError where a map with this many channels cannot be given to it."""

    def macs(self, channels: int, height: int, width: int) -> int:
        """Multiply-adds for one image's map, in closed form, by the convention of `medmamba_variants.cost`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mixer(Operator):
    """A mixer, the operator of a branch. Built as `builder(channels, component, drop_path)`."""

    # Whether drop path may drop the branch of an image.
    drops_path: ClassVar[bool] = True


@dataclass(frozen=True)
class Fusion(Component):
    """A fusion: how the outputs of two or more branches of a block meet, as a map of the stage's channels.

    Built as `builder(widths, channels, component)`. Branches that divide the channels have widths that add up to them;
    parallel ones all have the full width.
    """

    # Whether it joins branches that divide the channels, and branches at full width.
    joins_divided: ClassVar[bool] = True
    joins_parallel: ClassVar[bool] = False

    def check(self, widths: Sequence[int], channels: int, stage: int) -> None:
        """Raises SettingError where branches of these widths cannot be joined in this way."""

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        """Multiply-adds for one image's map, in closed form."""
        return 0


@dataclass(frozen=True)
class Stem(Component):
    """A stem: images to the first map, whose sides are those of the image over the patch size, rounded down.

    Built as `builder(channels_in, channels_out, patch_size, component)`.
    """

    def check(self, patch_size: int) -> None:
        """Raises SettingError where it cannot reduce images by this factor."""

    def macs(self, channels_in: int, channels_out: int, patch_size: int, height: int, width: int) -> int:
        """Multiply-adds for one image, in closed form; height and width are those of the map that it makes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Halving(Component):
    """A halving of a map between stages. Built as `builder(channels_in, channels_out, component)`."""

    # Whether it halves the map at all.
    halves: ClassVar[bool] = True
    # Whether it normalises over the channels that it reads: a layer norm turns a single one into a constant.
    needs_two_channels: ClassVar[bool] = True

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        """Multiply-adds for one image, in closed form; height and width are those of the halved map."""
        raise NotImplementedError


def bottleneck(channels: int, parts: int = 1) -> int:
    """Width of the bottleneck of a gate that reads so many channels, or of each of several parts of it."""
    return max(channels // (parts * GATE_REDUCTION), GATE_MINIMUM)


def check_norm(word: str, channels: int, stage: int) -> None:
    """Raises SettingError where a branch normalises its channels and has a single one."""
    if channels < 2:
        raise SettingError(
            (),
            f"{word} must have at least two channels, since the layer norm of one is constant; "
            f"got {channels} in stage {stage}",
        )


def by_word(*kinds: type[Component]) -> dict[str, type[Any]]:
    """The registry of a family: word → component. A word stands for one component."""
    found = {kind.word: kind for kind in kinds}
    assert len(found) == len(kinds), "a word must stand for one component"
    return found


def owners(*families: Mapping[str, type[Component]]) -> dict[str, tuple[str, ...]]:
    """The words of the components that own each axis, by the axis's name."""
    found: dict[str, tuple[str, ...]] = {}
    for family in families:
        for word, kind in family.items():
            for name in kind.declared():
                found[name] = (*found.get(name, ()), word)
    return found
