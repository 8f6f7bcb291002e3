"""Time and memory of a study's report: a ledger is made up, then `python -m analysis.report` runs on it by itself.

    python benchmarks/report.py                # some minutes; writes benchmarks/results/report.json
    python benchmarks/report.py --variants 5 --images 200

By default 25 variants × 8 data sets of 2 to 9 classes × 5 seeds are 1,000 cells of 1,000 test images each, with 48
declared contrasts. Memory is the largest resident set of the report's process. Beside it stands a process that imports
the report and does nothing, which is what no report can go below.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
sys.path.append(str(ROOT / "tests"))

from ledger_fixture import Design, write_ledger  # noqa: E402

from benchmarks.machine import RESULTS, write_results  # noqa: E402

CLASSES = range(2, 10)
# Seconds and bytes that the report over the default ledger has to stay below.
LIMIT_SECONDS, LIMIT_BYTES = 60.0, 2 * 10**9


def make_ledger(store: Path, variants: int, seeds: int, images: int) -> int:
    """A ledger of eight data sets of different numbers of classes; returns how many cells it has."""
    labels = {"baseline": ({}, 1.3, 1.0)}
    labels |= {f"d_state={k}": ({"d_state": k}, 1.1 + 0.02 * k, 0.5 + 0.1 * k) for k in range(1, variants)}
    names = [f"dataset_{classes}" for classes in CLASSES]
    design = Design(name="large", variants=labels, datasets=names, seeds=range(seeds), images=images)
    for name, classes in zip(names, CLASSES):
        others = {(v, d, s) for v in labels for d in names if d != name for s in range(seeds)}
        write_ledger(store, replace(design, classes=classes, missing=others))
    return variants * len(names) * seeds


def measured(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds by the clock, seconds of processors and the largest resident set (bytes) of a process of its own."""
    watcher = (
        "import json, resource, subprocess, sys, time; start = time.perf_counter();"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); seconds = time.perf_counter() - start;"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss]))"
    )
    command = [sys.executable, "-c", watcher, sys.executable, *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    seconds, cpu_seconds, kilobytes = json.loads(run.stdout)
    return seconds, cpu_seconds, 1024 * kilobytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000, help="test images of each cell")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cells = make_ledger(Path(folder), options.variants, options.seeds, options.images)
        print(f"{cells} cells of {options.images} images made in {time.perf_counter() - start:.0f} s")
        idle = measured(["-c", "import analysis.report"])
        report = measured(["-m", "analysis.report", "large", "--store", folder])
        written = Path(folder) / "reports" / "large"
        files = [path for path in written.rglob("*") if path.is_file()]
        page_bytes = (written / "report.html").stat().st_size
    rows: list[dict[str, Any]] = []
    for what, (seconds, cpu_seconds, peak_bytes) in (("import alone", idle), ("report", report)):
        rows.append({"what": what, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes})
        print(f"{what:<14}{seconds:>8.1f} s{cpu_seconds:>8.1f} s of CPU{peak_bytes / 1e6:>8.0f} MB")
    within = report[0] < LIMIT_SECONDS and report[2] < LIMIT_BYTES
    print(f"{len(files)} files, page of {page_bytes / 1e6:.1f} MB; within 60 s and 2 GB: {'yes' if within else 'no'}")
    size = {"cells": cells, "images": options.images, "page_bytes": page_bytes}
    write_results(RESULTS / "report.json", {**size, "rows": rows})


if __name__ == "__main__":
    main()
