"""CPU kernels of a depth-wise convolution with SiLU, which keep the map's size.

The side of the filters is the lanes' group, a constant, so that loops over taps are unrolled. A task takes images
whole; of one a block of channels, one vector wide, is laid out with its border of zeros, where no tap lies outside. The
output before SiLU is computed again for the backward pass.
"""

from typing import Any, NamedTuple

from numba import njit
from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import put_sigmoid, take_ticket, wholes
from medmamba_variants.scan.cpu.kernels import SHARED, c_function, take_place
from medmamba_variants.scan.cpu.vectors import (
    ABREAST,
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
    width_of,
    write,
)


class Map(NamedTuple):
    """The sizes of one call: a map's, and `across`, the length of a line with its border.

    A line is read ABREAST columns at once, so that its border is as much wider on the right.
    """

    height: Any
    width: Any
    channels: Any
    padded: Any
    across: Any


@njit(nogil=True)
def _map_of(height: Any, width: Any, channels: Any, lanes: Any) -> Any:
    count = width_of(lanes)
    padded = (channels + count - 1) // count * count
    return Map(height, width, channels, padded, width + group_of(lanes) + ABREAST - 2)


def filter_scratch(height: int, width: int, side: int, padded: int, lane_count: int) -> int:
    """Return how many floats a thread needs: the taps, a block of the map and one of its gradient."""
    return side * side * padded + 2 * (height + side - 1) * (width + side + ABREAST - 2) * lane_count


@njit(nogil=True)
def _clear(block: Any, sizes: Any, lanes: Any) -> None:
    """Write zeros, border included."""
    width, zero = width_of(lanes), splat(0.0, block)
    for at in range((sizes.height + group_of(lanes) - 1) * sizes.across):
        write(block, at * width, zero, None)


@njit(nogil=True)
def _lay_out(block: Any, x: Any, base: Any, d: Any, sizes: Any, lanes: Any) -> None:
    """Copy the block of channels at d of the image whose first row is `base` inside the border."""
    width, edge, mask = width_of(lanes), group_of(lanes) // 2, present(sizes.channels - d, lanes)
    for i in range(sizes.height):
        start = (i + edge) * sizes.across + edge
        for j in range(sizes.width):
            pixel = read(x, (base + i * sizes.width + j) * sizes.channels + d, mask)
            write(block, (start + j) * width, pixel, None)


@njit(nogil=True)
def _fill_taps(taps: Any, weight: Any, sizes: Any, lanes: Any) -> None:
    """Write the filters (channels, side²) as (side², padded channels), zero in the padding."""
    count = group_of(lanes) * group_of(lanes)
    for tap in range(count):
        for d in range(sizes.channels):
            put_item(taps, tap * sizes.padded + d, item(weight, d * count + tap))
        for d in range(sizes.channels, sizes.padded):
            put_item(taps, tap * sizes.padded + d, 0.0)


@njit(nogil=True)
def _put_filtered(
    target: Any, block: Any, taps: Any, first: Any, i: Any, j: Any, d: Any, back: Any, sizes: Any, lanes: Any
) -> None:  # fmt: skip
    """Write `first` plus the filtered block for ABREAST columns from j of line i; `back` turns the filter round."""
    width, side = width_of(lanes), group_of(lanes)
    a, b, c, e = first, first, first, first
    for row in range(side):
        line = ((i + row) * sizes.across + j) * width
        for column in range(side):
            tap = row * side + column
            if back:
                tap = side * side - 1 - tap
            weight = read(taps, tap * sizes.padded + d, None)
            at = line + column * width
            a = a + read(block, at, None) * weight
            b = b + read(block, at + width, None) * weight
            c = c + read(block, at + 2 * width, None) * weight
            e = e + read(block, at + 3 * width, None) * weight
    write(target, 0, a, None)
    write(target, width, b, None)
    write(target, 2 * width, c, None)
    write(target, 3 * width, e, None)


def filter_forward_kernel(lanes: Lanes) -> CFunc:
    """Return the forward kernel for one kind of vector."""

    def filter_forward(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        x_at, weight_at, bias_at, out_at, tasks, batch, height, columns, channels = wholes(arguments + 8 * SHARED, 9)
        width, side, sizes = width_of(lanes), group_of(lanes), _map_of(height, columns, channels, lanes)
        x, out, bias, taps = (
            pointer(x_at, lanes),
            pointer(out_at, lanes),
            pointer(bias_at, lanes),
            pointer(floats, lanes),
        )
        block = past(taps, side * side * sizes.padded)
        raw, slopes = registers(lanes), registers(lanes)
        _fill_taps(taps, pointer(weight_at, lanes), sizes, lanes)
        _clear(block, sizes, lanes)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            for image in range(task, batch, tasks):
                base = image * height * columns
                for d in range(0, channels, width):
                    mask = present(channels - d, lanes)
                    shift = read(bias, d, mask)
                    _lay_out(block, x, base, d, sizes, lanes)
                    for i in range(height):
                        for j in range(0, columns, ABREAST):
                            _put_filtered(raw, block, taps, shift, i, j, d, False, sizes, lanes)
                            put_sigmoid(slopes, raw, lanes)
                            for k in range(min(ABREAST, columns - j)):
                                y = read(raw, k * width, None) * read(slopes, k * width, None)
                                write(out, (base + i * columns + j + k) * channels + d, y, mask)

    return c_function(filter_forward)


@njit(nogil=True)
def _add_products(
    parts: Any, gradient: Any, block: Any, even: Any, odd: Any, row: Any, d: Any, sizes: Any, lanes: Any
) -> None:
    """Add to the parts of one row of taps the products of gradient and block, summed over an image."""
    width, side, zero = width_of(lanes), group_of(lanes), splat(0.0, parts)
    for column in range(side):
        write(even, column * width, zero, None)
        write(odd, column * width, zero, None)
    for i in range(sizes.height):
        at = ((i + side // 2) * sizes.across + side // 2) * width
        seen = (i + row) * sizes.across * width
        # A line may end with one column more, where the gradient's border is zero. Two sums for every tap: one alone
        # would wait for each addition.
        for j in range(0, sizes.width, 2):
            first, second = read(gradient, at + j * width, None), read(gradient, at + (j + 1) * width, None)
            for column in range(side):
                x, following = seen + (j + column) * width, column * width
                write(even, following, read(even, following, None) + first * read(block, x, None), None)
                write(odd, following, read(odd, following, None) + second * read(block, x + width, None), None)
    for column in range(side):
        line = (row * side + column) * sizes.padded + d
        total = read(even, column * width, None) + read(odd, column * width, None)
        write(parts, line, read(parts, line, None) + total, None)


def filter_backward_kernel(lanes: Lanes) -> CFunc:
    """Return the backward kernel: the map's gradient, and each task's parts of those of filters and bias.

    Parts are (tasks, side² + 1, padded channels), the filters' before the bias's.
    """

    def filter_backward(arguments):
        thread, floats, _ = take_place(arguments)
        if thread < 0:
            return
        dout_at, x_at, weight_at, bias_at, dx_at, parts_at, tasks, batch, height, columns, channels = wholes(
            arguments + 8 * SHARED, 11
        )
        width, side, sizes = width_of(lanes), group_of(lanes), _map_of(height, columns, channels, lanes)
        dout, x, dx = pointer(dout_at, lanes), pointer(x_at, lanes), pointer(dx_at, lanes)
        bias, taps, edge = pointer(bias_at, lanes), pointer(floats, lanes), side // 2
        block = past(taps, side * side * sizes.padded)
        gradient = past(block, (height + side - 1) * sizes.across * width)
        raw, slopes, zero, one = registers(lanes), registers(lanes), splat(0.0, x), splat(1.0, x)
        even, odd = registers(lanes), registers(lanes)
        _fill_taps(taps, pointer(weight_at, lanes), sizes, lanes)
        _clear(block, sizes, lanes)
        _clear(gradient, sizes, lanes)
        while True:
            task = take_ticket(arguments + 8 * (SHARED - 1))
            if task >= tasks:
                break
            parts = past(pointer(parts_at, lanes), task * (side * side + 1) * sizes.padded)
            for at in range(0, (side * side + 1) * sizes.padded, width):
                write(parts, at, zero, None)
            for image in range(task, batch, tasks):
                base = image * height * columns
                for d in range(0, channels, width):
                    mask = present(channels - d, lanes)
                    shift, dbias = read(bias, d, mask), zero
                    _lay_out(block, x, base, d, sizes, lanes)
                    for i in range(height):
                        start = ((i + edge) * sizes.across + edge) * width
                        for j in range(0, columns, ABREAST):
                            _put_filtered(raw, block, taps, shift, i, j, d, False, sizes, lanes)
                            put_sigmoid(slopes, raw, lanes)
                            for k in range(min(ABREAST, columns - j)):
                                z, s = read(raw, k * width, None), read(slopes, k * width, None)
                                dy = read(dout, (base + i * columns + j + k) * channels + d, mask)
                                dz = dy * (s * (one + z * (one - s)))
                                dbias = dbias + dz
                                write(gradient, start + (j + k) * width, dz, None)
                    for row in range(side):
                        _add_products(parts, gradient, block, even, odd, row, d, sizes, lanes)
                    line = side * side * sizes.padded + d
                    write(parts, line, read(parts, line, None) + dbias, None)
                    for i in range(height):
                        for j in range(0, columns, ABREAST):
                            _put_filtered(raw, gradient, taps, zero, i, j, d, True, sizes, lanes)
                            for k in range(min(ABREAST, columns - j)):
                                result = read(raw, k * width, None)
                                write(dx, (base + i * columns + j + k) * channels + d, result, mask)

    return c_function(filter_backward)
