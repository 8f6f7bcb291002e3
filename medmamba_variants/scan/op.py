"""The scan as one torch operator, `medmamba::ss2d_scan`: checks, autograd, fake kernels and FLOPs around a backend."""

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from medmamba_variants.scan.backends import backend_name, load_backend
from medmamba_variants.scan.paths import ScanPath, scan_path

# Multiply-adds of each visited step, channel and state: VMamba's count for this recurrence (`flops_selective_scan_fn`).
MACS_PER_STATE = 9
TWICE = "ss2d_scan can be differentiated once only: its backward pass has no derivative"

Gradients = tuple[Tensor | None, ...]


def ss2d_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    path: ScanPath,
) -> Tensor:
    """y (batch, length, channels): selective scans of x along the K directions of a path, summed over the directions.

    x (batch, length, channels) is a map in row-major order; delta (batch, length, K, channels) the step size before bias and
    softplus; A (K, channels, d_state) negative; B and C (batch, length, K, d_state); D and delta_bias (K, channels) or None.
    The recurrence is written out in `reference.scan`. Positions that no direction visits get zero.

    y has x's dtype. The state has the widest dtype among the arguments, at least float32, also under autocast.
    ValueError when shapes, dtypes, devices and path do not belong together.
    """
    batch, length, channels = x.shape if x.dim() == 3 else _refuse(x, delta, A, B, C, D, delta_bias, path)
    K, d_state = path.table.shape[0], A.shape[-1]
    if not (
        length == path.length
        and delta.shape == (batch, length, K, channels)
        and A.shape == (K, channels, d_state)
        and B.shape == (batch, length, K, d_state)
        and C.shape == B.shape
        and x.device == delta.device == A.device == B.device == C.device
        and (D is None or (D.shape == (K, channels) and D.device == x.device))
        and (delta_bias is None or (delta_bias.shape == (K, channels) and delta_bias.device == x.device))
    ):
        _refuse(x, delta, A, B, C, D, delta_bias, path)
    dtype = x.dtype
    if D is None:
        D = A.new_zeros(K, channels)
    if delta_bias is None:
        delta_bias = A.new_zeros(K, channels)
    if (
        not (delta.dtype is A.dtype is B.dtype is C.dtype is D.dtype is delta_bias.dtype is dtype)
        or dtype is not torch.float32
    ):
        inner = _state_dtype(x, delta, A, B, C, D, delta_bias)
        x, delta, A, B, C = x.to(inner), delta.to(inner), A.to(inner), B.to(inner), C.to(inner)
        D, delta_bias = D.to(inner), delta_bias.to(inner)
    table, resets = path_tensors(path, x.device)
    name = backend_name(x.device.type, x.dtype)
    need_backward = torch.is_grad_enabled() and (
        x.requires_grad
        or delta.requires_grad
        or A.requires_grad
        or B.requires_grad
        or C.requires_grad
        or D.requires_grad
        or delta_bias.requires_grad
    )
    if _must_dispatch(x, delta):
        y, _ = torch.ops.medmamba.ss2d_scan(
            x, delta, A, B, C, D, delta_bias, table, resets, path.visited, need_backward, name
        )
    elif need_backward:
        y = _Scan.apply(x, delta, A, B, C, D, delta_bias, table, resets, path.visited, name)
    else:
        y, _ = _forward(x, delta, A, B, C, D, delta_bias, table, resets, False, name)
    return y if y.dtype is dtype else y.to(dtype)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:
    """y (batch, K · channels, length): the one-dimensional scan in mamba-ssm's layout, softplus of delta + bias included.

    u and delta (batch, K · channels, length); A (K · channels, d_state); B and C (batch, K, d_state, length), or without the
    axis K when all channels share them; D and delta_bias (K · channels,) or None. The groups share neither u nor parameters,
    so each is a scan of its own with one direction: no memory is spent on pairs of group and position that do not meet.
    """
    if u.dim() != 3 or A.dim() != 2 or B.dim() not in (3, 4):
        raise ValueError(
            "selective_scan takes u (batch, K·channels, length), A (K·channels, d_state) and B (batch, K, d_state, length), "
            f"got shapes {tuple(u.shape)}, {tuple(A.shape)} and {tuple(B.shape)}"
        )
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    batch, inner, length = u.shape
    K, d_state = B.shape[1], A.shape[1]
    if (
        K == 0
        or inner % K
        or delta.shape != u.shape
        or A.shape[0] != inner
        or B.shape != (batch, K, d_state, length)
        or C.shape != B.shape
        or any(t is not None and t.shape != (inner,) for t in (D, delta_bias))
    ):
        got = ", ".join(
            f"{name} {tuple(t.shape)}"
            for name, t in zip(("u", "delta", "A", "B", "C", "D", "delta_bias"), (u, delta, A, B, C, D, delta_bias))
            if t is not None
        )
        raise ValueError(
            "selective_scan needs u, delta (batch, K·channels, length), A (K·channels, d_state), B, C (batch, K, d_state, "
            f"length), D, delta_bias (K·channels,), got {got}"
        )
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


def path_tensors(path: ScanPath, device: torch.device) -> tuple[Tensor, Tensor]:
    """A path's table (int32) and marks (uint8) on a device; made once a device and kept with the path."""
    tensors: tuple[Tensor, Tensor] | None = path.tensors.get(device)
    if tensors is None:
        # Not an inference tensor even when first asked for in inference mode: training uses it later.
        with torch.inference_mode(False):
            tensors = torch.tensor(path.table, device=device), torch.tensor(path.resets, device=device)
        path.tensors[device] = tensors
    return tensors


torch.compiler.assume_constant_result(path_tensors)


class _Scan(torch.autograd.Function):
    """The operator without the dispatcher, which costs more than a small scan."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        delta_bias: Tensor,
        table: Tensor,
        resets: Tensor,
        visited: int,
        backend: str,
    ) -> Tensor:
        y, checkpoints = _forward(x, delta, A, B, C, D, delta_bias, table, resets, True, backend)
        ctx.save_for_backward(x, delta, A, B, C, D, delta_bias, table, resets, checkpoints)
        ctx.rest = visited, backend
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:  # type: ignore[override]
        # Grad mode is on here only under create_graph: the operator then refuses a second derivative.
        run = torch.ops.medmamba.ss2d_scan_backward if torch.is_grad_enabled() or _must_dispatch(dy, dy) else _backward
        return *_asked(ctx, run(dy, *ctx.saved_tensors, *ctx.rest)), None, None, None, None


@torch.library.custom_op("medmamba::ss2d_scan", mutates_args=())
def _operator(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    visited: int,
    need_backward: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _forward(x, delta, A, B, C, D, delta_bias, table, resets, need_backward, backend)


@torch.library.custom_op("medmamba::ss2d_scan_backward", mutates_args=())
def _backward_operator(
    dy: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    checkpoints: Tensor,
    visited: int,
    backend: str,
) -> list[Tensor]:
    return _backward(dy, x, delta, A, B, C, D, delta_bias, table, resets, checkpoints, visited, backend)


def _forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    need_backward: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    module = load_backend(backend)
    if x.numel() == 0:
        return torch.zeros_like(x), x.new_empty(_checkpoint_shape(x, A, table, need_backward, backend))
    result: tuple[Tensor, Tensor] = module.forward(
        x.contiguous(),
        delta.contiguous(),
        A.contiguous(),
        B.contiguous(),
        C.contiguous(),
        D.contiguous(),
        delta_bias.contiguous(),
        table,
        resets,
        need_backward,
    )
    return result


def _backward(
    dy: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    checkpoints: Tensor,
    visited: int,
    backend: str,
) -> list[Tensor]:
    if x.numel() == 0:
        return [t.new_zeros(t.shape) for t in (x, delta, A, B, C, D, delta_bias)]
    return list(
        load_backend(backend).backward(
            dy.contiguous(),
            x.contiguous(),
            delta.contiguous(),
            A.contiguous(),
            B.contiguous(),
            C.contiguous(),
            D.contiguous(),
            delta_bias.contiguous(),
            table,
            resets,
            checkpoints,
        )
    )


@_operator.register_fake
def _(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    visited: int,
    need_backward: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(_checkpoint_shape(x, A, table, need_backward, backend))


@_backward_operator.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    checkpoints: Tensor,
    visited: int,
    backend: str,
) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (x, delta, A, B, C, D, delta_bias)]


def _checkpoint_shape(x: Tensor, A: Tensor, table: Tensor, need_backward: bool, backend: str) -> tuple[int, ...]:
    if not need_backward:
        return (0,)
    shape: tuple[int, ...] = load_backend(backend).checkpoint_shape(x, A, table.shape[1])
    return shape


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, visited, _, backend = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.rest = visited, backend
    # Otherwise the checkpoints, which have no gradient, get one of zeros.
    ctx.set_materialize_grads(False)


def _operator_backward(ctx: Any, dy: Tensor | None, _: Tensor | None) -> Gradients:
    if dy is None:
        return (None,) * 12
    gradients = torch.ops.medmamba.ss2d_scan_backward(dy, *ctx.saved_tensors, *ctx.rest)
    return *_asked(ctx, gradients), None, None, None, None, None


def _asked(ctx: Any, gradients: list[Tensor]) -> Gradients:
    return tuple(gradient if asked else None for gradient, asked in zip(gradients, ctx.needs_input_grad))


def _refuse_twice(*arguments: Any) -> NoReturn:
    raise RuntimeError(TWICE)


_operator.register_autograd(_operator_backward, setup_context=_setup_context)
_backward_operator.register_autograd(_refuse_twice)


@register_flop_formula(torch.ops.medmamba.ss2d_scan)
def scan_flops(
    x: tuple[int, ...],
    delta: tuple[int, ...],
    A: tuple[int, ...],
    B: tuple[int, ...],
    C: tuple[int, ...],
    D: tuple[int, ...],
    delta_bias: tuple[int, ...],
    table: tuple[int, ...],
    resets: tuple[int, ...],
    visited: int,
    need_backward: bool,
    backend: str,
    out_shape: object = None,
) -> int:
    """FLOPs of the operator: two for each multiply-add, as torch's counter takes them for matrix products."""
    return 2 * scan_macs(x[0], visited, A[1], A[2])


@register_flop_formula(torch.ops.medmamba.ss2d_scan_backward)
def scan_backward_flops(
    dy: tuple[int, ...],
    x: tuple[int, ...],
    delta: tuple[int, ...],
    A: tuple[int, ...],
    B: tuple[int, ...],
    C: tuple[int, ...],
    D: tuple[int, ...],
    delta_bias: tuple[int, ...],
    table: tuple[int, ...],
    resets: tuple[int, ...],
    checkpoints: tuple[int, ...],
    visited: int,
    backend: str,
    out_shape: object = None,
) -> int:
    """FLOPs of the backward operator: twice the forward's, as for matrix products; the recomputation is not counted."""
    return 2 * 2 * scan_macs(x[0], visited, A[1], A[2])


def scan_macs(batch: int, visited: int, channels: int, d_state: int) -> int:
    """Multiply-adds of one forward scan; `visited` is the path's, length · K where every direction visits every position."""
    return MACS_PER_STATE * batch * visited * channels * d_state


def _must_dispatch(x: Tensor, delta: Tensor) -> bool:
    """Whether somebody has to see the operator: a tracer, a dispatch mode such as a FLOP counter, a tensor subclass."""
    return (
        torch.compiler.is_compiling()
        or x.device.type == "meta"
        or type(x) not in _PLAIN
        or type(delta) not in _PLAIN
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


_PLAIN = (Tensor, torch.nn.Parameter)


def _state_dtype(*tensors: Tensor) -> torch.dtype:
    dtype = torch.float32
    for tensor in tensors:
        if not tensor.dtype.is_floating_point:
            raise ValueError(f"ss2d_scan needs floating-point tensors, got {tensor.dtype}")
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _refuse(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    path: ScanPath,
) -> NoReturn:
    """Raises a ValueError on the first argument that does not fit x, A and the path."""
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, length, channels), got shape {tuple(x.shape)}")
    batch, length, channels = x.shape
    if length != path.length:
        raise ValueError(f"x must have the path's length {path.length}, got {length} in shape {tuple(x.shape)}")
    K, d_state = path.directions, A.shape[-1] if A.dim() else 0
    for name, tensor, words, shape in (
        ("delta", delta, "(batch, length, K, channels)", (batch, length, K, channels)),
        ("A", A, "(K, channels, d_state)", (K, channels, d_state)),
        ("B", B, "(batch, length, K, d_state)", (batch, length, K, d_state)),
        ("C", C, "(batch, length, K, d_state)", (batch, length, K, d_state)),
        ("D", D, "(K, channels)", (K, channels)),
        ("delta_bias", delta_bias, "(K, channels)", (K, channels)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must be {words} = {shape}, got {tuple(tensor.shape)}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} must be on x's device {x.device}, got {tensor.device}")
    raise AssertionError("ss2d_scan refused arguments that fit")
