"""Drawings, tables and sections of a report as a notebook's output."""

from analysis.rendering.canvas import Drawing, Picture, render
from analysis.rendering.tables import Table, to_markdown
from analysis.report.section import Part

PIXELS = 560


def show(*things: Drawing | Picture | Table | Part | str) -> None:
    """Displays figures with their captions, tables with theirs, both of a section, and Markdown text.

    Figures are PNG: a notebook that somebody else ran shows no SVG until it is trusted.
    """
    from IPython.display import Image, Markdown, display

    for thing in things:
        if isinstance(thing, Part):
            show(*thing.pictures, *thing.tables)
            continue
        if isinstance(thing, Table):
            display(Markdown(to_markdown(thing)))
            continue
        if isinstance(thing, str):
            display(Markdown(thing))
            continue
        picture = render(thing) if isinstance(thing, Drawing) else thing
        display(Image(picture.png, width=PIXELS, alt=picture.alt))
        display(Markdown(f"{picture.title}{'' if picture.title.endswith('?') else '.'} {picture.caption}"))
