"""The scan's forward kernel on the CPU."""

from typing import Any

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import put_exp2, put_softplus, take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import (
    CHUNK,
    LOG2E,
    SHARED,
    Sizes,
    ask_for_rows,
    c_function,
    chunk_at,
    fill_by_channel,
    fill_factors,
    fill_rows,
    kept_at,
    line_of,
    make_plan,
    put_raw_steps,
    row_of,
    starts_anew,
    take_place,
    visits_of,
)
from medmamba_variants.scan.cpu.vectors import (
    ABREAST,
    Lanes,
    group_of,
    is_factored,
    past,
    pointer,
    prefetch,
    present,
    read,
    registers,
    splat,
    spread,
    width_of,
    write,
)


def forward_scratch(directions: int, states: int, rank: int, padded: int, lanes: Lanes) -> int:
    """Return how many floats a thread needs."""
    parameters = (directions * (states + rank) + states) * padded
    return parameters + 3 * CHUNK * lanes.count + 2 * CHUNK * states + CHUNK * rank


@njit(nogil=True)
def _prepare(
    work: Any, x: Any, delta: Any, factors: Any, weights: Any, D: Any, bias: Any, chunk: Any, d: Any, sizes: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """Write each step's Δ, Δ·x and D·x for the block of channels at d."""
    width, channels = width_of(lanes), sizes.channels
    mask = present(channels - d, lanes)
    skip, shift = read(D, chunk.k * channels + d, mask), read(bias, chunk.k * channels + d, mask)
    steps = registers(lanes)
    for start in range(0, chunk.count, ABREAST):
        put_raw_steps(steps, delta, factors, weights, shift, chunk, start, d, mask, sizes, lanes)
        put_softplus(steps, steps, lanes)
        for j in range(ABREAST):
            u, at = read(x, row_of(chunk, start + j) * channels + d, mask), 3 * (start + j) * width
            step = read(steps, j * width, None)
            write(work, at, step, None)
            write(work, at + width, step * u, None)
            write(work, at + 2 * width, skip * u, None)


@njit(nogil=True)
def _advance(
    work: Any, rows: Any, state: Any, rates: Any, delta: Any, B: Any, C: Any, y: Any, chunk: Any, following: Any,
    n: Any, d: Any, add: Any, is_first: Any, sizes: Any, lanes: Any,
) -> None:  # fmt: skip
    """Run the group of states at n of the block of channels at d through a chunk and add C·h to each step's total.

    The first group starts from D·x plus, if `add`, what y holds; the last writes the totals to y. Meanwhile what the
    following chunk needs is prefetched, a little at each step: more requests than a core can have under way would make
    it wait. `is_first` says that the block is a task's first, which asks for what all blocks share.
    """
    width, group, channels = width_of(lanes), group_of(lanes), sizes.channels
    is_last, mask = n + group == sizes.states, present(channels - d, lanes)
    state, rows = past(state, n * sizes.padded + d), past(rows, 2 * n * CHUNK)
    rates = past(rates, (chunk.k * sizes.states + n) * sizes.padded + d)
    h, a, decays = registers(lanes), registers(lanes), registers(lanes)
    zero = splat(0.0, work)
    for j in range(group):
        write(h, j * width, read(state, j * sizes.padded, None), None)
        write(a, j * width, read(rates, j * sizes.padded, None), None)
    for i in range(chunk.count):
        at, row = 3 * i * width, 2 * i * group
        step, drive, total = read(work, at, None), read(work, at + width, None), read(work, at + 2 * width, None)
        if n == 0 and add:
            total = total + read(y, row_of(chunk, i) * channels + d, mask)
        if starts_anew(chunk, i):
            for j in range(group):
                write(h, j * width, zero, None)
        if n == 0 and not is_factored(lanes):
            prefetch(delta, line_of(following, i, sizes) * sizes.delta_stride + d, 0)
        if is_first:
            ask_for_rows(delta, B, C, following, i, n, sizes, lanes)
        if is_last:
            prefetch(y, row_of(following, i) * channels + d, 1)
        # More states at once have no room in the registers.
        for first in range(0, group, ABREAST):
            put_exp2(decays, step, past(a, first * width), lanes)
            for j in range(first, min(first + ABREAST, group)):
                new = read(decays, (j - first) * width, None) * read(h, j * width, None) + drive * spread(rows, row + j)
                write(h, j * width, new, None)
                total = total + new * spread(rows, row + group + j)
        if is_last:
            write(y, row_of(chunk, i) * channels + d, total, mask)
        else:
            write(work, at + 2 * width, total, None)
    for j in range(group):
        write(state, j * sizes.padded, read(h, j * width, None), None)


def forward_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel for one kind of vector."""

    def scan_forward(arguments):
        thread, floats, plan = take_place(arguments)
        if thread < 0:
            return
        ticket = arguments + 8 * (SHARED - 1)
        (
            x_at, delta_at, A_at, B_at, C_at, D_at, bias_at, weight_at, table, resets, y_at, checkpoints_at, tasks,
            batch, pieces, length, directions, steps, channels, states, rank, delta_stride, B_stride, C_stride,
        ) = wholes(arguments + 8 * SHARED, 24)  # fmt: skip
        width, group = width_of(lanes), group_of(lanes)
        blocks = (channels + width - 1) // width
        strides = (delta_stride, B_stride, C_stride)
        sizes = Sizes(length, directions, steps, channels, states, rank, *strides, blocks * width)
        x, delta, B, C = pointer(x_at, lanes), pointer(delta_at, lanes), pointer(B_at, lanes), pointer(C_at, lanes)
        D, bias, y = pointer(D_at, lanes), pointer(bias_at, lanes), pointer(y_at, lanes)
        checkpoints, rates = pointer(checkpoints_at, lanes), pointer(floats, lanes)
        state = past(rates, directions * states * sizes.padded)
        work = past(state, states * sizes.padded)
        rows = past(work, 3 * CHUNK * width)
        weights = past(rows, 2 * CHUNK * states)
        factors = past(weights, directions * rank * sizes.padded)
        zero = splat(0.0, x)
        chunks = make_plan(table, resets, plan, sizes)
        whole_map = visits_of(plan, 0, sizes) == length
        fill_by_channel(rates, pointer(A_at, lanes), states, LOG2E, sizes)
        fill_by_channel(weights, pointer(weight_at, lanes), rank, 1.0, sizes)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            base, piece = task // pieces * length, task % pieces
            first, last = piece * blocks // pieces * width, (piece + 1) * blocks // pieces * width
            if not whole_map:
                for row in range(base, base + length):
                    for d in range(first, last, width):
                        write(y, row * channels + d, zero, present(channels - d, lanes))
            for index in range(chunks):
                chunk = chunk_at(plan, index, base, sizes)
                following = chunk_at(plan, min(index + 1, chunks - 1), base, sizes)
                if index + 1 == chunks:
                    following = chunk_at(plan, 0, (base + length) % (batch * length), sizes)
                fill_rows(rows, B, C, chunk, sizes, lanes)
                fill_factors(factors, delta, chunk, sizes, lanes)
                for d in range(first, last, width):
                    for n in range(states):
                        if chunk.number == 0:
                            write(state, n * sizes.padded + d, zero, None)
                        elif checkpoints_at != 0:
                            h = read(state, n * sizes.padded + d, None)
                            write(checkpoints, kept_at(chunk, n, sizes) + d, h, None)
                    add = chunk.k > 0 or not whole_map
                    _prepare(work, x, delta, factors, weights, D, bias, chunk, d, sizes, lanes)
                    for n in range(0, states, group):
                        _advance(
                            work, rows, state, rates, delta, B, C, y, chunk, following, n, d, add, d == first, sizes,
                            lanes,
                        )  # fmt: skip

    return c_function(scan_forward)
