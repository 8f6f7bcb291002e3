"""Status of a study from any terminal, while it runs and afterwards: python -m study.status STUDY [--store DIR].

STUDY is a study's file, or the name or hash under which the store keeps it. Reads the ledger alone and writes nothing.
All numbers are by validation: a status is no look at the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.telling.command import DEFAULT_STORE, Parser, ready_streams


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0, or 2 with one line on standard error for a user's error."""
    ready_streams()
    options = parser().parse_args(arguments)
    try:
        from study.telling.seen import show

        show(options.study, options.store.absolute(), sys.stdout)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.status",
        description="Show how far a study is: cells by variant and data set, the best so far, time to go, failures.",
        allow_abbrev=False,
    )
    made.add_argument("study", metavar="STUDY", help="the study's file, name or hash")
    made.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    return made


if __name__ == "__main__":
    sys.exit(main())
