"""Norms that may stand for layer norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The first value of a dynamic tanh's slope (Zhu 2025, "Transformers without normalization", section 4).
SLOPE = 0.5


class DynamicTanh(nn.Module):
    """A tanh in place of a norm: γ tanh(α x) + β on the last axis, α one learned number (Zhu 2025)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((1,), SLOPE))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, torch.tanh(self.slope * x), self.weight)


NORMS = {"rms_norm": lambda channels: nn.RMSNorm(channels, eps=1e-5), "dynamic_tanh": DynamicTanh}


def exchange_norms(module: nn.Module, norm: str) -> None:
    """Puts another norm in the place of every layer norm with weights in a module; `layer_norm` leaves all."""
    if norm == "layer_norm":
        return
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            setattr(module, name, NORMS[norm](child.normalized_shape[0]))
        else:
            exchange_norms(child, norm)
