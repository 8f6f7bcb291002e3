"""Residual connections: how a block adds a map to its input, both (batch, height, width, channels)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmamba_variants.design.wraps import around as design


class LayerScale(nn.Module):
    """A learned scale on each channel of what is added: x + γ ⊙ y (Touvron 2021, "CaiT", equation 4)."""

    def __init__(self, channels: int, component: design.LayerScale) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), component.residual_scale))

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        return torch.addcmul(x, mixed, self.scale)


class LearnedSkip(nn.Module):
    """A learned number that weighs the input: γ x + y, γ one at first (Liao 2024, "LightM-UNet")."""

    def __init__(self, channels: int, component: design.LearnedSkip) -> None:
        super().__init__()
        del channels, component
        self.skip = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        return torch.addcmul(mixed, x, self.skip)
