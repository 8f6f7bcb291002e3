"""Threads for kernels that are C functions: torch's own where they can be had, else threads of ours.

torch's OpenMP threads wait for their next work by running in circles for milliseconds, each occupying a core, which
threads of ours would have to share. So a kernel is handed to that very team, which is awake already.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from typing import Any

import torch

Job = tuple[Callable[[int], None], int, "SimpleQueue[BaseException | None]"]


class _Crew:
    """Daemon threads that take jobs from one queue; the crew grows to what is asked for and belongs to one process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.size = 0
        self.growth = threading.Lock()

    def grow(self, size: int) -> int:
        """Have at least `size` threads, or as many as the system allows; returns how many there are."""
        with self.growth:
            while self.size < size:
                thread = threading.Thread(target=self._serve, name=f"scan-{self.size + 1}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # No more threads here, or the interpreter is shutting down: fewer do the same work.
                    break
                self.size += 1
            return self.size

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
_is_forked = False


def _renew() -> None:
    # Threads do not survive a fork, and a lock may have been held by one of them.
    global _crew, _is_forked
    _crew, _is_forked = _Crew(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@cache
def _openmp_parallel() -> Callable[[int, int, int, int], None] | None:
    """Return GNU OpenMP's entry point (C function, its argument, threads, flags) if torch has loaded that library."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return function


def run_shared(kernel: Any, arguments: int, threads: int) -> None:
    """Call a kernel (with `address` and `ctypes`, as numba's CFunc) on the same address on `threads` threads or more.

    The kernel sends away whom it does not need: a smaller team than usual would end OpenMP's other threads.
    """
    if threads == 1:
        kernel.ctypes(arguments)
    elif not _is_forked and (parallel := _openmp_parallel()) is not None:
        parallel(kernel.address, arguments, max(threads, torch.get_num_threads()), 0)
    else:
        run_in_crew(partial(_call, kernel.ctypes, arguments), threads)


def _call(function: Callable[[int], None], arguments: int, _: int) -> None:
    function(arguments)


def run_in_crew(work: Callable[[int], None], threads: int) -> None:
    """Call work(0), work(1) … at the same time, the first on the caller's thread, up to `threads` calls.

    Returns when all are done. There may be fewer calls where threads cannot be had.
    """
    others = 0
    if threads > 1:
        crew = _crew
        others = threads - 1 if crew.size >= threads - 1 else min(threads - 1, crew.grow(threads - 1))
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for index in range(1, others + 1):
        crew.jobs.put((work, index, done))
    errors: list[BaseException] = []
    try:
        work(0)
    except BaseException as error:
        errors.append(error)
    # The others write into the caller's tensors: it must not return before them, not even when interrupted.
    while others > 0:
        try:
            error_or_none = done.get()
        except KeyboardInterrupt as interruption:
            errors.append(interruption)
            continue
        others -= 1
        if error_or_none is not None:
            errors.append(error_or_none)
    if errors:
        raise errors[0]
