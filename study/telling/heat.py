"""Heat map of a board: variants by data sets, with counts and means as text, and shades on a terminal."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from analysis.words import share, shortened
from study.telling.board import Board, Square
from study.telling.terminal import columns

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS, MOST_COLUMNS = 16, 8
LONGEST_LABEL = 32
# From the lowest to the highest mean of a data set; dark text stands on each of them.
SHADES = ("#f7fbff", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6")


def heat_lines(board: Board) -> list[str]:
    """The heat map as lines of plain text: `done/wanted mean` in each square; none without a cell or a data set."""
    labels, datasets, more = _shown(board)
    if not labels or not datasets:
        return []
    rows = [[_name(label), *(_text(board, board.square(label, name)) for name in datasets)] for label in labels]
    return [*columns(["", *datasets], rows, right=range(1, len(datasets) + 1)), *([more] if more else [])]


def heat_table(board: Board) -> Table | None:
    """The heat map for a terminal, each square shaded by its mean among those of its data set; None where empty."""
    from rich.table import Table
    from rich.text import Text

    labels, datasets, more = _shown(board)
    if not labels or not datasets:
        return None
    table = Table(box=None, padding=(0, 1), pad_edge=False, caption=more or None, caption_justify="left")
    table.add_column()
    for name in datasets:
        table.add_column(Text(name), justify="right")
    for label in labels:
        squares = [board.square(label, name) for name in datasets]
        shades = [_shade(board, name, square) for name, square in zip(datasets, squares, strict=True)]
        texts = [Text(f" {_text(board, square)} ", style) for square, style in zip(squares, shades, strict=True)]
        table.add_row(Text(_name(label)), *texts)
    return table


def _shown(board: Board) -> tuple[list[str], list[str], str]:
    """The variants and data sets that there is room for, and what was left out: of many variants the best are shown."""
    labels, datasets = list(board.labels), list(board.datasets)
    left: list[str] = []
    if len(labels) > MOST_ROWS:
        best = sorted(labels, key=lambda label: -_mean(board, label))[:MOST_ROWS]
        left.append(f"{len(labels) - MOST_ROWS} more variants")
        labels = [label for label in labels if label in set(best)]
    if len(datasets) > MOST_COLUMNS:
        left.append(f"{len(datasets) - MOST_COLUMNS} more data sets")
    return labels, datasets[:MOST_COLUMNS], f"and {' and '.join(left)}" if left else ""


def _mean(board: Board, label: str) -> float:
    means = [board.square(label, name).mean for name in board.datasets]
    known = [mean for mean in means if mean is not None]
    return fmean(known) if known else -1.0


def _name(label: str) -> str:
    return shortened(label, LONGEST_LABEL)


def _text(board: Board, square: Square) -> str:
    wanted = "" if board.seeds is None else f"/{board.seeds}"
    failed = f" ✗{square.ended['failed']}" if square.ended["failed"] else ""
    return f"{square.ended['done']}{wanted} {share(square.mean)}{failed}"


def _shade(board: Board, dataset: str, square: Square) -> str:
    known = [mean for label in board.labels if (mean := board.square(label, dataset).mean) is not None]
    if square.mean is None or len(known) < 2:
        return "dim" if square.mean is None else ""
    low, high = min(known), max(known)
    place = 0.5 if low == high else (square.mean - low) / (high - low)
    return f"black on {SHADES[min(int(place * len(SHADES)), len(SHADES) - 1)]}"
