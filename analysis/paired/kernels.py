"""Compiled inner loops of resampled metrics: counting draws, sums of tables, and rank sums under integer weights.

A draw is a vector of counts. As many draws lie side by side (*lanes*) as fill 64 bytes, a row; rows are added as eight
words of 64 bits, each of several counts, which never carry into each other where all of a lane's weights add up to less
than a count can hold. Everything is an integer: the sums are exact, whatever their order.

numba compiles on first use, which takes some seconds, and keeps the code on disk where it can.
"""

from typing import Any

import numpy as np
from numba import njit


def _compiled(function: Any) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder can be written: compile anew in every process.
        return njit(nogil=True)(function)


@_compiled
def count_rows(indices, rows, counts):
    """Sets counts (rows, lanes) to how often each row was drawn; indices (lanes, draws) of units, rows (units,)."""
    counts[:] = 0
    for lane in range(indices.shape[0]):
        for draw in range(indices.shape[1]):
            counts[rows[indices[lane, draw]], lane] += 1


@_compiled
def add_tables(words, rows, labels, predicted, sums):
    """Sets sums (columns, 8) to sums of weights, words (rows, 8), over items whose weight stands at `rows` (items,).

    Columns: true counts of the classes, then hits and predictions of each model; predicted (items, models).
    """
    models = predicted.shape[1]
    classes = sums.shape[0] // (1 + 2 * models)
    sums[:] = 0
    for item in range(len(rows)):
        weight, label = words[rows[item]], labels[item]
        true = sums[label]
        for word in range(8):
            true[word] += weight[word]
        for model in range(models):
            choice, first = predicted[item, model], (1 + 2 * model) * classes
            chosen = sums[first + classes + choice]
            for word in range(8):
                chosen[word] += weight[word]
            if choice == label:
                hits = sums[first + label]
                for word in range(8):
                    hits[word] += weight[word]


@_compiled
def rank_sums(weights, words, steps, items, below, upto, ends, prefix, prefixes, twice, positives, totals):
    """Sets, (programs, lanes) each, twice the sum over pairs of weights in which the positive is above, ties once.

    weights (rows, lanes), words: the same memory as (rows, 8). A program is one ranking: steps (programs, items), the
    rows of its items from the lowest score up; of each positive its row (items) and how many steps lie below its run of
    equal scores (below) and up to its end (upto), program after program, each ending at `ends`. prefix (items + 1, 8)
    and prefixes, the same memory as lanes: room for running sums. positives: the weights of the positives, totals: of
    all items.

    A positive's weight times the steps below and up to it counts positives, too: all pairs of them, once and known.
    """
    lanes = weights.shape[1]
    first = np.uint64(0)
    prefix[0] = 0
    for program in range(len(ends)):
        order = steps[program]
        a = b = c = d = e = f = g = h = np.uint64(0)
        for step in range(len(order)):
            weight = words[order[step]]
            # Eight sums by name: they stay in registers.
            a += weight[0]
            b += weight[1]
            c += weight[2]
            d += weight[3]
            e += weight[4]
            f += weight[5]
            g += weight[6]
            h += weight[7]
            after = prefix[step + 1]
            after[0] = a
            after[1] = b
            after[2] = c
            after[3] = d
            after[4] = e
            after[5] = f
            after[6] = g
            after[7] = h
        sums, drawn, total = twice[program], positives[program], totals[program]
        last = prefixes[len(order)]
        for lane in range(lanes):
            sums[lane] = 0
            drawn[lane] = 0
            total[lane] = last[lane]
        for place in range(first, ends[program]):
            own, low, high = weights[items[place]], prefixes[below[place]], prefixes[upto[place]]
            for lane in range(lanes):
                sums[lane] += own[lane] * (np.uint64(low[lane]) + high[lane])
                drawn[lane] += own[lane]
        for lane in range(lanes):
            # Modulo the width of the sums: the result fits, though what it is the remainder of may not.
            sums[lane] -= drawn[lane] * np.uint64(drawn[lane])
        first = ends[program]


@_compiled
def resampled_areas(indices, rows, weights, words, steps, items, below, upto, ends, prefix, prefixes, block, areas):
    """Sets areas (draws, programs) on resamples, NaN without two sides; indices (draws, units) of what is drawn.

    rows (units,): the row of weights at which a unit is counted. block: room for rank sums, three (programs, lanes).
    The rest as for `rank_sums`.
    """
    lanes = weights.shape[1]
    for first in range(0, indices.shape[0], lanes):
        count_rows(indices[first : first + lanes], rows, weights)
        rank_sums(weights, words, steps, items, below, upto, ends, prefix, prefixes, block[0], block[1], block[2])
        for lane in range(min(lanes, indices.shape[0] - first)):
            for program in range(len(ends)):
                positives, total = np.int64(block[1, program, lane]), np.int64(block[2, program, lane])
                pairs = positives * (total - positives)
                areas[first + lane, program] = np.int64(block[0, program, lane]) / (2 * pairs) if pairs else np.nan


@_compiled
def resampled_tables(indices, rows, weights, words, items, labels, predicted, sums, lanes_of_sums, tables):
    """Sets tables (draws, columns) to the sums of `add_tables` on resamples; indices (draws, units), rows (units,).

    items (items,): where an item's weight stands. lanes_of_sums: the memory of sums as (columns, lanes).
    """
    lanes = weights.shape[1]
    for first in range(0, indices.shape[0], lanes):
        count_rows(indices[first : first + lanes], rows, weights)
        add_tables(words, items, labels, predicted, sums)
        for lane in range(min(lanes, indices.shape[0] - first)):
            for column in range(len(lanes_of_sums)):
                tables[first + lane, column] = lanes_of_sums[column, lane]


@_compiled
def _mean(values, count):
    """The mean of the first `count` values, summed in numpy's order: eight side by side from eight values on."""
    if count == 0:
        return np.nan
    total, rest = 0.0, 0
    if count >= 8:
        a, b, c, d, e, f, g, h = values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7]
        rest = count - count % 8
        for place in range(8, rest, 8):
            a += values[place]
            b += values[place + 1]
            c += values[place + 2]
            d += values[place + 3]
            e += values[place + 4]
            f += values[place + 5]
            g += values[place + 6]
            h += values[place + 7]
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for place in range(rest, count):
        total += values[place]
    return total / count


@_compiled
def row_means(values, means):
    """Sets means (rows,) of values (rows, columns), up to 128 columns, over what is not NaN; NaN where all is.

    To the last bit those of numpy, row by row.
    """
    kept = np.empty(values.shape[1])
    for row in range(len(values)):
        count = 0
        for column in range(values.shape[1]):
            if not np.isnan(values[row, column]):
                kept[count] = values[row, column]
                count += 1
        means[row] = _mean(kept, count)


@_compiled
def table_f1(tables, classes, values):
    """Sets values (draws, models) to the macro-F1 of tables (draws, columns), whose columns are as in `add_tables`."""
    kept = np.empty(classes)
    for draw in range(len(tables)):
        table = tables[draw]
        for model in range(values.shape[1]):
            hits, predicted = (1 + 2 * model) * classes, (2 + 2 * model) * classes
            count = 0
            for k in range(classes):
                images = table[k] + table[predicted + k]
                if images > 0:
                    kept[count] = 2.0 * table[hits + k] / images
                    count += 1
            values[draw, model] = _mean(kept, count)


@_compiled
def weighted_f1(weights, truth, predicted, classes, extra, swapped, mass, values):
    """Sets values (draws, models) to the macro-F1 under weights (draws, items) that need not be whole.

    truth (items,), in ascending order, predicted (items, models). In each draw one item counts once more, (draws,)
    each: `extra` with the weight `mass`, as predicted by the models of the other half where it is `swapped`.
    """
    models, first = predicted.shape[1], np.uint32(0)
    half = models // 2
    places = np.empty(predicted.shape, np.uint32)
    for model in range(models):
        for item in range(len(truth)):
            places[item, model] = model * classes + predicted[item, model]
    row, tables = np.empty(models * classes), np.empty((1, (1 + 2 * models) * classes))
    table = tables[0]
    for draw in range(len(weights)):
        table[:] = 0
        at = first
        while at < len(truth):
            # What the images of one class were taken for, model by model.
            label, total = truth[at], 0.0
            row[:] = 0
            while at < len(truth) and truth[at] == label:
                weight = weights[draw, at]
                total += weight
                for model in range(models):
                    row[places[at, model]] += weight
                at += np.uint32(1)
            table[label] = total
            for model in range(models):
                table[(1 + 2 * model) * classes + label] = row[model * classes + label]
                for k in range(classes):
                    table[(2 + 2 * model) * classes + k] += row[model * classes + k]
        chosen, weight = extra[draw], mass[draw]
        label = truth[chosen]
        table[label] += weight
        for model in range(models):
            choice = predicted[chosen, (model + half) % models if swapped[draw] else model]
            table[(2 + 2 * model) * classes + choice] += weight
            if choice == label:
                table[(1 + 2 * model) * classes + label] += weight
        table_f1(tables, classes, values[draw : draw + 1])
