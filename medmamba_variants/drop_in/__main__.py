"""Runs a script written for mamba-ssm or VMamba's kernels: python -m medmamba_variants.drop_in SCRIPT ARGUMENTS."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from medmamba_variants.drop_in.standing_in import as_mamba_ssm


def main(arguments: list[str] | None = None) -> int:
    """Runs the script as Python itself would, with the stand-ins in place; 2 with one line for no script."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or not Path(given[0]).is_file():
        came = given[0] if given else "nothing"
        print(f"error: the first argument must be a Python script, got {came}", file=sys.stderr)
        return 2
    before, path = sys.argv, list(sys.path)
    sys.argv, sys.path[0] = given, str(Path(given[0]).absolute().parent)
    try:
        with as_mamba_ssm():
            runpy.run_path(given[0], run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before, path
    return 0


if __name__ == "__main__":
    sys.exit(main())
