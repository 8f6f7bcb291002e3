"""What the scan's forward and backward kernels on the CPU share: how they are laid out, and their preparations.

Symbols are the operator's: x, delta, A, B, C, D, h; K directions. Tensors arrive as addresses of contiguous memory, but
the rows of delta, B and C, one a position and direction, may be parts of wider rows. A vector holds neighbouring
channels of one position, so a direction is nothing but an order of rows and no tensor is ever permuted.

A path is cut into chunks of at most CHUNK steps. What does not depend on the state (softplus, products) is computed for
a chunk first; then a group of states at a time runs through the chunk in registers. The forward keeps the state at each
chunk's start, the backward runs a chunk again from there. exp(Δ·A) is computed as 2^(Δ·A·log2 e).

With a rank, delta is a factor of low rank and multiplied by `delta_weight` for a few steps and channels at a time.

A kernel draws tasks from a shared counter until none is left. A task's result does not depend on who computes it, and
what tasks share is summed afterwards in their order: the number of threads cannot change a bit.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit, types
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import put_whole, take_ticket, whole
from medmamba_variants.scan.cpu.vectors import (
    ABREAST,
    copy_group,
    group_of,
    is_factored,
    item,
    prefetch,
    put_item,
    read,
    spread,
    width_of,
    write,
)

# Long enough to hide the turns between passes, short enough that a pass stays in the first cache. Divisible by ABREAST,
# so that preparations may run over a chunk's end by less than that.
CHUNK = 48
LOG2E, LN2 = math.log2(math.e), math.log(2.0)


# The 64-bit integers that come before a kernel's own arguments: how many threads have come, how many may stay, the
# address of the threads' floats and how many bytes of it each has, the same for plans, and the counter of tasks.
SHARED = 7


def c_function(kernel: Callable[[Any], None]) -> CFunc:
    """Return a C function, to be compiled, that takes the address of 64-bit integers: what a kernel works on."""
    return CFunc(kernel, ((types.intp,), types.void), {}, {"error_model": "numpy"})


@njit(nogil=True)
def take_place(arguments: Any) -> Any:
    """Return the number of the calling thread, or −1 if there are enough, and the addresses of its floats and plan."""
    thread = take_ticket(arguments)
    if thread >= whole(arguments, 1, 64):
        return -1, 0, 0
    floats = whole(arguments, 2, 64) + thread * whole(arguments, 3, 64)
    return thread, floats, whole(arguments, 4, 64) + thread * whole(arguments, 5, 64)


class Sizes(NamedTuple):
    """The sizes of one call; `padded` is the number of channels in whole vectors.

    `rank` is that of delta's factor, 0 where delta is whole. The strides are the distances between rows.
    """

    length: Any
    directions: Any
    steps: Any
    channels: Any
    states: Any
    rank: Any
    delta_stride: Any
    B_stride: Any
    C_stride: Any
    padded: Any


class Chunk(NamedTuple):
    """A part of one direction's path for one batch item.

    `visits` is the address of its entries, 2 · position + reset mark; `number` counts the direction's chunks.
    """

    base: Any
    k: Any
    visits: Any
    count: Any
    number: Any


def plan_size(directions: int, steps: int) -> int:
    """Return how many 64-bit integers a plan takes."""
    return directions * (steps + 1 + 4 * -(-steps // CHUNK))


@njit(nogil=True)
def make_plan(table: Any, resets: Any, plan: Any, sizes: Any) -> Any:
    """Write a plan and return how many chunks all directions have together.

    A plan holds (K, steps) visits, without the padding; the K numbers of visits; and for each chunk its direction, its
    first visit, its number of visits, and its number within the direction.
    """
    directions, steps = sizes.directions, sizes.steps
    chunks, entry = 0, directions * (steps + 1)
    for k in range(directions):
        visited, mark = 0, 0
        for s in range(steps):
            # A mark on a padded step holds for the next visited one.
            mark |= whole(resets, k * steps + s, 8) != 0
            position = whole(table, k * steps + s, 32)
            if position >= 0:
                put_whole(plan, k * steps + visited, 2 * position + mark)
                visited += 1
                mark = 0
        put_whole(plan, directions * steps + k, visited)
        if visited > 0:
            # As even as possible, but a multiple of ABREAST.
            parts = (visited + CHUNK - 1) // CHUNK
            size = ((visited + parts - 1) // parts + ABREAST - 1) // ABREAST * ABREAST
            for number in range((visited + size - 1) // size):
                put_whole(plan, entry, k)
                put_whole(plan, entry + 1, k * steps + number * size)
                put_whole(plan, entry + 2, min(size, visited - number * size))
                put_whole(plan, entry + 3, number)
                chunks += 1
                entry += 4
    return chunks


@njit(nogil=True)
def visits_of(plan: Any, k: Any, sizes: Any) -> Any:
    """Return how many positions a direction visits."""
    return whole(plan, sizes.directions * sizes.steps + k, 64)


@njit(nogil=True)
def chunk_at(plan: Any, index: Any, base: Any, sizes: Any) -> Any:
    """Return a plan's chunk by its index, for the batch item whose first row is `base`."""
    entry = sizes.directions * (sizes.steps + 1) + 4 * index
    visits = plan + 8 * whole(plan, entry + 1, 64)
    return Chunk(base, whole(plan, entry, 64), visits, whole(plan, entry + 2, 64), whole(plan, entry + 3, 64))


@njit(nogil=True)
def row_of(chunk: Any, i: Any) -> Any:
    """Return the row (batch · length) that step i of a chunk visits; past the chunk's end, that of its last step."""
    return chunk.base + (whole(chunk.visits, min(i, chunk.count - 1), 64) >> 1)


@njit(nogil=True)
def line_of(chunk: Any, i: Any, sizes: Any) -> Any:
    """Return the row (batch · length · K) of step i; past the chunk's end, that of its last step."""
    return row_of(chunk, i) * sizes.directions + chunk.k


@njit(nogil=True)
def starts_anew(chunk: Any, i: Any) -> Any:
    """Whether the state starts anew before step i."""
    return whole(chunk.visits, i, 64) & 1


@njit(nogil=True)
def kept_at(chunk: Any, n: Any, sizes: Any) -> Any:
    """Return where in the checkpoints (batch, K, chunks − 1, d_state, padded channels) state n before a chunk lies."""
    line = chunk.base // sizes.length * sizes.directions + chunk.k
    return ((line * ((sizes.steps + CHUNK - 1) // CHUNK - 1) + chunk.number - 1) * sizes.states + n) * sizes.padded


@njit(nogil=True)
def fill_by_channel(target: Any, source: Any, columns: Any, factor: Any, sizes: Any) -> None:
    """Write a parameter (K, channels, columns) times a factor as (K, columns, padded channels), zero in the padding."""
    for k in range(sizes.directions):
        for n in range(columns):
            line = (k * columns + n) * sizes.padded
            for d in range(sizes.channels):
                put_item(target, line + d, item(source, (k * sizes.channels + d) * columns + n) * factor)
            for d in range(sizes.channels, sizes.padded):
                put_item(target, line + d, 0.0)


@njit(nogil=True)
def fill_factors(factors: Any, delta: Any, chunk: Any, sizes: Any, lanes: Any) -> None:
    """Write a chunk of delta, if it is a factor, as (CHUNK, rank)."""
    if not is_factored(lanes):
        return
    for i in range(chunk.count):
        row = line_of(chunk, i, sizes) * sizes.delta_stride
        for r in range(sizes.rank):
            put_item(factors, i * sizes.rank + r, item(delta, row + r))


@njit(nogil=True)
def put_raw_steps(
    target: Any, delta: Any, factors: Any, weights: Any, shift: Any, chunk: Any, start: Any, d: Any, mask: Any,
    sizes: Any, lanes: Any,
) -> None:  # fmt: skip
    """Write delta plus its shift, for ABREAST steps and the block of channels at d.

    Past the chunk's end the last step is repeated, or what the factors' memory holds: nobody reads what comes of it.
    """
    width = width_of(lanes)
    if not is_factored(lanes):
        for j in range(ABREAST):
            at = line_of(chunk, start + j, sizes) * sizes.delta_stride + d
            write(target, j * width, read(delta, at, mask) + shift, None)
    else:
        for j in range(ABREAST):
            write(target, j * width, shift, None)
        for r in range(sizes.rank):
            weight = read(weights, (chunk.k * sizes.rank + r) * sizes.padded + d, None)
            for j in range(ABREAST):
                term = weight * spread(factors, (start + j) * sizes.rank + r)
                write(target, j * width, read(target, j * width, None) + term, None)


@njit(nogil=True)
def ask_for_rows(delta: Any, B: Any, C: Any, chunk: Any, i: Any, n: Any, sizes: Any, lanes: Any) -> None:
    """Prefetch step i's rows of B and C, from state n on, and of delta if it is a factor.

    Along a direction rows are far apart, which no hardware foresees.
    """
    line = line_of(chunk, i, sizes)
    prefetch(B, line * sizes.B_stride + n, 0)
    prefetch(C, line * sizes.C_stride + n, 0)
    if is_factored(lanes):
        prefetch(delta, line * sizes.delta_stride, 0)


@njit(nogil=True)
def fill_rows(rows: Any, B: Any, C: Any, chunk: Any, sizes: Any, lanes: Any) -> None:
    """Write a chunk's B and C as (d_state / group, CHUNK, 2, group): in memory their rows are far apart."""
    group = group_of(lanes)
    for i in range(chunk.count):
        line = line_of(chunk, i, sizes)
        for n in range(0, sizes.states, group):
            copy_group(rows, 2 * (n * CHUNK + i * group), B, line * sizes.B_stride + n, lanes)
            copy_group(rows, 2 * (n * CHUNK + i * group) + group, C, line * sizes.C_stride + n, lanes)
