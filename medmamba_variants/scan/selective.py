"""The one-dimensional selective scan in mamba-ssm's layout, on the same operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medmamba_variants.scan.op import refuse_other_than_tensors, ss2d_scan
from medmamba_variants.scan.paths import scan_path

# A step size before softplus that makes an empty step: the state stays and takes no input.
NO_STEP = -1e4
# The step size that stands for none, far below what a state could notice.
LEAST_STEP = 1e-18


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
    delta_bias: Tensor | None = None, *, z: Tensor | None = None, delta_softplus: bool = True,
    return_last_state: bool = False,
) -> Any:  # fmt: skip
    """The one-dimensional selective scan in mamba-ssm's layout, including softplus(delta + bias).

    Returns y (batch, K · channels, length), and with `return_last_state` also the state after the last step, (batch,
    K · channels, d_state) in the state's dtype, which here has a gradient like y.

    u and delta (batch, K · channels, length); A (K · channels, d_state); B and C (batch, K, d_state, length), or
    without the axis K where all channels share them, or (K · channels, d_state) where they never change; D and
    delta_bias (K · channels,) or None; z like u, a gate: y · silu(z). Without `delta_softplus` delta + bias is the step
    size itself, and must not be negative. Otherwise as `ss2d_scan`. Raises ValueError also for complex numbers.

    The groups share neither u nor parameters, so each is a separate scan with one direction: laid out as directions of
    one scan they would need room for every pair of group and position, of which only one in K exists.
    """
    needed: dict[str, object] = {"u": u, "delta": delta, "A": A, "B": B, "C": C}
    optional: dict[str, object] = {"D": D, "delta_bias": delta_bias, "z": z}
    refuse_other_than_tensors(needed, optional)
    for name, tensor in (needed | optional).items():
        if isinstance(tensor, Tensor) and tensor.is_complex():
            raise ValueError(f"{name} must be real, as every state of these kernels is, got {tensor.dtype}")
    fixed = [name for name, tensor in (("B", B), ("C", C)) if tensor.dim() == 2]
    if not fixed:
        B, C = _grouped(B, C)
    _check_shapes(u, delta, A, B, C, D, delta_bias, z, fixed)
    if not delta_softplus:
        delta, delta_bias = _before_softplus(delta, delta_bias), None
    dtype = u.dtype
    if return_last_state:
        # y has u's dtype, and so would a state read off it.
        u = u.to(torch.promote_types(torch.promote_types(dtype, A.dtype), torch.float32))
    scan = _scan_of_states if fixed else _scan_of_groups
    y, state = scan(u, delta, A, B, C, D, delta_bias, return_last_state)
    if z is not None:
        y = y * F.silu(z)
    y = y.to(dtype)
    return (y, state) if return_last_state else y


def _grouped(B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """B and C (batch, K, d_state, length) with one K; either may lack it, or have it once."""
    B, C = B.unsqueeze(1) if B.dim() == 3 else B, C.unsqueeze(1) if C.dim() == 3 else C
    if B.dim() == C.dim() == 4 and B.shape[1] != C.shape[1] and 1 in (B.shape[1], C.shape[1]):
        K = max(B.shape[1], C.shape[1])
        B, C = B.expand(-1, K, -1, -1), C.expand(-1, K, -1, -1)
    return B, C


def _check_shapes(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    z: Tensor | None, fixed: list[str],
) -> None:  # fmt: skip
    """Raises ValueError for the first argument that does not fit u, A and the groups."""
    if u.dim() != 3 or A.dim() != 2 or (not fixed and B.dim() != 4):
        raise ValueError(
            "u must be (batch, K·channels, length), A (K·channels, d_state), B and C (batch, K, d_state, length), "
            f"got {tuple(u.shape)}, {tuple(A.shape)}, {tuple(B.shape)} and {tuple(C.shape)}"
        )
    batch, inner, length = u.shape
    d_state = A.shape[1]
    if length == 0:
        raise ValueError(f"u must have at least one step, got shape {tuple(u.shape)}")
    varying, everywhere = "(batch, K, d_state, length)", "(K·channels, d_state)"
    expected: list[tuple[str, Tensor | None, str, tuple[int, ...]]] = [
        ("delta", delta, "(batch, K·channels, length)", (batch, inner, length)),
        ("A", A, everywhere, (inner, d_state)),
    ]
    for name, tensor in (("B", B), ("C", C)):
        if name in fixed:
            expected.append((name, tensor, everywhere, (inner, d_state)))
            continue
        # Beside one that never changes, the other may lack the axis K.
        K = 1 if tensor.dim() != 4 else tensor.shape[1] if fixed else B.shape[1]
        if K == 0 or inner % K:
            raise ValueError(f"u's second axis must be K·channels for the {K} groups of {name}, got {inner}")
        right = (batch, K, d_state, length) if tensor.dim() == 4 else (batch, d_state, length)
        expected.append((name, tensor, varying, right))
    expected += [
        ("D", D, "(K·channels,)", (inner,)),
        ("delta_bias", delta_bias, "(K·channels,)", (inner,)),
        ("z", z, "(batch, K·channels, length)", (batch, inner, length)),
    ]
    for name, given, words, shape in expected:
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} must be {words} = {tuple(shape)}, got {tuple(given.shape)}")


class _BeforeSoftplus(torch.autograd.Function):
    """The number of which softplus makes a step size; its slope is that of the inverse, also at a step size of zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(steps: Tensor) -> Tensor:
        steps = steps.clamp(min=LEAST_STEP)
        return steps + torch.log(-torch.expm1(-steps))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dr: Tensor) -> Tensor:
        (steps,) = ctx.saved_tensors
        return dr / -torch.expm1(-steps.clamp(min=LEAST_STEP))


def _before_softplus(delta: Tensor, bias: Tensor | None) -> Tensor:
    """What softplus turns into delta + bias. Raises ValueError where a step size is negative."""
    # In 16 bits a small step size would be lost.
    steps = delta.to(torch.promote_types(delta.dtype, torch.float32))
    if bias is not None:
        steps = steps + bias.unsqueeze(1)
    if not torch.compiler.is_compiling() and not steps.is_meta and bool((steps < 0).any()):
        raise ValueError(
            f"delta must not be negative without delta_softplus, got {float(steps.detach().min()):.3g} (with its bias)"
        )
    r: Tensor = _BeforeSoftplus.apply(steps)
    return r


def _scan_of_states(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    last: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The scan where B or C never changes: every number of a state is a channel of its own, with a state of one."""
    batch, inner, length = u.shape
    N = A.shape[1]

    def by_state(values: Tensor) -> Tensor:
        """B or C as (batch or 1, inner, d_state, length or 1)."""
        if values.dim() == 2:
            return values[None, :, :, None]
        values = values.unsqueeze(1) if values.dim() == 3 else values
        return values.repeat_interleave(inner // values.shape[1], dim=1)

    entering = (u.unsqueeze(2) * by_state(B)).flatten(1, 2)
    steps = delta.unsqueeze(2).expand(-1, -1, N, -1).flatten(1, 2)
    bias = None if delta_bias is None else delta_bias.repeat_interleave(N)
    one = u.new_ones(batch, 1, 1, length)
    states, _ = _scan_of_groups(entering, steps, A.reshape(inner * N, 1), one, one, None, bias, False)
    states = states.unflatten(1, (inner, N))
    y = (states * by_state(C)).sum(2)
    y = y if D is None else y + u * D.unsqueeze(1)
    return y, states[..., -1] if last else None


def _scan_of_groups(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    last: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """A scan for each group, and the state after the last step where it is asked for."""
    batch, inner, length = u.shape
    K, N = B.shape[1], A.shape[1]
    if last:
        # Empty steps, each of which reads one number of the state: no kernel has to hand out states.
        u, delta, B = F.pad(u, (0, N)), F.pad(delta, (0, N), value=NO_STEP), F.pad(B, (0, N))
        reads = torch.eye(N, dtype=C.dtype, device=C.device).expand(batch, K, N, N)
        C = torch.cat([C, reads], dim=3)
    path = scan_path(("rows",), 1, u.shape[2])

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
    y = outputs[0] if K == 1 else torch.cat(outputs, dim=1)
    return (y[..., :length], y[..., length:]) if last else (y, None)
