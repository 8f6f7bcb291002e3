"""Command of the package: `python -m study.export`."""

import sys

from study.export.command_line import main

if __name__ == "__main__":
    sys.exit(main())
