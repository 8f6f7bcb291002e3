"""What every benchmark says of where it ran, and the memory of this process."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists() and (match := re.search(r"model name\s*: (.*)", info.read_text())):
        model = match[1]
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


def describe_commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=RESULTS.parent, capture_output=True, text=True
    )
    return run.stdout.strip() or "unknown"


class PeakMemory:
    """As a context: afterwards `bytes` is how much the block added to this process at its peak; None off Linux."""

    bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        self._reset = Path("/proc/self/clear_refs")
        if self._reset.exists():
            self._reset.write_text("5")
            self._before = _status_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self._reset.exists():
            self.bytes = _status_bytes("VmHWM") - self._before


def _status_bytes(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]
