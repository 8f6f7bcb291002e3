"""Attention modules: gates on channels or places of maps (batch, height, width, channels).

Every gate is twice a sigmoid, about one at first, so that a fresh network is about the one without it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import wraps as design
from medmamba_variants.parts.mixers.spectral.transforms import cosines


class SqueezeExcite(nn.Module):
    """A gate on every channel, computed from the mean of all channels (Hu 2018, section 3)."""

    def __init__(self, channels: int, component: design.SqueezeExcite) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.excite(F.silu(self.squeeze(self.summary(x)))))
        return x * gate[:, None, None, :]

    def summary(self, x: Tensor) -> Tensor:
        """One number for each channel of a map: (batch, channels)."""
        return x.mean((1, 2))


class SpectralGate(SqueezeExcite):
    """A gate on every channel, computed from one coefficient of its cosine transform, by group of channels another.

    Qin et al., "FcaNet" (2021), equations 7 and 8: squeeze-and-excite's mean is the lowest frequency of the transform
    up to scale, and others can say what a mean cannot. Frequency (n, m) of a map is the mean of its pixels times
    cos(π·n·(i + ½)/height)·cos(π·m·(j + ½)/width), here times √2 for each of n and m that is not zero, so that white
    noise has the same variance in all. Where a map has too few rows or columns for a frequency, its highest stands in.
    """

    def __init__(self, channels: int, component: design.SpectralGate) -> None:
        super().__init__(channels, component)
        self.frequencies = component.frequencies

    def summary(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        rows, columns = (cosines(size, x) * size**-0.5 for size in (height, width))
        groups = x.flatten(1, 2).tensor_split(len(self.frequencies), dim=-1)
        seen = [
            (rows[min(down, height - 1), :, None] * columns[min(along, width - 1)]).view(1, -1) @ group
            for (down, along), group in zip(self.frequencies, groups)
        ]
        return torch.cat(seen, dim=-1).squeeze(1)
