"""Prints the systems that are variants of MedMamba, and what others wait for: python -m medmamba_variants.systems."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from medmamba_variants.hints import did_you_mean
from medmamba_variants.streams import end_with_reader
from medmamba_variants.systems.registry import SYSTEMS
from medmamba_variants.systems.table import in_full, lines, markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, a part of it, one system in full, or the page docs/systems.md; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m medmamba_variants.systems",
        description="Published systems as variants: name, tier, evidence, and the difference from MedMamba-T.",
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--waits", action="store_true", help="only the systems without a variant, and what they wait for")
    one.add_argument("--name", metavar="NAME", help="one system in full, with parameters and multiply-adds")
    one.add_argument("--markdown", action="store_true", help="the page docs/systems.md (builds every network)")
    options = parser.parse_args(arguments)
    if options.name is not None:
        if options.name not in SYSTEMS:
            meant = did_you_mean(options.name, SYSTEMS, otherwise="see python -m medmamba_variants.systems")
            parser.error(f"--name must be the name of a system, got {options.name!r}; {meant}")
        print(in_full(SYSTEMS[options.name]))
    elif options.markdown:
        print(markdown(), end="")
    else:
        shown = [system for system in SYSTEMS.values() if not options.waits or system.waits]
        print("\n".join(lines(shown)))
        built = sum(1 for system in SYSTEMS.values() if system.axes is not None)
        print(f"\n{len(SYSTEMS)} systems, {built} of them variants; --name NAME shows one in full")
    return 0


if __name__ == "__main__":
    end_with_reader()
    sys.exit(main())
