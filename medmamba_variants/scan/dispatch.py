"""The scan as registered torch operators, `medmamba::ss2d_scan` and its backward: fake kernels, autograd and FLOPs."""

from collections.abc import Sequence
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from medmamba_variants.scan.backends import load_backend, row_stride, takes_projected

# Multiply-adds of each visited step, channel and state: VMamba's count for this recurrence (`flops_selective_scan_fn`),
# here for every rule of discretisation.
MACS_PER_STATE = 9
TWICE = "ss2d_scan can be differentiated once only: its backward pass has no derivative"

# x, delta, A, B, C, D, delta_bias, delta_weight, table, resets
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor]
Gradients = tuple[Tensor | None, ...]


@torch.library.custom_op("medmamba::ss2d_scan", mutates_args=())
def _operator(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    delta_weight: Tensor | None, table: Tensor, resets: Tensor, visited: int, need_backward: bool, backend: str,
    discretisation: str = "mamba",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = laid_out(backend, x, delta, A, B, C, D, delta_bias, delta_weight, table, resets)
    return run_forward(inputs, need_backward, backend, discretisation)


@torch.library.custom_op("medmamba::ss2d_scan_backward", mutates_args=())
def _backward_operator(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    delta_weight: Tensor | None, table: Tensor, resets: Tensor, checkpoints: Tensor, visited: int, backend: str,
    discretisation: str = "mamba",
) -> list[Tensor]:  # fmt: skip
    inputs = laid_out(backend, x, delta, A, B, C, D, delta_bias, delta_weight, table, resets)
    return list(run_backward(dy, inputs, checkpoints, backend, discretisation))


def laid_out(
    backend: str, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    delta_weight: Tensor | None, table: Tensor, resets: Tensor,
) -> Inputs:  # fmt: skip
    """Tensors for a backend, copied where it cannot read them as they lie in memory."""
    if takes_projected(backend):
        if row_stride(delta) == 0:
            delta = delta.contiguous()
        if row_stride(B) == 0:
            B = B.contiguous()
        if row_stride(C) == 0:
            C = C.contiguous()
    else:
        delta, B, C = delta.contiguous(), B.contiguous(), C.contiguous()
    # Written out: this runs in every scan, and a loop would cost as much as the checks.
    return (
        x.contiguous(),
        delta,
        A.contiguous(),
        B,
        C,
        D.contiguous(),
        delta_bias.contiguous(),
        None if delta_weight is None else delta_weight.contiguous(),
        table.contiguous(),
        resets.contiguous(),
    )


def run_forward(inputs: Inputs, need_backward: bool, backend: str, discretisation: str) -> tuple[Tensor, Tensor]:
    """Runs the forward pass and returns y and what the backend keeps for its backward pass."""
    *tensors, delta_weight, table, resets = inputs
    rest = _rest(delta_weight, discretisation)
    result: tuple[Tensor, Tensor] = load_backend(backend).forward(*tensors, table, resets, need_backward, **rest)
    return result


def run_backward(
    dy: Tensor, inputs: Inputs, checkpoints: Tensor, backend: str, discretisation: str
) -> Sequence[Tensor]:
    """Runs the backward pass and returns the gradients of the seven inputs, and of delta_weight where it is given."""
    *tensors, delta_weight, table, resets = inputs
    rest = _rest(delta_weight, discretisation)
    module = load_backend(backend)
    if checkpoints.numel() == 0 and prod(module.checkpoint_shape(tensors[0], tensors[2], table.shape[1])):
        # Of a traced graph, which keeps nothing: it is the same with gradients and without.
        checkpoints = run_forward(inputs, True, backend, discretisation)[1]
    gradients: Sequence[Tensor] = module.backward(dy.contiguous(), *tensors, table, resets, checkpoints, **rest)
    return gradients


def _rest(delta_weight: Tensor | None, discretisation: str) -> dict[str, Any]:
    """What only some backends take, and only where it says more than the default."""
    rest: dict[str, Any] = {} if delta_weight is None else {"delta_weight": delta_weight}
    return rest if discretisation == "mamba" else rest | {"discretisation": discretisation}


@_operator.register_fake
def _(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    delta_weight: Tensor | None, table: Tensor, resets: Tensor, visited: int, need_backward: bool, backend: str,
    discretisation: str = "mamba",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    # Checkpoints are states, and a state has at least float32.
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape), x.new_empty(_checkpoint_shape(x, A, table, need_backward, backend), dtype=dtype)


@_backward_operator.register_fake
def _(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    delta_weight: Tensor | None, table: Tensor, resets: Tensor, checkpoints: Tensor, visited: int, backend: str,
    discretisation: str = "mamba",
) -> list[Tensor]:  # fmt: skip
    inputs = (x, delta, A, B, C, D, delta_bias, delta_weight)
    return [tensor.new_empty(tensor.shape) for tensor in inputs if tensor is not None]


def _checkpoint_shape(x: Tensor, A: Tensor, table: Tensor, need_backward: bool, backend: str) -> tuple[int, ...]:
    if not need_backward:
        return (0,)
    shape: tuple[int, ...] = load_backend(backend).checkpoint_shape(x, A, table.shape[1])
    return shape


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, visited, _, backend, discretisation = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.rest = visited, backend, discretisation
    # Otherwise the checkpoints, which have no gradient, get one of zeros.
    ctx.set_materialize_grads(False)


def _operator_backward(ctx: Any, dy: Tensor | None, _: Tensor | None) -> Gradients:
    if dy is None:
        return (None,) * 14
    gradients = torch.ops.medmamba.ss2d_scan_backward(dy, *ctx.saved_tensors, *ctx.rest)
    # Autograd drops gradients that are not needed.
    return *gradients, *[None] * (14 - len(gradients))


def _refuse_twice(*arguments: Any) -> NoReturn:
    raise RuntimeError(TWICE)


_operator.register_autograd(_operator_backward, setup_context=_setup_context)
_backward_operator.register_autograd(_refuse_twice)


@register_flop_formula(torch.ops.medmamba.ss2d_scan)
def scan_flops(
    x: tuple[int, ...], delta: tuple[int, ...], A: tuple[int, ...], B: tuple[int, ...], C: tuple[int, ...],
    D: tuple[int, ...], delta_bias: tuple[int, ...], delta_weight: tuple[int, ...] | None,
    table: tuple[int, ...], resets: tuple[int, ...], visited: int, need_backward: bool, backend: str,
    discretisation: str = "mamba", out_shape: object = None,
) -> int:  # fmt: skip
    """FLOPs of the operator: two for each multiply-add, as in torch's counts of matrix products."""
    return 2 * (scan_macs(x[0], visited, A[1], A[2]) + _product_macs(x, delta_weight))


@register_flop_formula(torch.ops.medmamba.ss2d_scan_backward)
def scan_backward_flops(
    dy: tuple[int, ...], x: tuple[int, ...], delta: tuple[int, ...], A: tuple[int, ...], B: tuple[int, ...],
    C: tuple[int, ...], D: tuple[int, ...], delta_bias: tuple[int, ...], delta_weight: tuple[int, ...] | None,
    table: tuple[int, ...], resets: tuple[int, ...], checkpoints: tuple[int, ...], visited: int, backend: str,
    discretisation: str = "mamba", out_shape: object = None,
) -> int:  # fmt: skip
    """FLOPs of the backward operator: twice the forward's, as for matrix products; the recomputation is not counted."""
    return 2 * 2 * (scan_macs(x[0], visited, A[1], A[2]) + _product_macs(x, delta_weight))


def _product_macs(x: tuple[int, ...], delta_weight: tuple[int, ...] | None) -> int:
    """Multiply-adds of delta's product: K · channels · rank for each position."""
    return 0 if delta_weight is None else x[0] * x[1] * prod(delta_weight)


def scan_macs(batch: int, visited: int, channels: int, d_state: int) -> int:
    """Multiply-adds of one forward scan; `visited` is the path's, length · K for K directions over every position."""
    return MACS_PER_STATE * batch * visited * channels * d_state
