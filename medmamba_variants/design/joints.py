"""Joints of branches and stages: fusions, and halvings between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medmamba_variants.design.components import Fusion, Halving, axis, by_word
from medmamba_variants.design.kinds import SettingError, whole

# Width of the bottleneck of a gate, as a fraction of the channels it reads, and its floor.
GATE_REDUCTION, GATE_MINIMUM = 4, 4


@dataclass(frozen=True)
class Shuffle(Fusion):
    """The published fusion: concatenation, then the channel shuffle of ShuffleNet; no parameters."""

    word = "shuffle"
    builds = "medmamba_variants.parts.fusions:Shuffle"

    shuffle_groups: int = axis(
        2, whole(2, 64), "groups of the channel shuffle", "MedMamba, SS-Conv-SSM; ShuffleNet", probe=4
    )

    def check(self, widths: Sequence[int], channels: int, stage: int) -> None:
        if channels % self.shuffle_groups:
            raise SettingError(
                ("dims",),
                f"must be divisible by shuffle_groups={self.shuffle_groups}, got dims[{stage}]={channels}",
            )


@dataclass(frozen=True)
class Concat(Fusion):
    """Concatenation: within a stage the branches stay apart; they meet where the map is halved."""

    word = "concat"
    builds = "medmamba_variants.parts.fusions:Concat"


@dataclass(frozen=True)
class Pointwise(Fusion):
    """A learned 1×1 convolution over the concatenation."""

    word = "conv1x1"
    builds = "medmamba_variants.parts.fusions:Pointwise"
    joins_parallel = True

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        return sum(widths) * channels * height * width


@dataclass(frozen=True)
class SqueezeExcite(Fusion):
    """Concatenation with a gate on every channel, computed from the mean of all channels (Hu 2018)."""

    word = "squeeze_excite"
    builds = "medmamba_variants.parts.fusions:SqueezeExcite"

    def hidden(self, widths: Sequence[int]) -> int:
        """Width of the gate's bottleneck."""
        return max(sum(widths) // GATE_REDUCTION, GATE_MINIMUM)

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        return 2 * sum(widths) * self.hidden(widths)


@dataclass(frozen=True)
class Attention(Fusion):
    """Tiny attention across the branches: each branch is one token, which decides how to gate its channels."""

    word = "attention"
    builds = "medmamba_variants.parts.fusions:BranchAttention"

    def size(self, widths: Sequence[int]) -> int:
        """The size of a branch's token."""
        return max(sum(widths) // (2 * GATE_REDUCTION), GATE_MINIMUM)

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        size, count = self.size(widths), len(widths)
        return 2 * sum(widths) * size + count * 3 * size**2 + 2 * count**2 * size


@dataclass(frozen=True)
class Apart(Fusion):
    """No fusion: the branches stay apart from stem to head, even where the map is halved."""

    word = "none"
    builds = "medmamba_variants.parts.fusions:Concat"


FUSIONS: dict[str, type[Fusion]] = by_word(Shuffle, Concat, Pointwise, SqueezeExcite, Attention, Apart)


@dataclass(frozen=True)
class PatchMerging(Halving):
    """The published halving: the four pixels of a 2×2 patch side by side, layer norm, a linear map (Swin)."""

    word = "patch_merging"
    builds = "medmamba_variants.parts.downsampling:PatchMerging"
    needs_two_channels = False

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 4 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class MaxPool(Halving):
    """The maximum of each 2×2 patch, layer norm, a 1×1 convolution."""

    word = "max_pool"
    builds = "medmamba_variants.parts.downsampling:MaxPool"

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return channels_in * channels_out * height * width


@dataclass(frozen=True)
class AveragePool(Halving):
    """The mean of each 2×2 patch, layer norm, a 1×1 convolution."""

    word = "average_pool"
    builds = "medmamba_variants.parts.downsampling:AveragePool"

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return channels_in * channels_out * height * width


@dataclass(frozen=True)
class StridedConv(Halving):
    """Layer norm, then a 3×3 convolution of stride 2."""

    word = "strided_conv"
    builds = "medmamba_variants.parts.downsampling:StridedConv"

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 9 * channels_in * channels_out * height * width


HALVINGS: dict[str, type[Halving]] = by_word(PatchMerging, MaxPool, AveragePool, StridedConv)
