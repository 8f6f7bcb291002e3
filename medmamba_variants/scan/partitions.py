"""Scan paths through the cells of a partition, one cell after another, the state anew in each."""

from functools import lru_cache
from itertools import pairwise
from operator import index

import numpy as np

from medmamba_variants.scan.cells import Partition, edges
from medmamba_variants.scan.directions import order_of
from medmamba_variants.scan.paths import (
    LARGE_MAP,
    ScanPath,
    constant_of_graphs,
    custom_path,
    order_of_positions,
    resolve_directions,
    scan_path,
)


def partitioned_path(directions: tuple[str, ...], height: int, width: int, partition: Partition) -> ScanPath:
    """The scan path of directions over a (height, width) map in the cells of a partition; cached.

    Windows no smaller than the map, grids of it or lines of it divide nothing, and a shift goes only along sides that
    hold more than one window (as in Swin).
    """
    # torch.compile has symbolic sizes; used as an index, a size becomes a constant.
    return _constant_path(tuple(directions), index(height), index(width), partition)


@constant_of_graphs
def _constant_path(directions: tuple[str, ...], height: int, width: int, partition: Partition) -> ScanPath:
    if partition == Partition(partition.window):
        return scan_path(directions, height, width, partition.window)
    return (_large_path if height * width > LARGE_MAP else _small_path)(directions, height, width, partition)


def _new_path(directions: tuple[str, ...], height: int, width: int, partition: Partition) -> ScanPath:
    names = resolve_directions(directions)
    grid = np.arange(height * width, dtype=np.int32).reshape(height, width)
    runs = [_runs(name, grid, partition) for name in names]
    table = np.stack([np.concatenate(each) for each in runs])
    if all(len(each) == 1 for each in runs):
        return custom_path(table, height * width)
    resets = np.zeros_like(table, dtype=np.uint8)
    for marks, each in zip(resets, runs):
        marks[np.cumsum([0] + [run.size for run in each[:-1]])] = 1
    return custom_path(table, height * width, resets)


_small_path, _large_path = lru_cache(maxsize=512)(_new_path), lru_cache(maxsize=16)(_new_path)


def _runs(name: str, grid: np.ndarray, partition: Partition) -> list[np.ndarray]:
    """What one direction visits between two starts of its state, one array of positions after another."""
    step = partition.atrous
    cells = [grid]
    if partition.over == "grid":
        cells = [grid[row::step, column::step] for row in range(step) for column in range(step)]
    cells = [tile for cell in cells if cell.size for tile in _tiles(cell, partition)]
    runs = [run for cell in cells for run in _lines(name, cell, partition)]
    if partition.over == "sequence":
        runs = [run[start::step] for run in runs for start in range(min(step, run.size))]
    return runs


def _tiles(cell: np.ndarray, partition: Partition) -> list[np.ndarray]:
    height, width = cell.shape
    if not 0 < partition.window < max(height, width):
        return [cell]
    rows, columns = (edges(side, partition.window, partition.shifted) for side in (height, width))
    return [cell[top:bottom, left:right] for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


def _lines(name: str, cell: np.ndarray, partition: Partition) -> list[np.ndarray]:
    order, _ = order_of(name)
    visited = order_of_positions(name, *cell.shape)
    run = cell.ravel()[visited]
    if not (partition.lines_apart and order.lines):
        return [run]
    row, column = np.divmod(visited.astype(np.int64), cell.shape[1])
    line = order.key(row, column, *cell.shape)[0]
    return np.split(run, np.flatnonzero(np.diff(line)) + 1)
