"""The directions of a scan by name. Without imports, so that reading a study file stays instant."""

# A position is the row-major index row · width + column; a direction is an order of positions. The order of the names
# is the canonical one: a set of directions written in any order is one variant.
DIRECTIONS: dict[str, str] = {
    "rows": "row after row from the top, each left to right",
    "columns": "column after column from the left, each top to bottom",
    "rows_reverse": "rows backwards: from the bottom right corner, each row right to left",
    "columns_reverse": "columns backwards: from the bottom right corner, each column bottom to top",
    "columns_right": "column after column from the right, each top to bottom",
    "columns_right_reverse": "columns_right backwards: from the bottom left corner, each column bottom to top",
    "diagonals": "lines of equal row + column from the top left corner, each top to bottom",
    "diagonals_reverse": "diagonals backwards: from the bottom right corner",
    "antidiagonals": "lines of equal row − column from the top right corner, each top to bottom",
    "antidiagonals_reverse": "antidiagonals backwards: from the bottom left corner",
}

DIRECTION_SETS: dict[str, tuple[str, ...]] = {
    # The order of the published MedMamba (and VMamba): its checkpoints' K axis is read in this order.
    "cross4": ("rows", "columns", "rows_reverse", "columns_reverse"),
    # Each direction starts in its own corner; in cross4 two corners serve twice.
    "corner4": ("rows", "columns_right", "rows_reverse", "columns_right_reverse"),
    "eight": (
        "rows",
        "columns",
        "rows_reverse",
        "columns_reverse",
        "diagonals",
        "antidiagonals",
        "diagonals_reverse",
        "antidiagonals_reverse",
    ),
}
