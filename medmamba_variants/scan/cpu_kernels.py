"""What the scan's forward and backward kernels on the CPU share: how they are laid out, and their preparations.

Symbols are the operator's: x, delta, A, B, C, D, h; K directions. Tensors arrive as addresses of contiguous memory.
A vector holds neighbouring channels of one position, so a direction is nothing but an order of rows and no tensor is
ever permuted.

A path is cut into chunks of CHUNK steps. What does not depend on the state (softplus, products) is computed for a chunk
first; then a group of states at a time runs through the chunk in registers. The forward keeps the state at each chunk's
start, the backward runs a chunk again from there. exp(Δ·A) is computed as 2^(Δ·A·log2 e).

A kernel draws tasks from a shared counter until none is left. A task's result does not depend on who computes it, and
what tasks share is summed afterwards in their order: the number of threads cannot change a bit.
"""

import math
from typing import Any

from numba import njit

from medmamba_variants.scan.cpu_functions import put_whole, whole
from medmamba_variants.scan.cpu_vectors import copy_group, group_of, item, put_item

# Divisible by every group, so that preparations may run over a chunk's end by less than a group.
CHUNK = 64
LOG2E, LN2 = math.log2(math.e), math.log(2.0)


@njit(nogil=True)
def visit_order(table: Any, resets: Any, order: Any, directions: Any, steps: Any) -> None:
    """Write each direction's visited steps as 2 · position + reset mark; after all of them, the K numbers of steps."""
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
def fill_rates(rates: Any, A: Any, directions: Any, states: Any, channels: Any, padded: Any) -> None:
    """Write A · log2 e as (K, d_state, padded channels), zero in the padding."""
    for k in range(directions):
        for n in range(states):
            for d in range(channels):
                put_item(rates, (k * states + n) * padded + d, item(A, (k * channels + d) * states + n) * LOG2E)
            for d in range(channels, padded):
                put_item(rates, (k * states + n) * padded + d, 0.0)


@njit(nogil=True)
def fill_rows(
    rows: Any, B: Any, C: Any, order: Any, m: Any, base: Any, k: Any, directions: Any, states: Any, lanes: Any
) -> None:
    """Write a chunk's B and C as (d_state / group, CHUNK, 2, group): in memory their rows are far apart."""
    group = group_of(lanes)
    for i in range(m):
        row = ((base + (whole(order, i, 64) >> 1)) * directions + k) * states
        for n in range(0, states, group):
            copy_group(rows, 2 * (n * CHUNK + i * group), B, row + n, lanes)
            copy_group(rows, 2 * (n * CHUNK + i * group) + group, C, row + n, lanes)
