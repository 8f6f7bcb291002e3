"""Output streams of commands."""

import signal


def end_with_reader() -> None:
    """Makes a reader that closes the pipe (`| head`) end this process without a traceback."""
    if hasattr(signal, "SIGPIPE"):  # Windows has none.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
