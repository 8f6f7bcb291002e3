"""Attention over a map as a branch operator, on maps (batch, height, width, channels)."""

from __future__ import annotations

import math

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.sequences import attention as design
from medmamba_variants.fused.gate import gated
from medmamba_variants.fused.norms import LayerNorm
from medmamba_variants.parts.constants import kept
from medmamba_variants.parts.init import depthwise, linear
from medmamba_variants.parts.mixers.sequences.rotary import position_angles, rotate

# Keeps the division finite where half precision rounds all features of a position to zero.
SMALLEST_WEIGHT = 1e-6


class AttentionBranch(nn.Module):
    """Layer norm, softmax attention within windows or all over the map, a linear map, drop path.

    Vaswani et al., "Attention is all you need" (2017), and its windows from Liu et al., "Swin Transformer" (2021).
    Without a shift, what lies in different windows meets in other branches and where the map is halved. A window that
    the map's edge cuts holds only positions of the map, as Swin's masks have it where windows move. Without
    `rope` and `relative_bias` nothing tells a position from another but its window.
    """

    def __init__(self, channels: int, component: design.Attention, drop_path: float) -> None:
        super().__init__()
        self.component = component
        self.heads = component.heads
        self.norm = LayerNorm(channels)
        # Without offsets: to softmax one of the keys is none.
        self.qkv = linear(channels, 3 * channels, bias=False)
        self.mixing = linear(channels, channels, bias=True)
        if component.relative_bias:
            self.bias_table = nn.Parameter(torch.empty(self.heads, (2 * component.reach() + 1) ** 2))
            nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixing(self._attend(self.qkv(self.norm(x)))))

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, height, width, channels = qkv.shape
        rows, columns = self.component.window(height, width)
        top, left = self.component.before(height), self.component.before(width)
        down, across = math.ceil((top + height) / rows), math.ceil((left + width) / columns)
        edge = (left, across * columns - left - width, top, down * rows - top - height)
        mask = None
        if any(edge):
            # What lies beyond the edge is no key; as a query it is cut off afterwards.
            beyond = F.pad(qkv.new_zeros(height, width), edge, value=-math.inf)
            mask = beyond.view(down, rows, across, columns).transpose(1, 2).reshape(1, down * across, 1, 1, -1)
            mask = mask.expand(batch, -1, -1, -1, -1).flatten(0, 1)
            qkv = F.pad(qkv, (0, 0, *edge))
        size = channels // (3 * self.heads)
        windows = qkv.view(batch, down, rows, across, columns, 3, self.heads, size).permute(5, 0, 1, 3, 6, 2, 4, 7)
        query, key, value = windows.reshape(3, batch * down * across, self.heads, rows * columns, size)
        if self.component.rope:
            # Only differences count, so that every window may start anew.
            query, key = turned(query, key, rows, columns)
        if self.component.relative_bias:
            pairs = relative_places(rows, columns, self.component.reach(), qkv.device)
            bias = self.bias_table.to(query.dtype).index_select(1, pairs).view(1, self.heads, *[rows * columns] * 2)
            mask = bias if mask is None else bias + mask
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        y = y.view(batch, down, across, self.heads, rows, columns, size).permute(0, 1, 4, 2, 5, 3, 6)
        y = y.reshape(batch, down * rows, across * columns, self.heads * size)
        return y[:, top : top + height, left : left + width]


class LinearAttentionBranch(nn.Module):
    """Layer norm, linear attention with a depth-wise convolution of its values, a linear map, drop path.

    The weight of key s for query t is φ(q_t)·φ(k_s), divided by the sum of t's weights, with φ = elu + 1: Katharopoulos
    et al., "Transformers are RNNs" (2020), as in Han et al., "Demystify Mamba in vision" (MLLA, 2024). The convolution
    (LePE) tells places apart, and with `rope` the weights do, which are then RoPE(φ(q_t))·RoPE(φ(k_s)) over the sum of
    the unturned ones, as MLLA has it: turned ones may add up to nothing. With a gate the output is multiplied by SiLU
    of a linear map of the input before the last linear map.
    """

    def __init__(self, channels: int, component: design.LinearAttention, drop_path: float) -> None:
        super().__init__()
        self.heads = component.heads
        self.norm = LayerNorm(channels)
        self.qkv = linear(channels, 3 * channels, bias=True)
        self.lepe = depthwise(channels, 3)
        self.mixing = linear(channels, channels, bias=True)
        self.rope = component.rope
        self.is_gated = component.attention_gate != "none"
        if self.is_gated:
            self.gate = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        qkv = self.qkv(normed)
        values = qkv[..., -x.shape[-1] :]
        near = self.lepe(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self._attend(qkv.flatten(1, 2), *x.shape[1:3]).view(x.shape) + near
        return self.drop_path(self.mixing(gated(y, self.gate(normed)) if self.is_gated else y))

    def _attend(self, qkv: Tensor, height: int, width: int) -> Tensor:
        batch, length, channels = qkv.shape
        size = channels // (3 * self.heads)
        query, key, value = qkv.view(batch, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        query, key = F.elu(query) + 1, F.elu(key) + 1
        if self.rope:
            return self._attend_turned(query, key, value, height, width)
        return linear_attention(query, key, value).transpose(1, 2).reshape(batch, length, self.heads * size)

    def _attend_turned(self, query: Tensor, key: Tensor, value: Tensor, height: int, width: int) -> Tensor:
        length = key.shape[2]
        weight = query @ key.mean(2)[..., None]
        query, key = turned(query, key, height, width)
        y = query @ ((key * (1 / length)).transpose(2, 3) @ value) / (weight + SMALLEST_WEIGHT)
        return y.transpose(1, 2).flatten(2)


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Σ_s (q_t·k_s) v_s / Σ_s q_t·k_s of positive queries and keys, all (batch, heads, length, size)."""
    # A column of ones makes the sum of the weights beside the sum of the weighted values.
    value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
    read = query @ ((key * (1 / key.shape[2])).transpose(2, 3) @ value)
    return read[..., :-1] / (read[..., -1:] + SMALLEST_WEIGHT)


def turned(query: Tensor, key: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Queries and keys (…, heads, height · width, size) turned by the angles of their rows and columns."""
    cos, sin = position_angles(height, width, query.shape[-3], query.shape[-1], query.device)
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    return rotate(query, cos, sin), rotate(key, cos, sin)


@kept
def relative_places(rows: int, columns: int, reach: int, device: torch.device) -> Tensor:
    """Where each pair of a window's positions finds its bias, (rows · columns)² places in (2 · reach + 1)²; kept."""
    grid = np.indices((rows, columns)).reshape(2, -1)
    down, across = np.clip(grid[:, :, None] - grid[:, None], -reach, reach) + reach
    return torch.from_numpy((down * (2 * reach + 1) + across).ravel()).to(device)
