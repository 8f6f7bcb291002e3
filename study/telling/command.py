"""Parts common to all commands: the store's default place, options, and streams."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

DEFAULT_STORE = "mlruns"


def ready_streams() -> None:
    """Replaces streams that the caller has closed by a sink, and characters that the terminal cannot show by marks.

    Otherwise a file of the store would get the number of a closed stream, and the first "─" would end a launch.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace" if name == "stderr" else "replace")


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line, as all other errors are."""

    def error(self, message: str) -> NoReturn:
        """Prints the error in one line and ends the process with status 2."""
        self.exit(2, f"error: {message} (see --help)\n")


def read_settings(given: list[str]) -> dict[str, str]:
    """Settings given by --set, by key. Raises ValueError for what is not KEY=VALUE and for a key given twice."""
    settings: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set must be KEY=VALUE, got {text!r}")
        if key in settings:
            raise ValueError(f"--set must name a key once, got {key} twice")
        settings[key] = value
    return settings
