"""Mamba's wiring as layers on maps (batch, height, width, channels): what stands around an operator."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.gated import Gated
from medmamba_variants.fused.filters import filtered_silu
from medmamba_variants.fused.gate import gated
from medmamba_variants.fused.norms import LayerNorm, gated_norm
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.inner_conv import inner_convolution


class Wired(nn.Module):
    """Projections, the convolution before the operator, and the gate after it; the operator is a subclass's own.

    `in_proj` yields what the convolution sees (`seen` channels), the gate's inner channels, and `beside` more, in an
    order that is the subclass's own, too. Names and first values are the published ones. `conv2d` has its published
    name whatever the convolution is.
    """

    def __init__(self, channels: int, component: Gated, seen: int, beside: int = 0) -> None:
        super().__init__()
        self.d_inner = inner = component.inner(channels)
        self.gate = component.gate
        self.gate_width = 0 if self.gate == "none" else inner
        self.in_proj = linear(channels, seen + self.gate_width + beside, bias=False)
        self.conv2d = inner_convolution(component, seen)
        self.out_norm = LayerNorm(inner)
        if self.gate == "concat":
            self.gate_conv = inner_convolution(component, inner)
            # Without it z, which no operator has made larger, would be lost beside y, which has a norm.
            self.gate_norm = LayerNorm(inner)
        self.out_proj = linear(2 * inner if self.gate == "concat" else inner, channels, bias=False)

    def convolved(self, seen: Tensor) -> Tensor:
        """What the operator gets: the convolution and SiLU of a map (batch, height, width, seen)."""
        return _activated(self.conv2d, seen)

    def normed_and_joined(self, y: Tensor, z: Tensor) -> Tensor:
        """The layer's output, from the operator's and from the gate's channels, both maps of the inner width."""
        if self.gate == "silu":
            return self.out_proj(gated_norm(y, z, self.out_norm))
        return self.joined(self.out_norm(y), z)

    def joined(self, y: Tensor, z: Tensor) -> Tensor:
        """The layer's output, from the operator's, normed, and from the gate's channels, both of the inner width.

        Without a gate z has no channels.
        """
        if self.gate == "silu":
            y = gated(y, z)
        elif self.gate == "linear":
            y = y * z
        elif self.gate == "concat":
            y = torch.cat([y, self.gate_norm(_activated(self.gate_conv, z))], dim=-1)
        return self.out_proj(y)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolution will see of a map, and the gate's channels, where `in_proj` yields just these."""
        # Two products instead of one cut in two: both parts come out contiguous.
        weight_inner, weight_gate = self.in_proj.weight.split([self.d_inner, self.gate_width])
        z = F.linear(x, weight_gate) if self.gate_width else x[..., :0]
        return F.linear(x, weight_inner), z


def _activated(convolution: nn.Module, seen: Tensor) -> Tensor:
    if isinstance(convolution, nn.Conv2d) and convolution.groups == seen.shape[-1]:
        return filtered_silu(seen, convolution)
    return F.silu(convolution(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class WiredBranch(nn.Module):
    """Layer norm, a layer in Mamba's wiring, drop path. Map in, map of the same shape out."""

    layer: ClassVar[Any]

    def __init__(self, channels: int, component: Gated, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.mixer = self.layer(channels, component)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixer(self.norm(x)))
