"""Fusions that bring the branches' maps to one width and make one of them: sums, and what weighs or gates their parts.

Where branches divide the channels, the map is as wide as the widest branch, to which narrower ones bring channels of
zeros, and a 1×1 convolution spreads it over all channels; with parallel branches it has them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medmamba_variants.design.components import Fusion, bottleneck


@dataclass(frozen=True)
class Sum(Fusion):
    """A fusion into a map as wide as the widest branch, spread over all channels where it lacks some."""

    joins_parallel = True

    def spreading(self, widths: Sequence[int], channels: int) -> int:
        """Multiply-adds for each position of the 1×1 convolution that widens the map, if there is one."""
        return max(widths) * channels if max(widths) < channels else 0

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        return self.spreading(widths, channels) * height * width


@dataclass(frozen=True)
class Add(Sum):
    """The sum of the branches; where they divide the channels, a 1×1 convolution spreads it over all of them."""

    word = "add"
    builds = "medmamba_variants.parts.sums:Add"


@dataclass(frozen=True)
class Select(Sum):
    """A mixture of the branches for each channel, whose weights a softmax chooses by what the maps hold (SKNet)."""

    word = "selective_kernel"
    builds = "medmamba_variants.parts.sums:Select"

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        selection = bottleneck(max(widths)) * max(widths) * (1 + len(widths))
        return super().macs(widths, channels, height, width) + selection


@dataclass(frozen=True)
class SqueezeSelect(Sum):
    """The sum of the branches, each channel gated by what all hold (SMM-UNet, where `identity` is one branch)."""

    word = "se_select"
    builds = "medmamba_variants.parts.sums:SqueezeSelect"

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        gates = 2 * sum(widths) * bottleneck(sum(widths))
        return super().macs(widths, channels, height, width) + gates


@dataclass(frozen=True)
class Gated(Sum):
    """The first branch gated at each position and channel by a sigmoid of the others' sum."""

    word = "gated"
    builds = "medmamba_variants.parts.sums:Gated"


@dataclass(frozen=True)
class MaxGate(Sum):
    """The first branch and the maximum of all branches, each channel gated by a sigmoid of its own mean (MAFUNet)."""

    word = "max_gate"
    builds = "medmamba_variants.parts.sums:MaxGate"
