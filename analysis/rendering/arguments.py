"""Types of command-line options."""

import argparse


def whole(text: str) -> int:
    """A whole number of at least one, read from an option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
