"""Norms on channel-last maps, fused with what stands beside them: a gate, the gathering of patches, ReLU.

Each is torch's own operations written out, or on plain CPU tensors a kernel that passes over the map fewer times and
keeps less for the backward pass.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.fused.fitting import fits, kernels, must_trace, traced_gradients, wants_gradients, with_rows
from medmamba_variants.fused.gate import gated


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis, (…, channels) in and out."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return _normed(x, None, self.weight, self.bias, self.eps, 0)


def gated_norm(y: Tensor, z: Tensor, norm: nn.Module) -> Tensor:
    """norm(y) · silu(z), both (…, channels); `norm` may be any module, but a layer norm has a kernel."""
    if not isinstance(norm, nn.LayerNorm):
        return gated(norm(y), z)
    return _normed(y, z, norm.weight, norm.bias, norm.eps, 0)


def patch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Norm of the 2×2 patches of an even map, (batch, height / 2, width / 2, 4 · channels).

    The pixels of a patch follow each other down its columns: (0, 0), (1, 0), (0, 1), (1, 1).
    """
    if not isinstance(norm, nn.LayerNorm):
        normed: Tensor = norm(_patches(x))
        return normed
    return _normed(x, None, norm.weight, norm.bias, norm.eps, x.shape[2] // 2)


def _patches(x: Tensor) -> Tensor:
    batch, height, width, channels = x.shape
    patches = x.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
    return patches.reshape(batch, height // 2, width // 2, 4 * channels)


def _normed(x: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, columns: int) -> Tensor:
    if not fits(x, gate, weight, bias):
        return _plain_norm(x, gate, weight, bias, epsilon, columns)
    if wants_gradients(x, gate, weight, bias):
        normed: Tensor = _Norm.apply(x, gate, weight, bias, epsilon, columns)
        return normed
    x, stride = with_rows(x)
    gate, gate_stride = (None, 0) if gate is None else with_rows(gate)
    out: Tensor = kernels().norm_forward(x, stride, gate, gate_stride, weight, bias, epsilon, columns)[0]
    return out


def _plain_norm(x: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, columns: int) -> Tensor:
    if columns:
        x = _patches(x)
    y = F.layer_norm(x, weight.shape, weight, bias, epsilon)
    return y if gate is None else y * F.silu(gate)


class _Norm(torch.autograd.Function):
    """Layer norm by kernels, which keep the map, the gate and two numbers a row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, columns: int
    ) -> Tensor:
        rows, stride = with_rows(x)
        gates, gate_stride = (None, 0) if gate is None else with_rows(gate)
        out, stats = kernels().norm_forward(rows, stride, gates, gate_stride, weight, bias, epsilon, columns)
        ctx.save_for_backward(x, gate, weight, bias, stats)
        ctx.rest = epsilon, columns
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, weight, bias, stats = ctx.saved_tensors
        if must_trace(dout):
            return (
                *traced_gradients(lambda *inputs: _plain_norm(*inputs, *ctx.rest), (x, gate, weight, bias), dout),
                None,
                None,
            )
        x, stride = with_rows(x)
        gate, gate_stride = (None, 0) if gate is None else with_rows(gate)
        gradients = kernels().norm_backward(
            dout.contiguous(), x, stride, gate, gate_stride, weight, bias, stats, ctx.rest[1]
        )
        return *gradients, None, None


def batch_norm(x: Tensor, norm: nn.BatchNorm2d, relu: bool) -> Tensor:
    """Batch norm of a map (batch, height, width, channels), and ReLU if asked for."""
    running = norm.running_mean, norm.running_var
    # A single value of a channel has no variance, and in evaluation it comes from elsewhere.
    measures = norm.training and x.numel() > x.shape[-1] and norm.momentum is not None and running[0] is not None
    if measures and fits(x, norm.weight, norm.bias, *running):
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        floor = 0.0 if relu else -math.inf
        normed: Tensor = _BatchNorm.apply(x, norm.weight, norm.bias, running, norm.eps, norm.momentum, floor)
        return normed
    y: Tensor = norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return F.relu(y) if relu else y


class _BatchNorm(torch.autograd.Function):
    """Batch norm in training by kernels, which keep the map alone and find again where ReLU stopped it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: tuple[Tensor, Tensor], epsilon: float,
        share: float, floor: float,
    ) -> Tensor:  # fmt: skip
        rows, stride = with_rows(x)
        out, stats = kernels().batch_norm_forward(rows, stride, weight, bias, running, epsilon, share, floor)
        ctx.save_for_backward(x, weight, bias, stats)
        ctx.rest = epsilon, floor
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, stats = ctx.saved_tensors
        epsilon, floor = ctx.rest
        if must_trace(dout):

            def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                y = F.batch_norm(x.permute(0, 3, 1, 2), None, None, weight, bias, True, 0.0, epsilon)
                return (F.relu(y) if floor == 0 else y).permute(0, 2, 3, 1)

            return *traced_gradients(plain, (x, weight, bias), dout), None, None, None, None
        x, stride = with_rows(x)
        gradients = kernels().batch_norm_backward(dout.contiguous(), x, stride, weight, bias, stats, floor)
        return *gradients, None, None, None, None
