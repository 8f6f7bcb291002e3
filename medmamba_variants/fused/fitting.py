"""Where the fused kernels can take over from torch's operations, and the second derivatives that they lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from medmamba_variants.scan.backends import load_backend
from medmamba_variants.scan.op import must_dispatch


def fits(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the kernels can take over from torch on these tensors.

    They cannot for anything but plain float32 or float64 on the CPU, one dtype for all, and where tracers, transforms,
    compilers or counters must see the operations themselves.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.numel() == 0:
        return False
    tensors = [x]
    for other in others:
        if other is not None:
            if other.dtype is not x.dtype or other.device != x.device:
                return False
            tensors.append(other)
    return not must_dispatch(*tensors) and _is_available()


@cache
def _is_available() -> bool:
    # What the scan's kernels lack here, these lack, too.
    return load_backend("cpu").UNAVAILABLE is None


@cache
def kernels() -> ModuleType:
    """The module of kernels, for tensors that fit."""
    return import_module("medmamba_variants.fused.launch")


def row_stride(x: Tensor) -> int:
    """The distance between the rows of a map (…, channels); 0 where it is not the same for all."""
    if x.is_contiguous():
        return x.shape[-1]
    *outer, last = x.stride()
    if last != 1 and x.shape[-1] != 1:
        return 0
    row = expected = 0
    for size, stride in zip(reversed(x.shape[:-1]), reversed(outer)):
        # The stride of an axis with a single entry says nothing.
        if size == 1:
            continue
        if row == 0:
            row = expected = stride
        if stride != expected:
            return 0
        expected = stride * size
    return row if row >= x.shape[-1] else 0


def with_rows(x: Tensor) -> tuple[Tensor, int]:
    """A map and the distance between its rows, copied where there is no single one."""
    stride = row_stride(x)
    return (x, stride) if stride else (x.contiguous(), x.shape[-1])


def wants_gradients(*tensors: Tensor | None) -> bool:
    """Whether autograd must follow an operation on these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def traced_gradients(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], dout: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of an operation's inputs by torch's own operations, which have derivatives in their turn."""
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    with torch.enable_grad():
        # Not under create_graph where only the gradient at hand is out of the ordinary.
        found = iter(torch.autograd.grad(plain(*inputs), wanted, dout, create_graph=True, allow_unused=True))
    return tuple(next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs)


def must_trace(dout: Tensor) -> bool:
    """Whether a backward pass is itself differentiated, or its gradient nothing that a kernel reads."""
    return torch.is_grad_enabled() or must_dispatch(dout)
