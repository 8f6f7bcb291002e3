"""Filters that adapt to what they see as branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

import math

import torch
from timm.layers import CondConv2d, DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from medmamba_variants.design.local import adaptive as design
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.selection import Selection


class SelectiveKernelBranch(nn.Module):
    """Layer norm, SiLU of depth-wise 3×3 filters of several dilations, a selection of them, a linear map, drop path.

    Li et al., "Selective kernel networks" (2019), where the filters see groups of channels, and batch norm and ReLU
    follow each.
    """

    def __init__(self, channels: int, component: design.SelectiveKernel, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.filters = nn.ModuleList(FilterEach(channels, (3, 3), 1 + index) for index in range(component.dilations))
        self.selection = Selection(component.dilations, channels)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.drop_path(self.mixing(self.selection([F.silu(filters(x)) for filters in self.filters])))


class DeformableBranch(nn.Module):
    """Layer norm, a full 3×3 convolution whose taps are moved by offsets, drop path.

    A second 3×3 convolution, zero at first, says for each position and tap how many rows and columns it moves; what
    lies between pixels is their bilinear mean, what lies outside the map is zero. Dai et al., "Deformable convolutional
    networks" (2017). On CUDA its gradient adds up in any order, so that last bits may differ from run to run.
    """

    def __init__(self, channels: int, component: design.Deformable, drop_path: float) -> None:
        super().__init__()
        del component
        self.norm = nn.LayerNorm(channels)
        self.offsets = nn.Conv2d(channels, 2 * 9, 3, padding=1)
        assert self.offsets.bias is not None
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / math.sqrt(9 * channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        images = self.norm(x).permute(0, 3, 1, 2)
        # The operator takes operands of one precision, and none below single on a CPU.
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        offsets, images, weight, bias = (
            each.to(dtype) for each in (self.offsets(images), images, self.weight, self.bias)
        )
        y = deform_conv2d(images, offsets, weight, bias, padding=1).permute(0, 2, 3, 1)
        return self.drop_path(y.to(x.dtype))


class DynamicBranch(nn.Module):
    """Layer norm, a depth-wise convolution with a kernel of each image's own, a linear map, drop path.

    The kernel is a sum of several, each weighed by a sigmoid of the means of the image's channels: Yang et al.,
    "CondConv" (2019).
    """

    def __init__(self, channels: int, component: design.Dynamic, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.routing = linear(channels, component.kernels, bias=True)
        self.filters = CondConv2d(
            channels,
            channels,
            component.kernel_size,
            padding=component.kernel_size // 2,
            groups=channels,
            bias=True,
            num_experts=component.kernels,
        )
        # The fresh weights are a half, so that variance is kept where kernels are twice as large.
        nn.init.normal_(self.filters.weight, std=2 / (component.kernel_size * math.sqrt(component.kernels)))
        nn.init.zeros_(self.filters.bias)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):
            # There is no kernel where there is no image.
            return x
        x = self.norm(x)
        weights = torch.sigmoid(self.routing(x.mean((1, 2))))
        seen = self.filters(x.permute(0, 3, 1, 2), weights).permute(0, 2, 3, 1)
        return self.drop_path(self.mixing(seen))


def dilate(x: Tensor, element: Tensor) -> Tensor:
    """The dilation of maps (batch, height, width, channels) by an element (channels, 3, 3): the largest sum of each.

    At every position, of the sums of the nine pixels around it and the element's nine values; pixels outside the map
    are none.
    """
    padded = F.pad(x, (0, 0, 1, 1, 1, 1), value=-math.inf)
    return (padded.unfold(1, 3, 1).unfold(2, 3, 1) + element).flatten(-2).max(-1).values


class MorphologyBranch(nn.Module):
    """Layer norm, learned dilation and erosion of each channel, a linear map of both, drop path.

    Erosion is the dilation of the negative, the smallest difference of pixels and element. After the morphological
    method in HMM-VMamba, of which no formula is published: both elements are flat at first, and the order is one.
    """

    def __init__(self, channels: int, component: design.Morphology, drop_path: float) -> None:
        super().__init__()
        del component
        self.norm = nn.LayerNorm(channels)
        self.dilation = nn.Parameter(torch.zeros(channels, 3, 3))
        self.erosion = nn.Parameter(torch.zeros(channels, 3, 3))
        self.mixing = linear(2 * channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        seen = torch.cat([dilate(x, self.dilation), -dilate(-x, self.erosion)], dim=-1)
        return self.drop_path(self.mixing(seen))
