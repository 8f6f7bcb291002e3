"""Patches of 2×2 pixels of a map (batch, height, width, channels): a map made even, and its Haar transform."""

from __future__ import annotations

import torch
from torch import Tensor


def even(x: Tensor, pads: bool) -> Tensor:
    """A map made even: an odd last row or column is repeated once, or dropped (as the published code does).

    Repeating leaves the maximum and mean of border patches as they are without the missing pixels.
    """
    for dim in (1, 2):
        size = x.shape[dim]
        if size % 2:
            x = torch.cat((x, x.narrow(dim, size - 1, 1)), dim=dim) if pads else x.narrow(dim, 0, size - 1)
    return x


def haar(x: Tensor) -> Tensor:
    """The four bands of a map (batch, height, width, channels) of even sides, (batch, height/2, width/2, 4·channels).

    In the order of LL, the patches' sums; LH, left less right; HL, upper less lower; HH, diagonal less other diagonal;
    each halved, which makes the transform orthonormal.
    """
    batch, height, width, channels = x.shape
    patches = x.reshape(batch, height // 2, 2, width // 2, 2, channels) * 0.5
    upper, lower = patches.unbind(2)
    bands = [part for rows in (upper + lower, upper - lower) for part in _sum_and_difference(rows)]
    return torch.cat(bands, dim=-1)


def inverse_haar(bands: Tensor) -> Tensor:
    """The map whose four bands these are: the inverse of `haar`."""
    low, low_high, high_low, high = (bands * 0.5).chunk(4, dim=-1)
    sums = torch.stack([low + low_high, low - low_high], dim=3)
    differences = torch.stack([high_low + high, high_low - high], dim=3)
    rows = torch.stack([sums + differences, sums - differences], dim=2)
    batch, height, _, width, _, channels = rows.shape
    return rows.view(batch, 2 * height, 2 * width, channels)


def _sum_and_difference(rows: Tensor) -> tuple[Tensor, Tensor]:
    left, right = rows.unbind(3)
    return left + right, left - right
