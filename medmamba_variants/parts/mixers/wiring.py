"""Mamba's wiring as layers on maps (batch, height, width, channels): what stands around an operator."""

from __future__ import annotations

from typing import Any, ClassVar

from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.gated import Gated
from medmamba_variants.parts.init import depthwise, linear
from medmamba_variants.parts.mixers.gate import gated


class Wired(nn.Module):
    """Projections, the convolution before the operator, and the gate after it; the operator is a subclass's own.

    `in_proj` yields what the convolution sees (`seen` channels), the gate's inner channels, and `beside` more, in an
    order that is the subclass's own, too. Names and first values are the published ones.
    """

    def __init__(self, channels: int, component: Gated, seen: int, beside: int = 0) -> None:
        super().__init__()
        self.d_inner = component.inner(channels)
        self.in_proj = linear(channels, self.d_inner + seen + beside, bias=False)
        self.conv2d = depthwise(seen, component.d_conv)
        self.out_norm = nn.LayerNorm(self.d_inner)
        self.out_proj = linear(self.d_inner, channels, bias=False)

    def convolved(self, seen: Tensor) -> Tensor:
        """What the operator gets: the convolution and SiLU of a map (batch, height, width, seen)."""
        return F.silu(self.conv2d(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def joined(self, y: Tensor, z: Tensor) -> Tensor:
        """The layer's output, from the operator's, normed, and from the gate's channels, both of the inner width."""
        return self.out_proj(gated(y, z))

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolution will see of a map, and the gate's channels, where `in_proj` yields just these."""
        # Two products instead of one cut in half: both parts come out contiguous.
        weight_inner, weight_gate = self.in_proj.weight.chunk(2)
        z = F.linear(x, weight_gate)
        return F.linear(x, weight_inner), z


class WiredBranch(nn.Module):
    """Layer norm, a layer in Mamba's wiring, drop path. Map in, map of the same shape out."""

    layer: ClassVar[Any]

    def __init__(self, channels: int, component: Gated, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mixer = self.layer(channels, component)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixer(self.norm(x)))
