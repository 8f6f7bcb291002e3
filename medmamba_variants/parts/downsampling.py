"""Down-sampling: how a map (batch, height, width, channels) is halved between stages.

All normalise by layer norm before the single learned product, have no offset, and see the same 2×2 neighbourhoods (the
strided convolution one pixel more on two sides), so that they differ only in the reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.components import Halving
from medmamba_variants.design.joints import Apart
from medmamba_variants.fused.norms import LayerNorm, patch_norm
from medmamba_variants.parts.init import linear


class PatchMerging(nn.Module):
    """The published halving: the four pixels of a 2×2 patch side by side, layer norm, a linear map (Swin)."""

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels_in)
        self.reduction = linear(4 * channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(patch_norm(x, self.norm))


class _Pool(nn.Module):
    """Pooling of each 2×2 patch to one number, layer norm, a 1×1 convolution."""

    pool: Callable[[Tensor, int], Tensor]

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(channels_in)
        self.reduction = linear(channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        return self.reduction(self.norm(pooled))


class MaxPool(_Pool):
    """The maximum of each 2×2 patch, layer norm, a 1×1 convolution."""

    pool = staticmethod(F.max_pool2d)


class AveragePool(_Pool):
    """The mean of each 2×2 patch, layer norm, a 1×1 convolution."""

    pool = staticmethod(F.avg_pool2d)


class StridedConv(nn.Module):
    """Layer norm, then a 3×3 convolution of stride 2."""

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(channels_in)
        self.reduction = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Streams(nn.Module):
    """A separate halving for each branch's channels, so that fusion `none` keeps the streams apart."""

    def __init__(self, widths_in: Sequence[int], widths_out: Sequence[int], component: Halving) -> None:
        super().__init__()
        self.widths = list(widths_in)
        self.parts = nn.ModuleList(
            component.builder()(before, after, component) for before, after in zip(widths_in, widths_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        slices = x.split(self.widths, dim=-1)
        return torch.cat([part(piece) for part, piece in zip(self.parts, slices)], dim=-1)


class Downsampling(nn.Module):
    """The halving between two stages, as set by the axes `downsampling`, `odd_maps` and `fusion`."""

    def __init__(self, stage: int, config: VariantConfig) -> None:
        super().__init__()
        self.pads = config.odd_maps == "pad"
        before, after = config.structure.stages[stage : stage + 2]
        component = config.structure.halvings[stage]
        if isinstance(before.fusion, Apart) and len(before.widths) > 1:
            self.reduce: nn.Module = Streams(before.widths, after.widths, component)
        else:
            self.reduce = component.builder()(before.channels, after.channels, component)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(even(x, self.pads))


def even(x: Tensor, pads: bool) -> Tensor:
    """A map made even: an odd last row or column is repeated once, or dropped (as the published code does).

    Repeating leaves the maximum and mean of border patches as they are without the missing pixels.
    """
    for dim in (1, 2):
        size = x.shape[dim]
        if size % 2:
            x = torch.cat((x, x.narrow(dim, size - 1, 1)), dim=dim) if pads else x.narrow(dim, 0, size - 1)
    return x
