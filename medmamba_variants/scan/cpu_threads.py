"""Threads for kernels that release the interpreter lock, and memory which each of them keeps between calls."""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

# Scratch beyond this is not kept: a path of a million steps must not occupy memory for ever.
KEPT_BYTES = 8 << 20
ALIGNMENT = 64

Job = tuple[Callable[[int], None], int, "SimpleQueue[BaseException | None]"]


class _Crew:
    """Daemon threads that take jobs from one queue; the crew grows to what is asked for and belongs to one process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.size = 0
        self.growth = threading.Lock()

    def grow(self, size: int) -> None:
        with self.growth:
            while self.size < size:
                self.size += 1
                threading.Thread(target=self._serve, name=f"scan-{self.size}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            work, index, done = self.jobs.get()
            try:
                work(index)
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)
            # Nothing of a finished call may be kept alive by a waiting thread.
            del work, done


_crew = _Crew()
_scratch = threading.local()


def _renew() -> None:
    # Threads do not survive a fork, and a lock may have been held by one of them.
    global _crew
    _crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def run_shared(work: Callable[[int], None], threads: int) -> None:
    """Call work(0) … work(threads − 1), each on its own thread, the first on the caller's; returns when all are done."""
    if threads == 1:
        work(0)
        return
    crew = _crew
    if crew.size < threads - 1:
        crew.grow(threads - 1)
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for index in range(1, threads):
        crew.jobs.put((work, index, done))
    try:
        work(0)
    finally:
        # The others write into the caller's tensors: it must not return before them, whatever happens.
        errors = [done.get() for _ in range(1, threads)]
    for error in errors:
        if error is not None:
            raise error


def scratch_address(name: str, size: int) -> int:
    """Return the address of `size` aligned bytes of this thread's own memory, valid until the next request of that name."""
    held: np.ndarray | None = getattr(_scratch, name, None)
    if held is None or held.size < size + ALIGNMENT or held.size > KEPT_BYTES:
        held = np.empty(size + ALIGNMENT, np.uint8)
        setattr(_scratch, name, held)
    address: int = held.ctypes.data
    return -(-address // ALIGNMENT) * ALIGNMENT
