"""Stem of the network: images to tokens, with a conversion of colour where an axis demands it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.components import Component
from medmamba_variants.design.wraps import around as design
from medmamba_variants.fused.fitting import fits
from medmamba_variants.fused.norms import LayerNorm
from medmamba_variants.parts.init import convolution

# Rec. 601 luma: the weights that turn RGB into grey.
LUMA = (0.299, 0.587, 0.114)


class ColourConversion(nn.Module):
    """Conversion of images to the channels that the stem reads: grey repeated to RGB, RGB weighted to grey, or none."""

    weights: Tensor

    def __init__(self, wanted: int | str, in_channels: int) -> None:
        super().__init__()
        self.channels_out = in_channels if isinstance(wanted, str) else wanted
        if self.channels_out != in_channels and {self.channels_out, in_channels} != {1, 3}:
            raise ValueError(
                f"input_channels={wanted} must get images of 1 or 3 channels, got in_channels={in_channels}"
            )
        self.repeats = in_channels == 1 and self.channels_out == 3
        self.weighs = in_channels == 3 and self.channels_out == 1
        self.register_buffer("weights", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.repeats:
            return x.expand(-1, 3, -1, -1)
        if self.weighs:
            return (x * self.weights.to(x.dtype)).sum(1, keepdim=True)
        return x


class Patches(nn.Module):
    """Patch embedding: images (batch, channels, height, width) to a map (batch, height, width, channels)."""

    def __init__(self, channels_in: int, channels_out: int, patch_size: int, component: Component) -> None:
        super().__init__()
        self.side = patch_size
        self.projection = convolution(channels_in, channels_out, patch_size, patch_size, 0)
        self.norm = LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x, filters, side = x.contiguous(memory_format=torch.channels_last), self.projection, self.side
        if not fits(x, filters.weight, filters.bias):
            return self.norm(filters(x).permute(0, 2, 3, 1))
        # Patches do not overlap: side by side they are the rows of a product, whose backward pass is faster.
        patches = whole_patches(x, side).permute(0, 2, 3, 1).unflatten(1, (-1, side)).unflatten(3, (-1, side))
        rows = patches.transpose(2, 3).flatten(3)
        return self.norm(F.linear(rows, filters.weight.permute(0, 2, 3, 1).flatten(1), filters.bias))


class Overlapping(nn.Module):
    """Overlapping patches: a convolution of side 2p − 1 and stride p, then layer norm (PVTv2, section 3.2)."""

    def __init__(self, channels_in: int, channels_out: int, patch_size: int, component: Component) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = convolution(channels_in, channels_out, 2 * patch_size - 1, patch_size, patch_size - 1)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = whole_patches(x, self.patch_size).contiguous(memory_format=torch.channels_last)
        return self.norm(self.projection(x).permute(0, 2, 3, 1))


class Convolutions(nn.Module):
    """3×3 convolutions of stride 2 with batch norm and ReLU between them, then layer norm (Xiao 2021)."""

    def __init__(self, channels_in: int, channels_out: int, patch_size: int, component: design.Convolutions) -> None:
        super().__init__()
        self.patch_size = patch_size
        widths = component.widths(channels_in, channels_out, patch_size)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [convolution(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        # The last one is normed as any stem's map is.
        self.layers = nn.Sequential(*layers[:-2])
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = whole_patches(x, self.patch_size).contiguous(memory_format=torch.channels_last)
        return self.norm(self.layers(x).permute(0, 2, 3, 1))


def whole_patches(x: Tensor, patch_size: int) -> Tensor:
    """Images without the last rows and columns that fill no patch, which the published stem does not see either."""
    return x[..., : x.shape[-2] // patch_size * patch_size, : x.shape[-1] // patch_size * patch_size]
