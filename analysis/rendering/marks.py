"""How variants are marked in all figures, and a finished picture: values that need no library that draws."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

# Okabe and Ito's palette, distinct to colour-blind readers, in an order whose greys differ too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a6761d", "#7f3c8d", "#999999")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
LINES = ((0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (2, 1)), (0, (4, 1, 1, 1, 1, 1)))
DRAWN_VARIANTS = len(MARKERS)


@dataclass(frozen=True)
class Mark:
    """How one variant is drawn everywhere: colour, marker and line style say the same, so two may be lost."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Picture:
    """A rendered figure: SVG to stand alone and to stand in a page, PNG, and PDF if it was wanted."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    inline: str
    png: bytes
    pdf: bytes = b""


def file_name(name: str) -> str:
    """A name that is safe in a path, an id and an address, and different for different names."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".")
    return name if safe == name else f"{safe}_{sha256(name.encode()).hexdigest()[:6]}"


def marks(variants: Sequence[str], baseline: str | None) -> dict[str, Mark]:
    """A mark for each variant: the baseline black, round and solid, the others in turn."""
    others = [v for v in variants if v != baseline]
    styles = {
        v: Mark(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, v in enumerate(others)
    }
    return {v: styles.get(v, Mark("#000000", "o", "-")) for v in variants}
