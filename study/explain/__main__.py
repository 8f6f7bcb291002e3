"""Command of the package: `python -m study.explain`."""

import sys

from study.explain.command_line import main

if __name__ == "__main__":
    sys.exit(main())
