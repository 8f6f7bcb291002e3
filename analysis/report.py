"""A study as a page to read: `python -m analysis.report STUDY [--store DIR] [--out DIR]`.

Writes `report.html`, one self-contained page, with `tables/` (CSV, Markdown, LaTeX) and `figures/` (SVG, PNG)
beside it.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from analysis import claim_sections, evidence_sections
from analysis.canvas import DRAWN_VARIANTS, marks
from analysis.evidence import Evidence, load_evidence
from analysis.folders import ledger_folder
from analysis.manifests import parsed_manifests
from analysis.metrics import METRICS
from analysis.page import whole_page
from analysis.parts import Part
from analysis.standings import standings
from analysis.tables import to_csv, to_latex, to_markdown
from analysis.verdicts import Verdict, decide_all

# Resampled intervals are the same each time a report is made of the same records.
SEED = 20_250_101


@dataclass(frozen=True)
class Report:
    """What was written: the page, its folder, the verdicts in it, and what the reader of the log should know."""

    page: Path
    folder: Path
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]


def write_report(
    store: Path | str, study: str, out: Path | str | None = None, *, rng: np.random.Generator | None = None
) -> Report:
    """Writes a study's report, by the study's name or hash, into `out` (by default `<store>/reports/<name>`).

    The same records give the same bytes. Raises ValueError, one line, for an unknown study or an unreadable ledger.
    """
    evidence = load_evidence(store, study)
    rng = rng or np.random.default_rng(SEED)
    # Many small products: more threads would wait for each other, and how many there are would show in the last digit.
    with threadpool_limits(1):
        verdicts, problem = _verdicts(evidence, rng)
        made = _parts(evidence, verdicts, problem, rng)
    folder = Path(out) if out is not None else default_folder(store, evidence)
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for part in made:
        _write_files(folder, part)
    page = folder / "report.html"
    text = whole_page(
        f"{evidence.name}: report",
        f"Report on the study {evidence.name}",
        claim_sections.header(evidence, verdicts),
        {part.name: part.html for part in made},
        {part.name: part.title for part in made},
    )
    page.write_text(text, encoding="utf-8")
    return Report(page, folder, tuple(verdicts), (f"no verdicts: {problem}",) if problem else ())


def _verdicts(evidence: Evidence, rng: np.random.Generator) -> tuple[list[Verdict], str | None]:
    """The study's verdicts, or why there are none: a page without them still shows what there is."""
    try:
        return decide_all(evidence.table, evidence.manifest, evidence.folder, rng=rng), None
    except ValueError as problem:
        return [], str(problem)


def _parts(
    evidence: Evidence, verdicts: Sequence[Verdict], problem: str | None, rng: np.random.Generator
) -> list[Part]:
    """All sections in the order of reading."""
    # A search chose by validation, so that is what its picture shows: test results of chosen variants are no choice.
    split = "validation" if evidence.is_search else "test"
    places = {name: standings(evidence.table, name, list(evidence.variants), split=split) for name in METRICS}
    drawn = evidence.chosen(DRAWN_VARIANTS)
    styles = marks(drawn, evidence.baseline)
    return [
        claim_sections.question(evidence),
        claim_sections.verdict_section(evidence, verdicts, problem),
        claim_sections.cost(evidence, places, split, rng=rng),
        claim_sections.differences(evidence, verdicts),
        claim_sections.ranks(evidence),
        evidence_sections.curves(evidence, drawn, styles),
        evidence_sections.classes(evidence, drawn),
        *evidence_sections.predictions(evidence, drawn, styles),
        evidence_sections.data(evidence),
        evidence_sections.cells(evidence),
        evidence_sections.provenance(evidence),
        evidence_sections.limits(evidence),
    ]


def default_folder(store: Path | str, evidence: Evidence) -> Path:
    """Where a study's report goes unless told otherwise: by its name, and its hash where another has the same name."""
    ledger = ledger_folder(store)
    home = ledger.parent if ledger.name == "ledger" else ledger
    name = re.sub(r"[^\w.-]+", "_", evidence.name).strip(".") or "study"
    names = [manifest.get("name") for manifest in parsed_manifests(ledger).values()]
    return home / "reports" / (name if names.count(evidence.name) < 2 else f"{name}-{evidence.manifest['study_hash']}")


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 when the page was written, 2 with one line on standard error when it could not be."""
    options = _parser().parse_args(arguments)
    try:
        report = write_report(options.store, options.study, options.out)
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for verdict in report.verdicts:
        print(verdict.sentence)
    print(f"report  {report.page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument("study", metavar="STUDY", help="a study's name or hash, as the ledger has it")
    parser.add_argument("--store", metavar="DIR", default="mlruns", help="the store that holds the ledger (mlruns)")
    parser.add_argument("--out", metavar="DIR", help="where the page goes (STORE/reports/STUDY)")
    return parser


def _write_files(folder: Path, part: Part) -> None:
    for table in part.tables:
        for ending, write in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
            (folder / "tables" / f"{table.name}.{ending}").write_text(write(table), encoding="utf-8")
    for picture in part.pictures:
        (folder / "figures" / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
        (folder / "figures" / f"{picture.name}.png").write_bytes(picture.png)


if __name__ == "__main__":
    sys.exit(main())
