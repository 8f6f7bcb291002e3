"""Command of the package: `python -m study.audit`."""

import sys

from study.audit.command_line import main

if __name__ == "__main__":
    sys.exit(main())
