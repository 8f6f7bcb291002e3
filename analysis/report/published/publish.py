"""Publishing a study: its folder made from a store, and made again from its own ledger."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.records.manifests import load_manifest
from analysis.report.drawing import Draw, draw_and_clear, draw_here
from analysis.report.evidence import load_evidence
from analysis.report.published.ledger import LIMIT, copy_ledger
from analysis.report.published.readme import DEVIATIONS, FIGURE, NOTES, of_first_metric, readme
from analysis.report.tables.results import results_table
from analysis.report.write import Report, write_report
from analysis.verdicts.decisions import Ask
from analysis.verdicts.images import answers

# Links of the page to files that are not published: tables in other forms, and figures, which stand in the page.
LEFT_OUT = re.compile(r'(?: · )?<a href="(?:tables/[^"]+\.(?:md|tex)|figures/[^"]+)">[^<]*</a>')


def publish(store: Path | str, study: str, home: Path, *, ask: Ask = answers, draw: Draw = draw_and_clear) -> Report:
    """Publishes a study of a store in a folder of its name below `home`; returns its report.

    Raises ValueError, one line, for an unknown study or an unreadable ledger, and where the folder would be larger
    than a repository should hold.
    """
    folder = home / str(load_manifest(store, study)["name"])
    copy_ledger(store, study, folder)
    report = rebuild(folder, ask=ask, draw=draw)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        raise ValueError(f"{folder}: must be at most {LIMIT / 2**20:.0f} MB, got {size / 2**20:.1f} MB")
    return report


def is_published(study: str) -> bool:
    """Whether a study is named by a folder that it was published in."""
    return (Path(study) / "ledger" / "studies").is_dir()


def rebuild(folder: Path, out: Path | None = None, *, ask: Ask = answers, draw: Draw = draw_and_clear) -> Report:
    """Makes README, page and tables of a published study again from its ledger, into `out` (by default in place)."""
    folder = folder.resolve()
    out = folder if out is None else out
    evidence = load_evidence(folder, folder.name)
    with TemporaryDirectory() as scratch:
        report = write_report(folder, folder.name, scratch, ask=ask, draw=draw, evidence=evidence)
        shutil.rmtree(out / "tables", ignore_errors=True)
        (out / "tables").mkdir(parents=True)
        for path in sorted((Path(scratch) / "tables").glob("*.csv")):
            shutil.copyfile(path, out / "tables" / path.name)
        page = report.page.read_text(encoding="utf-8")
        (out / "report.html").write_text(LEFT_OUT.sub("", page), encoding="utf-8")
    shown = of_first_metric(report.verdicts)
    if shown:
        picture = draw_here("contrasts.at_a_glance", shown, "contrasts")
        assert picture is not None
        (out / FIGURE).write_bytes(picture.png)
    metric = evidence.metrics[0]
    table = results_table(evidence.table, metric, evidence.variants, report.verdicts, evidence.baseline, split="test")
    written = [folder / name for name in (NOTES, DEVIATIONS)]
    by_hand = [path.read_text(encoding="utf-8") if path.exists() else "" for path in written]
    (out / "README.md").write_text(readme(evidence, report.verdicts, table, *by_hand), encoding="utf-8")
    return Report(out / "report.html", out, report.verdicts, report.warnings)
