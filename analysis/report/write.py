"""Writer of a study's report.

It makes `report.html`, one self-contained page, with `tables/` (CSV, Markdown, LaTeX) and `figures/` (SVG, PNG, PDF
where it is wanted) beside it.
"""

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.across.standings import standings
from analysis.metrics import METRICS
from analysis.records.manifests import parsed_manifests
from analysis.records.places import ledger_folder
from analysis.rendering.html import Html, whole_page
from analysis.rendering.marks import DRAWN_VARIANTS, marks
from analysis.rendering.tables import to_csv, to_latex, to_markdown
from analysis.report.drawing import Coming, Draw, draw_and_clear
from analysis.report.evidence import Evidence, load_evidence
from analysis.report.section import Part
from analysis.report.sections import claims as claim_sections
from analysis.report.sections import grounds as evidence_sections
from analysis.verdicts.decisions import Ask, Deciding
from analysis.verdicts.images import answers
from analysis.verdicts.verdict import Verdict

# A fixed seed, so that the same records give the same resampled intervals each time.
SEED = 20_250_101

Made = TypeVar("Made")


@dataclass(frozen=True)
class Report:
    """A written report: the page, its folder, the verdicts in it, and what the reader of the log should know."""

    page: Path
    folder: Path
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]


def write_report(
    store: Path | str,
    study: str,
    out: Path | str | None = None,
    *,
    rng: np.random.Generator | None = None,
    ask: Ask = answers,
    draw: Draw = draw_and_clear,
    evidence: Evidence | None = None,
) -> Report:
    """Writes a study's report, by the study's name or hash, into `out` (by default `<store>/reports/<name>`).

    The same records give the same bytes. ask: what answers for the test images meanwhile, by default this process when
    all else is drawn (`analysis.verdicts.apart` is another one). draw: what draws the figures, by default this process
    at once (`analysis.report.drawing.Drawer` is another one). evidence: the study's, where it is loaded already.
    Raises ValueError, one line, for an unknown study or an unreadable ledger.
    """
    evidence = load_evidence(store, study) if evidence is None else evidence
    rng = rng or np.random.default_rng(SEED)
    # For many small products more threads would wait for each other, and their number would show in the last digit.
    with threadpool_limits(1), set_aside():
        deciding, problem = _attempt(
            lambda: Deciding(
                evidence.table, evidence.manifest, evidence.folder, rng=rng, ask=ask, records=evidence.told
            )
        )
        # What needs no verdict comes first, while another process may be at work on them.
        drawn = _evidence_parts(evidence, draw)
        # A search chose by validation, so that is what its picture shows: test results of the chosen are no choice.
        split = "validation" if evidence.is_search else "test"
        places = {name: standings(evidence.table, name, list(evidence.variants), split=split) for name in METRICS}
        verdicts: list[Verdict] | None = None
        forests: dict[int, Coming] = {}
        if deciding is not None:
            shown = deciding.compared[: claim_sections.DRAWN_CONTRASTS]

            def hear(contrast: int, found: Verdict) -> None:
                if contrast in shown:
                    forests[contrast] = claim_sections.forest(found, shown.index(contrast) + 1, draw)

            verdicts, problem = _attempt(lambda: deciding.verdicts(hear))
        made = [
            # The sections that come first in the order of reading.
            claim_sections.question(evidence),
            claim_sections.verdict_section(evidence, verdicts or [], problem),
            claim_sections.results(evidence, verdicts or [], split),
            claim_sections.cost(evidence, places, split, rng=rng, draw=draw),
            claim_sections.differences(evidence, verdicts or [], [forests[place] for place in sorted(forests)]),
            *drawn,
        ]
    verdicts = verdicts or []
    folder = Path(out) if out is not None else default_folder(store, evidence)
    head = claim_sections.header(evidence, verdicts)
    page = write_page(folder, f"{evidence.name}: report", f"Report on the study {evidence.name}", head, made)
    return Report(page, folder, tuple(verdicts), (f"no verdicts: {problem}",) if problem else ())


def write_page(folder: Path, title: str, description: str, header: Html, parts: Sequence[Part]) -> Path:
    """Writes `report.html` of some sections, with their tables and figures beside it; returns its path."""
    write_files(folder, parts)
    page = folder / "report.html"
    sections, titles = ({part.name: getattr(part, key) for part in parts} for key in ("html", "title"))
    page.write_text(whole_page(title, description, header, sections, titles), encoding="utf-8")
    return page


@contextmanager
def set_aside() -> Iterator[None]:
    """Context that hides existing objects, thousands of records, from the garbage collector while figures are drawn."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _attempt(make: Callable[[], Made]) -> tuple[Made | None, str | None]:
    """The result of `make`, or why there are no verdicts: a page without them still shows the rest."""
    try:
        return make(), None
    except ValueError as problem:
        return None, str(problem)


def _evidence_parts(evidence: Evidence, draw: Draw) -> list[Part]:
    """The sections that follow."""
    own = [
        evidence_sections.race(evidence),
        evidence_sections.budgets(evidence),
        evidence_sections.cells(evidence),
        evidence_sections.provenance(evidence),
        evidence_sections.limits(evidence),
    ]
    return [*shared_parts(evidence, draw), *(part for part in own if part is not None)]


def shared_parts(evidence: Evidence, draw: Draw) -> list[Part]:
    """The sections on variants and data sets that no contrast and no manifest is needed for. draw: what draws them."""
    drawn = evidence.chosen(DRAWN_VARIANTS)
    styles = marks(drawn, evidence.baseline)
    parts = [
        claim_sections.ranks(evidence, draw=draw),
        evidence_sections.curves(evidence, drawn, styles, draw=draw),
        evidence_sections.classes(evidence, drawn),
        *evidence_sections.predictions(evidence, drawn, styles, draw=draw),
        evidence_sections.data(evidence),
        evidence_sections.audits(evidence),
    ]
    return [part for part in parts if part is not None]


def default_folder(store: Path | str, evidence: Evidence) -> Path:
    """The default folder of a study's report: its name, with its hash where another study has the same name."""
    ledger = ledger_folder(store)
    home = ledger.parent if ledger.name == "ledger" else ledger
    name = re.sub(r"[^\w.-]+", "_", evidence.name).strip(".") or "study"
    names = [manifest.get("name") for manifest in parsed_manifests(ledger).values()]
    return home / "reports" / (name if names.count(evidence.name) < 2 else f"{name}-{evidence.manifest['study_hash']}")


def write_files(folder: Path, parts: Iterable[Part]) -> None:
    """Writes the tables and figures of sections into `tables/` and `figures/` of a folder, which their page links."""
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for part in parts:
        for table in part.tables:
            for ending, write in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
                (folder / "tables" / f"{table.name}.{ending}").write_text(write(table), encoding="utf-8")
        for picture in part.pictures:
            (folder / "figures" / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (folder / "figures" / f"{picture.name}.png").write_bytes(picture.png)
            if picture.pdf:
                (folder / "figures" / f"{picture.name}.pdf").write_bytes(picture.pdf)
