"""Mixers that work on the frequencies of a map, or on its coarse and its fine part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.convolutions import KERNEL_SIZE
from medmamba_variants.design.kinds import Choice, SettingError, whole
from medmamba_variants.design.spectral.transforms import fft_pair_macs, half

FREQUENCY_TABLE = axis(
    8,
    Choice((2, 4, 8, 16, 32)),
    "side of the learned table over frequencies, from which a map of any size reads by interpolation",
    "GFNet, filters of other resolutions; vHeat, frequency embeddings",
    probe=4,
)
WAVELET_LEVELS = axis(
    1, whole(1, 5), "levels of the Haar transform, each of the low band of the level before", "WTConv, section 3.2", 2
)


@dataclass(frozen=True)
class Heat(Mixer):
    """Heat conduction: the map's cosine transform fades with frequency at a learned rate, beside a gate (vHeat)."""

    word = "heat"
    builds = "medmamba_variants.parts.mixers.spectral.heat:HeatBranch"

    frequency_table: int = shared(FREQUENCY_TABLE)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # Nine taps, two maps in and one out; each transform is a product with a matrix for either axis.
        position = 9 + 3 * channels + 2 * (height + width)
        return channels * height * width * position + (self.frequency_table * channels) ** 2


@dataclass(frozen=True)
class FourierFilter(Mixer):
    """A global filter: the map's Fourier transform times learned complex numbers, then a linear map (GFNet, FMamba)."""

    word = "fourier_filter"
    builds = "medmamba_variants.parts.mixers.spectral.fourier:FourierFilterBranch"

    frequency_table: int = shared(FREQUENCY_TABLE)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return fft_pair_macs(channels, height, width) + channels**2 * height * width


@dataclass(frozen=True)
class FFTBlock(Mixer):
    """Convolutions of the Fourier transform: depth-wise 3×3, then grouped 1×1 ones that a gate weighs (FreqConvMamba).

    The gate weighs the groups' answers by softmax, at each frequency anew.
    """

    word = "fft_block"
    builds = "medmamba_variants.parts.mixers.spectral.fourier:FFTBlockBranch"

    spectral_groups: int = axis(
        4,
        whole(2, 64),
        "groups of the spectrum's channels, each of which answers for all of them and is weighed by a gate",
        "FreqConvMamba",
        probe=2,
    )

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        if channels % self.spectral_groups:
            raise SettingError(
                ("spectral_groups",),
                f"must divide the {channels} channels between them, got {self.spectral_groups} of {self.word} "
                f"in stage {stage}",
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        # Real and imaginary parts are channels of their own.
        parts = 2 * channels
        frequencies = height * half(width)
        layers = frequencies * parts * (9 + parts + self.spectral_groups)
        return fft_pair_macs(channels, height, width) + layers


@dataclass(frozen=True)
class Haar(Mixer):
    """Depth-wise convolutions of the four bands of a Haar transform, level by level, then a linear map (WTCM-UNet)."""

    word = "haar"
    builds = "medmamba_variants.parts.mixers.spectral.wavelets:HaarBranch"

    kernel_size: int = shared(KERNEL_SIZE)
    wavelet_levels: int = shared(WAVELET_LEVELS)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        bands = sum(4 * rows * columns for rows, columns in halved(height, width, self.wavelet_levels))
        return channels * (self.kernel_size**2 * bands + channels * height * width)


@dataclass(frozen=True)
class WaveletConv(Haar):
    """A depth-wise convolution of the map beside those of its Haar bands, each with a scale, a linear map (WTConv)."""

    word = "wavelet_conv"
    builds = "medmamba_variants.parts.mixers.spectral.wavelets:WaveletConvBranch"

    def macs(self, channels: int, height: int, width: int) -> int:
        return super().macs(channels, height, width) + self.kernel_size**2 * channels * height * width


@dataclass(frozen=True)
class PooledLowHigh(Mixer):
    """Coarse and fine cues: the map times its pooled self, and less it, a 3×3 convolution of each (InceptionMamba)."""

    word = "pooled_low_high"
    builds = "medmamba_variants.parts.mixers.spectral.pooled:PooledLowHighBranch"

    pool_stride: int = axis(
        4, Choice((2, 4, 8)), "side of the patches that a strided convolution pools", "InceptionMamba", probe=2
    )

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        side = self.pool_stride
        pooled = side**2 * math.ceil(height / side) * math.ceil(width / side)
        return channels * (pooled + (2 * 9 + channels) * height * width)


def halved(height: int, width: int, levels: int) -> Iterator[tuple[int, int]]:
    """The sizes of a map's bands, level by level: an odd row or column is repeated."""
    for _ in range(levels):
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        yield height, width
