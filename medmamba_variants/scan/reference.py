"""Reference backend, the recurrence as a loop: slow, in any floating dtype, with plain autograd."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn.functional import softplus

from medmamba_variants.scan.discretisation.factors import factors
from medmamba_variants.scan.discretisation.rules import RULES

# The rules of discretisation that this backend knows.
DISCRETISATIONS = RULES


def scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    table: Tensor, resets: Tensor, discretisation: str = "mamba",
) -> Tensor:  # fmt: skip
    """The 2-D selective scan as a loop: y (batch, length, channels); arguments as in `ss2d_scan`, path as two tensors.

    For each direction k, along its visiting order p (Gu and Dao, Mamba, arXiv 2312.00752, equation 2 and algorithm 2):
        Δ = softplus(delta[p, k] + delta_bias[k])
        h = exp(Δ · A[k]) · h + Δ · B[p, k] · x[p]
        y[p] += C[p, k] · h + D[k] · x[p]
    and by another rule of discretisation with that rule's step in place of the second line.
    """
    y = torch.zeros_like(x)
    for k, (order, marks) in enumerate(zip(table.tolist(), resets.tolist())):
        outputs: list[Tensor] = []
        h = x.new_zeros(x.shape[0], x.shape[2], A.shape[2])
        u_before = torch.zeros_like(h)
        for p, anew in zip(order, marks):
            if p < 0:
                continue
            if anew:
                h = torch.zeros_like(h)
                u_before = torch.zeros_like(h)
            step = delta[:, p, k] if delta_bias is None else delta[:, p, k] + delta_bias[k]
            Δ = softplus(step).unsqueeze(2)
            if discretisation == "mamba":
                h = torch.exp(Δ * A[k]) * h + Δ * B[:, p, k].unsqueeze(1) * x[:, p].unsqueeze(2)
            else:
                u = B[:, p, k].unsqueeze(1) * x[:, p].unsqueeze(2)
                decay, now, before = factors(discretisation, Δ * A[k])
                h = decay * h + Δ * (now * u if before is None else now * u + before * u_before)
                u_before = u
            output = (C[:, p, k].unsqueeze(1) * h).sum(2)
            outputs.append(output if D is None else output + D[k] * x[:, p])
        if outputs:
            visited = torch.tensor([p for p in order if p >= 0], device=x.device)
            y = y.index_add(1, visited, torch.stack(outputs, dim=1))
    return y


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, table: Tensor,
    resets: Tensor, need_backward: bool, discretisation: str = "mamba",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Forward pass of the backend; keeps nothing for the backward pass."""
    return scan(x, delta, A, B, C, D, delta_bias, table, resets, discretisation), x.new_empty(0)


def backward(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    table: Tensor, resets: Tensor, checkpoints: Tensor, discretisation: str = "mamba",
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D and delta_bias: the loop again, differentiated by autograd."""

    inputs = (x, delta, A, B, C, D, delta_bias)

    def gradients() -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            x, delta, A, B, C, D, delta_bias = leaves
            y = scan(x, delta, A, B, C, D, delta_bias, table, resets, discretisation)
            return torch.autograd.grad(y, leaves, dy, allow_unused=True, materialize_grads=True)

    # Inside an operator this thread's autograd is switched off, and modes may watch it: another thread is free of both.
    with ThreadPoolExecutor(max_workers=1) as other_thread:
        return tuple(gradient.contiguous() for gradient in other_thread.submit(gradients).result())


def checkpoint_shape(x: Tensor, A: Tensor, steps: int) -> tuple[int, ...]:
    """The shape of the checkpoints: none are kept."""
    return (0,)


def supports(x: Tensor) -> bool:
    """Whether x can be scanned: any real floating dtype, any device."""
    return x.dtype.is_floating_point
