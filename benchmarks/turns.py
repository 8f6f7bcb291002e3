"""Timing of functions in turns, and their comparison turn by turn."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def take_turns(functions: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Times functions in turns: a list per function of the seconds of every call, entries belonging to the same turns.

    A turn calls the first function, then each of the others that has not yet used up `seconds`; turns end when all of
    the others have, so that each of them ran beside the first in every turn. The first call of each is not counted.
    """
    first, *others = functions
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    while waiting := [name for name in others or [first] if sum(taken[name]) < seconds]:
        for name in dict.fromkeys([first, *waiting]):
            start = time.perf_counter()
            functions[name]()
            taken[name].append(time.perf_counter() - start)
    return taken


def typical_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median of the ratios turn by turn, over the turns that both took.

    Whatever slows the machine for longer than a turn slows both. The ratio of two minima would favour the function
    that took more turns.
    """
    return statistics.median(above / below for above, below in zip(numerator, denominator))
