"""How commands treat their output."""

import signal


def end_with_reader() -> None:
    """Lets a reader that goes away (`| head`) end this process without a traceback."""
    if hasattr(signal, "SIGPIPE"):  # Windows has none
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
