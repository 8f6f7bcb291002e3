"""Down-sampling: how a map (batch, height, width, channels) is halved between stages.

All normalise by layer norm before the learned product, have no offset behind it, and see the same 2×2 neighbourhoods
(3×3 taps one pixel more on two sides), so that they differ only in the reduction. A pool may have a second product, so
that it has as many parameters as patch merging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.layers import BlurPool2d
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design import joints
from medmamba_variants.design.components import Halving
from medmamba_variants.fused.norms import LayerNorm, patch_norm
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.patches import even, haar


class PatchMerging(nn.Module):
    """The published halving: the four pixels of a 2×2 patch side by side, layer norm, a linear map (Swin)."""

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels_in)
        self.reduction = linear(4 * channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(patch_norm(x, self.norm))


class HaarBands(nn.Module):
    """The four bands of a Haar transform side by side, layer norm, a linear map.

    An orthogonal map away from patch merging, but for the layer norm, which sees sums and differences.
    """

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels_in)
        self.reduction = linear(4 * channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(haar(x)))


class _Pool(nn.Module):
    """Pooling of each 2×2 patch to one number, layer norm, a 1×1 convolution, or two with SiLU between them."""

    pool: Callable[[Tensor, int], Tensor]

    def __init__(self, channels_in: int, channels_out: int, component: joints.Pool) -> None:
        super().__init__()
        self.norm = LayerNorm(channels_in)
        hidden = component.hidden(channels_in, channels_out)
        if hidden:
            self.widen = linear(channels_in, hidden, bias=False)
            # As loud inside as the normed map, so that a fresh pool answers as loudly as with a single product.
            nn.init.kaiming_normal_(self.widen.weight)
        self.reduction = linear(hidden or channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.norm(self.pool(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))
        return self.reduction(F.silu(self.widen(pooled)) if hasattr(self, "widen") else pooled)


class MaxPool(_Pool):
    """The maximum of each 2×2 patch, layer norm, a 1×1 convolution or two."""

    pool = staticmethod(F.max_pool2d)


class AveragePool(_Pool):
    """The mean of each 2×2 patch, layer norm, a 1×1 convolution or two."""

    pool = staticmethod(F.avg_pool2d)


class BlurPool(_Pool):
    """Every second pixel of the map blurred by (1, 2, 1)/4 both ways, layer norm, a 1×1 convolution or two.

    Zhang, "Making convolutional networks shift-invariant again" (2019): what is not blurred before pixels are left out
    folds back as false coarse structure. The map is mirrored at its edges.
    """

    def __init__(self, channels_in: int, channels_out: int, component: joints.Pool) -> None:
        super().__init__(channels_in, channels_out, component)
        self.blur = BlurPool2d(channels_in)

    def pool(self, x: Tensor, stride: int) -> Tensor:
        assert stride == self.blur.stride
        return self.blur(x)


class StridedConv(nn.Module):
    """Layer norm, then a 3×3 convolution of stride 2."""

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(channels_in)
        self.reduction = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchConv(nn.Module):
    """Layer norm, then a 2×2 convolution of stride 2: patch merging with the norm before the patches (ConvNeXt)."""

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        self.norm = LayerNorm(channels_in)
        self.reduction = nn.Conv2d(channels_in, channels_out, 2, stride=2, bias=False)
        nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Inverted(nn.Module):
    """Layer norm, a wider linear map, a depth-wise 3×3 convolution of stride 2, a linear map; ReLU behind both first.

    The inverted bottleneck with which MLLA halves (Han et al., "Demystify Mamba in vision", 2024), there with batch
    norms behind each layer.
    """

    def __init__(self, channels_in: int, channels_out: int, component: joints.Inverted) -> None:
        super().__init__()
        hidden = component.hidden(channels_out)
        self.norm = LayerNorm(channels_in)
        self.widen = nn.Linear(channels_in, hidden)
        self.filters = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1, groups=hidden)
        self.reduction = nn.Linear(hidden, channels_out, bias=False)
        for layer in (self.widen, self.filters, self.reduction):
            nn.init.kaiming_normal_(layer.weight)
        for layer in (self.widen, self.filters):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu(self.widen(self.norm(x)))
        return self.reduction(F.relu(self.filters(wide.permute(0, 3, 1, 2))).permute(0, 2, 3, 1))


class Stay(nn.Module):
    """No halving: the map as it is, through a linear map where the channels change."""

    def __init__(self, channels_in: int, channels_out: int, component: Halving) -> None:
        super().__init__()
        same = channels_in == channels_out
        self.reduction = nn.Identity() if same else linear(channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(x)


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
        self.halves = component.halves
        if isinstance(before.fusion, joints.Apart) and len(before.widths) > 1:
            self.reduce: nn.Module = Streams(before.widths, after.widths, component)
        else:
            self.reduce = component.builder()(before.channels, after.channels, component)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(even(x, self.pads) if self.halves else x)
