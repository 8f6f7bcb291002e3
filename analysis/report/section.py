"""A section of a report as a value: what the page shows and what also goes into files."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.rendering.canvas import Drawing, Picture, render
from analysis.rendering.html import Html, figure_grid, folded, section, table_block
from analysis.rendering.tables import Table
from analysis.report.evidence import Evidence
from analysis.words import counted

# With more, a page would be too long to read; tables in files are complete.
DRAWN_DATASETS = 12


@dataclass(frozen=True)
class Part:
    """A section of a report, with the figures and tables that also go into files."""

    name: str
    title: str
    html: Html
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


def make_part(
    name: str,
    title: str,
    blocks: Sequence[str],
    drawings: Sequence[Drawing | Picture | None] = (),
    tables: Sequence[Table] = (),
    folded_tables: Sequence[Table] = (),
    after: Sequence[str] = (),
) -> Part:
    """A section of blocks, then figures (None is skipped), tables, tables behind a click, and further blocks."""
    pictures = tuple(picture for picture in map(rendered, drawings) if picture is not None)
    grid = [figure_grid(pictures)] if pictures else []
    shown = [table_block(table) for table in tables]
    shown += [folded(f"{table.title}, in numbers", table_block(table)) for table in folded_tables]
    html = section(name, title, *blocks, *grid, *shown, *after)
    return Part(name, title, html, pictures, (*tables, *folded_tables))


def rendered(drawing: Drawing | Picture | None) -> Picture | None:
    """A drawing rendered to a picture, which takes a hundredth of its memory; a picture or None stays as it is."""
    if not isinstance(drawing, Drawing):
        return drawing
    picture = render(drawing)
    if gc.get_freeze_count():
        # A figure's parts form reference cycles. With older objects set aside they are collected in no time.
        del drawing
        gc.collect()
    return picture


def cuts(evidence: Evidence, drawn: Sequence[str]) -> str:
    """A sentence on what figures of single data sets leave out to stay readable; empty where that is nothing."""
    said = []
    finished = len(set(evidence.done()["variant_id"]))
    if finished > len(drawn):
        said.append(
            f"{len(drawn)} of {counted(finished, 'variant')} are drawn, those compared and the best on validation"
        )
    if len(evidence.datasets) > DRAWN_DATASETS:
        said.append(f"the first {DRAWN_DATASETS} of {counted(len(evidence.datasets), 'data set')} are drawn")
    return f"To stay readable: {'; '.join(said)}." if said else ""
