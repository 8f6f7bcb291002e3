"""The hint that ends a message about an unknown name."""

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(
    name: object,
    known: Iterable[str],
    count: int = 1,
    otherwise: str = "",
    shown: Callable[[str], object] = str,
) -> str:
    """Return "did you mean A or B?" with at most `count` known names that come close, as `shown`; else `otherwise`."""
    close = difflib.get_close_matches(str(name), list(known), n=count)
    return f"did you mean {' or '.join(str(shown(one)) for one in close)}?" if close else otherwise
