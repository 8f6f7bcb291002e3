"""Positions that are added to the first map (batch, height, width, channels)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.components import Component
from medmamba_variants.parts.constants import kept

# Sides of the grid of learned positions, that of a ViT with patches of 16 for images of 224.
GRID = 14
# Slowest wave of the sinusoids, in positions over 2π (Vaswani 2017, section 3.5).
PERIOD = 10_000.0


class Learned(nn.Module):
    """A learned vector for each place of a 14×14 grid, interpolated to the map (Dosovitskiy 2021, section 3.2)."""

    def __init__(self, channels: int, component: Component) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.empty(1, channels, GRID, GRID))
        nn.init.trunc_normal_(self.grid, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[1], x.shape[2])
        # Averaging where the map is coarser: otherwise some places of the grid would never learn.
        grid = F.interpolate(self.grid, size, mode="bilinear", align_corners=False, antialias=True)
        return x + grid.permute(0, 2, 3, 1)


class Sinusoidal(nn.Module):
    """Sines and cosines of the row in half of the channels, of the column in the rest, times one learned number.

    The number is one at first. Vaswani 2017, section 3.5, for each of two dimensions, as in MAE.
    """

    def __init__(self, channels: int, component: Component) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * waves(x.shape[1], x.shape[2], self.channels, x.device).to(x.dtype)


@kept
def waves(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Sinusoids (height, width, channels): for each wave sine and cosine, of the row, then of the column; kept."""
    parts = []
    for size, count, axis in ((height, channels // 2, 1), (width, channels - channels // 2, 0)):
        index = np.arange(count)
        # A cosine is a sine a quarter of a wave on.
        angle = np.arange(size)[:, None] * PERIOD ** -(index // 2 / max(count / 2, 1)) + index % 2 * (np.pi / 2)
        parts.append(np.broadcast_to(np.expand_dims(np.sin(angle), axis), (height, width, count)))
    return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32)).to(device)
