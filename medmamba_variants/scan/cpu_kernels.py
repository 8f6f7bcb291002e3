"""The scan's CPU kernels: forward, backward, and the final sum of the parameters' gradients.

Symbols are the operator's: x, delta, A, B, C, D, h; K directions. All tensors arrive as addresses of contiguous memory, channels last,
and a vector holds neighbouring channels, so a direction is nothing but an order of rows and no tensor is ever permuted.

A path is cut into chunks of CHUNK steps. What does not depend on the state (softplus, products) is computed for a chunk first;
then GROUP states at a time run through the chunk in registers. The forward keeps the state at each chunk's start, the backward
runs a chunk again from there. exp(Δ·A) is computed as 2^(Δ·A·log2 e).

A kernel draws tasks from a shared counter until none is left. A task's result does not depend on who computes it, and what
tasks share is summed afterwards in their order: the number of threads cannot change a bit.
"""

import math
from collections.abc import Callable

from numba import njit

from medmamba_variants.scan.cpu_functions import exp2, put_sums, put_whole, sigmoid, softplus, take_ticket, whole
from medmamba_variants.scan.cpu_vectors import (
    Lanes,
    item,
    past,
    pointer,
    present,
    put_item,
    read,
    registers,
    splat,
    spread,
    write,
)

CHUNK = 32
LOG2E, LN2 = math.log2(math.e), math.log(2.0)


@njit(nogil=True)
def visit_order(table, resets, order, directions, steps):
    """Write each direction's visited steps as 2 · position + reset mark, without the padding; after them the K numbers of steps."""
    for k in range(directions):
        count, mark = 0, 0
        for s in range(steps):
            # A mark on a padded step holds for the next visited one.
            mark |= whole(resets, k * steps + s, 8) != 0
            position = whole(table, k * steps + s, 32)
            if position >= 0:
                put_whole(order, k * steps + count, 2 * position + mark)
                count += 1
                mark = 0
        put_whole(order, directions * steps + k, count)


@njit(nogil=True)
def fill_rates(rates, A, directions, states, channels, padded):
    """Write A · log2 e as (K, d_state, padded channels), zero in the padding."""
    for k in range(directions):
        for n in range(states):
            for d in range(channels):
                put_item(rates, (k * states + n) * padded + d, item(A, (k * channels + d) * states + n) * LOG2E)
            for d in range(channels, padded):
                put_item(rates, (k * states + n) * padded + d, 0.0)


def forward_scratch(directions: int, steps: int, padded: int, states: int, width: int) -> tuple[int, int]:
    """Return how many floats and 64-bit integers a thread needs in the forward kernel."""
    return (directions + 1) * states * padded + 3 * CHUNK * width, directions * (steps + 1)


def backward_scratch(directions: int, steps: int, padded: int, states: int, width: int, group: int) -> tuple[int, int]:
    """Return how many floats and 64-bit integers a thread needs in the backward kernel."""
    return (directions + 1) * states * padded + 7 * CHUNK * padded + 4 * CHUNK * group * width, directions * (steps + 1)


def forward_kernel(lanes: Lanes, group: int) -> Callable:
    """Return the compiled forward for one kind of vector and `group` states at a time (it must divide d_state)."""
    width = lanes.count

    @njit(nogil=True, cache=True, error_model="numpy")
    def scan_forward(
        x_at, delta_at, A_at, B_at, C_at, D_at, bias_at, table, resets, y_at, checkpoints_at, floats, order,
        ticket, tasks, pieces, length, directions, steps, channels, states,
    ):  # fmt: skip
        x, delta, B, C = pointer(x_at, lanes), pointer(delta_at, lanes), pointer(B_at, lanes), pointer(C_at, lanes)
        D, bias, y = pointer(D_at, lanes), pointer(bias_at, lanes), pointer(y_at, lanes)
        checkpoints, rates = pointer(checkpoints_at, lanes), pointer(floats, lanes)
        blocks = (channels + width - 1) // width
        padded = blocks * width
        chunks = (steps + CHUNK - 1) // CHUNK
        state = past(rates, directions * states * padded)
        work = past(state, states * padded)
        h, a, zero = registers(group, lanes), registers(group, lanes), splat(0.0, x)
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
                    start = k * steps + chunk * CHUNK
                    m = min(CHUNK, visited - chunk * CHUNK)
                    for block in range(first, last):
                        d = block * width
                        mask = present(channels - d, lanes)
                        skip, shift = read(D, k * channels + d, mask), read(bias, k * channels + d, mask)
                        for i in range(m):
                            q = b * length + (whole(order, start + i, 64) >> 1)
                            u = read(x, q * channels + d, mask)
                            step = softplus(read(delta, (q * directions + k) * channels + d, mask) + shift)
                            total = skip * u
                            if add:
                                total = total + read(y, q * channels + d, mask)
                            write(work, 3 * i * width, step, None)
                            write(work, (3 * i + 1) * width, step * u, None)
                            write(work, (3 * i + 2) * width, total, None)
                        if checkpoints_at != 0 and chunk > 0:
                            kept = ((b * directions + k) * (chunks - 1) + chunk - 1) * states * padded + d
                            for n in range(states):
                                write(checkpoints, kept + n * padded, read(state, n * padded + d, None), None)
                        for n in range(0, states, group):
                            for j in range(group):
                                write(h, j * width, read(state, (n + j) * padded + d, None), None)
                                write(a, j * width, read(rates, (k * states + n + j) * padded + d, None), None)
                            for i in range(m):
                                entry = whole(order, start + i, 64)
                                row = ((b * length + (entry >> 1)) * directions + k) * states + n
                                step, drive = read(work, 3 * i * width, None), read(work, (3 * i + 1) * width, None)
                                total = read(work, (3 * i + 2) * width, None)
                                if entry & 1:
                                    for j in range(group):
                                        write(h, j * width, zero, None)
                                for j in range(group):
                                    decay = exp2(step * read(a, j * width, None))
                                    new = decay * read(h, j * width, None) + drive * spread(B, row + j)
                                    write(h, j * width, new, None)
                                    total = total + new * spread(C, row + j)
                                write(work, (3 * i + 2) * width, total, None)
                            for j in range(group):
                                write(state, (n + j) * padded + d, read(h, j * width, None), None)
                        for i in range(m):
                            q = b * length + (whole(order, start + i, 64) >> 1)
                            write(y, q * channels + d, read(work, (3 * i + 2) * width, None), mask)

    return scan_forward


def backward_kernel(lanes: Lanes, group: int) -> Callable:
    """Return the compiled backward for one kind of vector and `group` states at a time (it must divide d_state)."""
    width = lanes.count

    @njit(nogil=True, cache=True, error_model="numpy")
    def scan_backward(
        dy_at, x_at, delta_at, A_at, B_at, C_at, D_at, bias_at, table, resets, checkpoints_at,
        dx_at, ddelta_at, dB_at, dC_at, partial_at, floats, order,
        ticket, tasks, batch, length, directions, steps, channels, states,
    ):  # fmt: skip
        dy, x, delta = pointer(dy_at, lanes), pointer(x_at, lanes), pointer(delta_at, lanes)
        B, C, D, bias = pointer(B_at, lanes), pointer(C_at, lanes), pointer(D_at, lanes), pointer(bias_at, lanes)
        dx, ddelta, dB, dC = (
            pointer(dx_at, lanes),
            pointer(ddelta_at, lanes),
            pointer(dB_at, lanes),
            pointer(dC_at, lanes),
        )
        checkpoints, rates = pointer(checkpoints_at, lanes), pointer(floats, lanes)
        blocks = (channels + width - 1) // width
        padded = blocks * width
        chunks = (steps + CHUNK - 1) // CHUNK
        parameters = directions * states * padded
        # The gradient that flows back over the chunk's end, per state and channel.
        carried = past(rates, parameters)
        # Per block and step: step, slope, drive, dy, gradient of drive, gradient of step, u.
        work = past(carried, states * padded)
        # Per step and state of the group: decay, state before the step, and the products whose lane sums are dB and dC.
        decays = past(work, 7 * CHUNK * padded)
        before = past(decays, CHUNK * group * width)
        products_B = past(before, CHUNK * group * width)
        products_C = past(products_B, CHUNK * group * width)
        h, a, g = registers(group, lanes), registers(group, lanes), registers(group, lanes)
        da, zero, ln2 = registers(group, lanes), splat(0.0, x), splat(LN2, x)
        visit_order(table, resets, order, directions, steps)
        fill_rates(rates, pointer(A_at, lanes), directions, states, channels, padded)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            part = past(pointer(partial_at, lanes), task * (parameters + 2 * directions * padded))
            for n in range(0, parameters + 2 * directions * padded, width):
                write(part, n, zero, None)
            for b in range(task * batch // tasks, (task + 1) * batch // tasks):
                for k in range(directions):
                    visited = whole(order, directions * steps + k, 64)
                    add = k > 0 or visited < length
                    if visited < length:
                        for q in range(b * length, (b + 1) * length):
                            row = q * directions + k
                            for n in range(states):
                                put_item(dB, row * states + n, 0.0)
                                put_item(dC, row * states + n, 0.0)
                            for d in range(channels):
                                put_item(ddelta, row * channels + d, 0.0)
                                if k == 0:
                                    put_item(dx, q * channels + d, 0.0)
                    for n in range(0, states * padded, width):
                        write(carried, n, zero, None)
                    for chunk in range((visited + CHUNK - 1) // CHUNK - 1, -1, -1):
                        start = k * steps + chunk * CHUNK
                        m = min(CHUNK, visited - chunk * CHUNK)
                        for block in range(blocks):
                            d = block * width
                            mask = present(channels - d, lanes)
                            shift = read(bias, k * channels + d, mask)
                            for i in range(m):
                                q = b * length + (whole(order, start + i, 64) >> 1)
                                raw = read(delta, (q * directions + k) * channels + d, mask) + shift
                                u, step = read(x, q * channels + d, mask), softplus(raw)
                                at = 7 * (block * CHUNK + i) * width
                                write(work, at, step, None)
                                write(work, at + width, sigmoid(raw), None)
                                write(work, at + 2 * width, step * u, None)
                                write(work, at + 3 * width, read(dy, q * channels + d, mask), None)
                                write(work, at + 4 * width, zero, None)
                                write(work, at + 5 * width, zero, None)
                                write(work, at + 6 * width, u, None)
                        for n in range(0, states, group):
                            for i in range(m * group):
                                write(products_B, i * width, zero, None)
                                write(products_C, i * width, zero, None)
                            for block in range(blocks):
                                d = block * width
                                kept = (
                                    ((b * directions + k) * (chunks - 1) + chunk - 1) * states * padded + n * padded + d
                                )
                                for j in range(group):
                                    write(h, j * width, zero, None)
                                    if chunk > 0:
                                        write(h, j * width, read(checkpoints, kept + j * padded, None), None)
                                    write(a, j * width, read(rates, (k * states + n + j) * padded + d, None), None)
                                    write(g, j * width, read(carried, (n + j) * padded + d, None), None)
                                    write(da, j * width, read(part, (k * states + n + j) * padded + d, None), None)
                                for i in range(m):
                                    entry = whole(order, start + i, 64)
                                    row = ((b * length + (entry >> 1)) * directions + k) * states + n
                                    at = 7 * (block * CHUNK + i) * width
                                    step, drive = read(work, at, None), read(work, at + 2 * width, None)
                                    for j in range(group):
                                        write(before, (i * group + j) * width, read(h, j * width, None), None)
                                        if entry & 1:
                                            write(h, j * width, zero, None)
                                        decay = exp2(step * read(a, j * width, None))
                                        write(decays, (i * group + j) * width, decay, None)
                                        new = decay * read(h, j * width, None) + drive * spread(B, row + j)
                                        write(h, j * width, new, None)
                                for i in range(m - 1, -1, -1):
                                    entry = whole(order, start + i, 64)
                                    row = ((b * length + (entry >> 1)) * directions + k) * states + n
                                    at = 7 * (block * CHUNK + i) * width
                                    step, drive = read(work, at, None), read(work, at + 2 * width, None)
                                    dout = read(work, at + 3 * width, None)
                                    ddrive, dstep = read(work, at + 4 * width, None), read(work, at + 5 * width, None)
                                    for j in range(group):
                                        s = (i * group + j) * width
                                        total = read(g, j * width, None) + dout * spread(C, row + j)
                                        product = read(products_C, s, None) + dout * read(h, j * width, None)
                                        write(products_C, s, product, None)
                                        write(products_B, s, read(products_B, s, None) + total * drive, None)
                                        ddrive = ddrive + total * spread(B, row + j)
                                        write(h, j * width, read(before, s, None), None)
                                        write(g, j * width, total * read(decays, s, None), None)
                                    if entry & 1:
                                        # Before the state starts anew nothing flows back, not even NaN.
                                        for j in range(group):
                                            write(g, j * width, zero, None)
                                    else:
                                        for j in range(group):
                                            flow = read(g, j * width, None) * read(h, j * width, None)
                                            dstep = dstep + flow * read(a, j * width, None)
                                            write(da, j * width, read(da, j * width, None) + flow * step, None)
                                    write(work, at + 4 * width, ddrive, None)
                                    write(work, at + 5 * width, dstep, None)
                                for j in range(group):
                                    write(carried, (n + j) * padded + d, read(g, j * width, None), None)
                                    write(part, (k * states + n + j) * padded + d, read(da, j * width, None), None)
                            for i in range(m):
                                row = ((b * length + (whole(order, start + i, 64) >> 1)) * directions + k) * states + n
                                put_sums(dB, row, products_B, i * group * width, group)
                                put_sums(dC, row, products_C, i * group * width, group)
                        for block in range(blocks):
                            d = block * width
                            mask = present(channels - d, lanes)
                            skip, dskip, dshift = read(D, k * channels + d, mask), zero, zero
                            for i in range(m):
                                q = b * length + (whole(order, start + i, 64) >> 1)
                                at = 7 * (block * CHUNK + i) * width
                                step, dout = read(work, at, None), read(work, at + 3 * width, None)
                                ddrive, u = read(work, at + 4 * width, None), read(work, at + 6 * width, None)
                                draw = (read(work, at + 5 * width, None) * ln2 + ddrive * u) * read(
                                    work, at + width, None
                                )
                                write(ddelta, (q * directions + k) * channels + d, draw, mask)
                                dshift, dskip = dshift + draw, dskip + dout * u
                                du = ddrive * step + dout * skip
                                if add:
                                    du = du + read(dx, q * channels + d, mask)
                                write(dx, q * channels + d, du, mask)
                            at = parameters + k * padded + d
                            write(part, at, read(part, at, None) + dskip, None)
                            at += directions * padded
                            write(part, at, read(part, at, None) + dshift, None)

    return scan_backward


def sum_kernel(lanes: Lanes) -> Callable:
    """Return the compiled sum over tasks of the parameters' gradients, in the tasks' order, into the layouts of A, D and bias."""

    width = lanes.count

    @njit(nogil=True, cache=True, error_model="numpy")
    def scan_sum(partial_at, tasks, dA_at, dD_at, dbias_at, directions, channels, states):
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
