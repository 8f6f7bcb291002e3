"""The common ground of all figures: a style that needs no colour, and rendering to bytes that never vary."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.rendering import fonts
from analysis.rendering.marks import COLOURS as COLOURS
from analysis.rendering.marks import DRAWN_VARIANTS as DRAWN_VARIANTS
from analysis.rendering.marks import LINES as LINES
from analysis.rendering.marks import MARKERS as MARKERS
from analysis.rendering.marks import Mark as Mark
from analysis.rendering.marks import Picture as Picture
from analysis.rendering.marks import file_name as file_name
from analysis.rendering.marks import marks as marks

# Inches. 403 CSS pixels: text stays readable on a phone, and two figures fit side by side on a desktop.
WIDTH = 4.2
# Inches: a column of a journal that prints two.
COLUMN = 3.4
_width: ContextVar[float] = ContextVar("width", default=WIDTH)
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
    # Letters as letters, in an embedded font that printers and publishers take.
    "pdf.fonttype": 42,
    "svg.hashsalt": "analysis",
    # Labels come from records: a dollar sign is a dollar sign, not mathematics.
    "text.parse_math": False,
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


# Measured texts by all that their measures hang on, under the one style; renderers whose measures hang on no more.
LAYOUTS: dict[tuple[Any, ...], Any] = {}
MOST_LAYOUTS = 10_000
MEASURING = (RendererAgg, RendererSVG)


@dataclass(frozen=True)
class Drawing:
    """A finished figure: file name without ending, title, what its marks and intervals mean, and what it shows."""

    name: str
    figure: Figure
    title: str
    caption: str
    alt: str


@contextmanager
def style() -> Iterator[None]:
    """The figures' style, for as long as one is drawn; nothing global stays changed."""
    with (
        matplotlib.rc_context({**STYLE, "font.family": list(fonts.families())}),
        warnings.catch_warnings(),
        _remembered_layouts(),
    ):
        # A record's label may hold a character that the measuring font lacks: it is measured as a box, and shown.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@contextmanager
def _remembered_layouts() -> Iterator[None]:
    """Texts of one wording and look are measured once: a figure lays out each of its texts a dozen times."""
    measure: Any = Text._get_layout  # type: ignore[attr-defined]
    if getattr(measure, "is_remembered", False):
        yield
        return

    def remembered(text: Any, renderer: Any) -> Any:
        if type(renderer) not in MEASURING or text.get_wrap() or text.get_usetex() or text.get_parse_math():
            return measure(text, renderer)
        key = (
            type(renderer), text.get_figure(root=True).dpi, text.get_text(), hash(text.get_fontproperties()),
            text.get_rotation(), text.get_rotation_mode(), text.get_horizontalalignment(),
            text.get_verticalalignment(), text._get_multialignment(), text._linespacing,
        )  # fmt: skip
        if key not in LAYOUTS:
            if len(LAYOUTS) >= MOST_LAYOUTS:
                LAYOUTS.clear()
            LAYOUTS[key] = measure(text, renderer)
        return LAYOUTS[key]

    remembered.is_remembered = True  # type: ignore[attr-defined]
    Text._get_layout = remembered  # type: ignore[attr-defined]
    try:
        yield
    finally:
        Text._get_layout = measure  # type: ignore[attr-defined]


@contextmanager
def _remembered_ticks() -> Iterator[None]:
    """Ticks are found once for each range and size of an axis: nobody changes a figure that is being rendered."""
    find: Any = Axis._update_ticks  # type: ignore[attr-defined]
    found: dict[Axis, tuple[Any, Any]] = {}

    def remembered(axis: Any) -> Any:
        key = (*axis.get_view_interval(), *axis.axes.bbox.bounds)
        if axis not in found or found[axis][0] != key:
            found[axis] = (key, find(axis))
        return found[axis][1]

    Axis._update_ticks = remembered  # type: ignore[attr-defined]
    try:
        yield
    finally:
        Axis._update_ticks = find  # type: ignore[attr-defined]


def width() -> float:
    """The width of the figures that are being drawn, in inches."""
    return _width.get()


def room(characters: int) -> int:
    """How many characters fit, where so many do in a figure of the page."""
    return int(characters * width() / WIDTH)


@contextmanager
def as_wide_as(inches: float) -> Iterator[None]:
    """Context in which figures are so wide; letters keep their size."""
    before = _width.set(inches)
    try:
        yield
    finally:
        _width.reset(before)


def new_figure(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the common width and its axes, row by row."""
    figure = Figure(figsize=(width(), height), layout="constrained")
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
    with style(), _remembered_ticks():
        lay_out(drawing.figure)
        text, png = io.StringIO(), io.BytesIO()
        # Straight to the files: savefig would draw everything again for each, repeating the layout.
        FigureCanvasSVG(drawing.figure).print_svg(text, metadata={"Date": None, "Creator": None})
        drawing.figure.dpi = PNG_DPI
        with _legible(drawing.figure) as numbers:
            FigureCanvasAgg(drawing.figure).print_png(png, metadata={"Software": None})
    svg = _described(_trimmed(text.getvalue(), drawing.name), drawing)
    inline = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    return Picture(
        name=drawing.name,
        title=drawing.title,
        caption=drawing.caption + fonts.key(numbers),
        alt=drawing.alt,
        svg='<?xml version="1.0" encoding="utf-8"?>\n' + svg,
        inline=inline,
        png=png.getvalue(),
    )


@contextmanager
def _legible(figure: Figure) -> Iterator[dict[str, int]]:
    """Context in which numbers stand in the figure's texts for what no font can draw; yields what they stand for.

    A page needs none: a browser finds fonts of its own.
    """
    numbers: dict[str, int] = {}
    replaced: dict[Text, str] = {}
    # Also while it draws: an axis sets the texts of its ticks anew.
    set_text: Any = Text.set_text

    def set_legible(artist: Text, text: Any) -> None:
        legible = fonts.numbered("" if text is None else str(text), numbers)
        if legible != text:
            replaced.setdefault(artist, text)
        set_text(artist, legible)

    Text.set_text = set_legible  # type: ignore[method-assign,assignment]
    try:
        for artist in figure.findobj(Text):
            assert isinstance(artist, Text)
            artist.set_text(artist.get_text())
        yield numbers
    finally:
        Text.set_text = set_text  # type: ignore[method-assign]
        for artist, text in replaced.items():
            artist.set_text(text)


def render_pdf(drawing: Drawing) -> bytes:
    """A drawing as a PDF of one page; the same drawing gives the same bytes."""
    # Late: most reports have none.
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    with style():
        lay_out(drawing.figure)
        file = io.BytesIO()
        FigureCanvasPdf(drawing.figure).print_pdf(file, metadata={"CreationDate": None, "Title": drawing.title})
    return file.getvalue()


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
