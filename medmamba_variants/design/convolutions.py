"""Mixers of fixed depth-wise filters, and the one that sees nothing beyond a pixel: the channels as they are."""

from __future__ import annotations

from dataclasses import dataclass

from medmamba_variants.design.components import Mixer, axis, bottleneck, check_norm, shared
from medmamba_variants.design.kinds import Choice, Number, SettingError

# Hidden channels of a ConvNeXt branch for each of its channels.
MLP_RATIO = 4
# Sides of the filters of a multi-scale branch, and lengths of the strips.
SCALES = (3, 5, 7)
STRIPS = (7, 11, 21)

KERNEL_SIZE = axis(
    7,
    Choice((3, 5, 7, 9, 11)),
    "side of a depth-wise convolution, or length of its strips",
    "ConvNeXt; InceptionNeXt has strips of 11",
    probe=5,
)
DILATION = axis(
    1,
    Choice((1, 2, 3, 4)),
    "pixels from tap to tap of a depth-wise convolution",
    "Yu & Koltun 2016; growing from stage to stage, [1,2,3,4], in HC-Mamba",
    probe=2,
)


@dataclass(frozen=True)
class Identity(Mixer):
    """The channels passed on, normalised, without a weight (the identity fraction of InceptionMamba)."""

    word = "identity"
    builds = "medmamba_variants.parts.mixers.depthwise:IdentityBranch"
    # Nothing is learned here that dropping could regularise.
    drops_path = False

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return 0


@dataclass(frozen=True)
class Depthwise(Mixer):
    """A depth-wise separable convolution: layer norm, one filter a channel, a linear map (Xception, MobileNet)."""

    word = "depthwise"
    builds = "medmamba_variants.parts.mixers.depthwise:DepthwiseBranch"

    kernel_size: int = shared(KERNEL_SIZE)
    dilation: int = shared(DILATION)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return (self.kernel_size**2 + channels) * channels * height * width


@dataclass(frozen=True)
class Inception(Mixer):
    """Depth-wise 3×3, a row of taps, a column, and nothing, for a quarter of the channels each (InceptionNeXt)."""

    word = "inception"
    builds = "medmamba_variants.parts.mixers.depthwise:InceptionBranch"

    kernel_size: int = shared(KERNEL_SIZE)

    def check(self, channels: int, stage: int) -> None:
        if channels < 4:
            raise SettingError(
                (), f"inception must have at least four channels, one for each quarter, got {channels} in stage {stage}"
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        return (9 + 2 * self.kernel_size) * (channels // 4) * height * width


@dataclass(frozen=True)
class Axial(Mixer):
    """A column and a row of taps, depth-wise, added to the normalised channels (U-Lite)."""

    word = "axial"
    builds = "medmamba_variants.parts.mixers.depthwise:AxialBranch"

    kernel_size: int = shared(KERNEL_SIZE)
    dilation: int = shared(DILATION)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * self.kernel_size * channels * height * width


@dataclass(frozen=True)
class ConvNeXt(Mixer):
    """A depth-wise convolution, layer norm, an MLP of four times the channels, a scale on each channel (ConvNeXt)."""

    word = "convnext"
    builds = "medmamba_variants.parts.mixers.depthwise:ConvNeXtBranch"

    kernel_size: int = shared(KERNEL_SIZE)
    layer_scale: float = axis(
        1e-6,
        Number(1e-6, 1.0),
        "first value of the scale on each channel that a branch adds",
        "ConvNeXt; CaiT has .1 in shallow networks",
        probe=0.1,
    )

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return (self.kernel_size**2 + 2 * MLP_RATIO * channels) * channels * height * width


@dataclass(frozen=True)
class MultiScale(Mixer):
    """Depth-wise filters of sides 3, 5 and 7 added up, then a linear map (the fusion block of a dual-branch SSM)."""

    word = "multi_scale"
    builds = "medmamba_variants.parts.mixers.depthwise:MultiScaleBranch"

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return (sum(side**2 for side in SCALES) + channels) * channels * height * width


@dataclass(frozen=True)
class Strips(Mixer):
    """A 5×5 filter and, after it, crosses of strips of 7, 11 and 21 taps, mixed and added to the input (S-Net)."""

    word = "strips"
    builds = "medmamba_variants.parts.mixers.depthwise:StripsBranch"

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return (5**2 + 2 * sum(STRIPS) + channels) * channels * height * width


@dataclass(frozen=True)
class Reparametrised(Mixer):
    """Depth-wise 3×3 and 1×1 filters and the input itself, trained apart, one 3×3 filter once trained (RepViT)."""

    word = "reparam"
    builds = "medmamba_variants.parts.mixers.depthwise:ReparametrisedBranch"

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # As it is used once trained, which is how a network is counted.
        return (9 + channels) * channels * height * width + 2 * channels * bottleneck(channels)
