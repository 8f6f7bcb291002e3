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
from medmamba_variants.parts.mixers.conv import BatchNorm
from medmamba_variants.parts.selection import ChannelGate


class FilterEach(nn.Conv2d):
    """One filter a channel, (rows, columns) taps, which keeps the map's size; maps are channel-last.

    A fresh filter keeps the variance of white noise: its taps have the variance of one part in their number.
    """

    def __init__(self, channels: int, taps: tuple[int, int], dilation: int = 1, bias: bool = True) -> None:
        padding = (taps[0] // 2 * dilation, taps[1] // 2 * dilation)
        super().__init__(channels, channels, taps, padding=padding, dilation=dilation, groups=channels, bias=bias)
        nn.init.normal_(self.weight, std=math.prod(taps) ** -0.5)
        if self.bias is not None:
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


class MultiScaleBranch(nn.Module):
    """Layer norm, the sum of depth-wise filters of three sides, a linear map over the channels, drop path.

    The light fusion block of Chen et al.'s network of a state-space and a residual encoder (2025).
    """

    def __init__(self, channels: int, component: design.MultiScale, drop_path: float) -> None:
        super().__init__()
        del component
        self.norm = nn.LayerNorm(channels)
        self.filters = nn.ModuleList(FilterEach(channels, (side, side)) for side in design.SCALES)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        first, *others = self.filters
        seen = first(x)
        for filters in others:
            seen = seen + filters(x)
        return self.drop_path(self.mixing(seen))


class StripsBranch(nn.Module):
    """Layer norm, SiLU of x + batch norm of a linear map of what a 5×5 filter and crosses of strips see, drop path.

    Each cross is a row of taps followed by a column of as many, over what the 5×5 filter saw; their sum and that are
    mixed. The multi-scale feature fusion of S-Net, by its released code, after a layer norm, which it lacks.
    """

    def __init__(self, channels: int, component: design.Strips, drop_path: float) -> None:
        super().__init__()
        del component
        self.norm = nn.LayerNorm(channels)
        # Nothing has an offset that the batch norm would take away again.
        self.near = FilterEach(channels, (5, 5), bias=False)
        self.crosses = nn.ModuleList(
            nn.Sequential(FilterEach(channels, (1, length), bias=False), FilterEach(channels, (length, 1), bias=False))
            for length in design.STRIPS
        )
        self.mixing = linear(channels, channels, bias=False)
        self.batch_norm = BatchNorm(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        near = self.near(x)
        seen = near
        for cross in self.crosses:
            seen = seen + cross(near)
        mixed = self.batch_norm(self.mixing(seen).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop_path(F.silu(x + mixed))


class ReparametrisedFilter(nn.Module):
    """Batch norm of (the batch norm of a 3×3 filter each) + (a weight each) · x + x, one 3×3 filter in evaluation.

    Wang et al., "RepViT" (2024), section 3.2, after Ding et al., "RepVGG" (2021). Offsets that the outer norm would
    take away again are left out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filters = FilterEach(channels, (3, 3), bias=False)
        self.inner_norm = BatchNorm(channels)
        self.inner_norm.register_parameter("bias", None)
        self.weight = nn.Parameter(torch.randn(channels))
        self.outer_norm = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        if self.training:
            filters = self.filters
            seen = F.conv2d(x, filters.weight, padding=1, groups=filters.groups)
            y = self.outer_norm(self.inner_norm(seen) + self.weight[:, None, None] * x + x)
        else:
            weight, bias = self.fuse()
            y = F.conv2d(x, weight, bias, padding=1, groups=len(weight))
        return y.permute(0, 2, 3, 1)

    def fuse(self) -> tuple[Tensor, Tensor]:
        """The one filter each, (channels, 1, 3, 3), and offset, (channels,), that do the same with fixed statistics."""
        inner, outer = self.inner_norm, self.outer_norm
        assert inner.running_mean is not None and inner.running_var is not None
        assert outer.running_mean is not None and outer.running_var is not None
        inner_scale = inner.weight * torch.rsqrt(inner.running_var + inner.eps)
        outer_scale = outer.weight * torch.rsqrt(outer.running_var + outer.eps)
        # The middle tap alone sees the pixel itself.
        itself = F.pad((1 + self.weight)[:, None, None, None], (1, 1, 1, 1))
        kernel = self.filters.weight * inner_scale[:, None, None, None] + itself
        shift = -inner.running_mean * inner_scale - outer.running_mean
        return kernel * outer_scale[:, None, None, None], shift * outer_scale + outer.bias


class ReparametrisedBranch(nn.Module):
    """Layer norm, a re-parametrised filter, a gate on every channel, a linear map over the channels, drop path.

    The token mixer of RepViT, which has no layer norm, and its first linear map in place of its MLP.
    """

    def __init__(self, channels: int, component: design.Reparametrised, drop_path: float) -> None:
        super().__init__()
        del component
        self.norm = nn.LayerNorm(channels)
        self.filters = ReparametrisedFilter(channels)
        self.gate = ChannelGate(channels)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixing(self.gate(self.filters(self.norm(x)))))
