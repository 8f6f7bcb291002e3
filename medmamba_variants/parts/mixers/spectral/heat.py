"""Heat conduction as a branch operator, on maps (batch, height, width, channels)."""

from __future__ import annotations

import math

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.spectral import mixers as design
from medmamba_variants.fused.gate import gated
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.mixers.spectral.transforms import cosine_transform, cosines, read_table


class HeatBranch(nn.Module):
    """Layer norm, taps, heat conduction of one linear map, layer norm, the other as its gate, a linear map, drop path.

    Wang et al., "vHeat" (2024): what heat does in a time is multiply frequency (n, m) of the cosine transform by
    exp(−k·((πn/height)² + (πm/width)²)). There k = ReLU(W·e) for a learned vector e at each frequency of a map of one
    size. Here e are the entries of a table of fixed size, read by interpolation after the product with W, which comes
    to the same; and softplus stands for ReLU, which would leave half of the rates dead.
    """

    def __init__(self, channels: int, component: design.Heat, drop_path: float) -> None:
        super().__init__()
        side = component.frequency_table
        self.norm = nn.LayerNorm(channels)
        self.filters = FilterEach(channels, (3, 3))
        self.in_proj = linear(channels, 2 * channels, bias=False)
        self.embedding = nn.Parameter(torch.empty(side, side, channels))
        nn.init.trunc_normal_(self.embedding, std=0.02)
        self.to_rate = linear(channels, channels, bias=True)
        self.out_norm = nn.LayerNorm(channels)
        self.out_proj = linear(channels, channels, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        inner, z = self.in_proj(self.filters(self.norm(x))).chunk(2, dim=-1)
        warm = conduct(inner, self.rates(*x.shape[1:3]))
        return self.drop_path(self.out_proj(gated(self.out_norm(warm), z)))

    def rates(self, height: int, width: int) -> Tensor:
        """The rate k, never negative, of every frequency of a map: (height, width, channels)."""
        table = self.to_rate(self.embedding)
        across = read_table(table, len(table), height, height).transpose(0, 1)
        return F.softplus(read_table(across, len(table), width, width).transpose(0, 1))


def conduct(x: Tensor, rates: Tensor) -> Tensor:
    """The map after heat has flowed for a unit of time at these rates (height, width, channels)."""
    rows, columns = cosines(x.shape[1], x), cosines(x.shape[2], x)
    frequencies = cosine_transform(x, rows, columns)
    down, across = (
        (torch.arange(size, device=x.device, dtype=rates.dtype) * (math.pi / size)) ** 2 for size in x.shape[1:3]
    )
    decay = torch.exp(-rates * (down[:, None] + across)[..., None])
    return cosine_transform(frequencies * decay.to(frequencies.dtype), rows.T, columns.T)
