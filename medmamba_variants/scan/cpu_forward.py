"""The scan's forward kernel on the CPU."""

from collections.abc import Callable
from typing import Any

from numba import njit

from medmamba_variants.scan.cpu_functions import put_exp2, put_softplus, take_ticket, whole
from medmamba_variants.scan.cpu_kernels import CHUNK, fill_rates, fill_rows, visit_order
from medmamba_variants.scan.cpu_vectors import (
    Lanes,
    group_of,
    past,
    pointer,
    present,
    read,
    registers,
    splat,
    spread,
    width_of,
    write,
)


def forward_scratch(lanes: Lanes, directions: int, steps: int, channels: int, states: int) -> tuple[int, int]:
    """Return how many floats and 64-bit integers a thread needs."""
    padded = -(-channels // lanes.count) * lanes.count
    return (directions + 1) * states * padded + 3 * CHUNK * lanes.count + 2 * CHUNK * states, directions * (steps + 1)


@njit(nogil=True)
def _prepare(
    work: Any, x: Any, delta: Any, y: Any, skip: Any, shift: Any, add: Any,
    order: Any, m: Any, base: Any, k: Any, directions: Any, channels: Any, d: Any, mask: Any, lanes: Any,
) -> None:  # fmt: skip
    """Write each step's Δ, Δ·x and D·x (plus what y holds from other directions) for one block of channels."""
    width, group = width_of(lanes), group_of(lanes)
    steps = registers(lanes)
    for start in range(0, m, group):
        # Past the chunk's end the last step is repeated; nobody reads what it leaves there.
        for j in range(group):
            q = base + (whole(order, min(start + j, m - 1), 64) >> 1)
            write(steps, j * width, read(delta, (q * directions + k) * channels + d, mask) + shift, None)
        put_softplus(steps, steps, lanes)
        for j in range(group):
            q = base + (whole(order, min(start + j, m - 1), 64) >> 1)
            u, step, at = read(x, q * channels + d, mask), read(steps, j * width, None), 3 * (start + j) * width
            total = skip * u
            if add:
                total = total + read(y, q * channels + d, mask)
            write(work, at, step, None)
            write(work, at + width, step * u, None)
            write(work, at + 2 * width, total, None)


@njit(nogil=True)
def _advance(work: Any, rows: Any, state: Any, rates: Any, order: Any, m: Any, padded: Any, lanes: Any) -> None:
    """Run one group of states of one block of channels through a chunk and add C·h to each step's total."""
    width, group = width_of(lanes), group_of(lanes)
    h, a, decays = registers(lanes), registers(lanes), registers(lanes)
    zero = splat(0.0, work)
    for j in range(group):
        write(h, j * width, read(state, j * padded, None), None)
        write(a, j * width, read(rates, j * padded, None), None)
    for i in range(m):
        at, row = 3 * i * width, 2 * i * group
        step, drive, total = read(work, at, None), read(work, at + width, None), read(work, at + 2 * width, None)
        if whole(order, i, 64) & 1:
            for j in range(group):
                write(h, j * width, zero, None)
        put_exp2(decays, step, a, lanes)
        for j in range(group):
            new = read(decays, j * width, None) * read(h, j * width, None) + drive * spread(rows, row + j)
            write(h, j * width, new, None)
            total = total + new * spread(rows, row + group + j)
        write(work, at + 2 * width, total, None)
    for j in range(group):
        write(state, j * padded, read(h, j * width, None), None)


def forward_kernel(lanes: Lanes) -> Callable:
    """Return the compiled kernel for one kind of vector."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def scan_forward(
        x_at, delta_at, A_at, B_at, C_at, D_at, bias_at, table, resets, y_at, checkpoints_at, floats, order,
        ticket, tasks, pieces, length, directions, steps, channels, states,
    ):  # fmt: skip
        width, group = width_of(lanes), group_of(lanes)
        x, delta, B, C = pointer(x_at, lanes), pointer(delta_at, lanes), pointer(B_at, lanes), pointer(C_at, lanes)
        D, bias, y = pointer(D_at, lanes), pointer(bias_at, lanes), pointer(y_at, lanes)
        blocks = (channels + width - 1) // width
        padded = blocks * width
        chunks = (steps + CHUNK - 1) // CHUNK
        checkpoints, rates = pointer(checkpoints_at, lanes), pointer(floats, lanes)
        state = past(rates, directions * states * padded)
        work = past(state, states * padded)
        rows = past(work, 3 * CHUNK * width)
        zero = splat(0.0, x)
        visit_order(table, resets, order, directions, steps)
        fill_rates(rates, pointer(A_at, lanes), directions, states, channels, padded)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            b, piece = task // pieces, task % pieces
            first, last = piece * blocks // pieces, (piece + 1) * blocks // pieces
            for k in range(directions):
                visited = whole(order, directions * steps + k, 64)
                add = k > 0 or visited < length
                if k == 0 and add:
                    for q in range(b * length, (b + 1) * length):
                        for block in range(first, last):
                            write(y, q * channels + block * width, zero, present(channels - block * width, lanes))
                for n in range(states):
                    for block in range(first, last):
                        write(state, n * padded + block * width, zero, None)
                for chunk in range((visited + CHUNK - 1) // CHUNK):
                    here = order + 8 * (k * steps + chunk * CHUNK)
                    m = min(CHUNK, visited - chunk * CHUNK)
                    fill_rows(rows, B, C, here, m, b * length, k, directions, states, lanes)
                    for block in range(first, last):
                        d = block * width
                        mask = present(channels - d, lanes)
                        if checkpoints_at != 0 and chunk > 0:
                            kept = ((b * directions + k) * (chunks - 1) + chunk - 1) * states * padded + d
                            for n in range(states):
                                write(checkpoints, kept + n * padded, read(state, n * padded + d, None), None)
                        skip, shift = read(D, k * channels + d, mask), read(bias, k * channels + d, mask)
                        _prepare(
                            work, x, delta, y, skip, shift, add,
                            here, m, b * length, k, directions, channels, d, mask, lanes,
                        )  # fmt: skip
                        for n in range(0, states, group):
                            a = past(rates, (k * states + n) * padded + d)
                            _advance(
                                work, past(rows, 2 * n * CHUNK), past(state, n * padded + d), a, here, m, padded, lanes
                            )
                        for i in range(m):
                            q = b * length + (whole(here, i, 64) >> 1)
                            write(y, q * channels + d, read(work, (3 * i + 2) * width, None), mask)

    return scan_forward
