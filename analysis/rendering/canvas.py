"""The common ground of all figures: a style that needs no colour, and rendering to bytes that never vary."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Inches. 403 CSS pixels: text stays readable on a phone, and two figures fit side by side on a desktop.
WIDTH = 4.2
PNG_DPI = 160
# A figure's text is shown in the page's own font, which is never wider than the font used for layout.
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
INK = "#222222"
PALE = "#d9d9d9"
GREY = "#767676"

STYLE: Any = {
    # Letter widths depend on the resolution: everything is laid out at that of the files.
    "figure.dpi": PNG_DPI,
    "svg.fonttype": "none",
    "svg.hashsalt": "analysis",
    # Labels come from records: a dollar sign is a dollar sign, not mathematics.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
}

# Okabe and Ito's palette, distinct to colour-blind readers, in an order whose greys differ too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a6761d", "#7f3c8d", "#999999")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
LINES = ((0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (2, 1)), (0, (4, 1, 1, 1, 1, 1)))
DRAWN_VARIANTS = len(MARKERS)


@dataclass(frozen=True)
class Mark:
    """How one variant is drawn everywhere: colour, marker and line style are redundant, so that any one suffices."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Drawing:
    """A finished figure: file name without ending, title, what its marks and intervals mean, and what it shows."""

    name: str
    figure: Figure
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Picture:
    """A rendered figure: a standalone SVG, an SVG for inclusion in a page, and a PNG."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    inline: str
    png: bytes


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


@contextmanager
def style() -> Iterator[None]:
    """Context manager for the figures' style; nothing global stays changed."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A label may hold a character that the layout font lacks: it is measured as a box, and still shown.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the common width and its axes, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Puts the axes' legend under the figure, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3.2, columnspacing=1.2)


def lay_out(figure: Figure) -> None:
    """Lays a figure out once, for all files: a second call does nothing."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def render(drawing: Drawing) -> Picture:
    """The picture of a drawing; the same drawing gives the same bytes."""
    with style():
        lay_out(drawing.figure)
        text, png = io.StringIO(), io.BytesIO()
        # Straight to the files: savefig would draw everything again for each, repeating the layout.
        FigureCanvasSVG(drawing.figure).print_svg(text, metadata={"Date": None, "Creator": None})
        drawing.figure.dpi = PNG_DPI
        FigureCanvasAgg(drawing.figure).print_png(png, metadata={"Software": None})
    svg = _described(_trimmed(text.getvalue(), drawing.name), drawing)
    inline = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    return Picture(
        name=drawing.name,
        title=drawing.title,
        caption=drawing.caption,
        alt=drawing.alt,
        svg='<?xml version="1.0" encoding="utf-8"?>\n' + svg,
        inline=inline,
        png=png.getvalue(),
    )


def _trimmed(svg: str, name: str) -> str:
    """An SVG without prologue, metadata and rounding noise, its ids unique among many in one page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*sans-serif;? ?|font-family: '[^;\"]*'(?=[;\"]);? ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    # Only in coordinates, never in text: a label of 0.125 stays as it is.
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d{2})\d+", r"\1", tag[0]), svg)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return re.sub(r"<g>\n((?:(?!<g|</g).)*)\n</g>", r"\1", svg, flags=re.DOTALL)


def _described(svg: str, drawing: Drawing) -> str:
    """An SVG with text for screen readers, font and line endings."""
    head = f'<svg role="img" aria-label="{escape(drawing.alt)}" font-family="{FONT}" stroke-linejoin="round" '
    return svg.replace("<svg ", head, 1)
