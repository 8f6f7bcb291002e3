"""GPU backend: Triton kernels on torch tensors, forward and backward.

Nothing is laid out once a direction: positions come from the table, and y and dx are summed over directions where they
are computed. bfloat16, float16 and float32 tensors are read and written as they are; the state is float32.

y and dx of several directions, and dB and dC of several channel blocks, are added up by atomics, in any order. Under
`torch.use_deterministic_algorithms(True)` one program takes the directions in turn, partial sums of dB and dC are kept
and added up in order, and blocks are not measured: the same inputs then give the same bits on the same device.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

try:
    import triton

    from medmamba_variants.scan.triton.backward import backward_kernel
    from medmamba_variants.scan.triton.forward import forward_kernel
except ImportError as error:
    raise ImportError(f"{error} (pip install 'triton>=3.6')") from error
from medmamba_variants.scan.products import product_gradients, product_in_order
from medmamba_variants.scan.triton.sizes import GROUP, Sizes, chunk_length

PROJECTED = True
# What the kernels read and write without a conversion.
NATIVE_DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
# The compute capability that Triton needs.
MINIMUM_CAPABILITY = (8, 0)
# With fewer programs than this a multiprocessor, a smaller block is the better guess.
PROGRAMS_PER_PROCESSOR = 4
REPETITIONS = 5
# Clock cycles, about half a millisecond.
HEAD_START = 1_000_000

INTERPRETED = bool(triton.knobs.runtime.interpret)


def _why_unavailable() -> str | None:
    """Why nothing can be scanned here, or None. Warns where there is a GPU and Triton cannot reach it."""
    if INTERPRETED:
        return None
    if not torch.cuda.is_available():
        return "torch finds no CUDA device (where there is one, install a CUDA build of torch, which brings Triton)"
    try:
        # Compiled when first used, in C against Python's headers, which images with a GPU may lack.
        _ = triton.runtime.driver.active.utils
    except Exception as error:  # of a compiler, a linker or a loader
        why = f"Triton cannot reach the GPU, {error!r} (it needs a C compiler and Python's headers)"
        warnings.warn(f"scans use torch operations, many times as slow: {why}", RuntimeWarning, stacklevel=2)
        return why
    return None


UNAVAILABLE = _why_unavailable()

# A path's table → whether the path pauses, and whether it has marks.
_facts: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# Kind of launch and sizes → the block measured to be fastest.
_measured: dict[tuple[Any, ...], int] = {}


def supports(x: Tensor) -> bool:
    """Whether these kernels can scan tensors like x: of 16 or 32 bits on a GPU, or on the CPU under the interpreter."""
    if UNAVAILABLE is not None or x.dtype not in NATIVE_DTYPES:
        return False
    if INTERPRETED:
        return x.device.type == "cpu"
    return x.device.type == "cuda" and (
        torch.version.hip is not None or torch.cuda.get_device_capability(x.device) >= MINIMUM_CAPABILITY
    )


def checkpoint_shape(x: Tensor, A: Tensor, steps: int) -> tuple[int, ...]:
    """The shape of the checkpoints, float32: the states before each chunk of steps but the first, which starts at 0."""
    K, channels, states = A.shape
    return x.shape[0], K, -(-steps // chunk_length(steps)) - 1, channels, states


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, table: Tensor,
    resets: Tensor, need_backward: bool, delta_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (batch, length, channels) and, where the backward needs them, the states between the path's chunks."""
    delta, B, C = _laid_out(delta, B, C, delta_weight)
    kept = checkpoint_shape(x, A, table.shape[1]) if need_backward else (0,)
    if x.numel() == 0:
        return torch.empty_like(x), x.new_empty(kept, dtype=torch.float32)
    sizes = Sizes.of(x, A, table, *_path_facts(table, resets))
    tile = sizes.forward_tile

    def run(block: int) -> tuple[Tensor, Tensor]:
        y = _summed_over_directions(x, sizes)
        checkpoints = x.new_empty(kept, dtype=torch.float32)
        forward_kernel[(sizes.programs(block),)](
            x, delta, A, B, C, D, delta_bias, table, resets, y, checkpoints, *sizes.integers(block),
            **sizes.constants(block), KEEP=need_backward, **sizes.options(block, tile),
        )  # fmt: skip
        return y.to(x.dtype), checkpoints

    with torch.cuda.device_of(x):
        return run(_block(f"forward {need_backward}", x, sizes, tile, run))


def backward(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    table: Tensor, resets: Tensor, checkpoints: Tensor, delta_weight: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D, delta_bias and, if it is given, delta_weight."""
    if x.numel() == 0:
        inputs = (x, delta, A, B, C, D, delta_bias, delta_weight)
        return tuple(tensor.new_zeros(tensor.shape) for tensor in inputs if tensor is not None)
    whole, B, C = _laid_out(delta, B, C, delta_weight)
    dx, dwhole, *others = _gradients(dy, (x, whole, A, B, C, D, delta_bias), table, resets, checkpoints)
    if delta_weight is None:
        return dx, dwhole, *others
    common = whole.dtype
    with torch.autocast(x.device.type, enabled=False):
        ddelta, dweight = product_gradients(dwhole, delta.to(common), delta_weight.to(common))
    return dx, ddelta.to(delta.dtype), *others, dweight.to(delta_weight.dtype)


def _laid_out(delta: Tensor, B: Tensor, C: Tensor, delta_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous delta, B and C; delta is the product with delta_weight, if there is one, in the wider dtype."""
    if delta_weight is not None:
        common = torch.promote_types(delta.dtype, delta_weight.dtype)
        # Made again in the backward pass, where autocast is off.
        with torch.autocast(delta.device.type, enabled=False):
            delta = product_in_order(delta.to(common), delta_weight.to(common))
    return delta.contiguous(), B.contiguous(), C.contiguous()


def _gradients(
    dy: Tensor, inputs: tuple[Tensor, ...], table: Tensor, resets: Tensor, checkpoints: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of x, the whole delta, A, B, C, D and delta_bias."""
    x, delta, A, B, C, D, delta_bias = inputs
    sizes = Sizes.of(x, A, table, *_path_facts(table, resets))
    tile, state = sizes.backward_tile, torch.float32

    def run(block: int) -> tuple[Tensor, ...]:
        programs, blocks = sizes.programs(block), sizes.blocks(block)
        state_notes = x.new_empty((programs, sizes.chunk // GROUP, block, sizes.padded_states), dtype=state)
        step_notes = x.new_empty((programs, sizes.chunk, block), dtype=state)
        dx = _summed_over_directions(x, sizes)
        # Positions that a direction leaves out have a gradient of zero.
        new, new_like = (x.new_empty, torch.empty_like) if sizes.complete else (x.new_zeros, torch.zeros_like)
        ddelta = new_like(delta)
        shared = blocks > 1 and not sizes.deterministic
        if blocks == 1:
            dB, dC = new_like(B), new_like(C)
        elif shared:
            dB, dC = torch.zeros_like(B, dtype=state), torch.zeros_like(C, dtype=state)
        else:
            dB, dC = new((blocks, *B.shape), dtype=state), new((blocks, *C.shape), dtype=state)
        # For each batch item apart, which needs neither atomics nor luck with their order.
        dA, dD, dbias = (x.new_empty((sizes.batch, *tensor.shape), dtype=state) for tensor in (A, D, delta_bias))
        backward_kernel[(programs,)](
            dy, *inputs, table, resets, checkpoints, state_notes, step_notes, dx, ddelta, dA, dB, dC, dD, dbias,
            *sizes.integers(block), B.numel() if blocks > 1 and not shared else 0,
            **sizes.constants(block), ATOMIC_BC=shared, **sizes.options(block, tile),
        )  # fmt: skip
        if dB.dim() > B.dim():
            dB, dC = dB.sum(0), dC.sum(0)
        gradients = dx, ddelta, dA.sum(0), dB, dC, dD.sum(0), dbias.sum(0)
        return tuple(gradient.to(tensor.dtype) for gradient, tensor in zip(gradients, inputs))

    with torch.cuda.device_of(x):
        return run(_block("backward", x, sizes, tile, run))


def _summed_over_directions(x: Tensor, sizes: Sizes) -> Tensor:
    """Memory for a tensor like x that directions add to: float32 zeros, or x's dtype where there is one direction."""
    if sizes.directions > 1:
        return torch.zeros_like(x, dtype=torch.float32)
    return torch.empty_like(x) if sizes.complete else torch.zeros_like(x)


def _path_facts(table: Tensor, resets: Tensor) -> tuple[bool, bool]:
    """Whether a path pauses, and whether it has marks; read from the device once a path."""
    facts: tuple[bool, bool] | None = _facts.get(table)
    if facts is None:
        if not INTERPRETED and torch.cuda.is_current_stream_capturing():
            return True, True  # reading would break the capture, and these serve every path
        # A mark at step 0 has nothing to clear.
        facts = bool((table < 0).any()), bool(resets[:, 1:].any())
        _facts[table] = facts
    return facts


def _block(kind: str, x: Tensor, sizes: Sizes, tile: int, run: Callable[[int], object]) -> int:
    """The channels of a program: measured once for sizes like these where that is allowed, else a guess."""
    candidates = sizes.candidates(tile)
    if len(candidates) == 1:
        return candidates[0]
    # The batch by its power of two: an epoch's last batch is smaller and not worth a measurement.
    batch = sizes.batch.bit_length()
    key = (kind, x.device, x.dtype, batch, *sizes.integers(1), sizes.pauses, sizes.resets)
    if key in _measured and not sizes.deterministic:
        return _measured[key]
    if INTERPRETED or sizes.deterministic or torch.cuda.is_current_stream_capturing():
        processors = 1 if INTERPRETED else torch.cuda.get_device_properties(x.device).multi_processor_count
        enough = (b for b in candidates if sizes.programs(b) >= PROGRAMS_PER_PROCESSOR * processors)
        return next(enough, candidates[-1])
    _measured[key] = min(candidates, key=lambda block: _milliseconds(lambda: run(block)))
    return _measured[key]


def _milliseconds(run: Callable[[], object]) -> float:
    """The least time of a few runs on the current stream, after one that compiles."""
    run()
    times = []
    for _ in range(REPETITIONS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # While the device waits, Python gets ahead: else small scans would all take the time of their launch.
        torch.cuda._sleep(HEAD_START)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)
