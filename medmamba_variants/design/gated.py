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
# Choices of inner_conv that read d_conv.
SIZED = ("dw2d", "same1d", "partial")
D_CONV = axis(
    3,
    Choice((1, 3, 5, 7)),
    "side of the depth-wise convolution before the scan",
    "VMamba, SS2D",
    probe=5,
    needs=(Need(("inner_conv",), lambda value: value in SIZED, "inner_conv is causal1d or none", example="dw2d"),),
)


SCAN_DIRECTIONS = axis(
    "cross4",
    Directions(),
    "paths over the map, whose outputs merge makes one: a named set or a list of directions",
    "VMamba, cross-scan",
    probe="corner4",
)
# Taps of Mamba's causal convolution.
CAUSAL_TAPS = 4
INNER_CONV = axis(
    "dw2d",
    Choice(("dw2d", "causal1d", "same1d", "partial", "none")),
    "convolution before the operator, a filter for each channel: dw2d, over d_conv × d_conv positions; causal1d, over "
    f"a position and the {CAUSAL_TAPS - 1} before it, row after row; same1d, over the d_conv positions around it in "
    "that order; partial, dw2d of half of the channels; none, SiLU alone",
    "VMamba, SS2D; causal1d: Mamba, section 3.4; same1d: MambaVision; partial: FasterNet",
    probe="causal1d",
)
GATE = axis(
    "silu",
    Choice(("silu", "linear", "concat", "none")),
    "how the gate's half z of the input meets the operator's output y: silu, y · SiLU(z); linear, y · z; concat, the "
    "last projection reads both, z after a convolution of its own, SiLU and a layer norm; none, there is no such half",
    "Mamba, section 3.4; linear: VSSD's code; concat: MambaVision",
    probe="concat",
)
DT_MIN = axis(
    1e-3,
    Number(1e-6, 10.0),
    "least step size at the start, before anything is learned",
    "Mamba, section 3.6",
    probe=0.02,
)
DT_MAX = axis(
    0.1,
    Number(1e-6, 10.0),
    "largest step size at the start; between, they are log-uniform",
    "Mamba, section 3.6",
    probe=1.0,
)
# Of a single direction there is nothing to choose from.
SEVERAL = Need(
    ("scan_directions",),
    lambda value: len(directions_of(value)) > 1,
    "scan_directions are a single one",
    example="cross4",
)

DIRECTION_SCHEDULE = axis(
    "all",
    Choice(("all", "alternate")),
    "whether a block scans in all directions, or in one, the next in the list from block to block",
    "VMamba; alternate: Mamba-ND, ViL, xLSTM-UNet",
    probe="alternate",
    needs=(SEVERAL,),
)


@dataclass(frozen=True)
class Gated(Mixer):
    """A mixer in Mamba's wiring: projections around a depth-wise convolution and its own operator, and a gate."""

    expand: float = shared(EXPAND)
    d_conv: int = shared(D_CONV)
    inner_conv: str = shared(INNER_CONV)
    gate: str = shared(GATE)

    def inner(self, channels: int) -> int:
        """Channels inside the layer."""
        return int(self.expand * channels)

    def check(self, channels: int, stage: int) -> None:
        check_inner(self.word, channels, self.inner(channels), self.expand, stage)
        if self.inner_conv == "same1d" and self.d_conv == 1:
            raise SettingError(
                ("inner_conv",),
                f"must be dw2d where d_conv is 1, since same1d is no different; got same1d in stage {stage}",
            )

    def wiring_macs(self, channels: int, seen: int, beside: int) -> int:
        """Multiply-adds for each position of all but the operator.

        The first projection yields what the convolution sees, the gate's channels, and what goes past both.
        """
        inner = self.inner(channels)
        z, own = (0 if self.gate == "none" else inner), (inner if self.gate == "concat" else 0)
        return channels * (seen + z + beside) + (inner + own) * channels + self._taps(seen) + self._taps(own)

    def _taps(self, channels: int) -> int:
        """Taps of the filters of a convolution over so many channels."""
        square = self.d_conv**2
        taps = {"dw2d": square * channels, "causal1d": CAUSAL_TAPS * channels, "same1d": self.d_conv * channels}
        return taps.get(self.inner_conv, square * (channels // 2) if self.inner_conv == "partial" else 0)


@dataclass(frozen=True)
class Directed(Gated):
    """A mixer in Mamba's wiring whose operator follows paths over the map."""

    scan_directions: str | tuple[str, ...] = shared(SCAN_DIRECTIONS)
    direction_schedule: str = shared(DIRECTION_SCHEDULE)

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

    def macs(self, channels: int, height: int, width: int) -> int:
        return self.wiring_macs(channels, self.inner(channels), 0) * height * width


def check_inner(word: str, channels: int, inner: int, expand: float, stage: int) -> None:
    """Raises SettingError where one of a branch's two layer norms would have a single channel."""
    if min(channels, inner) < 2:
        raise SettingError(
            (),
            f"{word} must have at least two channels and two inner ones, since the layer norm of one is constant; "
            f"got {channels}, and {inner} inner ones with expand={expand:g}, in stage {stage}",
        )


def check_steps(dt_min: float, dt_max: float, stage: int) -> None:
    """Raises SettingError where the least step size at the start is not below the largest."""
    if dt_min >= dt_max:
        raise SettingError(("dt_min",), f"must be below dt_max={dt_max:g}, got {dt_min:g} in stage {stage}")
