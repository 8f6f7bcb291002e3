"""Memory for the CPU kernels: scratch that each thread keeps between calls, and results that reuse large blocks."""

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64
# Scratch of all threads beyond this is not kept: a path of a million steps must not occupy memory for ever.
KEPT_BYTES = 32 << 20
# From here on malloc takes fresh pages from the system for each tensor and gives them back with it (glibc's upper limit
# of M_MMAP_THRESHOLD), and to clear and map them is a tenth of a scan forward and back. So freed blocks are kept, the
# latest, up to KEPT_RESULTS together.
LARGE_BYTES = 32 << 20
KEPT_RESULTS = 256 << 20

_kept: dict[int, np.ndarray] = {}
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


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised contiguous tensor of a shape and of the type of `like`, float32 or float64."""
    size = math.prod(shape) * like.element_size()
    if size < LARGE_BYTES:
        return like.new_empty(shape)
    block = _block(size + ALIGNMENT)
    kind = np.float32 if like.dtype == torch.float32 else np.float64
    start = block.ctypes.data
    array = np.ndarray(shape, kind, block, aligned(start) - start)
    # The tensor holds the array: when its memory is no longer used, the block comes back.
    weakref.finalize(array, _give_back, block).atexit = False
    return torch.from_numpy(array)


def _block(size: int) -> np.ndarray:
    # The smallest that fits, and of those the latest. A finalizer may run between any two lines, in any thread: no
    # lock, but one indivisible step at a time.
    free = [(block.nbytes, -turn, address) for turn, (address, block) in enumerate(list(_kept.items()))]
    for held, _, address in sorted(free):
        if size <= held <= size + size // 4 and (block := _kept.pop(address, None)) is not None:
            return block
    # numpy asks for large pages.
    return np.empty(size, np.uint8)


def _give_back(block: np.ndarray) -> None:
    if block.nbytes > KEPT_RESULTS:
        return
    _kept[block.ctypes.data] = block
    for address in list(_kept):
        if sum(one.nbytes for one in list(_kept.values())) <= KEPT_RESULTS:
            break
        _kept.pop(address, None)
