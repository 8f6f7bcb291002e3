"""The scan's backward kernel on the CPU, and the final sum of the parameters' gradients."""

from collections.abc import Callable
from typing import Any

from numba import njit

from medmamba_variants.scan.cpu_functions import add_sums, put_exp2, put_sigmoid, put_softplus, take_ticket, whole
from medmamba_variants.scan.cpu_kernels import CHUNK, LN2, fill_rates, fill_rows, visit_order
from medmamba_variants.scan.cpu_vectors import (
    Lanes,
    copy_group,
    group_of,
    item,
    past,
    pointer,
    present,
    put_item,
    read,
    registers,
    splat,
    spread,
    width_of,
    write,
)


def backward_scratch(lanes: Lanes, directions: int, steps: int, channels: int, states: int) -> tuple[int, int]:
    """Return how many floats and 64-bit integers a thread needs."""
    padded = -(-channels // lanes.count) * lanes.count
    floats = (directions + 1) * states * padded + 2 * CHUNK * states
    floats += 7 * CHUNK * padded + 2 * CHUNK * lanes.group * (lanes.count + 1)
    return floats, directions * (steps + 1)


@njit(nogil=True)
def _prepare(
    work: Any, x: Any, delta: Any, dy: Any, shift: Any,
    order: Any, m: Any, base: Any, k: Any, directions: Any, channels: Any, d: Any, mask: Any, lanes: Any,
) -> None:  # fmt: skip
    """Write each step's Δ, its slope, Δ·x, dy, two zeros for the gradients of Δ·x and Δ, and x, for one block."""
    width, group = width_of(lanes), group_of(lanes)
    raw, steps, slopes = registers(lanes), registers(lanes), registers(lanes)
    zero = splat(0.0, work)
    for start in range(0, m, group):
        # Past the chunk's end the last step is repeated; nobody reads what it leaves there.
        for j in range(group):
            q = base + (whole(order, min(start + j, m - 1), 64) >> 1)
            write(raw, j * width, read(delta, (q * directions + k) * channels + d, mask) + shift, None)
        put_softplus(steps, raw, lanes)
        put_sigmoid(slopes, raw, lanes)
        for j in range(group):
            q = base + (whole(order, min(start + j, m - 1), 64) >> 1)
            u, step, at = read(x, q * channels + d, mask), read(steps, j * width, None), 7 * (start + j) * width
            write(work, at, step, None)
            write(work, at + width, step * u, None)
            write(work, at + 2 * width, read(dy, q * channels + d, mask), None)
            write(work, at + 3 * width, zero, None)
            write(work, at + 4 * width, zero, None)
            write(work, at + 5 * width, read(slopes, j * width, None), None)
            write(work, at + 6 * width, u, None)


@njit(nogil=True)
def _replay(work: Any, rows: Any, tape: Any, h: Any, a: Any, order: Any, m: Any, lanes: Any) -> None:
    """Run one group of states through a chunk and write decay and state before each step to the tape."""
    width, group = width_of(lanes), group_of(lanes)
    decays, zero = registers(lanes), splat(0.0, work)
    for i in range(m):
        step, drive = read(work, 7 * i * width, None), read(work, (7 * i + 1) * width, None)
        put_exp2(decays, step, a, lanes)
        for j in range(group):
            write(tape, 2 * (i * group + j) * width, read(decays, j * width, None), None)
            write(tape, (2 * (i * group + j) + 1) * width, read(h, j * width, None), None)
        if whole(order, i, 64) & 1:
            for j in range(group):
                write(h, j * width, zero, None)
        for j in range(group):
            new = read(decays, j * width, None) * read(h, j * width, None) + drive * spread(rows, 2 * i * group + j)
            write(h, j * width, new, None)


@njit(nogil=True)
def _reverse(
    work: Any, rows: Any, sums: Any, tape: Any, h: Any, a: Any, g: Any, da: Any, order: Any, m: Any, lanes: Any
) -> None:
    """Run back and add to each step's sums (dB and dC) and to the gradients of Δ·x, Δ and A.

    h holds the state after the chunk, g the gradient that flows back over the chunk's end; both are used up.
    """
    width, group = width_of(lanes), group_of(lanes)
    products_B, products_C, zero = registers(lanes), registers(lanes), splat(0.0, work)
    for i in range(m - 1, -1, -1):
        at, row = 7 * i * width, 2 * i * group
        step, drive, dout = read(work, at, None), read(work, at + width, None), read(work, at + 2 * width, None)
        ddrive, dstep = read(work, at + 3 * width, None), read(work, at + 4 * width, None)
        for j in range(group):
            s = 2 * (i * group + j) * width
            total = read(g, j * width, None) + dout * spread(rows, row + group + j)
            write(products_B, j * width, total * drive, None)
            write(products_C, j * width, dout * read(h, j * width, None), None)
            ddrive = ddrive + total * spread(rows, row + j)
            write(h, j * width, read(tape, s + width, None), None)
            write(g, j * width, total * read(tape, s, None), None)
        add_sums(sums, row, products_B, products_C, lanes)
        if whole(order, i, 64) & 1:
            # Before the state starts anew nothing flows back, not even NaN.
            for j in range(group):
                write(g, j * width, zero, None)
        else:
            for j in range(group):
                flow = read(g, j * width, None) * read(h, j * width, None)
                dstep = dstep + flow * read(a, j * width, None)
                write(da, j * width, read(da, j * width, None) + flow * step, None)
        write(work, at + 3 * width, ddrive, None)
        write(work, at + 4 * width, dstep, None)


@njit(nogil=True)
def _finish(
    work: Any, dx: Any, ddelta: Any, part: Any, skip: Any, add: Any,
    order: Any, m: Any, base: Any, k: Any, directions: Any, channels: Any, padded: Any, d: Any, mask: Any, lanes: Any,
) -> None:  # fmt: skip
    """Write the chunk's dx and ddelta, and add to the gradients of D and delta_bias, for one block."""
    width, ln2 = width_of(lanes), splat(LN2, work)
    dskip, dshift = splat(0.0, work), splat(0.0, work)
    for i in range(m):
        q = base + (whole(order, i, 64) >> 1)
        at = 7 * i * width
        dout, ddrive = read(work, at + 2 * width, None), read(work, at + 3 * width, None)
        u, slope = read(work, at + 6 * width, None), read(work, at + 5 * width, None)
        # The kernels know A times log2 e, hence the ln 2.
        draw = (read(work, at + 4 * width, None) * ln2 + ddrive * u) * slope
        write(ddelta, (q * directions + k) * channels + d, draw, mask)
        dshift, dskip = dshift + draw, dskip + dout * u
        du = ddrive * read(work, at, None) + dout * skip
        if add:
            du = du + read(dx, q * channels + d, mask)
        write(dx, q * channels + d, du, mask)
    write(part, k * padded + d, read(part, k * padded + d, None) + dskip, None)
    at = (directions + k) * padded + d
    write(part, at, read(part, at, None) + dshift, None)


@njit(nogil=True)
def _clear(
    dx: Any, ddelta: Any, dB: Any, dC: Any, base: Any, length: Any, k: Any, directions: Any, channels: Any, states: Any
) -> None:
    """Zero the gradients of one batch item and direction, for directions which leave positions out."""
    for q in range(base, base + length):
        row = q * directions + k
        for n in range(states):
            put_item(dB, row * states + n, 0.0)
            put_item(dC, row * states + n, 0.0)
        for d in range(channels):
            put_item(ddelta, row * channels + d, 0.0)
            if k == 0:
                put_item(dx, q * channels + d, 0.0)


def backward_kernel(lanes: Lanes) -> Callable:
    """Return the compiled kernel for one kind of vector."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def scan_backward(
        dy_at, x_at, delta_at, A_at, B_at, C_at, D_at, bias_at, table, resets, checkpoints_at,
        dx_at, ddelta_at, dB_at, dC_at, partial_at, floats, order,
        ticket, tasks, batch, length, directions, steps, channels, states,
    ):  # fmt: skip
        width, group = width_of(lanes), group_of(lanes)
        dy, x, delta = pointer(dy_at, lanes), pointer(x_at, lanes), pointer(delta_at, lanes)
        B, C, D, bias = pointer(B_at, lanes), pointer(C_at, lanes), pointer(D_at, lanes), pointer(bias_at, lanes)
        dx, ddelta = pointer(dx_at, lanes), pointer(ddelta_at, lanes)
        dB, dC = pointer(dB_at, lanes), pointer(dC_at, lanes)
        blocks = (channels + width - 1) // width
        padded = blocks * width
        chunks = (steps + CHUNK - 1) // CHUNK
        parameters = directions * states * padded
        checkpoints, rates = pointer(checkpoints_at, lanes), pointer(floats, lanes)
        # The gradient that flows back over the chunk's end, per state and channel.
        carried = past(rates, parameters)
        rows = past(carried, states * padded)
        work = past(rows, 2 * CHUNK * states)
        # Per step and state of the group: decay, state before the step.
        tape = past(work, 7 * CHUNK * padded)
        # Per step, the group's dB and dC.
        sums = past(tape, 2 * CHUNK * group * width)
        h, a, g, da, zero = registers(lanes), registers(lanes), registers(lanes), registers(lanes), splat(0.0, x)
        visit_order(table, resets, order, directions, steps)
        fill_rates(rates, pointer(A_at, lanes), directions, states, channels, padded)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            part = past(pointer(partial_at, lanes), task * (parameters + 2 * directions * padded))
            for n in range(0, parameters + 2 * directions * padded, width):
                write(part, n, zero, None)
            for bk in range(task * batch // tasks * directions, (task + 1) * batch // tasks * directions):
                base, k = bk // directions * length, bk % directions
                visited = whole(order, directions * steps + k, 64)
                if visited < length:
                    _clear(dx, ddelta, dB, dC, base, length, k, directions, channels, states)
                for n in range(0, states * padded, width):
                    write(carried, n, zero, None)
                for chunk in range((visited + CHUNK - 1) // CHUNK - 1, -1, -1):
                    here = order + 8 * (k * steps + chunk * CHUNK)
                    m = min(CHUNK, visited - chunk * CHUNK)
                    fill_rows(rows, B, C, here, m, base, k, directions, states, lanes)
                    for block in range(blocks):
                        d = block * width
                        mask = present(channels - d, lanes)
                        _prepare(
                            past(work, 7 * d * CHUNK), x, delta, dy, read(bias, k * channels + d, mask),
                            here, m, base, k, directions, channels, d, mask, lanes,
                        )  # fmt: skip
                    for n in range(0, states, group):
                        for i in range(2 * m * group):
                            put_item(sums, i, 0.0)
                        for block in range(blocks):
                            d = block * width
                            kept = ((bk * (chunks - 1) + chunk - 1) * states + n) * padded + d
                            for j in range(group):
                                write(h, j * width, zero, None)
                                if chunk > 0:
                                    write(h, j * width, read(checkpoints, kept + j * padded, None), None)
                                write(a, j * width, read(rates, (k * states + n + j) * padded + d, None), None)
                                write(g, j * width, read(carried, (n + j) * padded + d, None), None)
                                write(da, j * width, read(part, (k * states + n + j) * padded + d, None), None)
                            mine, chunk_rows = past(work, 7 * d * CHUNK), past(rows, 2 * n * CHUNK)
                            _replay(mine, chunk_rows, tape, h, a, here, m, lanes)
                            _reverse(mine, chunk_rows, sums, tape, h, a, g, da, here, m, lanes)
                            for j in range(group):
                                write(carried, (n + j) * padded + d, read(g, j * width, None), None)
                                write(part, (k * states + n + j) * padded + d, read(da, j * width, None), None)
                        for i in range(m):
                            row = ((base + (whole(here, i, 64) >> 1)) * directions + k) * states + n
                            copy_group(dB, row, sums, 2 * i * group, lanes)
                            copy_group(dC, row, sums, (2 * i + 1) * group, lanes)
                    for block in range(blocks):
                        d = block * width
                        mask = present(channels - d, lanes)
                        _finish(
                            past(work, 7 * d * CHUNK), dx, ddelta, past(part, parameters),
                            read(D, k * channels + d, mask), k > 0 or visited < length,
                            here, m, base, k, directions, channels, padded, d, mask, lanes,
                        )  # fmt: skip

    return scan_backward


def sum_kernel(lanes: Lanes) -> Callable:
    """Return the compiled sum of the tasks' gradients of A, D and bias, in the tasks' order, into those layouts."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def scan_sum(partial_at, tasks, dA_at, dD_at, dbias_at, directions, channels, states):
        width = width_of(lanes)
        partial, dA = pointer(partial_at, lanes), pointer(dA_at, lanes)
        dD, dbias = pointer(dD_at, lanes), pointer(dbias_at, lanes)
        padded = (channels + width - 1) // width * width
        size = directions * (states + 2) * padded
        for n in range(0, size, width):
            total = read(partial, n, None)
            for task in range(1, tasks):
                total = total + read(partial, task * size + n, None)
            write(partial, n, total, None)
        for k in range(directions):
            for d in range(channels):
                for n in range(states):
                    put_item(dA, (k * channels + d) * states + n, item(partial, (k * states + n) * padded + d))
                put_item(dD, k * channels + d, item(partial, (directions * states + k) * padded + d))
                put_item(dbias, k * channels + d, item(partial, (directions * (states + 1) + k) * padded + d))

    return scan_sum
