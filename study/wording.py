"""How quantities, durations and tables read on a terminal and in a log."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence


def quantity(value: float | None) -> str:
    """A count with three digits and its unit of thousands: 14457222 is "14.5 M"."""
    if value is None or not math.isfinite(value):
        return "–"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        # 999.9 k would round to "1000 k".
        if abs(value) >= 0.9995 * limit:
            return f"{value / limit:#.3g}".rstrip(".") + unit
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as a clock shows them: 3725 is "1:02:05", 65 is "1:05"."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{last:02d}" if hours else f"{minutes}:{last:02d}"


def about(seconds: float) -> str:
    """A rough time in words: "1.5 s", "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{round(seconds)} s" if seconds >= 10 else f"{max(0.1, seconds):.1f} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def share(value: float | None) -> str:
    """A metric between 0 and 1 with three decimals."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """A metric's interval, or nothing where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{low:.3f}, {high:.3f}]"


def counted(number: int, noun: str) -> str:
    """The number with its noun, in the plural where it must be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Lines of an aligned table under a rule; the columns of `right` are flush right."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [text.rjust(width) if index in right else text.ljust(width) for index, (text, width) in _placed(row)]
        return "  ".join(cells).rstrip()

    def _placed(row: Sequence[str]) -> list[tuple[int, tuple[str, int]]]:
        return list(enumerate(zip(row, widths, strict=True)))

    return [line(head), "  ".join("─" * width for width in widths), *(line(row) for row in rows)]
