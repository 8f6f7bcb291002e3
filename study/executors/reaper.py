"""Process that outlives a killed driver by seconds and ends what of Ray's the driver had started.

Started by path as `python -I -S reaper.py MARK FOLDER`, with a pipe as its input: a line on it says that the driver has
cleaned up by itself, its end without one that the driver was killed. What bears the mark in its environment was started
by that driver, for nothing else knows the name of its folder.
"""

import os
import shutil
import signal
import sys
import time

SECONDS_TO_END_BY_THEMSELVES = 2.0
SECONDS_TO_KILL = 10.0


def marked(mark: str) -> list[int]:
    """The processes, other than this one, with MARK in the environment that they were started with."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    there = f"{mark}\0".encode() in file.read() + b"\0"
            except OSError:
                continue
            if there:
                found.append(int(name))
    return found


def kill_marked(mark: str, seconds: float = SECONDS_TO_KILL) -> None:
    """Kills those processes, and those that they start meanwhile, for at most some seconds."""
    end = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < end:
        for number in left:
            try:
                os.kill(number, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.2)


if __name__ == "__main__":
    if not sys.stdin.buffer.readline():
        time.sleep(SECONDS_TO_END_BY_THEMSELVES)
        kill_marked(sys.argv[1])
        shutil.rmtree(sys.argv[2], ignore_errors=True)
