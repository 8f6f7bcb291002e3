"""Guard of a driver that runs cells on Ray: Ray's own parts may die or not start, and then a line says so.

Without it the driver would wait for minutes in Ray's own code, where no exception reaches it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from study.executors import reaper

# In the environment of every process that a driver's Ray starts; its value is the driver's folder.
MARK = "MEDMAMBA_RAY_FOLDER"
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_START = 60.0
# The exit status of a command whose cluster has died.
STATUS_LOST = 1


@contextmanager
def reaping(folder: Path) -> Iterator[None]:
    """Context whose processes of Ray end within seconds of a driver that is killed, and whose folder goes then."""
    mark = f"{MARK}={folder}"
    command = [sys.executable, "-I", "-S", reaper.__file__, mark, str(folder)]
    # In a session of its own, out of reach of what ends the driver's group. Started before the mark is set.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(MARK, None)
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.write(b"done\n")
            process.stdin.close()
        process.wait()


class Guard:
    """Thread that looks after Ray's own parts and ends the command where one has died.

    `parts`: whether each still lives, by its name in a line. `tell` gets the lines.
    """

    def __init__(self, parts: Mapping[str, Callable[[], bool]], folder: Path, tell: Callable[[str], None]) -> None:
        self._parts = parts
        self._folder = folder
        self._tell = tell
        self._over = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._look, name="guard of ray", daemon=True)

    def __enter__(self) -> Guard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def started(self) -> None:
        """A first worker has begun a cell."""
        self._started.set()

    def _look(self) -> None:
        begun, told = time.monotonic(), False
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            dead = next((name for name, lives in self._parts.items() if not lives()), None)
            if dead is not None and not self._over.is_set():
                self._end(dead)
            if not told and not self._started.is_set() and time.monotonic() - begun > SECONDS_TO_START:
                told = True
                self._tell(
                    f"note: no worker of Ray has started after {SECONDS_TO_START:.0f} seconds: the machine is busy, or "
                    "the cluster has no room (--executor inline does without Ray)"
                )

    def _end(self, dead: str) -> None:
        # Not by an exception: the main thread waits in Ray's code, which would not let it through. As after a kill,
        # the ledger is whole, and the next launch closes the runs in MLflow.
        self._tell(
            f"error: {dead} must live as long as the study, and has died; finished cells are kept, those under way "
            "have their checkpoints, and the same command goes on from there"
        )
        reaper.kill_marked(f"{MARK}={self._folder}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STATUS_LOST)
