"""Partitions of a map: which cells a scan takes one by one, by hand and on every direction."""

import numpy as np
import pytest

from medmamba_variants.scan.cells import Partition, edges
from medmamba_variants.scan.directions import DIRECTIONS, order_of
from medmamba_variants.scan.partitions import partitioned_path
from medmamba_variants.scan.paths import scan_path

SIZES = [(1, 1), (1, 5), (4, 1), (5, 7), (6, 4)]
PARTITIONS = [
    Partition(window=3, shifted=True),
    Partition(atrous=2),
    Partition(atrous=3, window=2, shifted=True),
    Partition(atrous=2, over="sequence"),
    Partition(atrous=3, over="sequence", window=4),
    Partition(lines_apart=True),
    Partition(lines_apart=True, window=4, atrous=2, over="sequence"),
]


def runs(path, direction=0):
    """What a direction visits from one start of its state to the next."""
    starts = np.flatnonzero(path.resets[direction])
    starts = starts[starts > 0]
    return [run.tolist() for run in np.split(path.table[direction], starts)]


@pytest.mark.parametrize("partition", PARTITIONS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_every_direction_visits_each_position_once_in_every_partition(partition, size):
    path = partitioned_path(tuple(DIRECTIONS), *size, partition)
    assert (np.sort(path.table, axis=1) == np.arange(size[0] * size[1])).all()
    assert path.visited == size[0] * size[1] * len(DIRECTIONS)


# Counted from the other end of a run, every second step is another.
@pytest.mark.parametrize("partition", [each for each in PARTITIONS if each.over == "grid"], ids=str)
def test_a_reverse_takes_the_same_runs_backwards(partition):
    forward, backward = (
        partitioned_path((name,), 5, 7, partition) for name in ("serpentine_rows", "serpentine_rows_reverse")
    )
    assert sorted(run[::-1] for run in runs(forward)) == sorted(runs(backward))


@pytest.mark.parametrize("size", SIZES)
def test_what_divides_nothing_is_the_plain_path(size):
    directions = tuple(DIRECTIONS)[:4]
    plain = scan_path(directions, *size)
    for partition in (
        Partition(),
        Partition(window=7, shifted=True),
        Partition(window=256),
        Partition(over="sequence"),
    ):
        assert partitioned_path(directions, *size, partition) == plain
    assert partitioned_path(directions, *size, Partition(window=2)) == scan_path(directions, *size, window=2)


def test_shifted_windows_by_hand():
    assert edges(7, 4, False) == [0, 4, 7] and edges(7, 4, True) == [0, 2, 6, 7] and edges(7, 3, True) == [0, 1, 4, 7]
    # A side that is one window stays whole, as in Swin.
    assert edges(4, 4, True) == [0, 4]
    path = partitioned_path(("columns",), 3, 3, Partition(window=2, shifted=True))
    assert runs(path) == [[0], [1, 2], [3, 6], [4, 7, 5, 8]]


def test_atrous_grids_by_hand():
    """Of a map of 3 rows and 4 columns: 0 to 3, 4 to 7, 8 to 11."""
    path = partitioned_path(("rows", "columns_reverse"), 3, 4, Partition(atrous=2))
    assert runs(path) == [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6], [5, 7]]
    assert runs(path, 1) == [[10, 2, 8, 0], [11, 3, 9, 1], [6, 4], [7, 5]]
    windows = partitioned_path(("rows",), 3, 4, Partition(atrous=2, window=1))
    assert runs(windows) == [[each] for each in (0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 5, 7)]


def test_atrous_sequences_by_hand():
    path = partitioned_path(("columns",), 2, 3, Partition(atrous=4, over="sequence"))
    assert runs(path) == [[0, 2], [3, 5], [1], [4]]


def test_lines_by_hand():
    path = partitioned_path(("rows_reverse", "columns", "hilbert"), 2, 3, Partition(lines_apart=True))
    assert runs(path) == [[5, 4, 3], [2, 1, 0]]
    assert runs(path, 1) == [[0, 3], [1, 4], [2, 5]]
    # A curve has no lines.
    assert runs(path, 2) == [scan_path(("hilbert",), 2, 3).table[0].tolist()]
    assert not order_of("hilbert")[0].lines and not order_of("random_2_reverse")[0].lines


@pytest.mark.parametrize(
    ("name", "line"), [("diagonals", lambda r, c: r + c), ("antidiagonals_reverse", lambda r, c: r - c)]
)
def test_lines_of_diagonals_are_diagonals(name, line):
    lines = [
        {line(*divmod(each, 6)) for each in run}
        for run in runs(partitioned_path((name,), 4, 6, Partition(lines_apart=True)))
    ]
    assert all(len(each) == 1 for each in lines) and len(lines) == len(set.union(*lines)) == 9
