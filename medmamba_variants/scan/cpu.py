"""The scan on the CPU: numba kernels on torch tensors, float32 and float64, forward and backward.

No compiler is needed; the kernels are compiled on first use for this processor's vectors and kept on disk by numba.
The same inputs give the same bits with any number of threads.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmamba_variants.scan.cpu_threads import run_shared, scratch_address

try:
    import numba

    from medmamba_variants.scan.cpu_backward import backward_kernel, backward_scratch, sum_kernel
    from medmamba_variants.scan.cpu_forward import forward_kernel, forward_scratch
    from medmamba_variants.scan.cpu_kernels import CHUNK
    from medmamba_variants.scan.cpu_vectors import Lanes, vector_bytes

    UNAVAILABLE: str | None = (
        "numba's compiler is switched off (NUMBA_DISABLE_JIT)" if numba.config.DISABLE_JIT else None
    )
except ImportError as error:
    UNAVAILABLE = f"numba cannot be imported ({error})"

# States that share a pass through a chunk; each must divide d_state, the largest is taken.
GROUPS = (4, 2, 1)
# With fewer batch items than this the forward splits the channels, too.
FORWARD_TASKS = 8
# Parts of the batch whose parameter gradients are added up apart; fixed, so that no thread count changes the sum's order.
BACKWARD_TASKS = 32
# State updates (batch · K · steps · channels · d_state) that are worth waking one thread for.
WORK_PER_THREAD = 1 << 18


def supports(x: Tensor) -> bool:
    """Whether these kernels can scan tensors like x: float32 or float64 on the CPU, with numba at hand."""
    return UNAVAILABLE is None and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


@cache
def _revision() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("cpu_*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@cache
def _lanes(element_bytes: int, partial: bool, group: int) -> "Lanes":
    return Lanes(element_bytes, vector_bytes() // element_bytes, partial, group, _revision())


@cache
def _compiled(name: str, lanes: "Lanes") -> Callable[..., None]:
    kernel, arguments = {
        "forward": (forward_kernel, 21),
        "backward": (backward_kernel, 26),
        "sum": (sum_kernel, 8),
    }[name]
    compiled: Any = kernel(lanes)
    signature = (numba.intp,) * arguments
    compiled.compile(signature)
    # The bare entry point: numba's dispatch by argument types would cost more than a small scan.
    entry: Callable[..., None] = compiled.get_overload(signature)
    return entry


class _Sizes:
    """The sizes of one call, and what follows from them."""

    def __init__(self, x: Tensor, A: Tensor, table: Tensor) -> None:
        self.batch, self.length, self.channels = x.shape
        self.directions, self.steps = table.shape
        self.states = A.shape[2]
        self.element_bytes = x.element_size()
        width = vector_bytes() // self.element_bytes
        self.blocks = -(-self.channels // width)
        self.padded = self.blocks * width
        group = next(group for group in GROUPS if self.states % group == 0)
        self.lanes = _lanes(self.element_bytes, self.padded != self.channels, group)
        self.checkpoints = max(0, -(-self.steps // CHUNK) - 1)

    def threads(self, tasks: int) -> int:
        work = self.batch * self.directions * self.steps * self.padded * (self.states + 2)
        return max(1, min(torch.get_num_threads(), tasks, work // WORK_PER_THREAD))


def forward(
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
) -> tuple[Tensor, Tensor]:
    """Return y (batch, length, channels) and the states at the starts of the chunks, for the backward (empty when not needed)."""
    sizes = _Sizes(x, A, table)
    y = torch.empty_like(x)
    kept = (sizes.batch, sizes.directions, sizes.checkpoints, sizes.states, sizes.padded)
    checkpoints = x.new_empty(kept if need_backward else 0)
    if y.numel() == 0 or sizes.directions == 0:
        return y.zero_(), checkpoints
    pieces = 1 if sizes.batch >= FORWARD_TASKS else min(sizes.blocks, -(-FORWARD_TASKS // sizes.batch))
    tasks = sizes.batch * pieces
    ticket = np.zeros(1, np.int64)
    kernel = _compiled("forward", sizes.lanes)
    addresses = tuple(tensor.data_ptr() for tensor in (x, delta, A, B, C, D, delta_bias, table, resets, y, checkpoints))
    counts = (
        ticket.ctypes.data,
        tasks,
        pieces,
        sizes.length,
        sizes.directions,
        sizes.steps,
        sizes.channels,
        sizes.states,
    )
    floats, wholes = forward_scratch(sizes.lanes, sizes.directions, sizes.steps, sizes.channels, sizes.states)

    def work(_: int) -> None:
        at = scratch_address("floats", floats * sizes.element_bytes)
        kernel(*addresses, at, scratch_address("wholes", wholes * 8), *counts)

    run_shared(work, sizes.threads(tasks))
    return y, checkpoints


def backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, delta, A, B, C, D and delta_bias, each shaped like its tensor."""
    sizes = _Sizes(x, A, table)
    gradients = [torch.empty_like(tensor) for tensor in (x, delta, A, B, C, D, delta_bias)]
    dx, ddelta, dA, dB, dC, dD, dbias = gradients
    if x.numel() == 0 or sizes.directions == 0:
        for gradient in gradients:
            gradient.zero_()
        return dx, ddelta, dA, dB, dC, dD, dbias
    tasks = min(sizes.batch, BACKWARD_TASKS)
    ticket = np.zeros(1, np.int64)
    partial = x.new_empty((tasks, sizes.directions, sizes.states + 2, sizes.padded))
    kernel = _compiled("backward", sizes.lanes)
    inputs = (dy, x, delta, A, B, C, D, delta_bias, table, resets, checkpoints, dx, ddelta, dB, dC, partial)
    addresses = tuple(tensor.data_ptr() for tensor in inputs)
    counts = (ticket.ctypes.data, tasks, sizes.batch, sizes.length)
    counts += (sizes.directions, sizes.steps, sizes.channels, sizes.states)
    floats, wholes = backward_scratch(sizes.lanes, sizes.directions, sizes.steps, sizes.channels, sizes.states)

    def work(_: int) -> None:
        at = scratch_address("floats", floats * sizes.element_bytes)
        kernel(*addresses, at, scratch_address("wholes", wholes * 8), *counts)

    run_shared(work, sizes.threads(tasks))
    results = tuple(tensor.data_ptr() for tensor in (dA, dD, dbias))
    _compiled("sum", sizes.lanes)(partial.data_ptr(), tasks, *results, sizes.directions, sizes.channels, sizes.states)
    return dx, ddelta, dA, dB, dC, dD, dbias
