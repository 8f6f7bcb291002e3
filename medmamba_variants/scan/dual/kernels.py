"""What the dual scan's kernels on the CPU share: a scan whose decay is one number for each head.

A vector holds neighbouring channels of one position, as in `scan.cpu`, and a group of states runs through a chunk of
steps in registers. As all states of a channel decay alike, a step costs two multiply-adds and a product for each state,
without an exponential. The backward kernel keeps nothing but its inputs: a task first runs forward and notes the state
before each chunk, then takes the chunks from the last to the first and runs each again.

A task is an image: what directions and heads share is added up in their order, so that the number of threads cannot
change a bit.
"""

from typing import Any, NamedTuple

from numba import njit

from medmamba_variants.scan.cpu.functions import whole
from medmamba_variants.scan.cpu.vectors import (
    copy_group,
    group_of,
    item,
    present,
    put_item,
    read,
    width_of,
    write,
)

# Steps of a chunk: what it reads and writes for one block of channels stays in the first cache.
STEPS = 32
# Vectors for each step and block of channels: decay, scaled x, dy (or y), gradients of the scaled x and of the decay.
LINES = 5


class Extents(NamedTuple):
    """The sizes of one call: G groups of `width` channels with `heads` heads each; `padded` is width in whole vectors.

    `inputs`, `keys` and `outputs` are K, or 1 where all directions share x, B and C, or the sum y.
    """

    length: Any
    K: Any
    groups: Any
    heads: Any
    width: Any
    states: Any
    inputs: Any
    keys: Any
    outputs: Any
    padded: Any


class Part(NamedTuple):
    """A part of one direction's path for one image and group: steps `first` to `first + count`."""

    base: Any
    k: Any
    g: Any
    first: Any
    count: Any


@njit(nogil=True)
def position_of(table: Any, part: Any, i: Any, sizes: Any) -> Any:
    return part.base + whole(table, part.k * sizes.length + part.first + i, 32)


@njit(nogil=True)
def x_at_step(position: Any, part: Any, sizes: Any) -> Any:
    k = part.k if sizes.inputs > 1 else 0
    return ((position * sizes.inputs + k) * sizes.groups + part.g) * sizes.width


@njit(nogil=True)
def y_at_step(position: Any, part: Any, sizes: Any) -> Any:
    k = part.k if sizes.outputs > 1 else 0
    return ((position * sizes.outputs + k) * sizes.groups + part.g) * sizes.width


@njit(nogil=True)
def B_at_step(position: Any, part: Any, sizes: Any) -> Any:
    k = part.k if sizes.keys > 1 else 0
    return ((position * sizes.keys + k) * sizes.groups + part.g) * sizes.states


@njit(nogil=True)
def head_at_step(position: Any, part: Any, sizes: Any) -> Any:
    return ((position * sizes.K + part.k) * sizes.groups + part.g) * sizes.heads


@njit(nogil=True)
def fill_rows(rows: Any, B: Any, C: Any, table: Any, part: Any, sizes: Any, lanes: Any) -> None:
    """Write a chunk's B and C as (states / group, STEPS, 2, group)."""
    group = group_of(lanes)
    for i in range(part.count):
        at = B_at_step(position_of(table, part, i, sizes), part, sizes)
        for n in range(0, sizes.states, group):
            copy_group(rows, 2 * (n * STEPS + i * group), B, at + n, lanes)
            copy_group(rows, 2 * (n * STEPS + i * group) + group, C, at + n, lanes)


@njit(nogil=True)
def fill_channels(target: Any, source: Any, table: Any, part: Any, sizes: Any) -> None:
    """Write numbers of heads for each channel, (STEPS, padded), zero in the padding."""
    each = sizes.width // sizes.heads
    for i in range(part.count):
        at = head_at_step(position_of(table, part, i, sizes), part, sizes)
        line = i * sizes.padded
        for head in range(sizes.heads):
            number = item(source, at + head)
            for c in range(each):
                put_item(target, line + head * each + c, number)
        for c in range(sizes.width, sizes.padded):
            put_item(target, line + c, 0.0)


@njit(nogil=True)
def prepare(work: Any, decays: Any, scales: Any, x: Any, table: Any, part: Any, d: Any, sizes: Any, lanes: Any) -> None:
    """Write each step's decay and scaled x for the block of channels at d."""
    width, mask = width_of(lanes), present(sizes.width - d, lanes)
    for i in range(part.count):
        at = x_at_step(position_of(table, part, i, sizes), part, sizes) + d
        u = read(x, at, mask) * read(scales, i * sizes.padded + d, None)
        write(work, LINES * i * width, read(decays, i * sizes.padded + d, None), None)
        write(work, (LINES * i + 1) * width, u, None)
