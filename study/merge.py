"""Merges stores, such as those of a study's shards: python -m study.merge STORE... --into DIR.

Cells, probabilities, kept weights, manifests, audits and the register of launches of all STOREs go into DIR, each once.
DIR may be a store already, and the same command again brings what is new. A cell with different results in two stores
is named, and nothing is written unless --first is given. MLflow shows merged cells from the next launch in DIR.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.telling.command import Parser, ready_streams

LISTED = 20


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0; 1 where results differ; 2 with one line for a user's error."""
    ready_streams()
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from there", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.merge",
        description="Bring the cells of several stores into one, each once.",
        epilog="Exit status: 0 merged, 1 a cell has different results in two stores, 2 a store or an option is wrong.",
        allow_abbrev=False,
    )
    made.add_argument("stores", metavar="STORE", type=Path, nargs="+", help="a store, such as one shard's")
    made.add_argument("--into", type=Path, metavar="DIR", required=True, help="the store to make or to add to")
    made.add_argument(
        "--first", action="store_true", help="where results differ, keep those of DIR, else of the STORE named first"
    )
    return made


def _run(options: argparse.Namespace) -> int:
    # Late, so that --help is instant.
    from analysis.words import counted
    from study.store.merging import merge

    into = options.into.absolute()
    found = merge([store.absolute() for store in options.stores], into, first=options.first)
    for conflict in found.conflicts[:LISTED]:
        print(f"conflict: {conflict}", file=sys.stderr)
    if len(found.conflicts) > LISTED:
        print(f"and {len(found.conflicts) - LISTED} more", file=sys.stderr)
    if found.conflicts and not options.first:
        several = counted(len(found.conflicts), "cell")
        print(
            f"error: finished cells must have the same results in every store, got {several} with different ones; "
            "nothing was written (--first keeps those of the store named first)",
            file=sys.stderr,
        )
        return 1
    for note in found.notes:
        print(f"note: {note}")
    shared = f", {counted(found.shared, 'record')} in more than one store" if found.shared else ""
    print(f"{into}: {counted(found.total, 'cell')}, {len(found.cells)} of them new{shared}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
