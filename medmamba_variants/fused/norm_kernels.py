"""CPU kernels of layer norm: alone, multiplied by silu of a gate, or over the pixels of 2×2 patches.

A row is what is normalised together: the channels of a position, or those of the four pixels of a patch, piece after
piece in the order of patch merging. ABREAST rows advance side by side, the last one repeated past the end.
"""

import math
from typing import Any, NamedTuple

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import put_sigmoid, sum_of, take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import SHARED, c_function, take_place
from medmamba_variants.scan.cpu.vectors import (
    ABREAST,
    Lanes,
    item,
    kept,
    past,
    pointer,
    present,
    put_item,
    read,
    registers,
    splat,
    width_of,
    write,
)


class Rows(NamedTuple):
    """The rows of one call: `pieces` (1 or 4) of `channels` each, `padded` channels in whole vectors.

    Strides are distances between the rows of a map; `columns` is the width of the map of patches.
    """

    count: Any
    channels: Any
    padded: Any
    pieces: Any
    columns: Any
    stride: Any
    gate_stride: Any


@njit(nogil=True)
def _piece(rows: Any, row: Any, piece: Any, stride: Any) -> Any:
    """Return where a piece of a row starts in a map whose rows lie `stride` apart."""
    if rows.pieces == 1:
        return row * stride
    # Of two lines of pixels each line of patches has the first in pieces 0 and 2, the second in 1 and 3.
    line, column = row // rows.columns, row % rows.columns
    return ((2 * line + piece % 2) * 2 * rows.columns + 2 * column + piece // 2) * stride


@njit(nogil=True)
def _put_mean_and_rate(stats: Any, x: Any, row: Any, epsilon: Any, rows: Any, lanes: Any) -> None:
    """Write a row's mean and the inverse of its standard deviation."""
    width, size = width_of(lanes), rows.pieces * rows.channels
    total = splat(0.0, x)
    for piece in range(rows.pieces):
        start = _piece(rows, row, piece, rows.stride)
        for d in range(0, rows.channels, width):
            total = total + read(x, start + d, present(rows.channels - d, lanes))
    mean = sum_of(total) / size
    middle, squares = splat(mean, x), splat(0.0, x)
    for piece in range(rows.pieces):
        start = _piece(rows, row, piece, rows.stride)
        for d in range(0, rows.channels, width):
            mask = present(rows.channels - d, lanes)
            off = kept(read(x, start + d, mask) - middle, mask)
            squares = squares + off * off
    put_item(stats, 2 * row, mean)
    put_item(stats, 2 * row + 1, 1.0 / math.sqrt(sum_of(squares) / size + epsilon))


def norm_forward_kernel(lanes: Lanes) -> CFunc:
    """Return the forward kernel for one kind of vector."""

    def norm_forward(arguments):
        thread, _, _ = take_place(arguments)
        if thread < 0:
            return
        (
            x_at, gate_at, weight_at, bias_at, epsilon_at, out_at, stats_at, tasks, each, count, channels, pieces,
            columns, stride, gate_stride,
        ) = wholes(arguments + 8 * SHARED, 15)  # fmt: skip
        width = width_of(lanes)
        rows = Rows(count, channels, (channels + width - 1) // width * width, pieces, columns, stride, gate_stride)
        x, gate, out = pointer(x_at, lanes), pointer(gate_at, lanes), pointer(out_at, lanes)
        weight, bias, stats = pointer(weight_at, lanes), pointer(bias_at, lanes), pointer(stats_at, lanes)
        epsilon, slopes, raw = item(pointer(epsilon_at, lanes), 0), registers(lanes), registers(lanes)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            last = min((task + 1) * each, count) - 1
            for row in range(task * each, last + 1, ABREAST):
                for j in range(min(ABREAST, last + 1 - row)):
                    _put_mean_and_rate(stats, x, row + j, epsilon, rows, lanes)
                for piece in range(pieces):
                    for d in range(0, channels, width):
                        mask, at = present(channels - d, lanes), piece * channels + d
                        scale, shift = read(weight, at, mask), read(bias, at, mask)
                        if gate_at != 0:
                            for j in range(ABREAST):
                                z = read(gate, min(row + j, last) * gate_stride + d, mask)
                                write(raw, j * width, z, None)
                            put_sigmoid(slopes, raw, lanes)
                        for j in range(ABREAST):
                            one = min(row + j, last)
                            mean, rate = splat(item(stats, 2 * one), x), splat(item(stats, 2 * one + 1), x)
                            y = (read(x, _piece(rows, one, piece, stride) + d, mask) - mean) * rate * scale + shift
                            if gate_at != 0:
                                y = y * (read(raw, j * width, None) * read(slopes, j * width, None))
                            write(out, one * pieces * channels + at, y, mask)

    return c_function(norm_forward)


def backward_scratch(padded: int, pieces: int) -> int:
    """Return how many floats a thread of the backward kernel needs."""
    return ABREAST * padded * pieces


def norm_backward_kernel(lanes: Lanes) -> CFunc:
    """Return the backward kernel: the gradients of map and gate, and each task's part of those of weight and bias.

    With n = (x − mean) · rate, y = n · weight + bias and g = silu(gate) the output is y · g. Parts are (tasks, 2,
    pieces, padded channels), weight's before bias's.
    """

    def norm_backward(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        (
            dout_at, x_at, gate_at, weight_at, bias_at, stats_at, dx_at, dgate_at, parts_at, tasks, each, count,
            channels, pieces, columns, stride, gate_stride,
        ) = wholes(arguments + 8 * SHARED, 17)  # fmt: skip
        width = width_of(lanes)
        padded, size = (channels + width - 1) // width * width, pieces * channels
        rows = Rows(count, channels, padded, pieces, columns, stride, gate_stride)
        dout, x, gate, dx = (
            pointer(dout_at, lanes),
            pointer(x_at, lanes),
            pointer(gate_at, lanes),
            pointer(dx_at, lanes),
        )
        weight, bias, stats = pointer(weight_at, lanes), pointer(bias_at, lanes), pointer(stats_at, lanes)
        dgate, work, zero = pointer(dgate_at, lanes), pointer(floats, lanes), splat(0.0, x)
        slopes, raw, sums, products = registers(lanes), registers(lanes), registers(lanes), registers(lanes)
        one = splat(1.0, x)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            parts = past(pointer(parts_at, lanes), task * 2 * pieces * padded)
            for at in range(0, 2 * pieces * padded, width):
                write(parts, at, zero, None)
            last = min((task + 1) * each, count) - 1
            for row in range(task * each, last + 1, ABREAST):
                for j in range(ABREAST):
                    write(sums, j * width, zero, None)
                    write(products, j * width, zero, None)
                for piece in range(pieces):
                    for d in range(0, channels, width):
                        mask, at, line = present(channels - d, lanes), piece * channels + d, piece * padded + d
                        scale, shift = read(weight, at, mask), read(bias, at, mask)
                        if gate_at != 0:
                            for j in range(ABREAST):
                                z = read(gate, min(row + j, last) * gate_stride + d, mask)
                                write(raw, j * width, z, None)
                            put_sigmoid(slopes, raw, lanes)
                        dweight = read(parts, line, None)
                        dbias = read(parts, pieces * padded + line, None)
                        for j in range(ABREAST):
                            this = min(row + j, last)
                            mean, rate = splat(item(stats, 2 * this), x), splat(item(stats, 2 * this + 1), x)
                            n = kept((read(x, _piece(rows, this, piece, stride) + d, mask) - mean) * rate, mask)
                            dy = read(dout, this * size + at, mask)
                            if gate_at != 0:
                                z, s = read(raw, j * width, None), read(slopes, j * width, None)
                                dz = dy * (n * scale + shift) * (s * (one + z * (one - s)))
                                write(dgate, this * size + at, dz, mask)
                                dy = dy * (z * s)
                            # What repeats the last row is not added again.
                            present_row = splat(1.0 if row + j <= last else 0.0, x)
                            dweight = dweight + dy * n * present_row
                            dbias = dbias + dy * present_row
                            dn = dy * scale
                            write(work, (j * pieces + piece) * padded + d, dn, None)
                            write(sums, j * width, read(sums, j * width, None) + dn, None)
                            write(products, j * width, read(products, j * width, None) + dn * n, None)
                        write(parts, line, dweight, None)
                        write(parts, pieces * padded + line, dbias, None)
                for j in range(min(ABREAST, last + 1 - row)):
                    this = row + j
                    rate = item(stats, 2 * this + 1)
                    shift, slope = sum_of(read(sums, j * width, None)), sum_of(read(products, j * width, None))
                    mean, scale = splat(item(stats, 2 * this), x), splat(rate, x)
                    shift_all, slope_all = splat(shift / size, x), splat(slope / size * rate, x)
                    for piece in range(pieces):
                        start = _piece(rows, this, piece, stride)
                        target = _piece(rows, this, piece, channels)
                        for d in range(0, channels, width):
                            mask = present(channels - d, lanes)
                            off = read(x, start + d, mask) - mean
                            dn = read(work, (j * pieces + piece) * padded + d, None)
                            write(dx, target + d, (dn - shift_all - off * slope_all) * scale, mask)

    return c_function(norm_backward)
