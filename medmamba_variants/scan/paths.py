"""Scan paths: the order in which a scan visits the positions of a map. Pure indexing, numpy only."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from operator import index
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from medmamba_variants.hints import did_you_mean
from medmamba_variants.scan.directions import DIRECTION_SETS, DIRECTIONS, order_of

Function = TypeVar("Function", bound=Callable[..., Any])

# Every living path by its number: a traced graph can hold a number as a constant, but not an object.
NUMBERED: "WeakValueDictionary[int, ScanPath]" = WeakValueDictionary()
# For maps with more positions only the latest paths are kept: at 10 bytes for each of K·length steps, tensors
# included, sequences of ever new lengths would fill the memory.
LARGE_MAP = 1 << 14


@dataclass(frozen=True, eq=False)
class ScanPath:
    """The visiting orders of K directions over a map of `length` positions; made by `scan_path` and its siblings.

    `table` (K, steps) int32 holds positions in visiting order, −1 where a direction pauses: no state change, no output.
    `resets` (K, steps) uint8 marks steps before which the state starts anew; only visited steps carry marks.
    `visited` is the number of entries of the table that are positions. `directions` is K, and `steps` those of each
    direction, pauses included. Both arrays are read-only. Two paths are equal when their content is.
    """

    length: int
    table: np.ndarray
    resets: np.ndarray
    visited: int
    # Not part of the value: `number` names this object within the process; the operator fills `tensors`, device → the
    # table and marks as tensors there.
    number: int = field(default_factory=count().__next__, repr=False)
    tensors: dict[Any, Any] = field(default_factory=dict, repr=False)
    # Kept, not read off the table: torch.compile guards an array that it has seen, in inference mode so that it fails.
    directions: int = field(init=False, repr=False)
    steps: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        NUMBERED[self.number] = self
        for name, size in zip(("directions", "steps"), self.table.shape):
            object.__setattr__(self, name, size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScanPath):
            return NotImplemented
        return self is other or (
            self.length == other.length
            and np.array_equal(self.table, other.table)
            and np.array_equal(self.resets, other.resets)
        )

    def __hash__(self) -> int:
        return hash((self.length, self.table.shape, self.table.tobytes(), self.resets.tobytes()))

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScanPath":
        # Immutable: a copied module keeps the same path and the same device tensors.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return custom_path, (self.table, self.length, self.resets)


def resolve_directions(directions: str | Sequence[str]) -> tuple[str, ...]:
    """The direction names in a set, or in a sequence of names. Raises ValueError for an unknown one."""
    if isinstance(directions, str):
        if directions in DIRECTION_SETS:
            return DIRECTION_SETS[directions]
        if directions in DIRECTIONS:
            raise ValueError(
                f"directions must be a set's name or a tuple of names, got {directions!r} (write ({directions!r},))"
            )
        raise ValueError(_unknown("directions", directions, [*DIRECTION_SETS, *DIRECTIONS]))
    names = tuple(directions)
    if not names:
        raise ValueError("directions must name at least one direction, got none")
    for name in names:
        if not isinstance(name, str) or name not in DIRECTIONS:
            raise ValueError(_unknown("a direction", name, list(DIRECTIONS)))
    return names


def scan_path(directions: str | Sequence[str], height: int, width: int, window: int = 0) -> ScanPath:
    """The scan path of a direction set, or of a sequence of direction names, over a (height, width) map; cached.

    A name may occur twice: the two passes visit alike but have their own parameters. `window` is the side of the square
    windows that are scanned one by one, as `window_path` has them; 0, or no less than the map's sides: no windows.
    """
    names = directions if isinstance(directions, str) else tuple(directions)
    # torch.compile has symbolic sizes; used as an index, a size becomes a constant, and another one compiles again.
    return _constant_path(names, index(height), index(width), window)


def constant_of_graphs(function: Function) -> Function:
    """The function, marked so that torch.compile makes its result a constant of the graph, guarded by the arguments.

    This is the mark that torch.compiler.assume_constant_result makes, which imports the whole compiler: longer than a
    first scan takes.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# numpy code cannot be traced.
@constant_of_graphs
def _constant_path(directions: str | tuple[str, ...], height: int, width: int, window: int) -> ScanPath:
    cached_path = _large_path if height * width > LARGE_MAP else _small_path
    return cached_path(directions, height, width, 0 if window >= max(height, width) else window)


def _new_path(directions: str | tuple[str, ...], height: int, width: int, window: int) -> ScanPath:
    if window:
        return window_path(directions, height, width, (window, window))
    names = resolve_directions(directions)
    _check_map(height, width)
    return custom_path(np.stack([order_of_positions(name, height, width) for name in names]), height * width)


_small_path, _large_path = lru_cache(maxsize=512)(_new_path), lru_cache(maxsize=16)(_new_path)


def window_path(directions: str | Sequence[str], height: int, width: int, window: tuple[int, int]) -> ScanPath:
    """The scan path that takes each window of (window height, window width) by itself, windows in row order.

    The state starts anew in each window. Windows at the lower and right edge are cut off where the map ends.
    """
    names = resolve_directions(directions)
    _check_map(height, width)
    rows, columns = window
    if rows < 1 or columns < 1:
        raise ValueError(f"window must have at least one row and one column, got {window}")
    grid = np.arange(height * width, dtype=np.int32).reshape(height, width)
    tiles = [grid[i : i + rows, j : j + columns] for i in range(0, height, rows) for j in range(0, width, columns)]
    table = np.stack(
        [np.concatenate([tile.ravel()[order_of_positions(name, *tile.shape)] for tile in tiles]) for name in names]
    )
    resets = np.zeros_like(table, dtype=np.uint8)
    resets[:, np.cumsum([0] + [tile.size for tile in tiles[:-1]])] = 1
    return custom_path(table, height * width, resets)


def custom_path(
    table: np.ndarray | Sequence[Sequence[int]],
    length: int,
    resets: np.ndarray | Sequence[Sequence[int]] | None = None,
) -> ScanPath:
    """The scan path of any table of positions (K, steps), or of K sequences of different lengths, padded with −1.

    A direction visits a position at most once and may leave positions out. `resets` has the table's shape; a mark on
    a pause moves on to the direction's next visited step, so that every backend reads marks alike.
    Raises ValueError for anything else.
    """
    positions = _rectangle("table", table, fill=-1)
    if not isinstance(length, (int, np.integer)) or not 1 <= length < 2**31:
        raise ValueError(f"length must be an integer from 1 to 2^31 - 1, got {length!r}")
    wrong = positions[(positions < -1) | (positions >= length)]
    if wrong.size:
        raise ValueError(f"table must hold positions from 0 to {length - 1}, or -1 to pause, got {wrong[0]}")
    seen = np.zeros((positions.shape[0], length + 1), dtype=np.int64)
    np.add.at(seen, (np.arange(positions.shape[0])[:, None], positions), 1)  # −1 lands in the extra last column
    for direction, position in np.argwhere(seen[:, :length] > 1):
        raise ValueError(f"direction {direction} must visit a position at most once, got {position} twice")
    marks = np.zeros_like(positions) if resets is None else _rectangle("resets", resets, fill=0)
    if marks.shape != positions.shape:
        raise ValueError(f"resets must have the table's shape {positions.shape}, got {marks.shape}")
    for direction, (row, row_marks) in enumerate(zip(table, () if resets is None else resets)):
        if len(row) != len(row_marks):
            raise ValueError(f"resets of direction {direction} must be {len(row)} as in table, got {len(row_marks)}")
    if not np.isin(marks, (0, 1)).all():
        raise ValueError(f"resets must hold 0 and 1 only, got {int(marks[~np.isin(marks, (0, 1))][0])}")
    table32 = np.ascontiguousarray(positions, dtype=np.int32)
    resets8 = _marks_on_visited(table32, marks)
    table32.flags.writeable = False
    resets8.flags.writeable = False
    return ScanPath(int(length), table32, resets8, int((table32 >= 0).sum()))


def order_of_positions(name: str, height: int, width: int) -> np.ndarray:
    """Positions of a (height, width) map in the order of one direction, (height · width,) int32."""
    order, backwards = order_of(name)
    row, column = (part.ravel() for part in np.indices((height, width), dtype=np.int64))
    # The last key of lexsort is the first that counts.
    visited = np.lexsort(order.key(row, column, height, width)[::-1]).astype(np.int32)
    return visited[::-1] if backwards else visited


def _rectangle(what: str, rows: np.ndarray | Sequence[Sequence[int]], fill: int) -> np.ndarray:
    """A new (K, steps) int64 array from an array or from sequences of different lengths, filled up at their ends."""
    if not isinstance(rows, Iterable):
        raise ValueError(f"{what} must hold one sequence of integers a direction, got {type(rows).__name__}")
    sequences = [np.asarray(row) for row in rows]
    if not sequences or max(row.size for row in sequences) == 0:
        raise ValueError(f"{what} must have at least one direction and one step, got none")
    for row in sequences:
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iub"):
            raise ValueError(f"{what} must hold one sequence of integers a direction, got {row.ndim}-D {row.dtype}")
    result = np.full((len(sequences), max(row.size for row in sequences)), fill, dtype=np.int64)
    for target, row in zip(result, sequences):
        if row.dtype == np.uint64 and row.size and row.max() >= 2**63:
            raise ValueError(f"{what} must hold integers below 2^63, got {row.max()}")
        target[: row.size] = row
    return result


def _marks_on_visited(table: np.ndarray, marks: np.ndarray) -> np.ndarray:
    steps = table.shape[1]
    # Each step itself or the next one visited; `steps` where there is none.
    visited = np.where(table >= 0, np.arange(steps), steps)
    following = np.minimum.accumulate(visited[:, ::-1], axis=1)[:, ::-1]
    resets = np.zeros((table.shape[0], steps + 1), dtype=np.uint8)
    direction, step = np.nonzero(marks)
    resets[direction, following[direction, step]] = 1
    return np.ascontiguousarray(resets[:, :steps])


def _check_map(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"a map must have at least one row and one column, got height {height} and width {width}")


def _unknown(what: str, got: object, known: list[str]) -> str:
    hint = did_you_mean(got, known, shown=repr)
    return f"{what} must be one of {', '.join(known)}, got {got!r}{hint and f' ({hint})'}"
