"""CPU kernels of the channel shuffle of two equal branches: interleaved and added to a map, and taken apart again."""

from numba.core.ccallback import CFunc

from medmamba_variants.fused.vectors import unzipped, zipped
from medmamba_variants.scan.cpu.functions import take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import SHARED, c_function, take_place
from medmamba_variants.scan.cpu.vectors import Lanes, pointer, present, read, width_of, write


def interleave_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that adds to a map the channels of two others in turns."""

    def join_interleave(arguments):
        thread, _, _ = take_place(arguments)
        if thread < 0:
            return
        x_at, first_at, second_at, out_at, tasks, rows, channels = wholes(arguments + 8 * SHARED, 7)
        width, x, out = width_of(lanes), pointer(x_at, lanes), pointer(out_at, lanes)
        first, second = pointer(first_at, lanes), pointer(second_at, lanes)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            for row in range(task * rows // tasks, (task + 1) * rows // tasks):
                for d in range(0, channels, width):
                    mask, at = present(channels - d, lanes), row * channels + d
                    a, b, at = read(first, at, mask), read(second, at, mask), 2 * at
                    lower, upper = present(2 * (channels - d), lanes), present(2 * (channels - d) - width, lanes)
                    write(out, at, read(x, at, lower) + zipped(a, b, 0), lower)
                    write(out, at + width, read(x, at + width, upper) + zipped(a, b, 1), upper)

    return c_function(join_interleave)


def separate_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that writes every other channel of a map to each of two others."""

    def join_separate(arguments):
        thread, _, _ = take_place(arguments)
        if thread < 0:
            return
        x_at, first_at, second_at, tasks, rows, channels = wholes(arguments + 8 * SHARED, 6)
        width, x = width_of(lanes), pointer(x_at, lanes)
        first, second = pointer(first_at, lanes), pointer(second_at, lanes)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            for row in range(task * rows // tasks, (task + 1) * rows // tasks):
                for d in range(0, channels, width):
                    mask, at = present(channels - d, lanes), row * channels + d
                    lower = read(x, 2 * at, present(2 * (channels - d), lanes))
                    upper = read(x, 2 * at + width, present(2 * (channels - d) - width, lanes))
                    write(first, at, unzipped(lower, upper, 0), mask)
                    write(second, at, unzipped(lower, upper, 1), mask)

    return c_function(join_separate)
