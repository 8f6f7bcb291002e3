"""Fusions that gate the branches side by side: by channels, by places, by what other branches hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medmamba_variants.design.components import Fusion, bottleneck
from medmamba_variants.design.wraps import attentions


@dataclass(frozen=True)
class EfficientChannels(Fusion):
    """Concatenation with a gate on every channel, computed from the means of a few neighbouring channels (ECA-Net)."""

    word = "eca"
    builds = "medmamba_variants.parts.gates:EfficientChannels"

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        return attentions.EfficientChannels().macs(channels, height, width)


@dataclass(frozen=True)
class ChannelsAndPlaces(Fusion):
    """Concatenation with a gate on every channel, then one on every place, from means and maxima (CBAM)."""

    word = "cbam"
    builds = "medmamba_variants.parts.gates:ChannelsAndPlaces"

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        return attentions.CBAM().macs(channels, height, width)


@dataclass(frozen=True)
class Beside(Fusion):
    """A fusion of branches side by side, narrowed by a 1×1 convolution where they have more channels than the stage."""

    joins_parallel = True

    def narrowing(self, widths: Sequence[int], channels: int) -> int:
        """Multiply-adds for each position of the 1×1 convolution that narrows the map, if there is one."""
        return sum(widths) * channels if sum(widths) > channels else 0


@dataclass(frozen=True)
class CoAttention(Beside):
    """Each branch gated at every place by the others (an additive attention gate), then squeeze-excite (MambaCAFU)."""

    word = "co_attention"
    builds = "medmamba_variants.parts.gates:CoAttention"

    def hidden(self, own: int) -> int:
        """Channels in which a branch of a width and the others meet."""
        return max(own // 2, 1)

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        total = sum(widths)
        gates = sum(self.hidden(own) * (total + 1) for own in widths)
        squeeze = 2 * total * bottleneck(total)
        return (gates + self.narrowing(widths, channels)) * height * width + squeeze


@dataclass(frozen=True)
class CrossAttention(Beside):
    """Each branch and what its positions gather by softmax attention from all positions of the others."""

    word = "cross_attention"
    builds = "medmamba_variants.parts.gates:CrossAttention"

    def size(self, widths: Sequence[int]) -> int:
        """The size of a query, a key and a value."""
        return bottleneck(sum(widths))

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        length, size, total = height * width, self.size(widths), sum(widths)
        # Query and result are linear maps of the branch's own width, key and value of the others'.
        maps = sum(2 * own + 2 * (total - own) for own in widths) * size
        return (maps + self.narrowing(widths, channels)) * length + len(widths) * 2 * length**2 * size
