"""Fused operations on CPU tensors, float32 and float64, forward and backward: numba kernels without autograd.

Like the scan's they are compiled on first use for this processor's vectors and kept on disk by numba, and give the same
bits with any number of threads. Maps are channel-last: (…, channels), whose rows (positions) lie one stride apart.
"""

import hashlib
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medmamba_variants.fused import batch_norm_kernels, filter_kernels, join_kernels, norm_kernels, sum_kernel
from medmamba_variants.scan.cpu import launch as scan
from medmamba_variants.scan.cpu.memory import aligned, scratch_address
from medmamba_variants.scan.cpu.threads import run_shared
from medmamba_variants.scan.cpu.vectors import Lanes, vector_bytes

if TYPE_CHECKING:
    from numba.core.ccallback import CFunc

KERNELS: dict[str, Callable[[Lanes], "CFunc"]] = {
    "norm_forward": norm_kernels.norm_forward_kernel,
    "norm_backward": norm_kernels.norm_backward_kernel,
    "measure": batch_norm_kernels.measure_kernel,
    "apply": batch_norm_kernels.apply_kernel,
    "reduce": batch_norm_kernels.reduce_kernel,
    "backward": batch_norm_kernels.backward_kernel,
    "filter_forward": filter_kernels.filter_forward_kernel,
    "filter_backward": filter_kernels.filter_backward_kernel,
    "interleave": join_kernels.interleave_kernel,
    "separate": join_kernels.separate_kernel,
    "sum": sum_kernel.sum_kernel,
}
# Parts of the rows or the batch whose sums are added up apart: fixed, or threads would change the sums' order.
TASKS = 32
# Elements that are worth waking one thread for.
WORK_PER_THREAD = 1 << 15


@cache
def _revision() -> str:
    digest = hashlib.sha256()
    for source in sorted([*Path(__file__).parent.glob("*.py"), *Path(scan.__file__).parent.glob("*.py")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@cache
def _compiled(name: str, element_bytes: int, partial: bool, side: int) -> "CFunc":
    # The group is the side of a filter here; what the last but one means is the scan's affair.
    lanes = Lanes(element_bytes, vector_bytes() // element_bytes, partial, side, False, _revision())
    return scan.compiled(KERNELS[name], lanes)


def _width(x: Tensor) -> int:
    return vector_bytes() // x.element_size()


def _padded(x: Tensor, channels: int) -> int:
    width = _width(x)
    return -(-channels // width) * width


def _run(
    name: str, x: Tensor, channels: int, tensors: tuple[Tensor | None, ...], numbers: tuple[int, ...], tasks: int,
    work: int, scratch: int = 0, side: int = 1,
) -> None:  # fmt: skip
    """Let threads share a kernel's tasks; `work` counts elements, `scratch` the floats that each thread needs.

    Laid out as scan.cpu.kernels says: addresses and numbers in the order in which the kernel unpacks them.
    """
    size = x.element_size()
    threads = max(1, min(torch.get_num_threads(), tasks, work // WORK_PER_THREAD))
    floats = aligned(scratch * size)
    memory = (scratch_address("floats", threads * floats) if scratch else 0, floats, 0, 0)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    arguments = array("q", [0, threads, *memory, 0, *addresses, tasks, *numbers])
    run_shared(_compiled(name, size, channels % _width(x) != 0, side), arguments.buffer_info()[0], threads)


def _summed(parts: Tensor, groups: int, channels: int, result: Tensor, strides: tuple[int, int]) -> Tensor:
    """The sum of parts (tasks, groups, padded channels) over tasks, written to a tensor whose strides are given."""
    numbers = (parts.shape[0], groups, channels, *strides)
    arguments = array("q", [parts.data_ptr(), result.data_ptr(), *numbers])
    kernel = _compiled("sum", parts.element_size(), channels % _width(parts) != 0, 1)
    kernel.ctypes(arguments.buffer_info()[0])
    return result


@cache
def _constants(dtype: torch.dtype, *values: float) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def norm_forward(
    x: Tensor, stride: int, gate: Tensor | None, gate_stride: int, weight: Tensor, bias: Tensor, epsilon: float,
    columns: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Layer norm of the rows of x, times silu(gate) if there is one; and (rows, 2) means and inverse deviations.

    Where `columns` is not 0, the rows are 2×2 patches of a map (batch, 2 · height, 2 · columns, channels) instead.
    """
    channels, pieces = x.shape[-1], 4 if columns else 1
    shape = (x.shape[0], x.shape[1] // 2, columns, 4 * channels) if columns else x.shape
    out = x.new_empty(shape)
    rows = out.numel() // (pieces * channels)
    stats = x.new_empty((rows, 2))
    tensors = (x, gate, weight, bias, _constants(x.dtype, epsilon), out, stats)
    each = max(4, -(-rows // TASKS))
    numbers = (each, rows, channels, pieces, columns, stride, gate_stride)
    _run("norm_forward", x, channels, tensors, numbers, -(-rows // each), out.numel())
    return out, stats


def norm_backward(
    dout: Tensor, x: Tensor, stride: int, gate: Tensor | None, gate_stride: int, weight: Tensor, bias: Tensor,
    stats: Tensor, columns: int,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, gate, weight and bias; dout is contiguous."""
    channels, pieces = x.shape[-1], 4 if columns else 1
    dx, dgate = x.new_empty(x.shape), None if gate is None else gate.new_empty(gate.shape)
    rows, padded = stats.shape[0], _padded(x, channels)
    each = max(4, -(-rows // TASKS))
    tasks = -(-rows // each)
    parts = x.new_empty((tasks, 2 * pieces, padded))
    tensors = (dout, x, gate, weight, bias, stats, dx, dgate, parts)
    numbers = (each, rows, channels, pieces, columns, stride, gate_stride)
    scratch = norm_kernels.backward_scratch(padded, pieces)
    _run("norm_backward", x, channels, tensors, numbers, tasks, 2 * dout.numel(), scratch)
    sums = _summed(parts, 2 * pieces, channels, x.new_empty((2, pieces * channels)), (channels, 1))
    return dx, dgate, sums[0], sums[1]


def batch_norm_forward(
    x: Tensor, stride: int, weight: Tensor, bias: Tensor, running: tuple[Tensor, Tensor] | None, epsilon: float,
    share: float, floor: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Batch norm of the rows of x (at least two), nothing below the floor; and (2, padded) mean and inverse deviation.

    `running` mean and variance move by `share` towards those of x.
    """
    channels, out = x.shape[-1], x.new_empty(x.shape)
    rows, padded = out.numel() // channels, _padded(x, channels)
    tasks = min(TASKS, rows)
    parts, stats = x.new_empty((tasks, 2, padded)), x.new_empty((2, padded))
    mean, variance = (None, None) if running is None else running
    _run("measure", x, channels, (x, parts), (rows, channels, stride), tasks, out.numel())
    tensors = (x, parts, weight, bias, _constants(x.dtype, epsilon, share, floor), out, stats, mean, variance)
    _run("apply", x, channels, tensors, (rows, channels, stride), tasks, out.numel(), 3 * padded)
    return out, stats


def batch_norm_backward(
    dout: Tensor, x: Tensor, stride: int, weight: Tensor, bias: Tensor, stats: Tensor, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; dout is contiguous."""
    channels, dx = x.shape[-1], x.new_empty(x.shape)
    dweight, dbias = weight.new_empty(weight.shape), bias.new_empty(bias.shape)
    rows, padded = dx.numel() // channels, _padded(x, channels)
    tasks, constants = min(TASKS, rows), _constants(x.dtype, 0.0, 0.0, floor)
    parts, numbers = x.new_empty((tasks, 2, padded)), (rows, channels, stride)
    tensors = (dout, x, weight, bias, constants, stats, parts)
    _run("reduce", x, channels, tensors, numbers, tasks, 2 * dx.numel())
    _run("backward", x, channels, (*tensors, dx, dweight, dbias), numbers, tasks, 2 * dx.numel(), 2 * padded)
    return dx, dweight, dbias


def filter_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """silu of the depth-wise convolution of a contiguous map (batch, height, width, channels)."""
    batch, height, width, channels = x.shape
    out, side = x.new_empty(x.shape), weight.shape[-1]
    scratch = filter_kernels.filter_scratch(height, width, side, _padded(x, channels), _width(x))
    work, numbers = (side * side + 4) * x.numel(), (batch, height, width, channels)
    _run("filter_forward", x, channels, (x, weight, bias, out), numbers, min(TASKS, batch), work, scratch, side)
    return out


def filter_backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; dout is contiguous."""
    batch, height, width, channels = x.shape
    dx, side, padded = x.new_empty(x.shape), weight.shape[-1], _padded(x, channels)
    tasks, taps = min(TASKS, batch), side * side
    scratch = filter_kernels.filter_scratch(height, width, side, padded, _width(x))
    parts = x.new_empty((tasks, taps + 1, padded))
    work, numbers = 3 * (taps + 4) * x.numel(), (batch, height, width, channels)
    _run("filter_backward", x, channels, (dout, x, weight, bias, dx, parts), numbers, tasks, work, scratch, side)
    sums = _summed(parts, taps + 1, channels, x.new_empty((taps + 1, channels)), (channels, 1))
    return dx, sums[:taps].t().reshape(weight.shape), sums[taps]


def interleave(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """x (…, 2 · channels) plus the channels of two maps (…, channels) in turns; all are contiguous."""
    out, channels = x.new_empty(x.shape), first.shape[-1]
    rows = first.numel() // channels
    _run("interleave", x, channels, (x, first, second, out), (rows, channels), min(TASKS, rows), x.numel())
    return out


def separate(x: Tensor) -> tuple[Tensor, Tensor]:
    """The even channels of a contiguous map and the odd ones."""
    channels = x.shape[-1] // 2
    first, second = (x.new_empty((*x.shape[:-1], channels)) for _ in range(2))
    rows = first.numel() // channels
    _run("separate", x, channels, (x, first, second), (rows, channels), min(TASKS, rows), x.numel())
    return first, second
