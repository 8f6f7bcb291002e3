"""Numbers and names as a reader sees them: the one way to print a metric, an interval, a p value or a count."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING

from analysis.metrics import DECLARED, LOWER_IS_BETTER

if TYPE_CHECKING:
    from analysis.interval import Interval

METRIC_NAMES = {name: declared.printed for name, declared in DECLARED.items()}
NOTHING = "–"
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
LONGEST = 26
# What came of a fault stands at the end of its message: such a line is cut in its middle, too.
LONGEST_REASON = 300


def bare_metric_name(metric: str) -> str:
    """A metric's name as it is printed, without its direction."""
    return METRIC_NAMES.get(metric, metric.rstrip(" ↑↓"))


def metric_name(metric: str) -> str:
    """A metric's name with its direction where smaller is better."""
    name = bare_metric_name(metric)
    return f"{name} (lower is better)" if metric in LOWER_IS_BETTER else name


def share(value: float | None, digits: int = 3) -> str:
    """A number such as 0.912; a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign, such as +0.0123; what rounds to nothing is +0.0000."""
    return (
        NOTHING if value is None or math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")
    )


def bounds(interval: Interval | None, digits: int = 3, sign: bool = False) -> str:
    """An interval's ends, such as [0.901, 0.923]; a dash where it is undefined."""
    return NOTHING if interval is None else ends(interval.low, interval.high, digits, sign)


def ends(low: float | None, high: float | None, digits: int = 3, sign: bool = False) -> str:
    """Two ends, such as [0.901, 0.923]; a dash where one is missing."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NOTHING
    word = signed if sign else share
    return f"[{word(low, digits)}, {word(high, digits)}]"


def quantity(value: float | None) -> str:
    """A count with a unit, three digits: 531 k, 17.4 M."""
    if value is None or math.isnan(value):
        return NOTHING
    for size, unit in UNITS:
        # A value that rounds up to the next unit is written in that.
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def p_value(value: float | None) -> str:
    """A p value to three digits, never 0."""
    if value is None or math.isnan(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage, with < 1 % and > 99 % where it rounds to a certainty that is none."""
    if value is None or math.isnan(value):
        return NOTHING
    if 0 < value < 0.01:
        return "< 1 %"
    if 0.99 < value < 1:
        return "> 99 %"
    return f"{100 * value:.0f} %"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where needed: 1 cell, 2 cells."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: list[str] | tuple[str, ...], most: int = 6) -> str:
    """Names as a list in a sentence, cut after `most`."""
    shown = list(names[:most])
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name cut in the middle, where two names differ least, so that it fits a figure's margin."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[-(longest - 1 - head) :]}"


def distinct(names: Iterable[str], longest: int = LONGEST) -> list[str]:
    """Names as `shortened` cuts them, except where that makes two of them one: those are cut around where they differ.

    What still looks alike then gets a number, so that no two different names have one text.
    """
    given = list(names)
    texts = {name: shortened(name, longest) for name in given}
    for text in sorted(set(texts.values())):
        alike = [name for name in texts if texts[name] == text]
        if len(alike) > 1:
            first = next(place for place, letters in enumerate(zip_longest(*alike)) if len(set(letters)) > 1)
            start = max(0, min(first - 2, max(map(len, alike)) - longest + 1))
            texts |= {name: _window(name, start, longest) for name in alike}
    seen: dict[str, str] = {}
    for name, text in texts.items():
        number, free = 1, text
        while seen.setdefault(free, name) != name:
            number += 1
            mark = f" ({number})"
            free = shortened(name, longest - len(mark)) + mark
        texts[name] = free
    return [texts[name] for name in given]


def _window(name: str, start: int, longest: int) -> str:
    """A name without its first letters, cut where it is too long."""
    rest = f"…{name[start:]}" if start else name
    return rest if len(rest) <= longest else f"{rest[: longest - 1]}…"
