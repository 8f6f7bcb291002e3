"""Table of axes and drawings of scan orders: python -m medmamba_variants.axis_table prints docs/axes.md.

With a folder as argument it writes axes.md and orders.svg there: python -m medmamba_variants.axis_table docs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import AXES, FAMILIES, SUGAR
from medmamba_variants.design.components import Component
from medmamba_variants.design.kinds import short
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.scan.directions import DIRECTION_SETS, ORDERS
from medmamba_variants.streams import end_with_reader

# Sides of a drawn map in positions, of a position and of a panel in pixels, and panels in a row.
SIDE, STEP, PANEL, ACROSS = 6, 18, 140, 6


def axis_table() -> str:
    """The axes as a Markdown table: name, values with the default first, meaning, source."""
    defaults = VariantConfig().to_dict()
    lines = ["| axis | default | values | meaning | no effect where | source |", "|---|---|---|---|---|---|"]
    for axis in (*AXES.values(), *SUGAR.values()):
        default = short(defaults[axis.name]) if axis.name in defaults else "writes branches"
        needs = "; ".join(axis.no_effect)
        lines.append(f"| `{axis.name}` | {default} | {axis.kind.words()} | {axis.meaning} | {needs} | {axis.source} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page of axes in Markdown: the table, the choices in a sentence each, and the orders."""
    parts = [
        "# Axes\n\nEvery choice that a variant makes. Each axis is declared once, in "
        "`medmamba_variants/design/axes.py` or by the component that owns it, and this page is generated from the "
        "declarations: `python -m medmamba_variants.axis_table docs`. The default is what the published MedMamba-T "
        "does. An axis is refused where it has no effect, so that one network has one id.\n",
        axis_table(),
        "## Choices\n\nWhat the words of the axes that choose a component stand for, and the axes that it owns.\n",
    ]
    for title, members in {"branches": MIXERS, **FAMILIES}.items():
        parts.append(f"### `{title}`\n\n" + "\n".join(_sentence(word, kind) for word, kind in members.items()) + "\n")
    named = "\n".join(f"- `{name}`: {', '.join(members)}" for name, members in DIRECTION_SETS.items())
    parts += [
        "## Scan orders\n\nEach on a map of 6×6, from the ring to the dot; every order also runs backwards "
        "(`rows_reverse`).\n\n![Every scan order, drawn on a map of six by six](orders.svg)\n",
        "\n".join(f"- `{name}`: {order.words}" for name, order in ORDERS.items()) + "\n",
        f"Named sets of directions:\n\n{named}\n",
    ]
    return "\n".join(parts)


def _sentence(word: str, kind: type[Component]) -> str:
    first = (kind.__doc__ or "").strip().splitlines()[0]
    owned = ", ".join(f"`{name}`" for name in kind.declared())
    return f"- `{word}`: {first}" + (f" Axes: {owned}." if owned else "")


def drawings() -> str:
    """The scan orders as an SVG image, a panel for each: the path over a map of 6×6 positions."""
    rows = -(-len(ORDERS) // ACROSS)
    panels = "".join(
        _panel(name, (index % ACROSS) * PANEL, (index // ACROSS) * (PANEL + 16)) for index, name in enumerate(ORDERS)
    )
    size = f'width="{ACROSS * PANEL}" height="{rows * (PANEL + 16)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{panels}</svg>\n'
    )


def _panel(name: str, left: int, top: int) -> str:
    key = ORDERS[name].key
    every = ((row, column) for row in range(SIDE) for column in range(SIDE))
    places = sorted(every, key=lambda place: key(place[0], place[1], SIDE, SIDE))
    margin = (PANEL - (SIDE - 1) * STEP) // 2
    points = [(left + margin + column * STEP, top + margin + row * STEP) for row, column in places]
    path = " ".join(f"{x},{y}" for x, y in points)
    grid = "".join(f'<circle cx="{x}" cy="{y}" r="1.5" fill="#999"/>' for x, y in sorted(points))
    (x0, y0), (x1, y1) = points[0], points[-1]
    return (
        f'{grid}<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.4" stroke-linejoin="round"/>'
        f'<circle cx="{x0}" cy="{y0}" r="4" fill="white" stroke="#1f5fa8" stroke-width="1.6"/>'
        f'<circle cx="{x1}" cy="{y1}" r="4" fill="#1f5fa8"/>'
        f'<text x="{left + PANEL // 2}" y="{top + PANEL + 4}" text-anchor="middle">{name}</text>'
    )


def main(arguments: Sequence[str]) -> None:
    """Prints the page, or writes it and the drawings to the folder that is given."""
    if not arguments:
        print(page(), end="")
        return
    folder = Path(arguments[0])
    (folder / "axes.md").write_text(page())
    (folder / "orders.svg").write_text(drawings())


if __name__ == "__main__":
    end_with_reader()
    main(sys.argv[1:])
