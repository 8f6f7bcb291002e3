"""Soft mixtures of experts: the second half of a block, on normed maps (batch, height, width, channels)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.wraps import channel_mixers as design


class SoftMoE(nn.Module):
    """Experts on slots, each slot a mixture of all positions, each position a mixture of all slots.

    X̃ = softmax over positions(X Φ)ᵀ X, Ỹ = expert of each slot(X̃), Y = softmax over slots(X Φ) Ỹ, where the positions
    and the columns of Φ have unit length, times one learned number (Puigcerver 2024, section 2.1 and algorithm 1).
    """

    def __init__(self, channels: int, component: design.SoftMoE) -> None:
        super().__init__()
        self.experts, self.slots = component.experts, component.slots
        hidden = component.hidden(channels)
        self.phi = nn.Parameter(torch.empty(channels, self.experts * self.slots))
        self.scale = nn.Parameter(torch.ones(1))
        self.widen = nn.Parameter(torch.empty(self.experts, channels, hidden))
        self.widen_bias = nn.Parameter(torch.zeros(self.experts, 1, hidden))
        self.narrow = nn.Parameter(torch.empty(self.experts, hidden, channels))
        self.narrow_bias = nn.Parameter(torch.zeros(self.experts, 1, channels))
        nn.init.normal_(self.phi, std=channels**-0.5)
        for weight in (self.widen, self.narrow):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = len(x), x.shape[-1]
        tokens = x.flatten(1, 2)
        scores = F.normalize(tokens, dim=-1) @ (self.scale * F.normalize(self.phi, dim=0))
        slots = scores.softmax(1).transpose(1, 2) @ tokens
        # (experts, batch · slots, channels): one product for all experts.
        slots = slots.view(batch, self.experts, self.slots, channels).transpose(0, 1).flatten(1, 2)
        hidden = F.gelu(slots @ self.widen + self.widen_bias)
        made = (hidden @ self.narrow + self.narrow_bias).unflatten(1, (batch, self.slots)).transpose(0, 1).flatten(1, 2)
        return (scores.softmax(2) @ made).view(x.shape)
