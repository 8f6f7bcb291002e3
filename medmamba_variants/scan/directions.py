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


@dataclass(frozen=True)
class Order:
    """An order, one way through a map: what it does, what its reverse does, and the key that sorts the positions."""

    words: str
    reverse: str
    key: SortKey


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

DIRECTION_SETS: dict[str, tuple[str, ...]] = {
    # The order of the published MedMamba (and VMamba): its checkpoints' K axis is read in this order.
    "cross4": _PUBLISHED,
    # Each direction starts in its own corner; in cross4 two corners serve twice.
    "corner4": ("rows", "columns_right", "rows_reverse", "columns_right_reverse"),
    "eight": (*_PUBLISHED, "diagonals", "antidiagonals", "diagonals_reverse", "antidiagonals_reverse"),
}


def order_of(direction: str) -> tuple[Order, bool]:
    """The order of a direction, and whether it runs backwards."""
    return _NAMED[direction]
