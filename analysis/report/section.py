"""A section of a report as a value: what the page shows and what also goes into files."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

from analysis.rendering.html import Html, figure_grid, folded, section, table_block
from analysis.rendering.marks import Picture
from analysis.rendering.tables import Table
from analysis.report.drawing import Coming
from analysis.report.evidence import Evidence
from analysis.words import counted

# With more, a page would be too long to read; tables in files are complete.
DRAWN_DATASETS = 12


@dataclass(frozen=True)
class Part:
    """A section, and the figures and tables that also go into files.

    In the page: blocks, then figures, tables, tables behind a click, and further blocks. Figures that another process
    draws are waited for when they are looked at.
    """

    name: str
    title: str
    blocks: tuple[str, ...]
    drawings: tuple[Coming, ...] = ()
    open_tables: tuple[Table, ...] = ()
    folded_tables: tuple[Table, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        return (*self.open_tables, *self.folded_tables)

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        came = [drawing.result() if isinstance(drawing, Future) else drawing for drawing in self.drawings]
        return tuple(picture for picture in came if picture is not None)

    @cached_property
    def html(self) -> Html:
        grid = [figure_grid(self.pictures)] if self.pictures else []
        shown = [table_block(table) for table in self.open_tables]
        shown += [folded(f"{table.title}, in numbers", table_block(table)) for table in self.folded_tables]
        return section(self.name, self.title, *self.blocks, *grid, *shown, *self.after)


def make_part(
    name: str,
    title: str,
    blocks: Sequence[str],
    drawings: Sequence[Coming] = (),
    tables: Sequence[Table] = (),
    folded_tables: Sequence[Table] = (),
    after: Sequence[str] = (),
) -> Part:
    """A section of blocks, then figures (None is skipped), tables, tables behind a click, and further blocks."""
    return Part(name, title, tuple(blocks), tuple(drawings), tuple(tables), tuple(folded_tables), tuple(after))


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
