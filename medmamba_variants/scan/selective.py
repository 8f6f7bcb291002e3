"""The one-dimensional selective scan in mamba-ssm's layout, on the same operator."""

import torch
from torch import Tensor

from medmamba_variants.scan.op import ss2d_scan
from medmamba_variants.scan.paths import scan_path


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:
    """y (batch, K · channels, length): the one-dimensional scan in mamba-ssm's layout, softplus(delta + bias) included.

    u and delta (batch, K · channels, length); A (K · channels, d_state); B and C (batch, K, d_state, length), or
    without the axis K where all channels share them; D and delta_bias (K · channels,) or None. Else as `ss2d_scan`.

    The groups share neither u nor parameters, so each is a scan of its own with one direction: laid out as directions
    of one scan they would need room for every pair of group and position, of which only one in K exists.
    """
    if B.dim() == 3 and C.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    if u.dim() != 3 or A.dim() != 2 or B.dim() != 4:
        raise ValueError(
            "u must be (batch, K·channels, length), A (K·channels, d_state), B and C (batch, K, d_state, length), "
            f"got {tuple(u.shape)}, {tuple(A.shape)}, {tuple(B.shape)} and {tuple(C.shape)}"
        )
    batch, inner, length = u.shape
    K, d_state = B.shape[1], A.shape[1]
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
    channels = inner // K
    outputs = []
    for k in range(K):
        group = slice(k * channels, (k + 1) * channels)
        y = ss2d_scan(
            u[:, group].transpose(1, 2),
            delta[:, group].transpose(1, 2).unsqueeze(2),
            A[group].unsqueeze(0),
            B[:, k].transpose(1, 2).unsqueeze(2),
            C[:, k].transpose(1, 2).unsqueeze(2),
            None if D is None else D[group].unsqueeze(0),
            None if delta_bias is None else delta_bias[group].unsqueeze(0),
            path,
        )
        outputs.append(y.transpose(1, 2))
    return outputs[0] if K == 1 else torch.cat(outputs, dim=1)
