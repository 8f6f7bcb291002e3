"""Joints of branches and stages: fusions, and halvings between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medmamba_variants.design.components import Fusion, Halving, axis, bottleneck, by_word
from medmamba_variants.design.fusions.gates import ChannelsAndPlaces, CoAttention, CrossAttention, EfficientChannels
from medmamba_variants.design.fusions.sums import Add, Gated, MaxGate, Select, SqueezeSelect
from medmamba_variants.design.kinds import Choice, Number, SettingError, whole


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
        return bottleneck(sum(widths))

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        return 2 * sum(widths) * self.hidden(widths)


@dataclass(frozen=True)
class Attention(Fusion):
    """Tiny attention across the branches: each branch is one token, which decides how to gate its channels."""

    word = "attention"
    builds = "medmamba_variants.parts.fusions:BranchAttention"

    def size(self, widths: Sequence[int]) -> int:
        """The size of a branch's token."""
        return bottleneck(sum(widths), parts=2)

    def macs(self, widths: Sequence[int], channels: int, height: int, width: int) -> int:
        size, count = self.size(widths), len(widths)
        return 2 * sum(widths) * size + count * 3 * size**2 + 2 * count**2 * size


@dataclass(frozen=True)
class Apart(Fusion):
    """No fusion: the branches stay apart from stem to head, even where the map is halved."""

    word = "none"
    builds = "medmamba_variants.parts.fusions:Concat"


FUSIONS: dict[str, type[Fusion]] = by_word(
    Shuffle,
    Concat,
    Pointwise,
    SqueezeExcite,
    Attention,
    EfficientChannels,
    ChannelsAndPlaces,
    CoAttention,
    CrossAttention,
    Add,
    Select,
    SqueezeSelect,
    Gated,
    MaxGate,
    Apart,
)


@dataclass(frozen=True)
class PatchMerging(Halving):
    """The published halving: the four pixels of a 2×2 patch side by side, layer norm, a linear map (Swin)."""

    word = "patch_merging"
    builds = "medmamba_variants.parts.downsampling:PatchMerging"
    needs_two_channels = False

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 4 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class HaarBands(Halving):
    """The four bands of a Haar transform side by side, layer norm, a linear map: patch merging in another basis."""

    word = "haar"
    builds = "medmamba_variants.parts.downsampling:HaarBands"
    needs_two_channels = False

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 4 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class Pool(Halving):
    """Each 2×2 patch pooled to one number a channel, layer norm, one 1×1 convolution or two."""

    pool_product: str = axis(
        "single",
        Choice(("single", "matched")),
        "what follows a pool: a single 1×1 convolution, or two with SiLU between them, of a width with which the "
        "halving has as many parameters as patch_merging",
        "this project; single: a quarter of patch merging's parameters",
        probe="matched",
    )

    def hidden(self, channels_in: int, channels_out: int) -> int:
        """Channels between two products; 0: a single one.

        Patch merging has 4·in·out weights and 8·in in its norm; two products have hidden·(in + out), and their norm
        2·in.
        """
        if self.pool_product == "single":
            return 0
        return max(1, round((4 * channels_in * channels_out + 6 * channels_in) / (channels_in + channels_out)))

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        hidden = self.hidden(channels_in, channels_out)
        product = hidden * (channels_in + channels_out) if hidden else channels_in * channels_out
        return product * height * width


@dataclass(frozen=True)
class MaxPool(Pool):
    """The maximum of each 2×2 patch, layer norm, a 1×1 convolution or two."""

    word = "max_pool"
    builds = "medmamba_variants.parts.downsampling:MaxPool"


@dataclass(frozen=True)
class AveragePool(Pool):
    """The mean of each 2×2 patch, layer norm, a 1×1 convolution or two."""

    word = "average_pool"
    builds = "medmamba_variants.parts.downsampling:AveragePool"


@dataclass(frozen=True)
class BlurPool(Pool):
    """Every second pixel of the blurred map, layer norm, a 1×1 convolution or two (Zhang 2019)."""

    word = "blur_pool"
    builds = "medmamba_variants.parts.downsampling:BlurPool"

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return super().macs(channels_in, channels_out, height, width) + 9 * channels_in * height * width


@dataclass(frozen=True)
class StridedConv(Halving):
    """Layer norm, then a 3×3 convolution of stride 2."""

    word = "strided_conv"
    builds = "medmamba_variants.parts.downsampling:StridedConv"

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 9 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class PatchConv(Halving):
    """Layer norm, then a 2×2 convolution of stride 2: patch merging with the norm before the patches (ConvNeXt)."""

    word = "conv2"
    builds = "medmamba_variants.parts.downsampling:PatchConv"

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 4 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class Inverted(Halving):
    """Layer norm, a wider 1×1 convolution, a depth-wise 3×3 one of stride 2, a narrower 1×1 one (MLLA)."""

    word = "inverted"
    builds = "medmamba_variants.parts.downsampling:Inverted"

    inverted_ratio: float = axis(
        4.0,
        Number(0.25, 8.0),
        "channels inside an inverted halving for each channel behind it",
        "MLLA, patch merging",
        probe=2.0,
    )

    def hidden(self, channels_out: int) -> int:
        """Channels of the depth-wise convolution."""
        return max(1, int(self.inverted_ratio * channels_out))

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        # The first product is made for every pixel of the map before it is halved.
        return (4 * channels_in + 9 + channels_out) * self.hidden(channels_out) * height * width


@dataclass(frozen=True)
class Stay(Halving):
    """No halving: the map keeps its size, and goes through a linear map where the channels change."""

    word = "none"
    builds = "medmamba_variants.parts.downsampling:Stay"
    halves = False
    needs_two_channels = False

    def macs(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        return 0 if channels_in == channels_out else channels_in * channels_out * height * width


HALVINGS: dict[str, type[Halving]] = by_word(
    PatchMerging, MaxPool, AveragePool, StridedConv, HaarBands, PatchConv, BlurPool, Inverted, Stay
)
