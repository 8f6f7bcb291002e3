"""Where a block's channels part and meet again: slices for the branches, and the shuffle that adds them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medmamba_variants.fused.fitting import fits, kernels, must_trace, wants_gradients


def parted(x: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """The map itself, for the residual, and its slices (…, width) for the branches.

    Autograd by itself would join the slices' gradients into a map and then add it to the residual's.
    """
    if not fits(x) or not wants_gradients(x):
        return x, *x.split(list(widths), dim=-1)
    parts: tuple[Tensor, ...] = _Parted.apply(x, tuple(widths))
    return parts


class _Parted(torch.autograd.Function):
    """The map and its slices, whose gradients are added in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.widths = widths
        return x.view_as(x), *x.split(list(widths), dim=-1)

    @staticmethod
    def backward(ctx: Any, dx: Tensor, *parts: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            return dx + torch.cat(parts, dim=-1), None
        out = torch.empty_like(dx, memory_format=torch.contiguous_format)
        for part, before, after in zip(parts, dx.split(ctx.widths, dim=-1), out.split(ctx.widths, dim=-1)):
            torch.add(before, part, out=after)
        return out, None


def shuffled_sum(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """x (…, 2 · channels) plus the channels of two maps (…, channels) in turns."""
    if not fits(x, first, second):
        return (x.unflatten(-1, (-1, 2)) + torch.stack((first, second), dim=-1)).flatten(-2)
    if wants_gradients(x, first, second):
        added: Tensor = _ShuffledSum.apply(x, first, second)
        return added
    return _interleaved(x, first, second)


def _interleaved(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    out: Tensor = kernels().interleave(x.contiguous(), first.contiguous(), second.contiguous())
    return out


class _ShuffledSum(torch.autograd.Function):
    """The sum by a kernel, and its gradients: the same map for x, every other channel for the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return _interleaved(x, first, second)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if must_trace(dout):
            return dout, dout[..., ::2], dout[..., 1::2]
        first, second = kernels().separate(dout.contiguous())
        return dout, first, second
