"""Mixers in Mamba's wiring: a gate beside a convolution, with or without what mixes the sequence between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from medmamba_variants.design.components import Mixer, Need, axis, shared
from medmamba_variants.design.kinds import Choice, Number, SettingError
from medmamba_variants.design.orders import Directions, directions_of

EXPAND = axis(
    2.0,
    Number(0.25, 8.0),
    "inner channels of the scan for each channel of its branch (E)",
    "Mamba, section 3.4",
    probe=1.0,
)
D_CONV = axis(3, Choice((1, 3, 5, 7)), "side of the depth-wise convolution before the scan", "VMamba, SS2D", probe=5)


SCAN_DIRECTIONS = axis(
    "cross4",
    Directions(),
    "paths over the map, whose outputs merge makes one: a named set or a list of directions",
    "VMamba, cross-scan",
    probe="corner4",
)
# Of a single direction there is nothing to choose from.
SEVERAL = Need(
    ("scan_directions",),
    lambda value: len(directions_of(value)) > 1,
    "scan_directions are a single one",
    example="cross4",
)


@dataclass(frozen=True)
class Gated(Mixer):
    """A mixer in Mamba's wiring: projections around a depth-wise convolution and its own operator, and a gate."""

    expand: float = shared(EXPAND)
    d_conv: int = shared(D_CONV)

    def inner(self, channels: int) -> int:
        """Channels inside the layer."""
        return int(self.expand * channels)


@dataclass(frozen=True)
class Directed(Gated):
    """A mixer in Mamba's wiring whose operator follows paths over the map."""

    scan_directions: str | tuple[str, ...] = shared(SCAN_DIRECTIONS)
    direction_schedule: str = axis(
        "all",
        Choice(("all", "alternate")),
        "whether a block scans in all directions, or in one, the next in the list from block to block",
        "VMamba; alternate: Mamba-ND, ViL, xLSTM-UNet",
        probe="alternate",
        needs=(SEVERAL,),
    )

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the scan directions, in the order of their parameters."""
        return directions_of(self.scan_directions)

    def in_block(self, index: int) -> Self:
        if self.direction_schedule == "all":
            return self
        only = self.directions[index % len(self.directions)]
        return replace(self, scan_directions=(only,), direction_schedule="all")


@dataclass(frozen=True)
class GatedConv(Gated):
    """The gated convolution: the scan branch with all but its scan, layer for layer (MambaOut's question)."""

    word = "gated_conv"
    builds = "medmamba_variants.parts.mixers.gated_conv:GatedConvBranch"

    def check(self, channels: int, stage: int) -> None:
        check_inner(self.word, channels, self.inner(channels), self.expand, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        inner = self.inner(channels)
        return (3 * channels + self.d_conv**2) * inner * height * width


def check_inner(word: str, channels: int, inner: int, expand: float, stage: int) -> None:
    """Raises SettingError where one of a branch's two layer norms would have a single channel."""
    if min(channels, inner) < 2:
        raise SettingError(
            (),
            f"{word} must have at least two channels and two inner ones, since the layer norm of one is constant; "
            f"got {channels}, and {inner} inner ones with expand={expand:g}, in stage {stage}",
        )
