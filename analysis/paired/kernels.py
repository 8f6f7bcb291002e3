"""Compiled inner loops of resampled metrics: counting draws, sums of rows, and rank sums under integer weights.

A draw is a vector of counts. 32 draws lie side by side (*lanes*), so that one step along a sorted list of scores is one
vector instruction for all of them. Everything is an integer: the sums are exact, whatever their order.

numba compiles on first use, in about a second, and keeps the code on disk where it may.
"""

from typing import Any

import numpy as np
from numba import njit

from analysis.paired.lanes import LANES, NEGATIVE, POSITIVE, POSITIVE_BEFORE


def _count_rows(indices, rows, counts):
    counts[:] = 0
    for lane in range(indices.shape[0]):
        for draw in range(indices.shape[1]):
            counts[rows[indices[lane, draw]], lane] += 1


def _add_rows(counts, rows, columns, times, sums):
    sums[:] = 0
    for entry in range(len(rows)):
        added, total, factor = counts[rows[entry]], sums[columns[entry]], times[entry]
        for lane in range(LANES):
            total[lane] += factor * np.int64(added[lane])


def _rank_sums(weights, steps, kinds, ends, twice, positives, negatives):
    first = 0
    for program in range(len(ends)):
        # Rows of two-dimensional arrays: numba knows them to be contiguous and turns the inner loops into vectors.
        sums, below, drawn = twice[program], negatives[program], positives[program]
        for lane in range(LANES):
            sums[lane] = 0
            below[lane] = 0
            drawn[lane] = 0
        for step in range(first, ends[program]):
            weight = weights[steps[step]]
            kind = kinds[step]
            if kind == NEGATIVE:
                for lane in range(LANES):
                    below[lane] += weight[lane]
            elif kind == POSITIVE:
                for lane in range(LANES):
                    sums[lane] += 2 * np.int64(weight[lane]) * below[lane]
                    drawn[lane] += weight[lane]
            else:
                for lane in range(LANES):
                    sums[lane] += np.int64(weight[lane]) * below[lane]
                if kind == POSITIVE_BEFORE:
                    for lane in range(LANES):
                        drawn[lane] += weight[lane]
        first = ends[program]


def _compiled(function: Any) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder can be written: compile anew in every process.
        return njit(nogil=True)(function)


# counts (rows, lanes), set to how often each row was drawn; indices (lanes, draws) of units; rows: the row of a unit.
count_rows = _compiled(_count_rows)
# sums (columns, lanes) int64, set to the product of counts (rows, lanes) with a sparse matrix given by its entries. No
# BLAS: products this small would wake all its threads to wait for each other.
add_rows = _compiled(_add_rows)
# weights (rows, lanes); steps, kinds: programs one after the other, ending at `ends`; out, (programs, lanes) int64:
# twice the sum over pairs of weights where the positive is above (half where equal), and both sides' total weights.
rank_sums = _compiled(_rank_sums)
