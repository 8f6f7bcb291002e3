"""Mixers that adapt their filters to what they see: which dilation, which kernel, where to look, which tap."""

from __future__ import annotations

from dataclasses import dataclass

from medmamba_variants.design.components import Mixer, axis, bottleneck, check_norm, shared
from medmamba_variants.design.convolutions import KERNEL_SIZE
from medmamba_variants.design.kinds import whole


@dataclass(frozen=True)
class SelectiveKernel(Mixer):
    """Depth-wise 3×3 filters of growing dilation, of which the whole map chooses a mixture for each channel (SKNet)."""

    word = "selective_kernel"
    builds = "medmamba_variants.parts.mixers.adaptive:SelectiveKernelBranch"

    dilations: int = axis(
        2,
        # With a single one there is nothing to select.
        whole(2, 4),
        "filters of a selective kernel, whose taps lie 1, 2, … pixels apart",
        "SKNet: 2; AC-MambaSeg's bottleneck has more",
        probe=3,
    )

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        selection = bottleneck(channels) * channels * (1 + self.dilations)
        return (9 * self.dilations + channels) * channels * height * width + selection


@dataclass(frozen=True)
class Deformable(Mixer):
    """A full 3×3 convolution whose nine taps lie where a second convolution puts them at each position (Dai 2017)."""

    word = "deformable"
    builds = "medmamba_variants.parts.mixers.adaptive:DeformableBranch"

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # Offsets (two for each tap), bilinear sampling of four neighbours, the taps themselves.
        return 9 * (2 * 9 + 4 + channels) * channels * height * width


@dataclass(frozen=True)
class Dynamic(Mixer):
    """A depth-wise convolution whose kernel is mixed of several for each image, by what it holds (CondConv)."""

    word = "dynamic"
    builds = "medmamba_variants.parts.mixers.adaptive:DynamicBranch"

    kernel_size: int = shared(KERNEL_SIZE)
    kernels: int = axis(
        4,
        whole(1, 16),
        "kernels of which a dynamic convolution mixes that of an image",
        "CondConv: 8; dynamic convolution: 4",
        probe=2,
    )

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # The kernel and its offset are mixed once for an image.
        mixing = self.kernels * channels * (1 + self.kernel_size**2 + 1)
        return (self.kernel_size**2 + channels) * channels * height * width + mixing


@dataclass(frozen=True)
class Morphology(Mixer):
    """Learned 3×3 dilation and erosion, the largest sum and the smallest difference, and a linear map of both.

    Sums, maxima and minima are free by the convention of `medmamba_variants.cost`, as they are in pooling, so that the
    linear map is all that is counted.
    """

    word = "morphology"
    builds = "medmamba_variants.parts.mixers.adaptive:MorphologyBranch"

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * channels**2 * height * width
