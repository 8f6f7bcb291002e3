"""Cross-scan and cross-merge, the usual way to scan four directions: lay them out in memory, scan each, merge them.

Peers for `benchmarks/scan_gpu.py`, in torch operations and in differentiable Triton kernels. A map is
(batch, channels, height, width); laid out it is (batch, 4, channels, length) in the order of `scan_path("cross4")`.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# The longest side of the tile of a map that a program moves.
LARGEST_SIDE = 32


def scan_by_torch(x: Tensor) -> Tensor:
    """The four directions of a map, (batch, 4, channels, length)."""
    forward = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], dim=1)
    return torch.cat([forward, forward.flip(-1)], dim=1)


def merge_by_torch(ys: Tensor, height: int, width: int) -> Tensor:
    """The sum of four directions (batch, 4, channels, length) as a map."""
    rows, columns = (ys[:, :2] + ys[:, 2:].flip(-1)).unbind(1)
    return rows.unflatten(-1, (height, width)) + columns.unflatten(-1, (width, height)).transpose(2, 3)


@triton.jit
def _offsets(channels, height, width, SIDE: tl.constexpr):
    """Offsets of a program's tile: which elements exist, where its plane starts, positions by rows and by columns."""
    plane = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(width, SIDE)
    row = tl.program_id(1) // across * SIDE + tl.arange(0, SIDE)[:, None]
    column = tl.program_id(1) % across * SIDE + tl.arange(0, SIDE)[None, :]
    inside = (row < height) & (column < width)
    # Item and channel of a plane, and its place as the first of four directions.
    laid_out = (plane // channels * 4 * channels + plane % channels) * height * width
    return inside, plane * height * width, laid_out, row * width + column, column * height + row


@triton.jit
def _scan_kernel(x, xs, channels, height, width, SIDE: tl.constexpr):
    inside, plane, laid_out, by_rows, by_columns = _offsets(channels, height, width, SIDE)
    last = height * width - 1
    step = channels * height * width
    values = tl.load(x + plane + by_rows, mask=inside)
    target = xs + laid_out
    tl.store(target + by_rows, values, mask=inside)
    tl.store(target + step + by_columns, values, mask=inside)
    tl.store(target + 2 * step + last - by_rows, values, mask=inside)
    tl.store(target + 3 * step + last - by_columns, values, mask=inside)


@triton.jit
def _merge_kernel(ys, y, channels, height, width, SIDE: tl.constexpr):
    inside, plane, laid_out, by_rows, by_columns = _offsets(channels, height, width, SIDE)
    last = height * width - 1
    step = channels * height * width
    source = ys + laid_out
    total = tl.load(source + by_rows, mask=inside).to(tl.float32)
    total += tl.load(source + step + by_columns, mask=inside).to(tl.float32)
    total += tl.load(source + 2 * step + last - by_rows, mask=inside).to(tl.float32)
    total += tl.load(source + 3 * step + last - by_columns, mask=inside).to(tl.float32)
    tl.store(y + plane + by_rows, total.to(y.dtype.element_ty), mask=inside)


def _launch(kernel: Any, source: Tensor, target: Tensor, channels: int, height: int, width: int) -> Tensor:
    side = min(LARGEST_SIDE, triton.next_power_of_2(max(height, width)))
    planes = source.shape[0] * channels
    kernel[(planes, triton.cdiv(height, side) * triton.cdiv(width, side))](
        source, target, channels, height, width, SIDE=side
    )
    return target


def _lay_out(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    xs = x.new_empty(batch, 4, channels, height * width)
    return _launch(_scan_kernel, x.contiguous(), xs, channels, height, width)


def _merge(ys: Tensor, height: int, width: int) -> Tensor:
    batch, _, channels, _ = ys.shape
    y = ys.new_empty(batch, channels, height, width)
    return _launch(_merge_kernel, ys.contiguous(), y, channels, height, width)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[2:]
        return _lay_out(x)

    @staticmethod
    def backward(ctx: Any, dxs: Tensor) -> Tensor:
        return _merge(dxs, *ctx.size)


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ys: Tensor, height: int, width: int) -> Tensor:
        return _merge(ys, height, width)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return _lay_out(dy), None, None


scan_by_triton: Callable[[Tensor], Tensor] = _Scan.apply
merge_by_triton: Callable[[Tensor, int, int], Tensor] = _Merge.apply
