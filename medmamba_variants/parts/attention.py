"""Attention modules: gates on channels or places of maps (batch, height, width, channels).

Every gate is twice a sigmoid, about one at first, so that a fresh network is about the one without it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import wraps as design


class SqueezeExcite(nn.Module):
    """A gate on every channel, computed from the mean of all channels (Hu 2018, section 3)."""

    def __init__(self, channels: int, component: design.SqueezeExcite) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean((1, 2))))))
        return x * gate[:, None, None, :]
