"""Common parts of benchmarks: where they ran, the results file, and the memory of this process."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists() and (match := re.search(r"model name\s*: (.*)", info.read_text())):
        model = match[1]
    load = round(os.getloadavg()[0], 1)
    system, python = platform.system(), platform.python_version()
    return {"cpu": model, "cores": os.cpu_count(), "load_average": load, "system": system, "python": python}


def write_results(path: Path, measured: Mapping[str, Any]) -> None:
    """Writes measurements as JSON, after the command, the commit and the machine, and prints where."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    report = {"command": command, "commit": describe_commit(), "machine": describe_machine(), **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwrote {path}")


def describe_commit(root: Path = RESULTS.parent) -> str:
    """A checkout's commit, with "-dirty" where anything but results differs from it; "unknown" outside a checkout."""
    results = f":(exclude,top){RESULTS.parent.name}/{RESULTS.name}"
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--", ":(top)", results) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class PeakMemory:
    """Context whose `bytes` is how much the block added to this process at its peak; None off Linux."""

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
