"""Kills for want of memory: whether a worker that was lost had more than its machine could give."""

from __future__ import annotations

from pathlib import Path

# The kernel counts there, since the machine started, the processes that it killed for want of memory.
VMSTAT = Path("/proc/vmstat")
# How Ray's own monitor words it, which kills before the kernel does.
RAY_SAYS = ("running low on memory", "OutOfMemoryError")


class MemoryKills:
    """Count of this machine's kills for want of memory, from now on."""

    def __init__(self) -> None:
        self._seen = _counted()

    def explain(self, fault: BaseException) -> bool:
        """Whether a worker was lost to such a kill: Ray says so, or the kernel has killed since the last question.

        A kill by the kernel of another machine is not seen.
        """
        now = _counted()
        by_kernel, self._seen = now > self._seen, now
        said = f"{type(fault).__name__}: {fault} {fault.__cause__ or ''}"
        return by_kernel or any(words in said for words in RAY_SAYS)


def _counted() -> int:
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
