"""Writes the JSON schema of study files, for completion in editors: python -m study.schema [FILE]."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from study.file.keys import study_schema
from study.telling.progress import say


def main() -> None:
    """Writes the schema to the file named on the command line, or prints it."""
    parser = argparse.ArgumentParser(prog="python -m study.schema", description="The JSON schema of study files.")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="where to write it (left out: print it)")
    file = parser.parse_args().file
    text = json.dumps(study_schema(), indent=1)
    if file is None:
        say(text)
    else:
        file.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
