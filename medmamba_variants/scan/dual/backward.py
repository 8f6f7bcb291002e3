"""The dual scan's backward kernel on the CPU."""

from typing import Any

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import add_sums, take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import SHARED, c_function, take_place
from medmamba_variants.scan.cpu.vectors import (
    Lanes,
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
from medmamba_variants.scan.dual.kernels import (
    LINES,
    STEPS,
    B_at_step,
    Extents,
    Part,
    fill_channels,
    fill_rows,
    head_at_step,
    position_of,
    prepare,
    x_at_step,
    y_at_step,
)


def backward_floats(states: int, padded: int, length: int, lanes: Lanes) -> int:
    """How many floats a thread needs in the backward kernel."""
    chunks = -(-length // STEPS)
    lines = 4 * states + 4 * padded + (LINES + lanes.group) * lanes.count
    return (chunks + 2) * states * padded + STEPS * lines + 2 * lanes.group * lanes.count


@njit(nogil=True)
def _follow(work: Any, rows: Any, state: Any, history: Any, n: Any, d: Any, count: Any, sizes: Any, lanes: Any) -> None:
    """Run the group of states at n of the block at d through a chunk; the history gets the state before each step."""
    width, group = width_of(lanes), group_of(lanes)
    state, rows = past(state, n * sizes.padded + d), past(rows, 2 * n * STEPS)
    h = registers(lanes)
    for j in range(group):
        write(h, j * width, read(state, j * sizes.padded, None), None)
    for i in range(count):
        at, row = LINES * i * width, 2 * i * group
        decay, u = read(work, at, None), read(work, at + width, None)
        for j in range(group):
            before = read(h, j * width, None)
            write(history, (i * group + j) * width, before, None)
            write(h, j * width, decay * before + u * spread(rows, row + j), None)


@njit(nogil=True)
def _move(work: Any, rows: Any, state: Any, n: Any, d: Any, count: Any, sizes: Any, lanes: Any) -> None:
    """Run the group of states at n of the block at d through a chunk."""
    width, group = width_of(lanes), group_of(lanes)
    state, rows = past(state, n * sizes.padded + d), past(rows, 2 * n * STEPS)
    h = registers(lanes)
    for j in range(group):
        write(h, j * width, read(state, j * sizes.padded, None), None)
    for i in range(count):
        at, row = LINES * i * width, 2 * i * group
        decay, u = read(work, at, None), read(work, at + width, None)
        for j in range(group):
            write(h, j * width, decay * read(h, j * width, None) + u * spread(rows, row + j), None)
    for j in range(group):
        write(state, j * sizes.padded, read(h, j * width, None), None)


@njit(nogil=True)
def _return(
    work: Any, rows: Any, drows: Any, dstate: Any, history: Any, products: Any, n: Any, d: Any, count: Any,
    sizes: Any, lanes: Any,
) -> None:  # fmt: skip
    """Run the gradient of the group of states at n of the block at d back through a chunk.

    Adds to the gradients of the scaled x and of the decay's logarithm, and of B and C.
    """
    width, group = width_of(lanes), group_of(lanes)
    dstate, rows, drows = past(dstate, n * sizes.padded + d), past(rows, 2 * n * STEPS), past(drows, 2 * n * STEPS)
    dh = registers(lanes)
    for j in range(group):
        write(dh, j * width, read(dstate, j * sizes.padded, None), None)
    second = past(products, group * width)
    for step in range(count):
        i = count - 1 - step
        at, row = LINES * i * width, 2 * i * group
        decay, u, dy = read(work, at, None), read(work, at + width, None), read(work, at + 2 * width, None)
        du, dlog = read(work, at + 3 * width, None), read(work, at + 4 * width, None)
        for j in range(group):
            kept = decay * read(history, (i * group + j) * width, None)
            here = read(dh, j * width, None) + dy * spread(rows, row + group + j)
            write(products, j * width, here * u, None)
            write(second, j * width, dy * (kept + u * spread(rows, row + j)), None)
            du = du + here * spread(rows, row + j)
            dlog = dlog + here * kept
            write(dh, j * width, here * decay, None)
        add_sums(drows, row, products, second, lanes)
        write(work, at + 3 * width, du, None)
        write(work, at + 4 * width, dlog, None)
    for j in range(group):
        write(dstate, j * sizes.padded, read(dh, j * width, None), None)


@njit(nogil=True)
def _sum(source: Any, start: Any, count: Any) -> Any:
    """The sum of neighbours, four at a time: one after the other each addition would wait for the one before."""
    a = b = c = d = item(source, start) * 0.0
    whole_count = count // 4 * 4
    for i in range(0, whole_count, 4):
        a += item(source, start + i)
        b += item(source, start + i + 1)
        c += item(source, start + i + 2)
        d += item(source, start + i + 3)
    for i in range(whole_count, count):
        a += item(source, start + i)
    return (a + b) + (c + d)


@njit(nogil=True)
def _add_to(target: Any, at: Any, number: Any) -> None:
    put_item(target, at, item(target, at) + number)


def backward_kernel(lanes: Lanes) -> CFunc:
    """The backward kernel for one kind of vector; all gradients but those of x must be zero at the start."""

    def dual_backward(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        ticket = arguments + 8 * (SHARED - 1)
        (
            dy_at, x_at, scale_at, decay_at, B_at, C_at, table, dx_at, dscale_at, dlog_at, dB_at, dC_at,
            tasks, length, K, groups, heads, channels, states, inputs, keys, outputs,
        ) = wholes(arguments + 8 * SHARED, 22)  # fmt: skip
        width, group = width_of(lanes), group_of(lanes)
        padded = (channels + width - 1) // width * width
        sizes = Extents(length, K, groups, heads, channels, states, inputs, keys, outputs, padded)
        dy, x, dx = pointer(dy_at, lanes), pointer(x_at, lanes), pointer(dx_at, lanes)
        scale, dscale = pointer(scale_at, lanes), pointer(dscale_at, lanes)
        decay, dlog = pointer(decay_at, lanes), pointer(dlog_at, lanes)
        B, C, dB, dC = pointer(B_at, lanes), pointer(C_at, lanes), pointer(dB_at, lanes), pointer(dC_at, lanes)
        chunks, size, each = (length + STEPS - 1) // STEPS, states * padded, channels // heads
        state = pointer(floats, lanes)
        dstate = past(state, size)
        starts = past(dstate, size)
        rows = past(starts, chunks * size)
        drows = past(rows, 2 * STEPS * states)
        decays = past(drows, 2 * STEPS * states)
        scales = past(decays, STEPS * padded)
        dscales = past(scales, STEPS * padded)
        dlogs = past(dscales, STEPS * padded)
        work = past(dlogs, STEPS * padded)
        history = past(work, LINES * STEPS * width)
        products = past(history, STEPS * group * width)
        zero = splat(0.0, x)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            for k in range(K):
                for g in range(groups):
                    for at in range(0, size, width):
                        write(state, at, zero, None)
                        write(dstate, at, zero, None)
                    for number in range(chunks):
                        for at in range(0, size, width):
                            write(starts, number * size + at, read(state, at, None), None)
                        if number + 1 == chunks:
                            break
                        part = Part(task * length, k, g, number * STEPS, STEPS)
                        fill_rows(rows, B, C, table, part, sizes, lanes)
                        fill_channels(decays, decay, table, part, sizes)
                        fill_channels(scales, scale, table, part, sizes)
                        for d in range(0, channels, width):
                            prepare(work, decays, scales, x, table, part, d, sizes, lanes)
                            for n in range(0, states, group):
                                _move(work, rows, state, n, d, STEPS, sizes, lanes)
                    for back in range(chunks):
                        number = chunks - 1 - back
                        first = number * STEPS
                        part = Part(task * length, k, g, first, min(STEPS, length - first))
                        fill_rows(rows, B, C, table, part, sizes, lanes)
                        fill_channels(decays, decay, table, part, sizes)
                        fill_channels(scales, scale, table, part, sizes)
                        for at in range(2 * STEPS * states):
                            put_item(drows, at, 0.0)
                        for d in range(0, channels, width):
                            mask = present(channels - d, lanes)
                            prepare(work, decays, scales, x, table, part, d, sizes, lanes)
                            for i in range(part.count):
                                at = y_at_step(position_of(table, part, i, sizes), part, sizes)
                                write(work, (LINES * i + 2) * width, read(dy, at + d, mask), None)
                                write(work, (LINES * i + 3) * width, zero, None)
                                write(work, (LINES * i + 4) * width, zero, None)
                            for n in range(0, states, group):
                                _follow(
                                    work, rows, past(starts, number * size), history, n, d, part.count, sizes, lanes
                                )
                                _return(work, rows, drows, dstate, history, products, n, d, part.count, sizes, lanes)
                            for i in range(part.count):
                                at = x_at_step(position_of(table, part, i, sizes), part, sizes) + d
                                du = read(work, (LINES * i + 3) * width, None)
                                gradient = du * read(scales, i * padded + d, None)
                                if inputs == 1 and k > 0:
                                    gradient = gradient + read(dx, at, mask)
                                write(dx, at, gradient, mask)
                                write(dscales, i * padded + d, du * read(x, at, mask), None)
                                write(dlogs, i * padded + d, read(work, (LINES * i + 4) * width, None), None)
                        for i in range(part.count):
                            position = position_of(table, part, i, sizes)
                            at = head_at_step(position, part, sizes)
                            for head in range(heads):
                                put_item(dscale, at + head, _sum(dscales, i * padded + head * each, each))
                                put_item(dlog, at + head, _sum(dlogs, i * padded + head * each, each))
                            at = B_at_step(position, part, sizes)
                            for n in range(0, states, group):
                                row = 2 * (n * STEPS + i * group)
                                for j in range(group):
                                    _add_to(dB, at + n + j, item(drows, row + j))
                                    _add_to(dC, at + n + j, item(drows, row + group + j))

    return c_function(dual_backward)
