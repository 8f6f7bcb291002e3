"""The hint that ends a message about an unknown name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str], count: int = 1, otherwise: str = "") -> str:
    """Return "did you mean A or B?" with at most `count` known names that come close, else `otherwise`."""
    close = difflib.get_close_matches(str(name), list(known), n=count)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
