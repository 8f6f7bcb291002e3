"""A section of a report as a value: what the page shows, and what also goes into files."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.rendering.canvas import Drawing, Picture, render
from analysis.rendering.html import Html, figure_grid, folded, section, table_block
from analysis.rendering.tables import Table
from analysis.report.evidence import Evidence
from analysis.words import counted

# Beyond these a page would be too long to read; tables in files are whole.
DRAWN_DATASETS = 12


@dataclass(frozen=True)
class Part:
    """A section, and the figures and tables that also go into files."""

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
    """A drawing as a picture, which takes a hundredth of its memory; what is one already, or nothing, stays so."""
    if not isinstance(drawing, Drawing):
        return drawing
    picture = render(drawing)
    if gc.get_freeze_count():
        # A figure's parts refer to each other in circles. Where all that is older was set aside they go in no time.
        del drawing
        gc.collect()
    return picture


def cuts(evidence: Evidence, drawn: Sequence[str]) -> str:
    """What figures of single data sets leave out to stay readable, as a sentence; empty where there is nothing."""
    said = []
    finished = len(set(evidence.done()["variant_id"]))
    if finished > len(drawn):
        said.append(
            f"{len(drawn)} of {counted(finished, 'variant')} are drawn, those compared and the best on validation"
        )
    if len(evidence.datasets) > DRAWN_DATASETS:
        said.append(f"the first {DRAWN_DATASETS} of {counted(len(evidence.datasets), 'data set')} are drawn")
    return f"To stay readable: {'; '.join(said)}." if said else ""
