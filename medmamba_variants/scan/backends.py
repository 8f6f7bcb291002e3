"""Backends of the scan by name, their automatic choice, and a switch for tests and benchmarks.

A backend is a module with functions on contiguous tensors of one dtype and device, without autograd. The path comes as
`table` int32 and `resets` uint8, both (K, steps). D and delta_bias are always there; batch and channels may be zero.

    forward(x, delta, A, B, C, D, delta_bias, table, resets, need_backward) -> (y, checkpoints)
    backward(dy, x, delta, A, B, C, D, delta_bias, table, resets, checkpoints) -> the seven gradients
    checkpoint_shape(x, A, steps) -> their shape when need_backward is true; looks at shapes and dtypes only
    supports(x) -> whether it can scan tensors of x's device and dtype here
    UNAVAILABLE, if there is such a name: why it can scan nothing here, or None
    NATIVE_DTYPES, if there is such a name: dtypes of which it takes any mixture as it is; the checkpoints have the
        state's dtype, y that of x, each gradient that of its tensor
    DISCRETISATIONS, if there is such a name: the rules of discretisation that it knows, where they are not mamba's
        alone; forward and backward take `discretisation`, too
    PROJECTED, if there is such a name and it is true: delta, B and C may be parts of wider rows, as `row_stride` has
        it and `dispatch.laid_out` sees to, and delta a factor: forward and backward take `delta_weight`, too, and
        backward returns its gradient last
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from medmamba_variants.scan.discretisation.rules import RULES
from medmamba_variants.scan.paths import constant_of_graphs

BACKENDS = {
    "reference": "medmamba_variants.scan.reference",
    "portable": "medmamba_variants.scan.portable",
    "cpu": "medmamba_variants.scan.cpu.launch",
    "triton": "medmamba_variants.scan.triton.launch",
    "mamba_ssm": "medmamba_variants.scan.mamba_ssm",
}
# The backends tried where none is requested, best first. mamba_ssm is a peer for comparison, used only on request.
PREFERRED = {"cpu": ("cpu", "portable"), "cuda": ("triton", "portable")}

_asked_for: str | None = None
# A list with the name for each open `use_backend`, the newest last.
_requests: list[list[str]] = []
_turn = threading.Lock()
_loaded: dict[str, ModuleType] = {}
_chosen: dict[tuple[str | None, str, torch.dtype, str], str] = {}


def _renew() -> None:
    # Another thread may have held it when the process was forked.
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Context that sends every scan of this process through the named backend; raises ValueError or ImportError."""
    global _asked_for
    load_backend(name)
    request = [name]
    with _turn:
        _requests.append(request)
        _asked_for = name
    try:
        yield
    finally:
        with _turn:
            # Not simply the previous one: threads may leave in a different order from that in which they came.
            _requests[:] = [other for other in _requests if other is not request]
            _asked_for = _requests[-1][0] if _requests else None


def load_backend(name: str) -> ModuleType:
    """The module of a backend. Raises ValueError for an unknown name, ImportError where it cannot be imported."""
    if (module := _loaded.get(name)) is not None:
        return module
    if name not in BACKENDS:
        raise ValueError(f"the scan's backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    try:
        module = import_module(BACKENDS[name])
    except ImportError as error:
        raise ImportError(f"the scan's backend {name!r} cannot be imported here: {error}") from error
    _loaded[name] = module
    return module


def backend_name(device_type: str, dtype: torch.dtype, discretisation: str = "mamba") -> str:
    """The backend that scans tensors of a device type and dtype now: the requested one, or the best that works here.

    Raises ValueError for an unknown rule of discretisation, and where the requested backend cannot scan such tensors by
    that rule.
    """
    return _choose(_asked_for, device_type, dtype, discretisation)


# A backend's abilities are read off its module, and an import cannot be traced.
@constant_of_graphs
def _choose(asked_for: str | None, device_type: str, dtype: torch.dtype, rule: str) -> str:
    key = asked_for, device_type, dtype, rule
    if (name := _chosen.get(key)) is not None:
        return name
    if rule not in RULES:
        raise ValueError(f"the scan's discretisation must be one of {', '.join(RULES)}, got {rule!r}")
    if device_type == "meta":
        name = "portable"  # Nothing is computed.
    elif asked_for is not None:
        module = load_backend(asked_for)
        if not module.supports(torch.empty(0, dtype=dtype, device=device_type)):
            reason = getattr(module, "UNAVAILABLE", None)
            why = f": {reason}" if reason else ""
            raise ValueError(f"the scan's backend {asked_for!r} cannot scan {dtype} on {device_type}{why}")
        if rule not in _rules(module):
            known = ", ".join(_rules(module))
            raise ValueError(f"the discretisation must be one of the scan's backend {asked_for!r}: {known}; got {rule}")
        name = asked_for
    else:
        name = next(
            name
            for name in PREFERRED.get(device_type, ("portable",))
            if _works(name, device_type, dtype) and rule in _rules(load_backend(name))
        )
    _chosen[key] = name
    return name


@constant_of_graphs
def takes_projected(name: str) -> bool:
    """Whether a backend takes delta, B and C as one projection yields them: a factor of delta, parts of wider rows."""
    projected: bool = getattr(load_backend(name), "PROJECTED", False)
    return projected


def row_stride(tensor: Tensor) -> int:
    """The distance between the rows of a tensor (batch, length, K, size); 0 where it is not the same for all."""
    if tensor.is_contiguous():
        return tensor.shape[3]
    batch, length, K, size = tensor.shape
    by_item, by_position, by_direction, by_column = tensor.stride()
    stride = by_direction if K > 1 else by_position if length > 1 else by_item
    # The stride of an axis with a single entry says nothing.
    even = (
        (size == 1 or by_column == 1)
        and stride >= size
        and (length == 1 or by_position == K * stride)
        and (batch == 1 or by_item == length * K * stride)
    )
    return stride if even else 0


@constant_of_graphs
def takes_as_is(name: str, *dtypes: torch.dtype) -> bool:
    """Whether a backend takes a mixture of dtypes as it is; the others get a single dtype, that of the state."""
    native: frozenset[torch.dtype] = getattr(load_backend(name), "NATIVE_DTYPES", frozenset())
    return native.issuperset(dtypes)


def _rules(module: ModuleType) -> tuple[str, ...]:
    rules: tuple[str, ...] = getattr(module, "DISCRETISATIONS", ("mamba",))
    return rules


def _works(name: str, device_type: str, dtype: torch.dtype) -> bool:
    try:
        module = load_backend(name)
    except ImportError:
        return False
    supported: bool = module.supports(torch.empty(0, dtype=dtype, device=device_type))
    return supported
