"""The scan's backward kernel on the CPU, and the final sum of the parameters' gradients."""

from typing import Any

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import (
    add_sums,
    put_exp2,
    put_sigmoid,
    put_softplus,
    sum_of,
    take_ticket,
    wholes,
)
from medmamba_variants.scan.cpu.kernels import (
    CHUNK,
    LN2,
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
    copy_group,
    group_of,
    is_factored,
    item,
    kept,
    past,
    pointer,
    prefetch,
    present,
    put_item,
    read,
    registers,
    splat,
    spread,
    width_of,
    write,
)


def backward_scratch(directions: int, states: int, rank: int, padded: int, lanes: Lanes) -> int:
    """Return how many floats a thread needs."""
    parameters = (directions * (states + rank) + states) * padded
    return parameters + CHUNK * (4 * states + rank + (7 + 2 * lanes.group + rank) * lanes.count)


@njit(nogil=True)
def _prepare(
    work: Any, x: Any, dx: Any, delta: Any, factors: Any, weights: Any, dy: Any, bias: Any, ddelta: Any, chunk: Any,
    following: Any, d: Any, sizes: Any, lanes: Any,
) -> None:  # fmt: skip
    """Write each step's Δ, Δ·x, dy, two zeros for the gradients of Δ·x and Δ, Δ's slope, and x, for the block at d."""
    width, channels = width_of(lanes), sizes.channels
    mask = present(channels - d, lanes)
    shift, zero = read(bias, chunk.k * channels + d, mask), splat(0.0, work)
    raw, steps, slopes = registers(lanes), registers(lanes), registers(lanes)
    for start in range(0, chunk.count, ABREAST):
        put_raw_steps(raw, delta, factors, weights, shift, chunk, start, d, mask, sizes, lanes)
        if not is_factored(lanes):
            for j in range(ABREAST):
                prefetch(ddelta, line_of(chunk, start + j, sizes) * channels + d, 1)
                prefetch(delta, line_of(following, start + j, sizes) * sizes.delta_stride + d, 0)
        for j in range(ABREAST):
            prefetch(dx, row_of(following, start + j) * channels + d, 1)
        put_softplus(steps, raw, lanes)
        put_sigmoid(slopes, raw, lanes)
        for j in range(ABREAST):
            row = row_of(chunk, start + j)
            u, step, at = read(x, row * channels + d, mask), read(steps, j * width, None), 7 * (start + j) * width
            write(work, at, step, None)
            write(work, at + width, step * u, None)
            write(work, at + 2 * width, read(dy, row * channels + d, mask), None)
            write(work, at + 3 * width, zero, None)
            write(work, at + 4 * width, zero, None)
            write(work, at + 5 * width, read(slopes, j * width, None), None)
            write(work, at + 6 * width, u, None)


@njit(nogil=True)
def _replay(work: Any, rows: Any, tape: Any, h: Any, a: Any, chunk: Any, lanes: Any) -> None:
    """Run one group of states through a chunk and write decay and state before each step to the tape."""
    width, group = width_of(lanes), group_of(lanes)
    decays, zero = registers(lanes), splat(0.0, work)
    for i in range(chunk.count):
        step, drive = read(work, 7 * i * width, None), read(work, (7 * i + 1) * width, None)
        put_exp2(decays, step, a, lanes)
        for j in range(group):
            write(tape, 2 * (i * group + j) * width, read(decays, j * width, None), None)
            write(tape, (2 * (i * group + j) + 1) * width, read(h, j * width, None), None)
        if starts_anew(chunk, i):
            for j in range(group):
                write(h, j * width, zero, None)
        for j in range(group):
            new = read(decays, j * width, None) * read(h, j * width, None) + drive * spread(rows, 2 * i * group + j)
            write(h, j * width, new, None)


@njit(nogil=True)
def _reverse(
    work: Any, rows: Any, sums: Any, tape: Any, h: Any, a: Any, g: Any, da: Any, chunk: Any, mask: Any, lanes: Any
) -> None:
    """Run back and add to each step's sums (dB and dC) and to the gradients of Δ·x, Δ and A.

    h holds the state after the chunk, g the gradient that flows back over the chunk's end; both are used up.
    """
    width, group = width_of(lanes), group_of(lanes)
    products_B, products_C, zero = registers(lanes), registers(lanes), splat(0.0, work)
    for i in range(chunk.count - 1, -1, -1):
        at, row = 7 * i * width, 2 * i * group
        step, drive, dout = read(work, at, None), read(work, at + width, None), read(work, at + 2 * width, None)
        ddrive, dstep = read(work, at + 3 * width, None), read(work, at + 4 * width, None)
        for j in range(group):
            s = 2 * (i * group + j) * width
            total = read(g, j * width, None) + dout * spread(rows, row + group + j)
            # An infinite B or C leaves NaN in the lanes outside the mask.
            write(products_B, j * width, kept(total * drive, mask), None)
            write(products_C, j * width, kept(dout * read(h, j * width, None), mask), None)
            ddrive = ddrive + total * spread(rows, row + j)
            write(h, j * width, read(tape, s + width, None), None)
            write(g, j * width, total * read(tape, s, None), None)
        add_sums(sums, row, products_B, products_C, lanes)
        anew = starts_anew(chunk, i)
        for j in range(group):
            flow = read(g, j * width, None) * (zero if anew else read(h, j * width, None))
            dstep = dstep + flow * read(a, j * width, None)
            write(da, j * width, read(da, j * width, None) + flow * step, None)
        if anew:
            # Before the state starts anew nothing flows back, not even NaN.
            for j in range(group):
                write(g, j * width, zero, None)
        write(work, at + 3 * width, ddrive, None)
        write(work, at + 4 * width, dstep, None)


@njit(nogil=True)
def _finish(
    work: Any, dx: Any, ddelta: Any, delta: Any, B: Any, C: Any, D: Any, checkpoints: Any, part: Any, add: Any,
    chunk: Any, following: Any, d: Any, sizes: Any, lanes: Any,
) -> None:  # fmt: skip
    """Write the chunk's dx, and add to the gradients of D and delta_bias, for the block at d.

    The gradient of delta goes where it belongs or, with a rank, into the place of Δ's. Meanwhile what the following
    chunk needs is prefetched: its checkpoints and, in the first block, what all blocks share.
    """
    width, channels, ln2 = width_of(lanes), sizes.channels, splat(LN2, work)
    mask = present(channels - d, lanes)
    skip, dskip, dshift = read(D, chunk.k * channels + d, mask), splat(0.0, work), splat(0.0, work)
    if following.number > 0:
        for n in range(sizes.states):
            prefetch(checkpoints, kept_at(following, n, sizes) + d, 0)
    for i in range(chunk.count):
        row, at = row_of(chunk, i), 7 * i * width
        if d == 0:
            for n in range(0, sizes.states, width):
                ask_for_rows(delta, B, C, following, i, n, sizes, lanes)
        dout, ddrive = read(work, at + 2 * width, None), read(work, at + 3 * width, None)
        u, slope = read(work, at + 6 * width, None), read(work, at + 5 * width, None)
        # The kernels know A times log2 e, hence the ln 2.
        draw = kept((read(work, at + 4 * width, None) * ln2 + ddrive * u) * slope, mask)
        if not is_factored(lanes):
            write(ddelta, (row * sizes.directions + chunk.k) * channels + d, draw, mask)
        else:
            write(work, at + 4 * width, draw, None)
        dshift, dskip = dshift + draw, dskip + dout * u
        du = ddrive * read(work, at, None) + dout * skip
        if add:
            du = du + read(dx, row * channels + d, mask)
        write(dx, row * channels + d, du, mask)
    at = (sizes.directions * sizes.states + chunk.k) * sizes.padded + d
    write(part, at, read(part, at, None) + dskip, None)
    at += sizes.directions * sizes.padded
    write(part, at, read(part, at, None) + dshift, None)


@njit(nogil=True)
def _split(
    work: Any, products: Any, factors: Any, weights: Any, part: Any, chunk: Any, d: Any, sizes: Any, lanes: Any
) -> None:
    """Add the gradients of delta's factors, not yet summed over lanes, and of delta_weight, for the block at d.

    `products` (CHUNK, rank, lanes) starts anew with the first block.
    """
    if not is_factored(lanes):
        return
    width, rank = width_of(lanes), sizes.rank
    for r in range(rank):
        weight = read(weights, (chunk.k * rank + r) * sizes.padded + d, None)
        at = (sizes.directions * (sizes.states + 2) + chunk.k * rank + r) * sizes.padded + d
        dweight = read(part, at, None)
        for i in range(chunk.count):
            draw, place = read(work, (7 * i + 4) * width, None), (i * rank + r) * width
            dweight = dweight + draw * spread(factors, i * rank + r)
            if d == 0:
                write(products, place, draw * weight, None)
            else:
                write(products, place, read(products, place, None) + draw * weight, None)
        write(part, at, dweight, None)


@njit(nogil=True)
def _clear(dx: Any, ddelta: Any, dB: Any, dC: Any, base: Any, plan: Any, sizes: Any) -> None:
    """Zero one batch item's gradients of those directions which leave positions out."""
    for k in range(sizes.directions):
        if visits_of(plan, k, sizes) < sizes.length:
            for row in range(base, base + sizes.length):
                line = row * sizes.directions + k
                for n in range(line * sizes.states, (line + 1) * sizes.states):
                    put_item(dB, n, 0.0)
                    put_item(dC, n, 0.0)
                columns = sizes.channels if sizes.rank == 0 else sizes.rank
                for d in range(line * columns, (line + 1) * columns):
                    put_item(ddelta, d, 0.0)
                if k == sizes.directions - 1:
                    for d in range(row * sizes.channels, (row + 1) * sizes.channels):
                        put_item(dx, d, 0.0)


def backward_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel for one kind of vector."""

    def scan_backward(arguments):
        thread, floats, plan = take_place(arguments)
        if thread < 0:
            return
        ticket = arguments + 8 * (SHARED - 1)
        (
            dy_at, x_at, delta_at, A_at, B_at, C_at, D_at, bias_at, weight_at, table, resets, checkpoints_at, dx_at,
            ddelta_at, dB_at, dC_at, parts_at, tasks, batch, length, directions, steps, channels, states, rank,
            delta_stride, B_stride, C_stride,
        ) = wholes(arguments + 8 * SHARED, 28)  # fmt: skip
        width, group = width_of(lanes), group_of(lanes)
        padded = (channels + width - 1) // width * width
        sizes = Sizes(length, directions, steps, channels, states, rank, delta_stride, B_stride, C_stride, padded)
        dy, x, delta = pointer(dy_at, lanes), pointer(x_at, lanes), pointer(delta_at, lanes)
        B, C, D, bias = pointer(B_at, lanes), pointer(C_at, lanes), pointer(D_at, lanes), pointer(bias_at, lanes)
        dx, ddelta = pointer(dx_at, lanes), pointer(ddelta_at, lanes)
        dB, dC = pointer(dB_at, lanes), pointer(dC_at, lanes)
        checkpoints, rates = pointer(checkpoints_at, lanes), pointer(floats, lanes)
        # The gradient that flows back over the chunk's end, per state and channel.
        carried = past(rates, directions * states * padded)
        rows = past(carried, states * padded)
        # A chunk's dB and dC, laid out like the rows.
        sums = past(rows, 2 * CHUNK * states)
        work = past(sums, 2 * CHUNK * states)
        # Per step and state of the group: decay, state before the step.
        tape = past(work, 7 * CHUNK * width)
        weights = past(tape, 2 * CHUNK * group * width)
        factors = past(weights, directions * rank * padded)
        products = past(factors, CHUNK * rank)
        h, a, g, da, zero = registers(lanes), registers(lanes), registers(lanes), registers(lanes), splat(0.0, x)
        chunks = make_plan(table, resets, plan, sizes)
        whole_map = visits_of(plan, directions - 1, sizes) == length
        fill_by_channel(rates, pointer(A_at, lanes), states, LOG2E, sizes)
        fill_by_channel(weights, pointer(weight_at, lanes), rank, 1.0, sizes)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            # This task's gradients: A as (K, d_state, padded channels), then D and delta_bias as (K, padded channels).
            size = directions * (states + 2 + rank) * padded
            part = past(pointer(parts_at, lanes), task * size)
            for n in range(0, size, width):
                write(part, n, zero, None)
            for base in range(task * batch // tasks * length, (task + 1) * batch // tasks * length, length):
                _clear(dx, ddelta, dB, dC, base, plan, sizes)
                carried_k = -1
                for index in range(chunks - 1, -1, -1):
                    chunk = chunk_at(plan, index, base, sizes)
                    following = chunk_at(plan, max(index - 1, 0), base, sizes)
                    if index == 0:
                        following = chunk_at(plan, chunks - 1, (base + length) % (batch * length), sizes)
                    k = chunk.k
                    if k != carried_k:
                        for n in range(0, states * padded, width):
                            write(carried, n, zero, None)
                        carried_k = k
                    fill_rows(rows, B, C, chunk, sizes, lanes)
                    fill_factors(factors, delta, chunk, sizes, lanes)
                    for n in range(0, states, group):
                        for i in range(2 * chunk.count * group):
                            put_item(sums, 2 * n * CHUNK + i, 0.0)
                    for d in range(0, padded, width):
                        mask = present(channels - d, lanes)
                        _prepare(
                            work, x, dx, delta, factors, weights, dy, bias, ddelta, chunk, following, d, sizes, lanes
                        )
                        for n in range(0, states, group):
                            for j in range(group):
                                write(h, j * width, zero, None)
                                if chunk.number > 0:
                                    kept = read(checkpoints, kept_at(chunk, n + j, sizes) + d, None)
                                    write(h, j * width, kept, None)
                                write(a, j * width, read(rates, (k * states + n + j) * padded + d, None), None)
                                write(g, j * width, read(carried, (n + j) * padded + d, None), None)
                                write(da, j * width, read(part, (k * states + n + j) * padded + d, None), None)
                            mine = past(rows, 2 * n * CHUNK)
                            _replay(work, mine, tape, h, a, chunk, lanes)
                            _reverse(work, mine, past(sums, 2 * n * CHUNK), tape, h, a, g, da, chunk, mask, lanes)
                            for j in range(group):
                                write(carried, (n + j) * padded + d, read(g, j * width, None), None)
                                write(part, (k * states + n + j) * padded + d, read(da, j * width, None), None)
                        add = k < directions - 1 or not whole_map
                        _finish(
                            work, dx, ddelta, delta, B, C, D, checkpoints, part, add, chunk, following, d, sizes, lanes
                        )
                        _split(work, products, factors, weights, part, chunk, d, sizes, lanes)
                    for i in range(chunk.count):
                        line = line_of(chunk, i, sizes)
                        for n in range(0, states, group):
                            copy_group(dB, line * states + n, sums, 2 * (n * CHUNK + i * group), lanes)
                            copy_group(dC, line * states + n, sums, 2 * (n * CHUNK + i * group) + group, lanes)
                        for r in range(rank if is_factored(lanes) else 0):
                            total = sum_of(read(products, (i * rank + r) * width, None))
                            put_item(ddelta, line * rank + r, total)

    return c_function(scan_backward)


def sum_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that sums the tasks' gradients of A, D, delta_bias and delta_weight, in order."""

    def scan_sum(arguments):
        parts_at, tasks, dA_at, dD_at, dbias_at, dweight_at, directions, channels, states, rank = wholes(arguments, 10)
        width = width_of(lanes)
        parts, dA = pointer(parts_at, lanes), pointer(dA_at, lanes)
        dD, dbias, dweight = pointer(dD_at, lanes), pointer(dbias_at, lanes), pointer(dweight_at, lanes)
        padded = (channels + width - 1) // width * width
        size = directions * (states + 2 + rank) * padded
        for n in range(0, size, width):
            total = read(parts, n, None)
            for task in range(1, tasks):
                total = total + read(parts, task * size + n, None)
            write(parts, n, total, None)
        for k in range(directions):
            for d in range(channels):
                for n in range(states):
                    put_item(dA, (k * channels + d) * states + n, item(parts, (k * states + n) * padded + d))
                put_item(dD, k * channels + d, item(parts, (directions * states + k) * padded + d))
                put_item(dbias, k * channels + d, item(parts, (directions * (states + 1) + k) * padded + d))
                for r in range(rank if is_factored(lanes) else 0):
                    at = (directions * (states + 2) + k * rank + r) * padded + d
                    put_item(dweight, (k * channels + d) * rank + r, item(parts, at))

    return c_function(scan_sum)
