"""Depth-wise convolutions of Haar bands as branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from medmamba_variants.design.spectral import mixers as design
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.patches import even, haar, inverse_haar


class Cascade(nn.Module):
    """Filters of the four bands of each level of the Haar transform, and back: a map of the same shape.

    Level by level the low band is transformed again, as it was before its filter; on the way back, what has become of
    it is added to the filtered one. Finder et al., "Wavelet convolutions for large receptive fields" (WTConv, 2024),
    equation 9: k taps on level l see 2^l·k pixels.
    """

    def __init__(self, channels: int, kernel_size: int, levels: int, scale: float | None = None) -> None:
        super().__init__()
        self.filters = nn.ModuleList(FilterEach(4 * channels, (kernel_size,) * 2) for _ in range(levels))
        self.scales = None if scale is None else nn.Parameter(torch.full((levels, 4 * channels), scale))

    def forward(self, x: Tensor) -> Tensor:
        sizes, filtered = [], []
        for level, filters in enumerate(self.filters):
            sizes.append(x.shape[1:3])
            bands = haar(even(x, pads=True))
            seen = filters(bands)
            filtered.append(seen if self.scales is None else seen * self.scales[level])
            x = bands[..., : bands.shape[-1] // 4]
        back = None
        for (height, width), bands in zip(reversed(sizes), reversed(filtered), strict=True):
            if back is not None:
                low, high = bands.tensor_split([back.shape[-1]], dim=-1)
                bands = torch.cat([low + back, high], dim=-1)
            back = inverse_haar(bands)[:, :height, :width]
        assert back is not None
        return back


class HaarBranch(nn.Module):
    """Layer norm, depth-wise convolutions of the Haar bands, a linear map, drop path."""

    def __init__(self, channels: int, component: design.Haar, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.cascade = Cascade(channels, component.kernel_size, component.wavelet_levels)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixing(self.cascade(self.norm(x))))


class WaveletConvBranch(nn.Module):
    """Layer norm, depth-wise convolutions of the map and of its Haar bands, scaled and added, a linear map, drop path.

    WTConv in place of a depth-wise convolution; its scales begin with 1 for the map's channels and .1 for the bands'.
    """

    def __init__(self, channels: int, component: design.WaveletConv, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.filters = FilterEach(channels, (component.kernel_size,) * 2)
        self.scale = nn.Parameter(torch.ones(channels))
        self.cascade = Cascade(channels, component.kernel_size, component.wavelet_levels, scale=0.1)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.drop_path(self.mixing(self.scale * self.filters(x) + self.cascade(x)))
