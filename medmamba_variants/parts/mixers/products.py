"""Convolutions that are multiplied with each other as branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

from timm.layers import DropPath
from torch import Tensor, nn

from medmamba_variants.design.local import products as design
from medmamba_variants.parts.init import convolution, linear, preserving
from medmamba_variants.parts.mixers.conv import BatchNorm
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.mixers.ss2d import SS2D


def combined(one: Tensor, other: Tensor, how: str) -> Tensor:
    """The product or the sum of two maps, as the axis `combine` says."""
    return one * other if how == "product" else one + other


def normed_convolution(channels: int, kernel_size: int) -> nn.Sequential:
    """A full convolution, batch norm, ReLU."""
    # Without an offset, which the batch norm would take away again.
    layer = convolution(channels, channels, kernel_size, 1, kernel_size // 2, bias=False)
    return nn.Sequential(layer, BatchNorm(channels), nn.ReLU())


class GatedSpatialBranch(nn.Module):
    """Layer norm, then x + a 1×1 convolution of (two 3×3 convolutions in a row, gated by a 1×1), drop path.

    Xing et al., "SegMamba" (2024), section 2.2, in two dimensions; batch norm and ReLU follow each convolution, where
    the released code has instance norm, which a map of one pixel does not allow.
    """

    def __init__(self, channels: int, component: design.GatedSpatial, drop_path: float) -> None:
        super().__init__()
        self.combine = component.combine
        self.norm = nn.LayerNorm(channels)
        self.spatial = nn.Sequential(normed_convolution(channels, 3), normed_convolution(channels, 3))
        self.gate = normed_convolution(channels, 1)
        self.mixing = normed_convolution(channels, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        images = x.permute(0, 3, 1, 2)
        mixed = self.mixing(combined(self.spatial(images), self.gate(images), self.combine))
        return self.drop_path(x + mixed.permute(0, 2, 3, 1))


class HighOrderBranch(nn.Module):
    """Layer norm, a recursive gated convolution, a linear map over the channels, drop path.

    p_0 and factors f_1 … f_n are linear maps of x, the factors depth-wise filtered; p_1 = p_0 ⊙ f_1, and
    p_(k+1) = W_k p_k ⊙ f_(k+1), from C/2^(n-1) channels to all C. Rao et al., "HorNet" (2022), equations 3.2 to 3.4;
    fresh layers keep the variance, for which HorNet divides by a constant. With `sum` each ⊙ is a +.
    """

    def __init__(self, channels: int, component: design.HighOrder, drop_path: float) -> None:
        super().__init__()
        self.combine = component.combine
        self.widths = design.factor_widths(component.interaction_order, channels)
        self.norm = nn.LayerNorm(channels)
        self.entering = preserving(channels, self.widths[0] + sum(self.widths))
        self.filters = FilterEach(sum(self.widths), (component.kernel_size,) * 2)
        self.widening = nn.ModuleList(preserving(before, after) for before, after in zip(self.widths, self.widths[1:]))
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        p, rest = self.entering(self.norm(x)).split([self.widths[0], sum(self.widths)], dim=-1)
        first, *factors = self.filters(rest).split(self.widths, dim=-1)
        p = combined(p, first, self.combine)
        for widen, factor in zip(self.widening, factors):
            p = combined(widen(p), factor, self.combine)
        return self.drop_path(self.mixing(p))


class HighOrderScanBranch(nn.Module):
    """Layer norm, selective scans of a product that grows by one filtered factor before each of them, drop path.

    p_0 and factors f_1 … f_n are linear maps of x, the factors filtered 3×3 by channel; p_1 = scan(p_0 ⊙ f_1), and
    p_(k+1) = scan(W_k p_k ⊙ f_(k+1)), from C/2^(n-1) channels to all C (Wu et al., "H-vmunet", 2024, where the factors
    come from another scan). Each scan normalises what it reads, without which products of small numbers would vanish.
    """

    def __init__(self, channels: int, component: design.HighOrderScan, drop_path: float) -> None:
        super().__init__()
        self.widths = component.widths(channels)
        self.norm = nn.LayerNorm(channels)
        self.entering = preserving(channels, self.widths[0] + sum(self.widths))
        self.filters = FilterEach(sum(self.widths), (3, 3))
        self.widening = nn.ModuleList(preserving(before, after) for before, after in zip(self.widths, self.widths[1:]))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths)
        self.scans = nn.ModuleList(SS2D(width, component) for width in self.widths)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        p, rest = self.entering(self.norm(x)).split([self.widths[0], sum(self.widths)], dim=-1)
        factors = self.filters(rest).split(self.widths, dim=-1)
        for order, (factor, norm, scan) in enumerate(zip(factors, self.norms, self.scans)):
            p = scan(norm((self.widening[order - 1](p) if order else p) * factor))
        return self.drop_path(p)
