"""The compiled halves `fwd` and `bwd` of mamba-ssm's and VMamba's scans, which their own autograd functions call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medmamba_variants.scan.selective import selective_scan


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool,
) -> list[Tensor]:  # fmt: skip
    """selective_scan_cuda.fwd: y without the gate, x with the last state in every other column, and with z gated y."""
    with torch.no_grad():
        y, state = selective_scan(
            u, delta, A, B, C, D, delta_bias, delta_softplus=delta_softplus, return_last_state=True
        )
        # Callers read x[:, :, -1, 1::2]: the kernels keep a product of decays beside each number of the state.
        x = torch.stack([torch.ones_like(state), state], dim=3).flatten(2).unsqueeze(2)
        return [y, x] if z is None else [y, x, y * torch.nn.functional.silu(z)]


def backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, dout: Tensor, x: Tensor | None, out: Tensor | None, dz: Tensor | None,
    delta_softplus: bool, recompute_out_z: bool,
) -> list[Tensor | None]:  # fmt: skip
    """selective_scan_cuda.bwd: gradients of u, delta, A, B, C, D and delta_bias, with z also of z and, if asked, y.

    Runs the forward pass once more. What an argument lacks has no gradient; dz, where given, is written to.
    """
    given = (u, delta, A, B, C, D, delta_bias, z)
    leaves: list[Any] = [None if tensor is None else tensor.detach().requires_grad_() for tensor in given]
    u, delta, A, B, C, D, delta_bias, z = leaves
    with torch.enable_grad():
        y = selective_scan(u, delta, A, B, C, D, delta_bias, z=z, delta_softplus=delta_softplus)
        wanted = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(y, wanted, dout.to(y.dtype)))
    gradients: list[Any] = [None if leaf is None else next(found) for leaf in leaves]
    if z is None:
        return gradients[:7]
    if dz is not None:
        gradients[7] = dz.copy_(gradients[7])
    return [*gradients, y.detach()] if recompute_out_z else gradients


def core_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    delta_softplus: bool, nrows: int,
) -> list[Tensor]:  # fmt: skip
    """selective_scan_cuda_core.fwd of VMamba: no gate; `nrows` tunes its kernels, and has no effect here."""
    return forward(u, delta, A, B, C, D, None, delta_bias, delta_softplus)


def core_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    dout: Tensor, x: Tensor | None, delta_softplus: bool, nrows: int,
) -> list[Tensor | None]:  # fmt: skip
    """selective_scan_cuda_core.bwd of VMamba, and that of oflex."""
    return backward(u, delta, A, B, C, D, None, delta_bias, dout, x, None, None, delta_softplus, False)


def oflex_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    delta_softplus: bool, nrows: int, out_float: bool,
) -> list[Tensor]:  # fmt: skip
    """selective_scan_cuda_oflex.fwd of VMamba, whose y has 32 bits or more if asked."""
    # In 16 bits y would already be rounded.
    wide = u.to(torch.promote_types(u.dtype, torch.float32)) if out_float else u
    return forward(wide, delta, A, B, C, D, None, delta_bias, delta_softplus)
