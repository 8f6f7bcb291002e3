"""CPU backend: numba kernels on torch tensors, float32 and float64, forward and backward.

No compiler is needed; the kernels are compiled on first use for this processor's vectors and kept on disk by numba.
The same inputs give the same bits with any number of threads.
"""

import hashlib
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medmamba_variants.scan.backends import row_stride
from medmamba_variants.scan.cpu.memory import aligned, empty, scratch_address
from medmamba_variants.scan.cpu.threads import run_shared

if TYPE_CHECKING:
    from numba.core.ccallback import CFunc

UNAVAILABLE: str | None = None
try:
    import numba

    from medmamba_variants.scan.cpu.backward import backward_kernel, backward_scratch, sum_kernel
    from medmamba_variants.scan.cpu.forward import forward_kernel, forward_scratch
    from medmamba_variants.scan.cpu.kernels import CHUNK, plan_size
    from medmamba_variants.scan.cpu.vectors import Lanes, vector_bytes
except ImportError as error:
    UNAVAILABLE = f"numba cannot be imported ({error})"
else:
    if getattr(numba.config, "DISABLE_JIT", 0):
        UNAVAILABLE = "numba's compiler is switched off (NUMBA_DISABLE_JIT)"

PROJECTED = True
# States that pass through a chunk side by side; the largest that divides d_state is taken.
FORWARD_GROUPS = (8, 4, 2, 1)
BACKWARD_GROUPS = (4, 2, 1)
# With fewer batch items than this the forward splits the channels, too.
FORWARD_TASKS = 8
# Parts of the batch whose parameter gradients are added up apart: fixed, or threads would change the sum's order.
BACKWARD_TASKS = 32
# State updates (batch · K · steps · channels · d_state) that are worth waking one thread for.
WORK_PER_THREAD = 1 << 18


def supports(x: Tensor) -> bool:
    """Whether these kernels can scan tensors like x: float32 or float64 on the CPU, with numba at hand."""
    return UNAVAILABLE is None and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def checkpoint_shape(x: Tensor, A: Tensor, steps: int) -> tuple[int, ...]:
    """The shape of the checkpoints that `forward` returns when a backward pass will follow: states between chunks."""
    directions, channels, states = A.shape
    width = vector_bytes() // x.element_size()
    return x.shape[0], directions, max(0, -(-steps // CHUNK) - 1), states, -(-channels // width) * width


@cache
def _revision() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@cache
def _lanes(element_bytes: int, partial: bool, group: int, factored: bool) -> "Lanes":
    return Lanes(element_bytes, vector_bytes() // element_bytes, partial, group, factored, _revision())


@cache
def _compiled(name: str, lanes: "Lanes") -> "CFunc":
    return compiled({"forward": forward_kernel, "backward": backward_kernel, "sum": sum_kernel}[name], lanes)


def compiled(kernel: Callable[["Lanes"], "CFunc"], lanes: "Lanes") -> "CFunc":
    """A kernel compiled for one kind of vector, from numba's cache on disk where it is there."""
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


class _Sizes:
    """The sizes of one call, and what follows from them."""

    def __init__(
        self, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, table: Tensor, delta_weight: Tensor | None,
        groups: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.batch, self.length, self.channels = x.shape
        self.directions, self.steps = table.shape
        self.states = A.shape[2]
        self.rank = 0 if delta_weight is None else delta_weight.shape[2]
        self.strides = row_stride(delta), row_stride(B), row_stride(C)
        self.element_bytes = x.element_size()
        width = vector_bytes() // self.element_bytes
        self.blocks = -(-self.channels // width)
        self.padded = self.blocks * width
        group = next(group for group in groups if self.states % group == 0)
        self.lanes = _lanes(self.element_bytes, self.padded != self.channels, group, self.rank > 0)

    def arguments(self) -> tuple[int, ...]:
        return self.length, self.directions, self.steps, self.channels, self.states, self.rank, *self.strides

    def scratch(self) -> tuple[int, int, int, int, "Lanes"]:
        return self.directions, self.states, self.rank, self.padded, self.lanes

    def threads(self, tasks: int) -> int:
        work = self.batch * self.directions * self.steps * self.padded * (self.states + 2)
        return max(1, min(torch.get_num_threads(), tasks, work // WORK_PER_THREAD))

    def run(self, kernel: "CFunc", tensors: tuple[Tensor | None, ...], scratch: int, counts: tuple[int, ...]) -> None:
        """Let threads share a kernel's tasks, whose number is the product of `counts` over all but the last."""
        threads = self.threads(counts[0])
        floats, plan = aligned(scratch * self.element_bytes), aligned(plan_size(self.directions, self.steps) * 8)
        memory = (scratch_address("floats", threads * floats), floats, scratch_address("plan", threads * plan), plan)
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        # Laid out as kernels.py says.
        arguments = array("q", [0, threads, *memory, 0, *addresses, *counts, *self.arguments()])
        run_shared(kernel, arguments.buffer_info()[0], threads)


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, table: Tensor,
    resets: Tensor, need_backward: bool, delta_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y (batch, length, channels) and, where the backward needs them, the states between the path's chunks."""
    sizes = _Sizes(x, delta, A, B, C, table, delta_weight, FORWARD_GROUPS)
    y = empty(x.shape, x)
    checkpoints = empty(checkpoint_shape(x, A, sizes.steps) if need_backward else (0,), x)
    if y.numel() == 0 or sizes.directions == 0:
        return y.zero_(), checkpoints
    pieces = 1 if sizes.batch >= FORWARD_TASKS else min(sizes.blocks, -(-FORWARD_TASKS // sizes.batch))
    tensors = (x, delta, A, B, C, D, delta_bias, delta_weight, table, resets, y, checkpoints)
    scratch = forward_scratch(*sizes.scratch())
    sizes.run(_compiled("forward", sizes.lanes), tensors, scratch, (sizes.batch * pieces, sizes.batch, pieces))
    return y, checkpoints


def backward(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    table: Tensor, resets: Tensor, checkpoints: Tensor, delta_weight: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return the gradients of x, delta, A, B, C, D, delta_bias and, if it is given, delta_weight."""
    sizes = _Sizes(x, delta, A, B, C, table, delta_weight, BACKWARD_GROUPS)
    gradients = [empty(tensor.shape, tensor) for tensor in (x, delta, A, B, C, D, delta_bias)]
    if delta_weight is not None:
        gradients.append(empty(delta_weight.shape, delta_weight))
    if x.numel() == 0 or sizes.directions == 0:
        return tuple(gradient.zero_() for gradient in gradients)
    dx, ddelta, dA, dB, dC, dD, dbias, *dweight = gradients
    tasks = min(sizes.batch, BACKWARD_TASKS)
    parts = x.new_empty((tasks, sizes.directions, sizes.states + 2 + sizes.rank, sizes.padded))
    inputs = (x, delta, A, B, C, D, delta_bias, delta_weight, table, resets, checkpoints)
    tensors = (dy, *inputs, dx, ddelta, dB, dC, parts)
    scratch = backward_scratch(*sizes.scratch())
    sizes.run(_compiled("backward", sizes.lanes), tensors, scratch, (tasks, sizes.batch))
    results = (dA.data_ptr(), dD.data_ptr(), dbias.data_ptr(), dweight[0].data_ptr() if dweight else 0)
    rest = (sizes.directions, sizes.channels, sizes.states, sizes.rank)
    arguments = array("q", [parts.data_ptr(), tasks, *results, *rest])
    _compiled("sum", sizes.lanes).ctypes(arguments.buffer_info()[0])
    return tuple(gradients)
