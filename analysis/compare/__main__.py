"""Compares results of others: `python -m analysis.compare FILES [--baseline NAME] [--out DIR]`."""

import argparse
import sys
from pathlib import Path

from analysis.across.multiplicity import CORRECTIONS
from analysis.compare.printed import UNITS


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0 when the page was written, else 2 with a line on standard error."""
    options = _parser().parse_args(arguments)
    from functools import partial

    from analysis.compare.reading import Form, read_files
    from analysis.compare.write import Asked, compare
    from analysis.report.drawing import draw_and_clear

    form = Form(tuple(options.metric), options.lower_is_better, options.rows, options.unit, options.labels)
    name = options.name or options.files[0].stem or "comparison"
    try:
        results = read_files(options.files, form)
        baseline = options.baseline
        if baseline is None and len(results.methods) == 2:
            baseline = results.methods[0]
        sources = {dataset: key for key, datasets in options.source for dataset in datasets}
        asked = Asked(name, baseline, options.margin, options.alpha, options.correction, options.declared, sources)
        draw = partial(draw_and_clear, pdf=options.pdf)
        written = compare(results, asked, options.out, draw=draw)
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for verdict in written.verdicts:
        print(verdict.sentence)
    for sentence in written.ranks:
        print(sentence)
    for path in written.cases:
        print(f"cases   {path}")
    print(f"report  {written.page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.compare",
        description="Tests, figures and sentences of a study's page for results of others: predictions of images, "
        "or a table data set × method.",
    )
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", type=Path, help="CSV, LaTeX or Markdown; a folder of MedMNIST's files")
    add("--baseline", metavar="NAME", help="the method that all others are compared with (of two, the first)")
    add("--metric", metavar="NAME", action="append", default=[], help="what the values are; of predictions, repeatable")
    add("--lower-is-better", action="store_true", help="of values such as errors and distances")
    add("--margin", type=_margin, default=0.0, metavar="M", help="differences up to this do not matter (0)")
    add("--alpha", type=_alpha, default=0.05, metavar="A", help="the error rate of all contrasts of a metric (0.05)")
    add("--correction", choices=CORRECTIONS, default="holm", help="for several contrasts (holm)")
    add("--declared", metavar="WHERE", default="", help="where the question was put down before results were known")
    add("--source", type=_source, action="append", default=[], metavar="KEY=A,B", help="data sets that count as one")
    add("--rows", choices=("datasets", "methods"), help="what a row of a printed table is (by its first heading)")
    add("--unit", choices=UNITS, help="what printed values are (by their size)")
    add("--labels", type=Path, metavar="DIR", help="MedMNIST's npz files, for folders of prediction files")
    add("--name", help="the title of the page (the first file's name)")
    add("--out", type=Path, default=Path("comparison"), metavar="DIR", help="where the page goes (comparison)")
    add("--pdf", action="store_true", help="figures also as PDF, as wide as a journal's column")
    return parser


def _source(text: str) -> tuple[str, list[str]]:
    key, _, datasets = text.partition("=")
    if not key or not datasets:
        raise argparse.ArgumentTypeError(
            f"must be a source and its data sets, such as isic=isic2016,isic2018, got {text}"
        )
    return key, datasets.split(",")


def _margin(text: str) -> float:
    return _between(text, 1.0)


def _alpha(text: str) -> float:
    return _between(text, 0.5)


def _between(text: str, high: float) -> float:
    number = float(text)
    if not 0 <= number < high:
        raise argparse.ArgumentTypeError(f"must be between 0 and {high:g}, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
