"""Orders in which a scan visits a map, and the directions made of them.

No array library is imported, so that reading a study file stays instant.

An order is one entry: its name, what it does in words, and a function (row, column, height, width) → the key by which
positions are sorted, a tuple compared from its first number on. The function gets either whole numbers or arrays of
them, so it is pure arithmetic. Its reverse is derived. Positions are the row-major indices row · width + column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SortKey = Callable[[Any, Any, int, int], tuple[Any, ...]]
# What a whole number is kept below in the random orders: their products stay below 2^59, so 64 bits hold them.
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Order:
    """An order, one way through a map: what it does, what its reverse does, and the key that sorts the positions.

    `lines`: it goes line by line, and the first number of the key names the line.
    """

    words: str
    reverse: str
    key: SortKey
    lines: bool = True


def _ring(row: Any, column: Any, height: int, width: int) -> Any:
    """Distance to the nearest border, 0 on it."""
    down, across = height - 1 - row, width - 1 - column
    # The smaller of two numbers without a comparison: (a + b − |a − b|) / 2.
    vertical, horizontal = (row + down - abs(row - down)) // 2, (column + across - abs(column - across)) // 2
    return (vertical + horizontal - abs(vertical - horizontal)) // 2


def _spiral(row: Any, column: Any, height: int, width: int) -> tuple[Any, ...]:
    """Ring after ring, each clockwise from its top left corner."""
    ring = _ring(row, column, height, width)
    # On the upper and right side row + column grows clockwise, on the other two it falls.
    first = (row == ring) | (column == width - 1 - ring)
    return ring, 1 - first, (row + column) * (2 * first - 1)


def _scales(height: int, width: int) -> list[int]:
    """The powers of two below the side of the smallest such square over the map, from the largest to 1."""
    return [1 << bit for bit in reversed(range((max(height, width) - 1).bit_length()))]


def _hilbert(row: Any, column: Any, height: int, width: int) -> tuple[Any, ...]:
    """The place on Hilbert's curve through the covering square, from the top left corner to the top right one."""
    place = 0 * row
    for scale in _scales(height, width):
        right, below = column // scale % 2, row // scale % 2
        place = place + scale * scale * ((3 * right) ^ below)
        # The upper quarters hold a transposed curve, the right one of them mirrored as well.
        mirrored = right * (1 - below) * (scale - 1)
        row, column = row ^ mirrored, column ^ mirrored
        differing = (row ^ column) * (1 - below)
        row, column = row ^ differing, column ^ differing
    return (place,)


def _morton(row: Any, column: Any, height: int, width: int) -> tuple[Any, ...]:
    """The bits of row and column in turn, each row's before its column's."""
    return (sum((s * s * (2 * (row // s % 2) + column // s % 2) for s in _scales(height, width)), 0 * row),)


def _scattered(seed: int) -> SortKey:
    """A pseudo-random key: an arithmetic hash of seed, map size and position, the same on every machine."""

    def key(row: Any, column: Any, height: int, width: int) -> tuple[Any, ...]:
        return hashed(seed, height, width, row, column), row, column

    return key


def hashed(seed: Any, *parts: Any) -> Any:
    """A pseudo-random whole number below 2^32 made of others, or of arrays of 64 bits; the same on every machine."""
    mixed = seed
    for part in parts:
        mixed = (mixed * 31 + part + 1) & _WORD
        for _ in range(2):
            mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & _WORD
        mixed = mixed ^ (mixed >> 16)
    return mixed


ORDERS: dict[str, Order] = {
    "rows": Order(
        "row after row from the top, each left to right",
        "rows backwards: from the bottom right corner, each row right to left",
        lambda row, column, height, width: (row, column),
    ),
    "columns": Order(
        "column after column from the left, each top to bottom",
        "columns backwards: from the bottom right corner, each column bottom to top",
        lambda row, column, height, width: (column, row),
    ),
    "columns_right": Order(
        "column after column from the right, each top to bottom",
        "columns_right backwards: from the bottom left corner, each column bottom to top",
        lambda row, column, height, width: (-column, row),
    ),
    "diagonals": Order(
        "lines of equal row + column from the top left corner, each top to bottom",
        "diagonals backwards: from the bottom right corner",
        lambda row, column, height, width: (row + column, row),
    ),
    "antidiagonals": Order(
        "lines of equal row − column from the top right corner, each top to bottom",
        "antidiagonals backwards: from the bottom left corner",
        lambda row, column, height, width: (row - column, row),
    ),
    # The starts that a raster over four corners still lacked: with it, rows and columns start in every corner.
    "rows_right": Order(
        "row after row from the top, each right to left",
        "rows_right backwards: from the bottom left corner, each row left to right",
        lambda row, column, height, width: (row, -column),
    ),
    # Yang et al. 2024, "PlainMamba": every step goes to a neighbour.
    "serpentine_rows": Order(
        "row after row from the top, there and back",
        "serpentine_rows backwards, from the bottom",
        lambda row, column, height, width: (row, column * (1 - 2 * (row % 2))),
    ),
    "serpentine_columns": Order(
        "column after column from the left, down and up",
        "serpentine_columns backwards, from the right",
        lambda row, column, height, width: (column, row * (1 - 2 * (column % 2))),
    ),
    # Switch-UMamba: diagonals that go on at the other side of the map, so that all are equally long.
    "cyclic_diagonals": Order(
        "lines of equal (row + column) mod width, each top to bottom",
        "cyclic_diagonals backwards",
        lambda row, column, height, width: ((row + column) % width, row),
    ),
    "cyclic_antidiagonals": Order(
        "lines of equal (row − column) mod width, each top to bottom",
        "cyclic_antidiagonals backwards",
        lambda row, column, height, width: ((row - column) % width, row),
    ),
    # A spiral from another corner is that of the turned map.
    "spiral_top_left": Order(
        "clockwise inwards from the top left corner",
        "spiral_top_left backwards: outwards to its corner",
        _spiral,
    ),
    "spiral_top_right": Order(
        "clockwise inwards from the top right corner",
        "spiral_top_right backwards: outwards to its corner",
        lambda row, column, height, width: _spiral(width - 1 - column, row, width, height),
    ),
    "spiral_bottom_right": Order(
        "clockwise inwards from the bottom right corner",
        "spiral_bottom_right backwards: outwards to its corner",
        lambda row, column, height, width: _spiral(height - 1 - row, width - 1 - column, height, width),
    ),
    "spiral_bottom_left": Order(
        "clockwise inwards from the bottom left corner",
        "spiral_bottom_left backwards: outwards to its corner",
        lambda row, column, height, width: _spiral(column, height - 1 - row, width, height),
    ),
    "rings": Order(
        "by distance to the border, each ring row after row",
        "rings backwards: from the middle to the border",
        lambda row, column, height, width: (_ring(row, column, height, width), row, column),
    ),
    # Hilbert 1891, on the smallest square of a power of two over the map, without the positions beyond the map.
    "hilbert": Order(
        "Hilbert's curve from the top left corner towards the top right one",
        "hilbert backwards",
        _hilbert,
        lines=False,
    ),
    "hilbert_transposed": Order(
        "Hilbert's curve from the top left corner towards the bottom left one",
        "hilbert_transposed backwards",
        lambda row, column, height, width: _hilbert(column, row, width, height),
        lines=False,
    ),
    # Morton 1966, likewise.
    "z_order": Order(
        "the Z-order curve: quarter after quarter, and so within each",
        "z_order backwards",
        _morton,
        lines=False,
    ),
    # The null against which an order that means something is held: neighbours are as far apart as any two positions.
    **{
        f"random_{seed}": Order(
            f"a fixed pseudo-random permutation, number {seed}: the null of scan orders",
            f"random_{seed} backwards",
            _scattered(seed),
            lines=False,
        )
        for seed in range(4)
    },
    # JPEG's zigzag, whose diagonals go on where the one before ended, and the serpentines from the other corner.
    "zigzag": Order(
        "lines of equal row + column from the top left corner, there and back, to the right first",
        "zigzag backwards: from the bottom right corner",
        lambda row, column, height, width: (row + column, row * (2 * ((row + column) % 2) - 1)),
    ),
    "zigzag_right": Order(
        "lines of equal row − column from the top right corner, there and back, to the left first",
        "zigzag_right backwards: from the bottom left corner",
        lambda row, column, height, width: (row - column, row * (2 * ((row + width - 1 - column) % 2) - 1)),
    ),
    "serpentine_rows_right": Order(
        "row after row from the top, there and back, to the left first",
        "serpentine_rows_right backwards, from the bottom",
        lambda row, column, height, width: (row, column * (2 * (row % 2) - 1)),
    ),
    "serpentine_columns_right": Order(
        "column after column from the right, down and up",
        "serpentine_columns_right backwards, from the left",
        lambda row, column, height, width: (-column, row * (1 - 2 * ((width - 1 - column) % 2))),
    ),
}

# An order's own name, or that of its reverse → the order, and whether it runs backwards.
_NAMED = {name: (order, False) for name, order in ORDERS.items()}
_NAMED |= {f"{name}_reverse": (order, True) for name, order in ORDERS.items()}
# The order of these names is canonical: a list of directions written in any order is one variant. The four of the
# published model come first, then each order with its reverse, so that later additions move none of them.
_PUBLISHED = ("rows", "columns", "rows_reverse", "columns_reverse")
_CANONICAL = (*_PUBLISHED, *(each for name in ORDERS for each in (name, f"{name}_reverse") if each not in _PUBLISHED))

DIRECTIONS: dict[str, str] = {
    name: _NAMED[name][0].reverse if _NAMED[name][1] else _NAMED[name][0].words for name in _CANONICAL
}


def _both_ways(*names: str) -> tuple[str, ...]:
    return (*names, *(f"{name}_reverse" for name in names))


DIRECTION_SETS: dict[str, tuple[str, ...]] = {
    # The order of the published MedMamba (and VMamba): its checkpoints' K axis is read in this order.
    "cross4": _PUBLISHED,
    # Each direction starts in its own corner; in cross4 two corners serve twice.
    "corner4": ("rows", "columns_right", "rows_reverse", "columns_right_reverse"),
    "eight": (*_PUBLISHED, "diagonals", "antidiagonals", "diagonals_reverse", "antidiagonals_reverse"),
    # PlainMamba's four.
    "serpentine4": _both_ways("serpentine_rows", "serpentine_columns"),
    # Two spirals inwards from opposite corners, and both outwards.
    "spiral4": _both_ways("spiral_top_left", "spiral_bottom_right"),
    "hilbert4": _both_ways("hilbert", "hilbert_transposed"),
    "bidirectional": _both_ways("rows"),
}
# Sets whose lists had results before they had a name: a variant keeps the list, and so its id.
LISTED_SETS = ("bidirectional",)


def order_of(direction: str) -> tuple[Order, bool]:
    """The order of a direction, and whether it runs backwards."""
    return _NAMED[direction]
