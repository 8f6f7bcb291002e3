"""Scores and figures of what trained networks look at: python -m analysis.explanations FILE … [--out DIR]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.explanations.stored import Explanations, load_explanations
from analysis.explanations.table import SEED, describe, score_table


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0, or 2 with one line on standard error for an unreadable file."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.explanations",
        description="Score and draw what trained networks look at, from the files that study.explain writes.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="files of explanations")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for figures and the table (default: beside each file)")
    options = parser.parse_args(arguments)
    try:
        explanations = [load_explanations(path) for path in options.files]
        for one in explanations:
            print("\n".join(describe(one)))
        for path in write(explanations, options.out):
            print(f"  {path}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(explanations: Sequence[Explanations], out: Path | None) -> list[Path]:
    """Writes a table of all scores, and each file's figures in a folder of their own; returns table and folders."""
    # Matplotlib takes a second to import, which a reader of scores need not wait for.
    from analysis.explanations.figures import draw_all
    from analysis.rendering.canvas import render

    home = out or explanations[0].path.parent
    home.mkdir(parents=True, exist_ok=True)
    written = [home / "explanations.csv"]
    score_table(explanations, rng=np.random.default_rng(SEED)).to_csv(written[0], index=False)
    for one in explanations:
        folder = (out or one.path.parent) / one.path.stem
        folder.mkdir(exist_ok=True)
        for drawing in draw_all(one, rng=np.random.default_rng(SEED)):
            picture = render(drawing)
            (folder / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (folder / f"{picture.name}.png").write_bytes(picture.png)
        written.append(folder)
    return written


if __name__ == "__main__":
    sys.exit(main())
