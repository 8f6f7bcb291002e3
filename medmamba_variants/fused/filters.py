"""Depth-wise convolution with SiLU on channel-last maps, in one pass on plain CPU tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.fused.fitting import fits, kernels, must_trace, traced_gradients, wants_gradients


def filtered_silu(x: Tensor, filters: nn.Conv2d) -> Tensor:
    """silu(filters(x)) of a map (batch, height, width, channels), with one odd square filter a channel that keeps it.

    `filters` must have an offset, and no stride or dilation.
    """
    weight, bias = filters.weight, filters.bias
    assert bias is not None and weight.shape[1] == 1 and filters.dilation == filters.stride == (1, 1)
    if not fits(x, weight, bias):
        return F.silu(filters(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    if wants_gradients(x, weight, bias):
        filtered: Tensor = _Filtered.apply(x, weight, bias)
        return filtered
    out: Tensor = kernels().filter_forward(x.contiguous(), weight.contiguous(), bias)
    return out


def _plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    edge = weight.shape[-1] // 2
    seen = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=edge, groups=len(weight))
    return F.silu(seen).permute(0, 2, 3, 1)


class _Filtered(torch.autograd.Function):
    """The convolution with SiLU by kernels, which keep its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        out: Tensor = kernels().filter_forward(x.contiguous(), weight.contiguous(), bias)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if must_trace(dout):
            return traced_gradients(_plain, (x, weight, bias), dout)
        gradients: tuple[Tensor, ...] = kernels().filter_backward(
            dout.contiguous(), x.contiguous(), weight.contiguous(), bias
        )
        return gradients
