"""Prints how textured the data sets of a study are: python -m study.telling.detail FILE."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.file.reading import load_study
from study.telling.command import Parser, ready_streams
from study.telling.progress import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command: a line `NAME: share` for each data set, of its training images; 2 for a user's error."""
    ready_streams()
    made = Parser(
        prog="python -m study.telling.detail",
        description="Print the share of the variance of each data set's training images that lies within patches of "
        "four pixels a side.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="FILE", type=Path, help="the study, such as search_spaces/split_ratio.yaml")
    made.add_argument("--data-root", metavar="DIR", help="folder of data sets, such as NAME.npz")
    options = made.parse_args(arguments)
    try:
        study = load_study(options.file, data_root=options.data_root)
        # Late, so that a wrong file is refused at once.
        from study.data import open_source
        from study.data.detail import detail

        specs = study.sources()
        for name in study.datasets:
            images = open_source(specs[name]).load(name).splits["train"].images
            say(f"{name}: {detail(images):.3f}")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
