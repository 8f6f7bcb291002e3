"""Contact sheets: pairs of look-alikes side by side, and single odd images, with their names and classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.rendering.canvas import GREY, WIDTH, Drawing, style
from analysis.words import counted, shortened

# Pairs, or single images, in a row of a sheet, and rows at most.
PAIRS, SINGLES = 2, 4
ROWS = 4
# Characters of a name that fit above an image.
LETTERS = 19
# Inches: an image's side, and the words above and below it.
SIDE, WORDS = 0.92, 0.46

LookUp = Callable[[int], np.ndarray]


def pair_sheet(
    name: str,
    title: str,
    explanation: str,
    pairs: Sequence[Mapping[str, Any]],
    total: int,
    pictures: tuple[LookUp, LookUp],
) -> Drawing:
    """Pairs of a list side by side, from both its ends where it is long, which are the most and the least alike.

    total: how many there are in all. pictures: what looks up an image by its row, left and right.
    """
    half = PAIRS * ROWS // 2
    shown = list(pairs) if len(pairs) <= 2 * half else [*pairs[:half], *pairs[-half:]]
    with style():
        figure, panels = _grid(len(shown), PAIRS, pictures[0](shown[0]["rows"][0]))
        for pair, (left, right) in zip(shown, panels):
            for place, panel in enumerate((left, right)):
                _show(panel, pictures[place](pair["rows"][place]), pair["images"][place], pair["classes"][place])
            how = "equal" if pair["equal"] else f"r = {pair['correlation']:.4f}"
            turn = "" if pair["turn"] == "as it is" else f", {pair['turn']}"
            left.text(
                1.04, -0.04, how + turn, ha="center", va="top", fontsize=6.5, color=GREY, transform=left.transAxes
            )
    cut = "" if len(shown) == total else ": above the most, below the least alike"
    caption = f"{_share(len(shown), total, 'pair')}{cut}. {explanation} r: correlation of small grey copies."
    return Drawing(name, figure, title, caption, f"{counted(len(shown), 'pair')} of images side by side.")


def single_sheet(
    name: str, title: str, explanation: str, images: Sequence[tuple[int, str, str]], total: int, picture: LookUp
) -> Drawing:
    """The first images of a list, each given by its row, name and class. total: how many there are in all."""
    shown = images[: 2 * SINGLES]
    with style():
        figure, panels = _grid(-(-len(shown) // 2), PAIRS, picture(shown[0][0]), spaced=False)
        flat = [panel for both in panels for panel in both]
        for (row, image, title_of), panel in zip(shown, flat):
            _show(panel, picture(row), image, title_of)
        for panel in flat[len(shown) :]:
            panel.set_visible(False)
    caption = f"{_share(len(shown), total, 'image')}. {explanation}"
    return Drawing(name, figure, title, caption, f"{counted(len(shown), 'image')} side by side.")


def _share(shown: int, total: int, noun: str) -> str:
    """How many of how many are shown."""
    return (
        f"{shown} of {counted(total, noun)}"
        if shown < total
        else f"{'All ' if total > 1 else ''}{counted(total, noun)}"
    )


def _grid(count: int, columns: int, image: np.ndarray, spaced: bool = True) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure with places for `count` pairs of images of this shape, row by row."""
    rows = -(-count // columns)
    height = SIDE * image.shape[0] / image.shape[1] + WORDS
    figure = Figure(figsize=(WIDTH, rows * height + 0.05))
    gap = 0.3 if spaced else 0.1
    widths = [1, 1, gap] * (columns - 1) + [1, 1]
    grid = figure.add_gridspec(
        rows, len(widths), width_ratios=widths, left=0.01, right=0.99, top=1 - 0.3 / (rows * height + 0.05),
        bottom=0.16 / (rows * height + 0.05), wspace=0.08 if spaced else 0.1, hspace=WORDS / (height - WORDS),
    )  # fmt: skip
    panels = []
    for place in range(count):
        row, column = divmod(place, columns)
        pair = tuple(figure.add_subplot(grid[row, 3 * column + side]) for side in (0, 1))
        panels.append((pair[0], pair[1]))
    return figure, panels


def _show(panel: Axes, image: np.ndarray, name: str, title: str) -> None:
    panel.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.set_title(f"{shortened(name, LETTERS)}\n{shortened(title, LETTERS)}", fontsize=6.5, loc="center", pad=2)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
