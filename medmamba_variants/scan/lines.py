"""A recurrence along one axis of a tensor, each number with a decay of its own: a registered torch operator.

What one dimension hands on to the next are states, not outputs; so scans in two dimensions need the states themselves,
which `ss2d_scan` never stores.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from medmamba_variants.scan.dispatch import MACS_PER_STATE
from medmamba_variants.scan.loops import asked_for, loop_over_lines


def scan_lines(decay: Tensor, drive: Tensor, axis: int) -> Tensor:
    """h_i = decay_i · h_{i−1} + drive_i along an axis, with h_{−1} = 0; all of one shape and dtype."""
    if torch.compiler.is_compiling() and asked_for():
        return loop_over_lines(decay, drive, axis)
    states: Tensor = torch.ops.medmamba.scan_lines(decay, drive, axis)
    return states


@torch.library.custom_op("medmamba::scan_lines", mutates_args=())
def _operator(decay: Tensor, drive: Tensor, axis: int) -> Tensor:
    h = drive.clone(memory_format=torch.contiguous_format)
    slices = h.unbind(axis)
    for before, here, factor in zip(slices, slices[1:], decay.unbind(axis)[1:]):
        here.addcmul_(factor, before)
    return h


@torch.library.custom_op("medmamba::scan_lines_backward", mutates_args=())
def _backward(dh: Tensor, decay: Tensor, h: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The gradients of decay and drive: of drive it is the recurrence from the end."""
    drive = dh.clone(memory_format=torch.contiguous_format)
    slices = drive.unbind(axis)
    for here, before, factor in zip(slices[::-1], slices[-2::-1], decay.unbind(axis)[::-1]):
        before.addcmul_(factor, here)
    gradient = torch.zeros_like(drive)
    count = drive.shape[axis] - 1
    torch.mul(drive.narrow(axis, 1, count), h.narrow(axis, 0, count), out=gradient.narrow(axis, 1, count))
    return gradient, drive


@_operator.register_fake
def _(decay: Tensor, drive: Tensor, axis: int) -> Tensor:
    return torch.empty_like(drive, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(dh: Tensor, decay: Tensor, h: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    empty = [torch.empty_like(dh, memory_format=torch.contiguous_format) for _ in range(2)]
    return empty[0], empty[1]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    decay, _, ctx.axis = inputs
    ctx.save_for_backward(decay, output)


def _operator_backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, None]:
    decay, h = ctx.saved_tensors
    gradient, drive = torch.ops.medmamba.scan_lines_backward(dh, decay, h, ctx.axis)
    return gradient, drive, None


_operator.register_autograd(_operator_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.medmamba.scan_lines)
def scan_lines_flops(decay: tuple[int, ...], drive: tuple[int, ...], axis: int, out_shape: object = None) -> int:
    """FLOPs of the operator: as much for each state as in any other scan."""
    return 2 * MACS_PER_STATE * prod(drive)


@register_flop_formula(torch.ops.medmamba.scan_lines_backward)
def scan_lines_backward_flops(
    dh: tuple[int, ...], decay: tuple[int, ...], h: tuple[int, ...], axis: int, out_shape: object = None
) -> int:
    """FLOPs of the backward operator: twice the forward's."""
    return 2 * 2 * MACS_PER_STATE * prod(dh)
