"""mamba-ssm's and causal-conv1d's functions by their own names, parameters and defaults."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medmamba_variants.scan.selective import selective_scan


def selective_scan_fn(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = False, return_last_state: bool = False,
) -> Any:  # fmt: skip
    """`scan.selective_scan` in the order and with the defaults of mamba-ssm: y, or (y, last state)."""
    return selective_scan(
        u, delta, A, B, C, D, delta_bias, z=z, delta_softplus=delta_softplus, return_last_state=return_last_state
    )


def causal_conv1d_fn(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None, return_final_states: bool = False, final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:  # fmt: skip
    """Depth-wise convolution of x (batch, channels, length) that sees no later step; weight (channels, width).

    Raises ValueError for packed sequences and states, and for an activation other than None, silu and swish.
    """
    for name, given in (
        ("seq_idx", seq_idx),
        ("initial_states", initial_states),
        ("final_states_out", final_states_out),
    ):
        if given is not None:
            raise ValueError(f"{name} must be None in this stand-in for causal_conv1d_fn, got a tensor")
    if return_final_states:
        raise ValueError("return_final_states must be False in this stand-in for causal_conv1d_fn, got True")
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be None, silu or swish, got {activation!r}")
    channels, width = weight.shape
    y = F.conv1d(F.pad(x, (width - 1, 0)), weight.unsqueeze(1).to(x.dtype), _cast(bias, x), groups=channels)
    return y if activation is None else F.silu(y)


def mamba_inner_fn_no_out_proj(
    xz: Tensor, conv1d_weight: Tensor, conv1d_bias: Tensor | None, x_proj_weight: Tensor, delta_proj_weight: Tensor,
    A: Tensor, B: Tensor | None = None, C: Tensor | None = None, D: Tensor | None = None,
    delta_bias: Tensor | None = None, B_proj_bias: Tensor | None = None, C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True, checkpoint_lvl: int = 1,
) -> Tensor:  # fmt: skip
    """Mamba's layer between its two projections, y (batch, channels, length); xz (batch, 2 · channels, length).

    x is filtered (conv1d_weight (channels, 1, width)), and x_proj_weight (rank + 2 · d_state, channels) selects step
    size, B and C from it, unless B and C (channels, d_state) are given (Gu & Dao 2023, section 3.4). `checkpoint_lvl`
    has no effect: what the kernels keep is little as it is.
    """
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    rank, d_state = delta_proj_weight.shape[1], A.shape[1]
    selected = F.linear(x.transpose(1, 2), x_proj_weight)
    delta = F.linear(selected[..., :rank], delta_proj_weight).transpose(1, 2)
    if B is None:
        B = _with_offset(selected[..., rank : rank + d_state], B_proj_bias).transpose(1, 2)
    if C is None:
        C = _with_offset(selected[..., -d_state:], C_proj_bias).transpose(1, 2)
    y: Tensor = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return y


def mamba_inner_fn(
    xz: Tensor, conv1d_weight: Tensor, conv1d_bias: Tensor | None, x_proj_weight: Tensor, delta_proj_weight: Tensor,
    out_proj_weight: Tensor, out_proj_bias: Tensor | None, A: Tensor, B: Tensor | None = None, C: Tensor | None = None,
    D: Tensor | None = None, delta_bias: Tensor | None = None, B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None, delta_softplus: bool = True, checkpoint_lvl: int = 1,
) -> Tensor:  # fmt: skip
    """Mamba's layer behind its first projection, (batch, length, width); arguments of `mamba_inner_fn_no_out_proj`."""
    y = mamba_inner_fn_no_out_proj(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias, B_proj_bias,
        C_proj_bias, delta_softplus, checkpoint_lvl,
    )  # fmt: skip
    # Under autocast y may have other bits than the weights, which F.linear then casts itself.
    cast = torch.is_autocast_enabled(y.device.type)
    return F.linear(
        y.transpose(1, 2), out_proj_weight if cast else out_proj_weight.to(y.dtype),
        out_proj_bias if cast else _cast(out_proj_bias, y),
    )  # fmt: skip


def _with_offset(values: Tensor, bias: Tensor | None) -> Tensor:
    return values if bias is None else values + bias.to(values.dtype)


def _cast(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.dtype)
