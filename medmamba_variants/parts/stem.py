"""Stem of the network: images to tokens, with a conversion of colour where an axis demands it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
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


class Stem(nn.Module):
    """Patch embedding: images (batch, channels, height, width) to a map (batch, height, width, channels)."""

    def __init__(self, in_channels: int, config: VariantConfig) -> None:
        super().__init__()
        self.side = config.patch_size
        self.projection = convolution(in_channels, config.dims[0], config.patch_size, config.patch_size, 0)
        self.norm = LayerNorm(config.dims[0])

    def forward(self, x: Tensor) -> Tensor:
        x, filters = x.contiguous(memory_format=torch.channels_last), self.projection
        if not fits(x, filters.weight, filters.bias):
            return self.norm(filters(x).permute(0, 2, 3, 1))
        # Patches do not overlap: side by side they are the rows of a product, whose backward pass is faster.
        side = self.side
        x = x[:, :, : x.shape[2] // side * side, : x.shape[3] // side * side].permute(0, 2, 3, 1)
        patches = x.unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3).flatten(3)
        return self.norm(F.linear(patches, filters.weight.permute(0, 2, 3, 1).flatten(1), filters.bias))
