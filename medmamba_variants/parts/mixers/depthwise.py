"""Depth-wise convolutions as branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

import math

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import convolutions as design
from medmamba_variants.fused.norms import LayerNorm
from medmamba_variants.parts.init import linear


class FilterEach(nn.Conv2d):
    """One filter a channel, (rows, columns) taps, which keeps the map's size; maps are channel-last.

    A fresh filter keeps the variance of white noise: its taps have the variance of one part in their number.
    """

    def __init__(self, channels: int, taps: tuple[int, int], dilation: int = 1) -> None:
        padding = (taps[0] // 2 * dilation, taps[1] // 2 * dilation)
        super().__init__(channels, channels, taps, padding=padding, dilation=dilation, groups=channels)
        nn.init.normal_(self.weight, std=math.prod(taps) ** -0.5)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class IdentityBranch(nn.Module):
    """The channels as a pre-normed branch sees them, before any weight; a block of this alone learns nothing."""

    def __init__(self, channels: int, component: design.Identity, drop_path: float) -> None:
        super().__init__()
        del component, drop_path
        # Unnormalised, each block would double what it passes on.
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed


class DepthwiseBranch(nn.Module):
    """Layer norm, a depth-wise convolution, a linear map over the channels, drop path."""

    def __init__(self, channels: int, component: design.Depthwise, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.filters = FilterEach(channels, (component.kernel_size,) * 2, component.dilation)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixing(self.filters(self.norm(x))))


class InceptionBranch(nn.Module):
    """Layer norm, a filter shape for each quarter of the channels, drop path; what four does not divide stays as it is.

    Yu et al., "InceptionNeXt" (2024), whose convolutions have an eighth of the channels each, and strips of eleven.
    """

    def __init__(self, channels: int, component: design.Inception, drop_path: float) -> None:
        super().__init__()
        self.quarter = channels // 4
        self.norm = LayerNorm(channels)
        taps = [(3, 3), (1, component.kernel_size), (component.kernel_size, 1)]
        self.filters = nn.ModuleList(FilterEach(self.quarter, each) for each in taps)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        quarter = self.quarter
        *parts, rest = self.norm(x).split([quarter, quarter, quarter, x.shape[-1] - 3 * quarter], dim=-1)
        seen = [filters(part) for filters, part in zip(self.filters, parts)]
        return self.drop_path(torch.cat([*seen, rest], dim=-1))


class AxialBranch(nn.Module):
    """Layer norm, the sum of a column's filter, a row's filter and the channels themselves, drop path.

    The axial convolution of Dinh et al., "1M parameters are enough?" (2023), which names its network U-Lite.
    """

    def __init__(self, channels: int, component: design.Axial, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.column = FilterEach(channels, (component.kernel_size, 1), component.dilation)
        self.row = FilterEach(channels, (1, component.kernel_size), component.dilation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.drop_path(x + self.column(x) + self.row(x))


class ConvNeXtBranch(nn.Module):
    """A depth-wise convolution, layer norm, an MLP with GELU, a scale on each channel, drop path.

    Liu et al., "A ConvNet for the 2020s" (2022), where the norm comes after the convolution.
    """

    def __init__(self, channels: int, component: design.ConvNeXt, drop_path: float) -> None:
        super().__init__()
        self.filters = FilterEach(channels, (component.kernel_size,) * 2)
        self.norm = LayerNorm(channels)
        self.widen = linear(channels, design.MLP_RATIO * channels, bias=True)
        self.narrow = linear(design.MLP_RATIO * channels, channels, bias=True)
        self.scale = nn.Parameter(torch.full((channels,), component.layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.scale * self.narrow(F.gelu(self.widen(self.norm(self.filters(x))))))
