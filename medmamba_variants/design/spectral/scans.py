"""Mixers that scan the frequencies of a map, or the low ones of them, with the axes of the scan."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.components import axis
from medmamba_variants.design.kinds import Number
from medmamba_variants.design.scan_mixer import SS2D
from medmamba_variants.design.spectral.transforms import fft_pair_macs, half


@dataclass(frozen=True)
class SpectralScan(SS2D):
    """The selective scan of a map's Fourier transform, real and imaginary parts as channels (Dual-domain Mamba)."""

    word = "spectral_scan"
    builds = "medmamba_variants.parts.mixers.spectral.scans:SpectralScanBranch"

    def macs(self, channels: int, height: int, width: int) -> int:
        return super().macs(2 * channels, height, half(width)) + fft_pair_macs(channels, height, width)


@dataclass(frozen=True)
class DCTSplit(SS2D):
    """The selective scan of the low cosine frequencies, beside a convolution of what they leave out (SpectralMamba)."""

    word = "dct_split"
    builds = "medmamba_variants.parts.mixers.spectral.scans:DCTSplitBranch"

    low_band: float = axis(
        0.25,
        Number(0.05, 0.95),
        "share of the rows' and of the columns' cosine frequencies, from zero on, that count as low",
        "SpectralMamba-UNet",
        probe=0.5,
    )

    def low(self, height: int, width: int) -> tuple[int, int]:
        """Low frequencies of a map's columns and of its rows: at least two, so that a scan has steps, but not all."""
        return self._count(height), self._count(width)

    def _count(self, size: int) -> int:
        # Tenths of thirty must not be four for their last digit.
        return max(math.ceil(self.low_band * size - 1e-9), min(2, size - 1), 1)

    def macs(self, channels: int, height: int, width: int) -> int:
        rows, columns = self.low(height, width)
        there = rows * width * (height + columns)
        # Of the low band itself, which is taken from the map, and of what the scan makes of it.
        back = 2 * height * columns * (rows + width)
        rest = (9 + channels) * height * width
        return super().macs(channels, rows, columns) + channels * (there + back + rest)
