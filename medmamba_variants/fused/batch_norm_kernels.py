"""CPU kernels of batch norm in training with a floor under its output: 0 for ReLU, −∞ for none.

The rows (positions of all images) are divided among tasks. Each measures its own rows' mean and squared deviations;
the next kernel joins them by Chan's formula in the order of tasks, so that threads change no bit.
"""

import math
from typing import Any

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.fused.vectors import at_least, where_above
from medmamba_variants.scan.cpu.functions import take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import SHARED, c_function, take_place
from medmamba_variants.scan.cpu.vectors import (
    Lanes,
    item,
    kept,
    past,
    pointer,
    present,
    put_item,
    read,
    splat,
    width_of,
    write,
)


@njit(nogil=True)
def _start(task: Any, tasks: Any, rows: Any) -> Any:
    """Return the first row of a task; rows are divided as evenly as possible."""
    return task * rows // tasks


def measure_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that writes each task's means and squared deviations, parts (tasks, 2, padded channels)."""

    def batch_norm_measure(arguments):
        thread, _, _ = take_place(arguments)
        if thread < 0:
            return
        x_at, parts_at, tasks, rows, channels, stride = wholes(arguments + 8 * SHARED, 6)
        width = width_of(lanes)
        padded, x = (channels + width - 1) // width * width, pointer(x_at, lanes)
        zero = splat(0.0, x)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            parts = past(pointer(parts_at, lanes), task * 2 * padded)
            first, end = _start(task, tasks, rows), _start(task + 1, tasks, rows)
            pairs = first + (end - first) // 2 * 2
            for d in range(0, channels, width):
                mask = present(channels - d, lanes)
                # Two sums: one alone would wait for each addition.
                even, odd = zero, zero
                for row in range(first, pairs, 2):
                    even = even + read(x, row * stride + d, mask)
                    odd = odd + read(x, (row + 1) * stride + d, mask)
                if pairs < end:
                    even = even + read(x, pairs * stride + d, mask)
                mean = (even + odd) * splat(1.0 / (end - first), x)
                even, odd = zero, zero
                for row in range(first, pairs, 2):
                    off = read(x, row * stride + d, mask) - mean
                    even = even + off * off
                    off = read(x, (row + 1) * stride + d, mask) - mean
                    odd = odd + off * off
                if pairs < end:
                    off = read(x, pairs * stride + d, mask) - mean
                    even = even + off * off
                write(parts, d, mean, None)
                write(parts, padded + d, kept(even + odd, mask), None)

    return c_function(batch_norm_measure)


def apply_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that joins the parts, normalises, and keeps the statistics for backward and evaluation.

    `stats` (2, padded channels) holds mean and inverse standard deviation; `constants` are epsilon, the share of the
    running averages that a step replaces, and the floor.
    """

    def batch_norm_apply(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        (
            x_at, parts_at, weight_at, bias_at, constants_at, out_at, stats_at, mean_at, variance_at, tasks, rows,
            channels, stride,
        ) = wholes(arguments + 8 * SHARED, 13)  # fmt: skip
        width = width_of(lanes)
        padded = (channels + width - 1) // width * width
        x, out, own = pointer(x_at, lanes), pointer(out_at, lanes), pointer(floats, lanes)
        weight, bias, parts = pointer(weight_at, lanes), pointer(bias_at, lanes), pointer(parts_at, lanes)
        constants, stats = pointer(constants_at, lanes), pointer(stats_at, lanes)
        running_mean, running_variance = pointer(mean_at, lanes), pointer(variance_at, lanes)
        epsilon, share, floor = item(constants, 0), item(constants, 1), splat(item(constants, 2), x)
        # Every thread joins them for itself, which is less work than another kernel.
        for d in range(channels):
            mean, squares = 0.0, 0.0
            for task in range(tasks):
                number = _start(task + 1, tasks, rows) - _start(task, tasks, rows)
                mean += item(parts, 2 * task * padded + d) * (number / rows)
            for task in range(tasks):
                number = _start(task + 1, tasks, rows) - _start(task, tasks, rows)
                off = item(parts, 2 * task * padded + d) - mean
                squares += item(parts, (2 * task + 1) * padded + d) + number * off * off
            put_item(own, d, mean)
            put_item(own, padded + d, 1.0 / math.sqrt(squares / rows + epsilon))
            put_item(own, 2 * padded + d, squares / (rows - 1))
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            if task == 0:
                for d in range(channels):
                    put_item(stats, d, item(own, d))
                    put_item(stats, padded + d, item(own, padded + d))
                    if mean_at != 0:
                        old, new = item(running_mean, d), item(own, d)
                        put_item(running_mean, d, (1.0 - share) * old + share * new)
                        old, new = item(running_variance, d), item(own, 2 * padded + d)
                        put_item(running_variance, d, (1.0 - share) * old + share * new)
            for d in range(0, channels, width):
                mask = present(channels - d, lanes)
                mean, scale = read(own, d, None), read(own, padded + d, None) * read(weight, d, mask)
                shift = read(bias, d, mask)
                for row in range(_start(task, tasks, rows), _start(task + 1, tasks, rows)):
                    y = (read(x, row * stride + d, mask) - mean) * scale + shift
                    write(out, row * channels + d, at_least(y, floor), mask)

    return c_function(batch_norm_apply)


def reduce_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that writes each task's parts of the gradients of bias and weight, (tasks, 2, padded)."""

    def batch_norm_reduce(arguments):
        thread, _, _ = take_place(arguments)
        if thread < 0:
            return
        (
            dout_at, x_at, weight_at, bias_at, constants_at, stats_at, parts_at, tasks, rows, channels, stride,
        ) = wholes(arguments + 8 * SHARED, 11)  # fmt: skip
        width = width_of(lanes)
        padded = (channels + width - 1) // width * width
        dout, x, stats = pointer(dout_at, lanes), pointer(x_at, lanes), pointer(stats_at, lanes)
        weight, bias = pointer(weight_at, lanes), pointer(bias_at, lanes)
        floor, zero = splat(item(pointer(constants_at, lanes), 2), x), splat(0.0, x)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            parts = past(pointer(parts_at, lanes), task * 2 * padded)
            for d in range(0, channels, width):
                mask = present(channels - d, lanes)
                mean, rate, shift = read(stats, d, mask), read(stats, padded + d, mask), read(bias, d, mask)
                scale = rate * read(weight, d, mask)
                dbias, products = zero, zero
                for row in range(_start(task, tasks, rows), _start(task + 1, tasks, rows)):
                    off = read(x, row * stride + d, mask) - mean
                    # Where the floor stopped the output, computed again as it was, no gradient passes.
                    dy = where_above(off * scale + shift, floor, read(dout, row * channels + d, mask))
                    dbias = dbias + dy
                    products = products + dy * off
                write(parts, d, dbias, None)
                write(parts, padded + d, products * rate, None)

    return c_function(batch_norm_reduce)


def backward_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that sums the parts into the gradients of weight and bias, and writes that of the map."""

    def batch_norm_backward(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        (
            dout_at, x_at, weight_at, bias_at, constants_at, stats_at, parts_at, dx_at, dweight_at, dbias_at, tasks,
            rows, channels, stride,
        ) = wholes(arguments + 8 * SHARED, 14)  # fmt: skip
        width = width_of(lanes)
        padded = (channels + width - 1) // width * width
        dout, x, dx, stats = (
            pointer(dout_at, lanes),
            pointer(x_at, lanes),
            pointer(dx_at, lanes),
            pointer(stats_at, lanes),
        )
        weight, bias, parts = pointer(weight_at, lanes), pointer(bias_at, lanes), pointer(parts_at, lanes)
        dweight, dbias, own = pointer(dweight_at, lanes), pointer(dbias_at, lanes), pointer(floats, lanes)
        floor, zero = splat(item(pointer(constants_at, lanes), 2), x), splat(0.0, x)
        for at in range(0, 2 * padded, width):
            total = zero
            for task in range(tasks):
                total = total + read(parts, task * 2 * padded + at, None)
            write(own, at, total, None)
        share = splat(1.0 / rows, x)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            for d in range(0, channels, width):
                mask = present(channels - d, lanes)
                if task == 0:
                    write(dbias, d, read(own, d, None), mask)
                    write(dweight, d, read(own, padded + d, None), mask)
                mean, rate, shift = read(stats, d, mask), read(stats, padded + d, mask), read(bias, d, mask)
                scale = rate * read(weight, d, mask)
                level, slope = read(own, d, None) * share, read(own, padded + d, None) * share * rate
                for row in range(_start(task, tasks, rows), _start(task + 1, tasks, rows)):
                    off = read(x, row * stride + d, mask) - mean
                    dy = where_above(off * scale + shift, floor, read(dout, row * channels + d, mask))
                    write(dx, row * channels + d, (dy - level - off * slope) * scale, mask)

    return c_function(batch_norm_backward)
