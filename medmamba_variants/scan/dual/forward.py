"""The dual scan's forward kernel on the CPU."""

from typing import Any

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import SHARED, c_function, take_place
from medmamba_variants.scan.cpu.vectors import (
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
from medmamba_variants.scan.dual.kernels import (
    LINES,
    STEPS,
    Extents,
    Part,
    fill_channels,
    fill_rows,
    position_of,
    prepare,
    y_at_step,
)


def forward_floats(states: int, padded: int, lanes: Lanes) -> int:
    """How many floats a thread needs in the forward kernel."""
    return states * padded + STEPS * (2 * states + 2 * padded + LINES * lanes.count)


@njit(nogil=True)
def _advance(work: Any, rows: Any, state: Any, n: Any, d: Any, count: Any, sizes: Any, lanes: Any) -> None:
    """Run the group of states at n of the block at d through a chunk and add C·h to each step's third line."""
    width, group = width_of(lanes), group_of(lanes)
    state, rows = past(state, n * sizes.padded + d), past(rows, 2 * n * STEPS)
    h = registers(lanes)
    for j in range(group):
        write(h, j * width, read(state, j * sizes.padded, None), None)
    for i in range(count):
        at, row = LINES * i * width, 2 * i * group
        decay, u, total = read(work, at, None), read(work, at + width, None), read(work, at + 2 * width, None)
        for j in range(group):
            new = decay * read(h, j * width, None) + u * spread(rows, row + j)
            write(h, j * width, new, None)
            total = total + new * spread(rows, row + group + j)
        write(work, at + 2 * width, total, None)
    for j in range(group):
        write(state, j * sizes.padded, read(h, j * width, None), None)


def forward_kernel(lanes: Lanes) -> CFunc:
    """The forward kernel for one kind of vector."""

    def dual_forward(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        ticket = arguments + 8 * (SHARED - 1)
        (
            x_at, scale_at, decay_at, B_at, C_at, table, y_at,
            tasks, length, K, groups, heads, channels, states, inputs, keys, outputs,
        ) = wholes(arguments + 8 * SHARED, 17)  # fmt: skip
        width, group = width_of(lanes), group_of(lanes)
        padded = (channels + width - 1) // width * width
        sizes = Extents(length, K, groups, heads, channels, states, inputs, keys, outputs, padded)
        x, scale, decay = pointer(x_at, lanes), pointer(scale_at, lanes), pointer(decay_at, lanes)
        B, C, y = pointer(B_at, lanes), pointer(C_at, lanes), pointer(y_at, lanes)
        state = pointer(floats, lanes)
        rows = past(state, states * padded)
        decays = past(rows, 2 * STEPS * states)
        scales = past(decays, STEPS * padded)
        work = past(scales, STEPS * padded)
        zero = splat(0.0, x)
        while True:
            task = take_ticket(ticket)
            if task >= tasks:
                break
            for k in range(K):
                for g in range(groups):
                    for at in range(0, states * padded, width):
                        write(state, at, zero, None)
                    for first in range(0, length, STEPS):
                        part = Part(task * length, k, g, first, min(STEPS, length - first))
                        fill_rows(rows, B, C, table, part, sizes, lanes)
                        fill_channels(decays, decay, table, part, sizes)
                        fill_channels(scales, scale, table, part, sizes)
                        for d in range(0, channels, width):
                            mask = present(channels - d, lanes)
                            prepare(work, decays, scales, x, table, part, d, sizes, lanes)
                            for i in range(part.count):
                                total = zero
                                if outputs == 1 and k > 0:
                                    at = y_at_step(position_of(table, part, i, sizes), part, sizes)
                                    total = read(y, at + d, mask)
                                write(work, (LINES * i + 2) * width, total, None)
                            for n in range(0, states, group):
                                _advance(work, rows, state, n, d, part.count, sizes, lanes)
                            for i in range(part.count):
                                at = y_at_step(position_of(table, part, i, sizes), part, sizes)
                                write(y, at + d, read(work, (LINES * i + 2) * width, None), mask)

    return c_function(dual_forward)
