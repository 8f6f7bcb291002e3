"""Writes a study's report: `python -m analysis.report STUDY … [--store DIR] [--out DIR] [--pdf] [--publish DIR]`."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.report.drawing import Draw
    from analysis.verdicts.decisions import Ask


def main(arguments: list[str] | None = None, *, apart: bool = False) -> int:
    """Runs the command. Returns its exit status: 0 when the page was written, else 2 with one line on standard error.

    apart: whether processes of their own say what the test images say and draw figures, with the same results.
    """
    options = _parser().parse_args(arguments)
    with ExitStack() as stack:
        ask = draw = None
        if apart:
            from analysis.report.drawing import Drawer
            from analysis.verdicts.apart import Apart

            # Before anything large is imported, which they would share.
            ask = stack.enter_context(Apart()).ask
            draw = stack.enter_context(Drawer(pdf=options.pdf)).draw
        return _write(options, ask, draw)


def _write(options: argparse.Namespace, ask: Ask | None, draw: Draw | None) -> int:
    from functools import partial
    from pathlib import Path

    from analysis.report.drawing import draw_and_clear
    from analysis.report.published.publish import is_published, publish, rebuild
    from analysis.report.write import write_report
    from analysis.verdicts.images import answers

    draw = draw or partial(draw_and_clear, pdf=options.pdf)
    try:
        if len(options.studies) > 1:
            from analysis.report.together import write_together

            report = write_together(options.store, options.studies, options.out, draw=draw)
        elif options.publish is not None:
            (study,) = options.studies
            report = publish(options.store, study, Path(options.publish), ask=ask or answers, draw=draw)
        elif is_published(options.studies[0]):
            out = None if options.out is None else Path(options.out)
            report = rebuild(Path(options.studies[0]), out, ask=ask or answers, draw=draw)
        else:
            (study,) = options.studies
            report = write_report(options.store, study, options.out, ask=ask or answers, draw=draw)
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
    parser.add_argument(
        "studies",
        metavar="STUDY",
        nargs="+",
        help="a study's name or hash, as the ledger has it, or the folder of a published one; several share a page",
    )
    parser.add_argument("--store", metavar="DIR", default="mlruns", help="the store that holds the ledger (mlruns)")
    parser.add_argument("--out", metavar="DIR", help="where the page goes (STORE/reports/STUDY)")
    parser.add_argument(
        "--publish",
        metavar="DIR",
        help="publish the study in a folder of its name here: README, page, tables, and the ledger they are made from",
    )
    parser.add_argument("--pdf", action="store_true", help="figures also as PDF, as wide as a journal's column")
    return parser


if __name__ == "__main__":
    sys.exit(main(apart=True))
