"""The gate of Mamba's wiring, and its derivatives with little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def gated(y: Tensor, z: Tensor) -> Tensor:
    """The product y · silu(z), which keeps only y and z for the backward pass."""
    # A trace must hold operations, not a Python function; without gradients nothing is kept anyway.
    if torch.jit.is_tracing() or not torch.is_grad_enabled():
        return y * F.silu(z)
    product: Tensor = _Gated.apply(y, z)
    return product


class _Gated(torch.autograd.Function):
    """The product y · silu(z) that recomputes silu(z) in the backward pass, where autograd would keep it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, z: Tensor) -> Tensor:
        return y * F.silu(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
        y, z = ctx.saved_tensors
        dgate = (dout * y).to(z.dtype)
        if torch.is_grad_enabled():  # Under create_graph: the fused operator has no derivative.
            s = z.sigmoid()
            dz = dgate * s * (1 + z * (1 - s))
        else:
            dz = torch.ops.aten.silu_backward(dgate, z)
        return (dout * F.silu(z)).to(y.dtype), dz
