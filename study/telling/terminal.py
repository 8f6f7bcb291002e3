"""Durations and tables as shown on a terminal and in a log; `analysis.words` has numbers and names."""

from __future__ import annotations

from collections.abc import Container, Sequence


def duration(seconds: float) -> str:
    """A duration as a clock shows it: 3725 is "1:02:05", 65 is "1:05"."""
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


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """The lines of an aligned table with a rule under its head; the columns in `right` are flush right."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [text.rjust(width) if index in right else text.ljust(width) for index, (text, width) in _placed(row)]
        return "  ".join(cells).rstrip()

    def _placed(row: Sequence[str]) -> list[tuple[int, tuple[str, int]]]:
        return list(enumerate(zip(row, widths, strict=True)))

    return [line(head), "  ".join("─" * width for width in widths), *(line(row) for row in rows)]
