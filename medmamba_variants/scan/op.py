"""The scan as a function of tensors and a path: checks, dtypes, and the shortest route to a backend."""

from operator import index
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
)
from torch.autograd import forward_ad

from medmamba_variants.scan.backends import backend_name, takes_as_is, takes_projected
from medmamba_variants.scan.dispatch import Gradients, laid_out, run_backward, run_forward
from medmamba_variants.scan.loops import asked_for, loop_over_path
from medmamba_variants.scan.paths import NUMBERED, ScanPath, constant_of_graphs
from medmamba_variants.scan.products import product


def ss2d_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    path: ScanPath, delta_weight: Tensor | None = None, *, discretisation: str = "mamba",
) -> Tensor:  # fmt: skip
    """Selective scans of x along the K directions of a path, summed over directions: y (batch, length, channels).

    x (batch, length, channels) is a map in row-major order; delta (batch, length, K, channels) the step size before
    bias and softplus; A (K, channels, d_state) negative; B and C (batch, length, K, d_state); D and delta_bias
    (K, channels) or None. `reference.scan` writes the recurrence out. Positions that no direction visits get zero.

    With delta_weight (K, channels, rank) delta is (batch, length, K, rank), and the step size before bias and softplus
    is the product of the two over the rank. In this case, and where delta, B and C are parts of one projection, the
    CPU's and Triton's kernels keep neither the product nor copies of the parts for the backward pass, unless a dtype
    must be converted; the CPU's do not even make them.

    `discretisation` names a rule of `discretisation.factors`; all but mamba run in plain torch operations alone.

    y has x's dtype. The state has the widest dtype among the arguments, at least float32, also under autocast.
    Raises ValueError when shapes, dtypes, devices and path do not fit together, an argument is not a tensor, or the
    rule is unknown, or is not one of the backend that was asked for.
    """
    if not (
        isinstance(path, ScanPath)
        and isinstance(x, Tensor)
        and isinstance(delta, Tensor)
        and isinstance(A, Tensor)
        and isinstance(B, Tensor)
        and isinstance(C, Tensor)
        and (D is None or isinstance(D, Tensor))
        and (delta_bias is None or isinstance(delta_bias, Tensor))
        and (delta_weight is None or isinstance(delta_weight, Tensor))
        and x.dim() == A.dim() == 3
    ):
        _refuse(x, delta, A, B, C, D, delta_bias, path, delta_weight)
    batch, length, channels = x.shape
    K, d_state = path.directions, A.shape[2]
    if not (
        length == path.length
        and d_state > 0
        and delta.dim() == 4
        and delta.shape[:3] == (batch, length, K)
        and A.shape == (K, channels, d_state)
        and B.shape == (batch, length, K, d_state)
        and C.shape == B.shape
        and x.device == delta.device == A.device == B.device == C.device
        and (D is None or (D.shape == (K, channels) and D.device == x.device))
        and (delta_bias is None or (delta_bias.shape == (K, channels) and delta_bias.device == x.device))
        and (
            delta.shape[3] == channels
            if delta_weight is None
            else delta_weight.shape == (K, channels, delta.shape[3])
            and delta.shape[3] > 0
            and delta_weight.device == x.device
        )
    ):
        _refuse(x, delta, A, B, C, D, delta_bias, path, delta_weight)
    dtype = x.dtype
    if D is None:
        D = A.new_zeros(K, channels)
    if delta_bias is None:
        delta_bias = A.new_zeros(K, channels)
    mixed = (
        not (delta.dtype is A.dtype is B.dtype is C.dtype is D.dtype is delta_bias.dtype is dtype)
        or dtype is not torch.float32
        or (delta_weight is not None and delta_weight.dtype is not dtype)
    )
    if torch.compiler.is_compiling() and asked_for():
        y = loop_over_path(x, delta, A, B, C, D, delta_bias, path, delta_weight, discretisation)
        return y.to(dtype)
    inner = _state_dtype(x, delta, A, B, C, D, delta_bias, delta_weight) if mixed else dtype
    name = backend_name(x.device.type, inner, discretisation)
    if delta_weight is not None and not takes_projected(name):
        # Like kernels that make it themselves: in the state's precision, whatever autocast wants for matrix products.
        kind = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"  # The meta device has none.
        with torch.autocast(kind, enabled=False):
            delta, delta_weight, mixed = product(delta.to(inner), delta_weight.to(inner)), None, True
    if mixed and not takes_as_is(name, dtype, delta.dtype, A.dtype, B.dtype, C.dtype, D.dtype, delta_bias.dtype):
        x, delta, A, B, C = x.to(inner), delta.to(inner), A.to(inner), B.to(inner), C.to(inner)
        D, delta_bias = D.to(inner), delta_bias.to(inner)
        delta_weight = None if delta_weight is None else delta_weight.to(inner)
    if torch.compiler.is_compiling():
        # An index is a constant to the compiler, also where it reads the path off a function's argument.
        table, resets = _numbered_path_tensors(index(path.number), x.device)
    else:
        table, resets = path_tensors(path, x.device)
    need_backward = torch.is_grad_enabled() and (
        x.requires_grad
        or delta.requires_grad
        or A.requires_grad
        or B.requires_grad
        or C.requires_grad
        or D.requires_grad
        or delta_bias.requires_grad
        or (delta_weight is not None and delta_weight.requires_grad)
        # A tensor wrapped by vmap says no, and has a gradient all the same.
        or torch._C._are_functorch_transforms_active()
    )
    if need_backward and not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None:
        # A trace must be the same with gradients and without; its backward pass runs the forward pass again.
        need_backward = False
    factor = () if delta_weight is None else (delta_weight,)
    if must_dispatch(x, delta, A, B, C, D, delta_bias, *factor):
        if not torch.compiler.is_compiling():
            _refuse_transforms(x, delta, A, B, C, D, delta_bias, *factor)
        rest = path.visited, need_backward, name, discretisation
        y, _ = torch.ops.medmamba.ss2d_scan(x, delta, A, B, C, D, delta_bias, delta_weight, table, resets, *rest)
    elif need_backward:
        # Copied here, in sight of autograd: what the function saves must be its own inputs.
        inputs = laid_out(name, x, delta, A, B, C, D, delta_bias, delta_weight, table, resets)
        y = _Scan.apply(*inputs, path.visited, name, discretisation)
    else:
        inputs = laid_out(name, x, delta, A, B, C, D, delta_bias, delta_weight, table, resets)
        y, _ = run_forward(inputs, False, name, discretisation)
    return y if y.dtype is dtype else y.to(dtype)


def path_tensors(path: ScanPath, device: torch.device) -> tuple[Tensor, Tensor]:
    """A path's table (int32) and marks (uint8) on a device; made once per device and kept with the path."""
    # Under a mode that replaces tensors, a table kept from before would not belong.
    is_kept = torch._C._len_torch_dispatch_stack() == 0
    tensors: tuple[Tensor, Tensor] | None = path.tensors.get(device) if is_kept else None
    if tensors is None:
        # Not an inference tensor even when first needed in inference mode: training uses it later.
        tracing = torch._C._get_tracing_state()
        # In a trace they are constants, in the first as in the next, which finds them made.
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            with torch.inference_mode(False):
                tensors = torch.tensor(path.table, device=device), torch.tensor(path.resets, device=device)
        finally:
            torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]
        if is_kept and type(tensors[0]) is Tensor:  # A tracer's stand-in would outlive its trace.
            path.tensors[device] = tensors
    return tensors


@constant_of_graphs
def _numbered_path_tensors(number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return path_tensors(NUMBERED[number], device)


class _Scan(torch.autograd.Function):
    """The operator without the dispatcher, which costs more than a small scan."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
        delta_weight: Tensor | None, table: Tensor, resets: Tensor, visited: int, backend: str,
        discretisation: str,
    ) -> Tensor:  # fmt: skip
        inputs = (x, delta, A, B, C, D, delta_bias, delta_weight, table, resets)
        y, checkpoints = run_forward(inputs, True, backend, discretisation)
        ctx.save_for_backward(*inputs, checkpoints)
        ctx.rest = visited, backend, discretisation
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:
        # Grad mode is on here only under create_graph: the operator then refuses a second derivative.
        visited, backend, discretisation = ctx.rest
        *inputs, checkpoints = ctx.saved_tensors
        _refuse_transforms(dy)
        if torch.is_grad_enabled() or must_dispatch(dy):
            gradients = torch.ops.medmamba.ss2d_scan_backward(
                dy, *inputs, checkpoints, visited, backend, discretisation
            )
        else:
            # Hooks on saved tensors may give them back with other strides.
            gradients = run_backward(dy, laid_out(backend, *inputs), checkpoints.contiguous(), backend, discretisation)
        # Autograd drops gradients that are not needed.
        return *gradients, *[None] * (13 - len(gradients))


def must_dispatch(*tensors: Tensor) -> bool:
    """Whether torch's dispatcher must see the operator.

    It must for a tracer, a dispatch mode such as a FLOP counter, a transform or a tensor subclass, and for a tensor
    whose memory is not its value, such as a negated view or torch's zeros without memory.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or tensors[0].is_meta  # All are on one device.
    ):
        return True
    # Not a generator, as this runs several times in every block.
    for tensor in tensors:  # noqa: SIM110
        if type(tensor) not in _PLAIN or tensor.is_neg() or tensor._is_zerotensor():
            return True
    return False


def _refuse_transforms(*tensors: Tensor) -> None:
    """Raises RuntimeError where a tensor carries a derivative that the operator would silently lose."""
    levels = get_interpreter_stack() or []
    by_transform = any(level.key() != TransformType.Vmap for level in levels)
    for tensor in tensors:
        if (
            (by_transform and is_functorch_wrapped_tensor(tensor))
            or is_legacy_batchedtensor(tensor)
            or forward_ad.unpack_dual(tensor).tangent is not None
        ):
            raise RuntimeError(
                "ss2d_scan has the gradients of backward() and torch.autograd.grad only: "
                "no forward mode, no torch.func, no is_grads_batched"
            )


_PLAIN = (Tensor, torch.nn.Parameter)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _state_dtype(*tensors: Tensor | None) -> torch.dtype:
    dtype = torch.float32
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"ss2d_scan needs floating-point tensors of 16, 32 or 64 bits, got {tensor.dtype}")
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def refuse_other_than_tensors(needed: dict[str, object], optional: dict[str, object]) -> None:
    """Raises ValueError for the first argument that is not a tensor or, where optional, None."""
    for name, value in (needed | optional).items():
        if not (isinstance(value, Tensor) or (value is None and name in optional)):
            kind = "a tensor or None" if name in optional else "a tensor"
            raise ValueError(f"{name} must be {kind}, got {type(value).__name__}")


def _refuse(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    path: ScanPath, delta_weight: Tensor | None,
) -> NoReturn:  # fmt: skip
    """Raises ValueError for the first argument that does not fit x, A and the path."""
    if not isinstance(path, ScanPath):
        raise ValueError(f"path must be a ScanPath, as scan.paths makes them, got {type(path).__name__}")
    refuse_other_than_tensors(
        {"x": x, "delta": delta, "A": A, "B": B, "C": C},
        {"D": D, "delta_bias": delta_bias, "delta_weight": delta_weight},
    )
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, length, channels), got shape {tuple(x.shape)}")
    batch, length, channels = x.shape
    if length != path.length:
        raise ValueError(f"x must have the path's length {path.length}, got {length} in shape {tuple(x.shape)}")
    if A.dim() != 3 or A.shape[2] == 0:
        raise ValueError(f"A must be (K, channels, d_state) with d_state at least 1, got shape {tuple(A.shape)}")
    K, d_state = path.directions, A.shape[2]
    columns, last = channels, "channels"
    if delta_weight is not None:
        if delta.dim() != 4 or delta.shape[3] == 0:
            raise ValueError(
                f"delta must be (batch, length, K, rank) beside delta_weight, rank at least 1, got {tuple(delta.shape)}"
            )
        columns, last = delta.shape[3], "rank"
    for name, tensor, words, shape in (
        ("delta", delta, f"(batch, length, K, {last})", (batch, length, K, columns)),
        ("A", A, "(K, channels, d_state)", (K, channels, d_state)),
        ("B", B, "(batch, length, K, d_state)", (batch, length, K, d_state)),
        ("C", C, "(batch, length, K, d_state)", (batch, length, K, d_state)),
        ("D", D, "(K, channels)", (K, channels)),
        ("delta_bias", delta_bias, "(K, channels)", (K, channels)),
        ("delta_weight", delta_weight, "(K, channels, rank)", (K, channels, columns)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must be {words} = {shape}, got {tuple(tensor.shape)}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} must be on x's device {x.device}, got {tensor.device}")
    raise AssertionError("ss2d_scan refused arguments that fit")
