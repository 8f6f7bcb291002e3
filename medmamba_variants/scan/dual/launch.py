"""The dual scan's kernels on torch tensors, float32 and float64 on the CPU, forward and backward."""

import hashlib
from array import array
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medmamba_variants.scan.cpu.launch import UNAVAILABLE
from medmamba_variants.scan.cpu.memory import aligned, empty, scratch_address
from medmamba_variants.scan.cpu.threads import run_shared

if TYPE_CHECKING:
    from numba.core.ccallback import CFunc

if UNAVAILABLE is None:
    from medmamba_variants.scan.cpu.vectors import Lanes, vector_bytes
    from medmamba_variants.scan.dual.backward import backward_floats, backward_kernel
    from medmamba_variants.scan.dual.forward import forward_floats, forward_kernel

# States that pass through a chunk side by side; the largest that divides their number is taken.
FORWARD_GROUPS = (8, 4, 2, 1)
BACKWARD_GROUPS = (4, 2, 1)
# State updates that are worth waking one thread for.
WORK_PER_THREAD = 1 << 18


def supports(x: Tensor) -> bool:
    """Whether these kernels can scan tensors like x: float32 or float64 on the CPU, with numba at hand."""
    return UNAVAILABLE is None and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


@cache
def _revision() -> str:
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(__file__).parents[1] / "cpu"):
        for source in sorted(folder.glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


@cache
def _compiled(name: str, lanes: "Lanes") -> "CFunc":
    kernel = {"forward": forward_kernel, "backward": backward_kernel}[name]
    try:
        function = kernel(lanes)
        # Raises RuntimeError where neither the package's folder nor the user's cache folder can be written.
        function.enable_caching()
        function.compile()
    except Exception:
        # A cache that cannot be written, is full or damaged (then anything may be raised) costs time, never the scan.
        function = kernel(lanes)
        function.compile()
    return function


def _run(
    name: str, x: Tensor, B: Tensor, outputs: int, K: int, groups: tuple[int, ...], tensors: tuple[Tensor, ...]
) -> None:
    """Let threads share the images of a call whose tensors are laid out as the kernel of that name reads them."""
    batch, length, inputs, heads, each = x.shape
    keys, count, states = B.shape[2:]
    channels = heads // count * each
    width = vector_bytes() // x.element_size()
    group = next(group for group in groups if states % group == 0)
    lanes = Lanes(x.element_size(), width, channels % width != 0, group, False, _revision())
    padded = -(-channels // width) * width
    forth = name == "forward"
    floats = forward_floats(states, padded, lanes) if forth else backward_floats(states, padded, length, lanes)
    work = batch * K * length * count * padded * states
    threads = max(1, min(torch.get_num_threads(), batch, work // WORK_PER_THREAD))
    size = aligned(floats * x.element_size())
    memory = (scratch_address("dual", threads * size), size, 0, 0)
    addresses = [tensor.data_ptr() for tensor in tensors]
    counts = (batch, length, K, count, heads // count, channels, states, inputs, keys, outputs)
    # Laid out as scan.cpu.kernels and the kernels here say.
    arguments = array("q", [0, threads, *memory, 0, *addresses, *counts])
    run_shared(_compiled(name, lanes), arguments.buffer_info()[0], threads)


def forward(x: Tensor, scale: Tensor, decay: Tensor, B: Tensor, C: Tensor, table: Tensor, merged: bool) -> Tensor:
    """y of `scan.dual.op`, from contiguous tensors; `decay` is the exponential of its log_decay."""
    K = scale.shape[2]
    y = empty((*x.shape[:2], 1 if merged else K, *x.shape[3:]), x)
    if y.numel() == 0:
        return y
    _run("forward", x, B, y.shape[2], K, FORWARD_GROUPS, (x, scale, decay, B, C, table, y))
    return y


def backward(
    dy: Tensor, x: Tensor, scale: Tensor, decay: Tensor, B: Tensor, C: Tensor, table: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of x, scale, the logarithm of the decay, B and C."""
    dx, dscale, dlog = (empty(tensor.shape, tensor) for tensor in (x, scale, decay))
    dB, dC = torch.zeros_like(B), torch.zeros_like(C)
    gradients: tuple[Any, ...] = (dx, dscale, dlog, dB, dC)
    if x.numel() == 0:
        return gradients
    tensors = (dy, x, scale, decay, B, C, table, *gradients)
    _run("backward", x, B, dy.shape[2], scale.shape[2], BACKWARD_GROUPS, tensors)
    return gradients
