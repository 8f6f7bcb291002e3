"""Settings of the C library's allocator for a process that trains: freed memory is kept for the next step."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# By default glibc hands every tensor above 128 kB back to the system and gets it again as fresh pages, cleared, in the
# next step: a twentieth of a small network's step. Maps beyond this are rare, and clearing them is not what they cost.
LARGEST_KEPT = 32 << 20
# Free memory at the heap's end beyond this goes back: what a step of a small network takes is kept.
KEPT = 64 << 20
# Names of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory from now on, and returns what is free now; whether the C library can."""
    library = _glibc()
    if library is None:
        return False
    settings = ((M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, KEPT))
    taken = all(library.mallopt(name, size) == 1 for name, size in settings)
    # So that the peak of one cell is not that of another before it.
    give_back_freed_memory()
    return taken


def give_back_freed_memory() -> None:
    """Hands what is free now back to the system, where the C library can."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # Other C libraries have neither.
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
