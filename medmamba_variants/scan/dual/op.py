"""The dual scan as a function of tensors and a path: by kernels where they work, else in products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medmamba_variants.scan.dual.launch import backward, forward, supports
from medmamba_variants.scan.dual.products import scan_by_products
from medmamba_variants.scan.op import must_dispatch, path_tensors
from medmamba_variants.scan.paths import ScanPath


def dual_scan(
    x: Tensor,
    scale: Tensor,
    log_decay: Tensor,
    B: Tensor,
    C: Tensor,
    path: ScanPath,
    chunk: int,
    merged: bool = True,
) -> Tensor:
    """y_t = C_t h_t with h_t = exp(log_decay_t) h_{t−1} + scale_t B_t x_tᵀ, for every head along K directions.

    x (batch, length, 1 or K, H, P) is a map in row-major order; scale and log_decay (batch, length, K, H), the latter
    never positive; B and C (batch, length, 1 or K, 1 or H, N), one for each head or one for all. y (batch, length, K,
    H, P), or with 1 in place of K their sum where `merged`. The path visits every position once. All have one dtype.

    State-space duality (Dao & Gu 2024, section 5): x times the step size is the input, B and C are keys and queries.
    Products are taken over `chunk` steps at once; what is traced or counted is always products.
    """
    if not supports(x) or must_dispatch(x, scale, log_decay, B, C):
        return scan_by_products(x, scale, log_decay, B, C, path, merged, chunk)
    result: Tensor = _DualScan.apply(x, scale, log_decay, B, C, path_tensors(path, x.device)[0], merged)
    return result


class _DualScan(torch.autograd.Function):
    """The kernels, which keep only their inputs for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, table: Tensor, merged: bool
    ) -> Tensor:
        x, scale, decay, B, C = (each.contiguous() for each in (x, scale, log_decay.exp(), B, C))
        ctx.save_for_backward(x, scale, decay, B, C, table)
        return forward(x, scale, decay, B, C, table, merged)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return *backward(dy.contiguous(), *ctx.saved_tensors), None, None
