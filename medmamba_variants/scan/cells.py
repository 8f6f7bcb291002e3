"""Partitions of a map into cells that are scanned one by one, as values.

No array library is imported, so that reading a study file stays instant.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Partition:
    """How a map is divided into the cells that every direction scans one by one, the state anew in each.

    `atrous`: the map falls into atrous² grids of every atrous-th row and column (`over` "grid"), or each run of a
    direction into atrous runs of every atrous-th step ("sequence"). `window`: side of square windows, in each grid;
    `shifted`: the first of a row or column is cut to half a window (rounded down). `lines_apart`: the state
    starts anew in each line of an order. The defaults divide nothing.
    """

    window: int = 0
    shifted: bool = False
    atrous: int = 1
    over: str = "grid"
    lines_apart: bool = False


def edges(side: int, window: int, shifted: bool) -> list[int]:
    """Where windows begin along a side of the map, and its end; cut at both ends where they are shifted."""
    first = window // 2 if shifted and window < side else window
    return [0, *range(first, side, window), side]
