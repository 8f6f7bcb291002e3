"""The one-dimensional selective scan in mamba-ssm's layout, on the same operator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medmamba_variants.scan.op import refuse_other_than_tensors, ss2d_scan
from medmamba_variants.scan.paths import scan_path


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The one-dimensional selective scan in mamba-ssm's layout, including softplus(delta + bias).

    Returns y (batch, K · channels, length).

    u and delta (batch, K · channels, length); A (K · channels, d_state); B and C (batch, K, d_state, length), or
    without the axis K where all channels share them; D and delta_bias (K · channels,) or None. Otherwise as
    `ss2d_scan`.

    The groups share neither u nor parameters, so each is a separate scan with one direction: laid out as directions of
    one scan they would need room for every pair of group and position, of which only one in K exists.
    """
    refuse_other_than_tensors({"u": u, "delta": delta, "A": A, "B": B, "C": C}, {"D": D, "delta_bias": delta_bias})
    B, C = B.unsqueeze(1) if B.dim() == 3 else B, C.unsqueeze(1) if C.dim() == 3 else C
    if u.dim() != 3 or A.dim() != 2 or B.dim() != 4:
        raise ValueError(
            "u must be (batch, K·channels, length), A (K·channels, d_state), B and C (batch, K, d_state, length), "
            f"got {tuple(u.shape)}, {tuple(A.shape)}, {tuple(B.shape)} and {tuple(C.shape)}"
        )
    batch, inner, length = u.shape
    K, d_state = B.shape[1], A.shape[1]
    if length == 0:
        raise ValueError(f"u must have at least one step, got shape {tuple(u.shape)}")
    if K == 0 or inner % K:
        raise ValueError(f"u's second axis must be K·channels for the {K} groups of B, got {inner}")
    for name, tensor, words, shape in (
        ("delta", delta, "(batch, K·channels, length)", (batch, inner, length)),
        ("A", A, "(K·channels, d_state)", (inner, d_state)),
        ("B", B, "(batch, K, d_state, length)", (batch, K, d_state, length)),
        ("C", C, "(batch, K, d_state, length)", (batch, K, d_state, length)),
        ("D", D, "(K·channels,)", (inner,)),
        ("delta_bias", delta_bias, "(K·channels,)", (inner,)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must be {words} = {shape}, got {tuple(tensor.shape)}")
    path = scan_path(("rows",), 1, length)

    def groups(values: Tensor) -> list[Tensor]:
        """Splits (batch, K, size, length) into K tensors (batch, length, size)."""
        # Unbound, not sliced: the backward of K slices would add up K tensors of the full size.
        return [group.transpose(1, 2).contiguous() for group in values.unbind(1)]

    def parameters(values: Tensor | None) -> Sequence[Tensor | None]:
        """Splits (K · channels, …) into K tensors (1, channels, …)."""
        return [None] * K if values is None else values.unflatten(0, (K, 1, inner // K)).unbind()

    us, deltas = groups(u.unflatten(1, (K, inner // K))), groups(delta.unflatten(1, (K, inner // K)))
    outputs = [
        ss2d_scan(u_k, delta_k.unsqueeze(2), A_k, B_k.unsqueeze(2), C_k.unsqueeze(2), D_k, bias_k, path).transpose(1, 2)
        for u_k, delta_k, A_k, B_k, C_k, D_k, bias_k in zip(
            us, deltas, parameters(A), groups(B), groups(C), parameters(D), parameters(delta_bias)
        )
    ]
    return outputs[0] if K == 1 else torch.cat(outputs, dim=1)
