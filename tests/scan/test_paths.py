"""Scan paths: each direction by hand, sets, padding, marks, windows, and what is refused."""

import copy
import gc
import pickle
import subprocess
import sys

import numpy as np
import pytest

from medmamba_variants.scan.directions import DIRECTION_SETS, DIRECTIONS, ORDERS
from medmamba_variants.scan.paths import LARGE_MAP, NUMBERED, custom_path, resolve_directions, scan_path, window_path

# The visiting orders of a map of 2 rows and 3 columns, written by hand:   0 1 2
#                                                                         3 4 5
BY_HAND = {
    "rows": [0, 1, 2, 3, 4, 5],
    "rows_reverse": [5, 4, 3, 2, 1, 0],
    "columns": [0, 3, 1, 4, 2, 5],
    "columns_reverse": [5, 2, 4, 1, 3, 0],
    "columns_right": [2, 5, 1, 4, 0, 3],
    "columns_right_reverse": [3, 0, 4, 1, 5, 2],
    "diagonals": [0, 1, 3, 2, 4, 5],
    "diagonals_reverse": [5, 4, 2, 3, 1, 0],
    "antidiagonals": [2, 1, 5, 0, 4, 3],
    "antidiagonals_reverse": [3, 4, 0, 5, 1, 2],
    "rows_right": [2, 1, 0, 5, 4, 3],
    "rows_right_reverse": [3, 4, 5, 0, 1, 2],
    "serpentine_rows": [0, 1, 2, 5, 4, 3],
    "serpentine_rows_reverse": [3, 4, 5, 2, 1, 0],
    "serpentine_columns": [0, 3, 4, 1, 2, 5],
    "serpentine_columns_reverse": [5, 2, 1, 4, 3, 0],
    "cyclic_diagonals": [0, 5, 1, 3, 2, 4],
    "cyclic_diagonals_reverse": [4, 2, 3, 1, 5, 0],
    "cyclic_antidiagonals": [0, 4, 2, 3, 1, 5],
    "cyclic_antidiagonals_reverse": [5, 1, 3, 2, 4, 0],
    "spiral_top_left": [0, 1, 2, 5, 4, 3],
    "spiral_top_left_reverse": [3, 4, 5, 2, 1, 0],
    "spiral_top_right": [2, 5, 4, 3, 0, 1],
    "spiral_top_right_reverse": [1, 0, 3, 4, 5, 2],
    "spiral_bottom_right": [5, 4, 3, 0, 1, 2],
    "spiral_bottom_right_reverse": [2, 1, 0, 3, 4, 5],
    "spiral_bottom_left": [3, 0, 1, 2, 5, 4],
    "spiral_bottom_left_reverse": [4, 5, 2, 1, 0, 3],
    "rings": [0, 1, 2, 3, 4, 5],
    "rings_reverse": [5, 4, 3, 2, 1, 0],
    "hilbert": [0, 1, 4, 3, 5, 2],
    "hilbert_reverse": [2, 5, 3, 4, 1, 0],
    "hilbert_transposed": [0, 3, 4, 1, 2, 5],
    "hilbert_transposed_reverse": [5, 2, 1, 4, 3, 0],
    "z_order": [0, 1, 3, 4, 2, 5],
    "z_order_reverse": [5, 2, 4, 3, 1, 0],
    # What the hash makes of this map, the same on every machine.
    "random_0": [4, 0, 2, 1, 3, 5],
    "random_0_reverse": [5, 3, 1, 2, 0, 4],
    "random_1": [5, 1, 2, 3, 4, 0],
    "random_1_reverse": [0, 4, 3, 2, 1, 5],
    "random_2": [1, 0, 3, 4, 2, 5],
    "random_2_reverse": [5, 2, 4, 3, 0, 1],
    "random_3": [5, 2, 0, 1, 4, 3],
    "random_3_reverse": [3, 4, 1, 0, 2, 5],
    "zigzag": [0, 1, 3, 4, 2, 5],
    "zigzag_reverse": [5, 2, 4, 3, 1, 0],
    "zigzag_right": [2, 1, 5, 4, 0, 3],
    "zigzag_right_reverse": [3, 0, 4, 5, 1, 2],
    "serpentine_rows_right": [2, 1, 0, 3, 4, 5],
    "serpentine_rows_right_reverse": [5, 4, 3, 0, 1, 2],
    "serpentine_columns_right": [2, 5, 4, 1, 0, 3],
    "serpentine_columns_right_reverse": [3, 0, 1, 4, 5, 2],
}


def test_every_direction_is_written_by_hand():
    assert BY_HAND.keys() == DIRECTIONS.keys()


@pytest.mark.parametrize("name", DIRECTIONS)
def test_direction_visits_as_written_by_hand(name):
    path = scan_path((name,), 2, 3)
    assert path.table.tolist() == [BY_HAND[name]]
    assert path.table.dtype == np.int32 and path.resets.dtype == np.uint8
    assert not path.resets.any()


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (5, 7), (6, 4)])
def test_direction_visits_each_position_once(name, size):
    (order,) = scan_path((name,), *size).table
    assert sorted(order) == list(range(size[0] * size[1]))


@pytest.mark.parametrize("name", [name for name in DIRECTIONS if not name.endswith("_reverse")])
def test_reverse_runs_backwards(name):
    forward, backward = scan_path((name, f"{name}_reverse"), 3, 5).table
    assert backward.tolist() == forward.tolist()[::-1]


@pytest.mark.parametrize(
    ("name", "line"),
    [("diagonals", lambda row, column: row + column), ("antidiagonals", lambda row, column: row - column)],
)
def test_diagonals_keep_to_their_lines(name, line):
    rows, columns = np.divmod(scan_path((name,), 4, 6).table[0], 6)
    lines = line(rows, columns)
    assert (np.diff(lines) >= 0).all()
    assert (np.diff(rows)[np.diff(lines) == 0] > 0).all()


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (5, 7), (8, 6)])
def test_a_key_means_the_same_of_numbers_and_of_arrays(name, size):
    height, width = size
    positions = range(height * width)
    by_number = sorted(positions, key=lambda position: ORDERS[name].key(*divmod(position, width), height, width))
    assert scan_path((name,), height, width).table.tolist() == [by_number]


def steps_between(name, height, width):
    """How far each step of an order goes, rows and columns together."""
    rows, columns = np.divmod(scan_path((name,), height, width).table[0], width)
    return np.abs(np.diff(rows)) + np.abs(np.diff(columns))


CONNECTED = [name for name in DIRECTIONS if name.startswith(("spiral", "serpentine"))]


@pytest.mark.parametrize("name", CONNECTED)
@pytest.mark.parametrize("size", [(1, 5), (4, 1), (2, 7), (3, 8), (5, 7), (6, 4), (9, 9)])
def test_spirals_and_serpentines_go_to_neighbours_on_every_map(name, size):
    assert len(CONNECTED) == 16
    assert (steps_between(name, *size) == 1).all()


@pytest.mark.parametrize("name", ["hilbert", "hilbert_transposed", "hilbert_reverse"])
def test_hilbert_goes_to_neighbours_on_squares_of_powers_of_two(name):
    for side in (2, 4, 8, 16):
        assert (steps_between(name, side, side) == 1).all()
    # Elsewhere the curve leaves the map and comes back.
    assert steps_between(name, 5, 7).max() > 1


@pytest.mark.parametrize(("name", "end"), [("hilbert", (0, 7)), ("hilbert_transposed", (7, 0))])
def test_hilbert_runs_between_neighbouring_corners(name, end):
    (order,) = scan_path((name,), 8, 8).table
    assert (order[0], divmod(order[-1], 8)) == (0, end)


@pytest.mark.parametrize("name", ["hilbert", "z_order"])
def test_curves_fill_quarter_after_quarter(name):
    rows, columns = np.divmod(scan_path((name,), 8, 8).table[0], 8)
    for side in (2, 4):
        quarters = (rows // side * 8 + columns // side).reshape(-1, side * side)
        assert (quarters == quarters[:, :1]).all()


@pytest.mark.parametrize("name", ["rings", "spiral_top_left", "spiral_top_right", "spiral_bottom_left"])
def test_rings_and_spirals_go_inwards(name):
    for height, width in ((5, 7), (6, 4), (1, 3)):
        depth = np.zeros((height, width), int)
        for row, column in np.ndindex(height, width):
            depth[row, column] = min(row, column, height - 1 - row, width - 1 - column)
        (order,) = scan_path((name,), height, width).table
        assert (np.diff(depth.ravel()[order]) >= 0).all()


def test_spirals_start_in_their_corners():
    names = [f"spiral_{corner}" for corner in ("top_left", "top_right", "bottom_right", "bottom_left")]
    assert scan_path(names, 3, 5).table[:, 0].tolist() == [0, 4, 14, 10]


def test_rasters_start_in_every_corner_both_ways():
    rasters = [
        f"{way}{reverse}" for way in ("rows", "rows_right", "columns", "columns_right") for reverse in ("", "_reverse")
    ]
    starts = scan_path(rasters, 3, 5).table[:, :2].tolist()
    assert sorted(starts) == [[0, 1], [0, 5], [4, 3], [4, 9], [10, 5], [10, 11], [14, 9], [14, 13]]


def test_cyclic_diagonals_go_on_at_the_other_side():
    for name, sign in (("cyclic_diagonals", 1), ("cyclic_antidiagonals", -1)):
        rows, columns = np.divmod(scan_path((name,), 4, 6).table[0], 6)
        assert rows.tolist() == [0, 1, 2, 3] * 6
        assert ((rows + sign * columns) % 6).tolist() == [line for line in range(6) for _ in range(4)]


def test_random_orders_are_fixed_and_differ():
    names = [name for name in ORDERS if name.startswith("random")]
    assert len(names) == 4
    pinned = scan_path(("random_0",), 3, 5).table[0].tolist()
    assert pinned == [3, 11, 13, 5, 9, 4, 14, 10, 8, 7, 2, 1, 12, 6, 0]
    assert scan_path(("random_3",), 200, 300).table[0, :4].tolist() == [27334, 34429, 26914, 45090]
    for size in ((5, 7), (7, 5), (1, 35)):
        tables = scan_path(names, *size).table
        assert len({tuple(table) for table in tables}) == 4
    # As far apart as any two positions: a third of height and width on average, and no trend from start to end.
    table = scan_path(names, 30, 60).table
    assert [steps_between(name, 30, 60).mean() for name in names] == pytest.approx([30] * 4, rel=0.05)
    assert max(abs(np.corrcoef(order, np.arange(1800))[0, 1]) for order in table) < 0.1


def test_cross4_has_the_published_order():
    # MedMamba's forward_corev0 stacks (rows, columns), then both flipped.
    grid = np.arange(3 * 5).reshape(3, 5)
    published = np.stack([grid.ravel(), grid.T.ravel()])
    published = np.concatenate([published, published[:, ::-1]])
    assert np.array_equal(scan_path("cross4", 3, 5).table, published)


def test_corner4_starts_in_four_corners():
    path = scan_path("corner4", 3, 5)
    assert sorted(path.table[:, 0]) == [0, 4, 10, 14]


@pytest.mark.parametrize("name", DIRECTION_SETS)
def test_set_equals_its_names(name):
    names = DIRECTION_SETS[name]
    assert len(set(names)) == len(names)
    assert scan_path(name, 4, 3) == scan_path(names, 4, 3) == scan_path(list(names), 4, 3)
    # Rows, one after the other, are the same walk on a map of any shape.
    assert (scan_path(name, 4, 3) == scan_path(name, 3, 4)) == (name == "bidirectional")
    assert resolve_directions(name) == names


def test_path_is_cached():
    assert scan_path("cross4", 6, 7) is scan_path("cross4", 6, 7)


def test_few_large_paths_are_cached():
    before = {path.number for path in NUMBERED.values()}
    assert scan_path(("rows",), 1, LARGE_MAP + 1) is scan_path(("rows",), 1, LARGE_MAP + 1)
    for length in range(LARGE_MAP + 1, LARGE_MAP + 31):
        scan_path(("rows",), 1, length)
    gc.collect()
    assert len([path for path in NUMBERED.values() if path.number not in before]) <= 16


def test_a_direction_may_occur_twice():
    assert scan_path(("rows", "rows"), 2, 3).table.tolist() == [BY_HAND["rows"]] * 2


def test_path_knows_its_sizes():
    path = custom_path([[0, 3, 1], [2]], length=5)
    assert (path.length, path.directions, path.steps, path.visited) == (5, 2, 3, 4)
    assert path.table.tolist() == [[0, 3, 1], [2, -1, -1]]


def test_mark_on_a_pause_moves_to_the_next_visited_step():
    path = custom_path([[0, -1, -1, 1, 2], [2, 1, 0, -1, -1]], 3, resets=[[0, 1, 0, 0, 1], [0, 0, 1, 0, 1]])
    assert path.resets.tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]


def test_windows_are_scanned_one_by_one():
    # 0 1 | 2        the lower and right windows are cut off
    # 3 4 | 5
    # --------
    # 6 7 | 8
    path = window_path(("rows", "columns_reverse"), 3, 3, (2, 2))
    assert path.table.tolist() == [[0, 1, 3, 4, 2, 5, 6, 7, 8], [4, 1, 3, 0, 5, 2, 7, 6, 8]]
    assert path.resets.tolist() == [[1, 0, 0, 0, 1, 0, 1, 0, 1]] * 2


def test_window_of_the_whole_map_is_the_plain_path():
    path = window_path("eight", 4, 5, (4, 5))
    assert np.array_equal(path.table, scan_path("eight", 4, 5).table)
    assert path.resets.sum(1).tolist() == [1] * 8


def test_scan_path_with_square_windows():
    for window in (1, 2, 4):
        path = scan_path(("rows", "spiral_top_left"), 3, 5, window)
        assert path == window_path(("rows", "spiral_top_left"), 3, 5, (window, window))
        assert path is scan_path(["rows", "spiral_top_left"], 3, 5, window)
    for window in (0, 5, 6, 99):
        assert scan_path("cross4", 3, 5, window) is scan_path("cross4", 3, 5)
    # Lower than the map's height, but not its width: still windows.
    assert scan_path("cross4", 3, 5, 3).resets.sum() == 4 * 2


@pytest.mark.parametrize("name", DIRECTIONS)
def test_windows_take_every_direction(name):
    (order,), (resets,) = (path := window_path((name,), 5, 7, (3, 3))).table, path.resets
    assert sorted(order) == list(range(35))
    assert np.flatnonzero(resets).tolist() == [0, 9, 18, 21, 27, 33]
    rows, columns = np.divmod(order[:9], 7)
    assert (rows * 3 + columns).tolist() == scan_path((name,), 3, 3).table[0].tolist()


def test_path_is_a_value():
    path = custom_path([[0, 1, -1], [2, 0, 1]], 3, [[0, 1, 0], [0, 0, 1]])
    same = custom_path(path.table.copy(), 3, path.resets.copy())
    assert path == same and hash(path) == hash(same) and path is not same
    assert path != custom_path(path.table, 4, path.resets)
    assert path != custom_path(path.table, 3)
    assert path != "path"
    assert copy.deepcopy(path) is path
    assert pickle.loads(pickle.dumps(path)) == path
    with pytest.raises(ValueError, match="read-only"):
        path.table[0, 0] = 1
    with pytest.raises(AttributeError):
        path.length = 4


def test_path_does_not_see_later_changes_of_its_table():
    table = np.array([[0, 1, 2]], dtype=np.int32)
    path = custom_path(table, 3)
    table[0, 0] = 2
    assert path.table.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scan_path("cros4", 2, 3), "directions must be one of .*, got 'cros4' .did you mean 'cross4'"),
        (lambda: scan_path("rows", 2, 3), r"directions must be a set's name .*, got 'rows' \(write \('rows',\)\)"),
        (lambda: scan_path(("row",), 2, 3), "a direction must be one of .*, got 'row' .did you mean 'rows'"),
        (lambda: scan_path((3,), 2, 3), "a direction must be one of .*, got 3"),
        (lambda: scan_path((), 2, 3), "directions must name at least one direction, got none"),
        (
            lambda: scan_path("cross4", 0, 3),
            "a map must have at least one row and one column, got height 0 and width 3",
        ),
        (lambda: scan_path("cross4", 2, 3, -1), r"window must have at least one .*, got \(-1, -1\)"),
        (lambda: window_path("cross4", 2, 3, (0, 2)), r"window must have at least one .*, got \(0, 2\)"),
        (lambda: custom_path([[0, 1]], 0), r"length must be an integer from 1 to 2\^31 - 1, got 0"),
        (lambda: custom_path([[0, 1]], 2.0), r"length must be an integer from 1 to 2\^31 - 1, got 2.0"),
        (lambda: custom_path([[0]], 2**31), r"length must be an integer from 1 to 2\^31 - 1, got 2147483648"),
        (lambda: custom_path(None, 2), "table must hold one sequence of integers a direction, got NoneType"),
        (lambda: custom_path(np.array([[0, 2**64 - 1]], np.uint64), 2), r"must hold integers below 2\^63, got 18446"),
        (lambda: custom_path([[0, 1], [2]], 3, [[0, 0], [0, 1]]), "resets of direction 1 must be 1 as in table, got 2"),
        (lambda: custom_path([[0, 3]], 3), "table must hold positions from 0 to 2, or -1 to pause, got 3"),
        (lambda: custom_path([[0, -2]], 3), "table must hold positions from 0 to 2, or -1 to pause, got -2"),
        (lambda: custom_path([[0, 1], [1, 1]], 3), "direction 1 must visit a position at most once, got 1 twice"),
        (lambda: custom_path([], 3), "table must have at least one direction and one step, got none"),
        (lambda: custom_path([[], []], 3), "table must have at least one direction and one step, got none"),
        (lambda: custom_path([0, 1], 3), "table must hold one sequence of integers a direction, got 0-D int64"),
        (lambda: custom_path([[0.0, 1.0]], 3), "table must hold one sequence of integers .*, got 1-D float64"),
        (lambda: custom_path([[0, 1]], 3, [[0]]), r"resets must have the table's shape \(1, 2\), got \(1, 1\)"),
        (lambda: custom_path([[0, 1]], 3, [[0, 2]]), "resets must hold 0 and 1 only, got 2"),
    ],
)
def test_refusals_say_what_must_hold(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_paths_need_no_torch():
    code = "import sys, medmamba_variants.scan.paths as p; p.scan_path('eight', 3, 4); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    # The test can fail: the package's functions do bring torch.
    code = "import sys; from medmamba_variants.scan import ss2d_scan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (2, 7), (5, 7), (6, 4)])
def test_the_right_hand_orders_are_mirrored(size):
    height, width = size
    mirror = np.arange(height * width).reshape(size)[:, ::-1].ravel()
    for name in ("zigzag", "serpentine_rows", "serpentine_columns"):
        left, right = scan_path((name, f"{name}_right"), *size).table
        assert mirror[left].tolist() == right.tolist()


def test_a_zigzag_steps_to_a_neighbour_straight_or_across():
    rows, columns = np.divmod(scan_path(("zigzag",), 5, 7).table[0], 7)
    assert np.maximum(np.abs(np.diff(rows)), np.abs(np.diff(columns))).max() == 1
