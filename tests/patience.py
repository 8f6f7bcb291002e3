"""How long a test waits for what must happen: so long that only a hang, and no slow or busy machine, lasts as long."""

import time
from collections.abc import Callable

# Seconds; pytest's own limit on a test is a little longer.
HANG = 3000


def until(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    """Returns once the condition holds; after HANG, fails with what is told then."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.05)
