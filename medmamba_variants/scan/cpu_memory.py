"""Memory for the CPU kernels: scratch that each thread keeps between calls, and large results on large pages."""

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64
# Scratch of all threads beyond this is not kept: a path of a million steps must not occupy memory for ever.
KEPT_BYTES = 32 << 20
# From here on malloc takes fresh pages from the system for each tensor and gives them back with it (glibc's upper limit
# of M_MMAP_THRESHOLD). Touching those for the first time, 4 kB at a time, costs as much as a third of a scan.
LARGE_BYTES = 32 << 20
LARGE_PAGE = 2 << 20
MADV_HUGEPAGE = 14

_scratch = threading.local()


def aligned(size: int) -> int:
    """Return the next multiple of ALIGNMENT, so that neighbours share no cache line."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def scratch_address(name: str, size: int) -> int:
    """Return the address of `size` aligned bytes of this thread's own, valid until its next request of that name."""
    held: tuple[np.ndarray, int, int] | None = getattr(_scratch, name, None)
    if held is None or held[1] < size or held[1] > KEPT_BYTES:
        memory = np.empty(size + ALIGNMENT, np.uint8)
        address: int = memory.ctypes.data
        held = (memory, size, aligned(address))
        setattr(_scratch, name, held)
    return held[2]


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def empty_like(tensor: Tensor) -> Tensor:
    """Return an uninitialised contiguous tensor of the same kind, on large pages where it needs and there are some."""
    result = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    size = result.numel() * result.element_size()
    if size >= LARGE_BYTES and (advise := _madvise()) is not None:
        start = -(-result.data_ptr() // LARGE_PAGE) * LARGE_PAGE
        end = (result.data_ptr() + size) // LARGE_PAGE * LARGE_PAGE
        # Advice only: where it is refused, the pages are small.
        advise(start, end - start, MADV_HUGEPAGE)
    return result
