"""Channel mixers, the second half of a block, which MedMamba lacks."""

from __future__ import annotations

from dataclasses import dataclass

from medmamba_variants.design.components import Operator, axis, by_word, shared
from medmamba_variants.design.kinds import Number, whole

MLP_RATIO = axis(
    4.0, Number(0.25, 8.0), "hidden channels of a channel mixer for each of its channels", "Vaswani 2017", probe=2.0
)
# Taps of the depth-wise convolution inside some channel mixers.
TAPS = 9
# Degree of the splines of a KAN, and degrees and groups of the rational functions of a group-rational one.
SPLINE_ORDER = 3
NUMERATOR, DENOMINATOR, RATIONAL_GROUPS = 5, 4, 8


@dataclass(frozen=True)
class _Hidden(Operator):
    """A channel mixer with hidden channels."""

    mlp_ratio: float = shared(MLP_RATIO)

    def hidden(self, channels: int) -> int:
        """Hidden channels."""
        return max(1, int(self.mlp_ratio * channels))


@dataclass(frozen=True)
class MLP(_Hidden):
    """Two linear maps with a GELU between them, position by position (Vaswani 2017)."""

    word = "mlp"
    builds = "medmamba_variants.parts.channel_mixers:MLP"

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * channels * self.hidden(channels) * height * width


@dataclass(frozen=True)
class SwiGLU(_Hidden):
    """A linear map of the product of one linear map with SiLU of another (Shazeer 2020)."""

    word = "swiglu"
    builds = "medmamba_variants.parts.channel_mixers:SwiGLU"

    def macs(self, channels: int, height: int, width: int) -> int:
        return 3 * channels * self.hidden(channels) * height * width


@dataclass(frozen=True)
class ConvGLU(_Hidden):
    """A gated linear unit whose gate sees its 3×3 neighbourhood, by a filter a channel (TransNeXt; S-Net)."""

    word = "convglu"
    builds = "medmamba_variants.parts.channel_mixers:ConvGLU"

    def macs(self, channels: int, height: int, width: int) -> int:
        return (3 * channels + TAPS) * self.hidden(channels) * height * width


@dataclass(frozen=True)
class ConvFFN(_Hidden):
    """Two linear maps with a depth-wise 3×3 convolution and a GELU between them (PVTv2)."""

    word = "conv_ffn"
    builds = "medmamba_variants.parts.channel_mixers:ConvFFN"

    def macs(self, channels: int, height: int, width: int) -> int:
        return (2 * channels + TAPS) * self.hidden(channels) * height * width


@dataclass(frozen=True)
class KAN(_Hidden):
    """Two layers whose every weight is a function, SiLU and a cubic spline, with a depth-wise 3×3 between (KM-UNet)."""

    word = "kan"
    builds = "medmamba_variants.parts.rational:KAN"

    spline_grid: int = axis(
        5, whole(1, 32), "intervals of the splines of a KAN from −2 to 2", "KAN, section 2.4", probe=3
    )

    @property
    def functions(self) -> int:
        """Functions that every weight adds up: the splines' bases, and SiLU."""
        return self.spline_grid + SPLINE_ORDER + 1

    def macs(self, channels: int, height: int, width: int) -> int:
        return (2 * channels * self.functions + TAPS) * self.hidden(channels) * height * width


@dataclass(frozen=True)
class GroupRational(_Hidden):
    """An MLP with a learned rational function for each of eight groups of channels before each map (KAT, GR-KAN)."""

    word = "gr_kan"
    builds = "medmamba_variants.parts.rational:GroupRational"

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * channels * self.hidden(channels) * height * width


@dataclass(frozen=True)
class SoftMoE(_Hidden):
    """Experts, MLPs on slots that are mixtures of positions, mixed back to positions (Puigcerver 2024, soft MoE)."""

    word = "soft_moe"
    builds = "medmamba_variants.parts.experts:SoftMoE"

    experts: int = axis(4, whole(1, 64), "experts of a soft mixture", "Soft MoE, section 2.1", probe=2)
    slots: int = axis(4, whole(1, 256), "slots of each expert of a soft mixture", "Soft MoE, section 2.1", probe=2)

    def macs(self, channels: int, height: int, width: int) -> int:
        count = self.experts * self.slots
        # Scores, slots out of positions and positions out of slots; then the experts.
        return count * channels * (3 * height * width + 2 * self.hidden(channels))


CHANNEL_MIXERS: dict[str, type[Operator]] = by_word(MLP, SwiGLU, ConvGLU, ConvFFN, KAN, GroupRational, SoftMoE)
