"""Scans of a map's frequencies as branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from medmamba_variants.design.spectral import scans as design
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.mixers.spectral.transforms import (
    cosine_transform,
    cosines,
    from_parts,
    from_spectrum,
    parts_of,
    spectrum,
)
from medmamba_variants.parts.mixers.ss2d import SS2D


class SpectralScanBranch(nn.Module):
    """Layer norm; of the Fourier transform layer norm and the selective scan, and back; drop path.

    The scan in the frequency domain of "Dual-domain guided vision Mamba", whose text says no more than that. Real and
    imaginary parts are channels, twice as many as the map's. Rows of frequencies go from the lowest negative one over
    zero to the highest, so that steps of a path lead to neighbours. The norm keeps the frequency zero, which is louder
    than all others together, from filling the scan's states; so each frequency answers with about the same strength.
    """

    def __init__(self, channels: int, component: design.SpectralScan, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.spectral_norm = nn.LayerNorm(2 * channels)
        self.mixer = SS2D(2 * channels, component)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.fft.fftshift(parts_of(spectrum(self.norm(x)), x.dtype), dim=1)
        scanned = torch.fft.ifftshift(self.mixer(self.spectral_norm(seen)), dim=1)
        return self.drop_path(from_spectrum(from_parts(scanned), x.shape[2]).to(x.dtype))


class DCTSplitBranch(nn.Module):
    """Layer norm; of the low cosine frequencies layer norm and the selective scan, and back; taps on the rest; sum.

    SpectralMamba-UNet, which scans the low coefficients of the cosine transform and keeps the high ones by convolution.
    Here the low ones are a corner of the transform, itself a small map that any path can follow; and the convolution,
    depth-wise 3×3 and a linear map, sees what they leave out as a map: taps on coefficients would merely weigh places.
    Drop path last.
    """

    def __init__(self, channels: int, component: design.DCTSplit, drop_path: float) -> None:
        super().__init__()
        self.component = component
        self.norm = nn.LayerNorm(channels)
        self.low_norm = nn.LayerNorm(channels)
        self.mixer = SS2D(channels, component)
        self.filters = FilterEach(channels, (3, 3))
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        counts = self.component.low(*x.shape[1:3])
        rows, columns = (cosines(size, x)[:count] for size, count in zip(x.shape[1:3], counts))
        low = cosine_transform(x, rows, columns)
        high = x - cosine_transform(low, rows.T, columns.T)
        scanned = cosine_transform(self.mixer(self.low_norm(low)), rows.T, columns.T)
        return self.drop_path(scanned + self.mixing(self.filters(high)))
