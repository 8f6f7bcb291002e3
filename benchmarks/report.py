"""Time and memory of a study's report: `python -m analysis.report` run alone on a generated ledger.

    python benchmarks/report.py                # some minutes; writes benchmarks/results/report.json
    python benchmarks/report.py --variants 5 --images 200
    python benchmarks/report.py --against DIR  # in turns with the report of another checkout, on the same ledger

By default 25 variants × 8 data sets of 2 to 9 classes × 5 seeds are 1,000 cells of 1,000 test images each, with 48
declared contrasts; `--seeds 50` makes 10,000 cells of them. Memory is the largest resident set among the processes of
a report; beside it stands, where the system tells, what all of them held at once, looked at again and again. Beside
the report stands a process that imports it and does nothing, which is what no report can go below. Before all that,
each checkout makes a report of a small ledger, so that Python has compiled what it imports, as on any machine in use.
"""

import argparse
import json
import os
import statistics
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

from benchmarks.machine import RESULTS, describe_commit, write_results  # noqa: E402
from benchmarks.turns import typical_ratio  # noqa: E402

CLASSES = range(2, 10)
# Seconds and bytes that the report over the default ledger has to stay below.
LIMIT_SECONDS, LIMIT_BYTES = 60.0, 2 * 10**9
# Run in a process of its own, so that its children are those of one command alone.
WATCHER = """
import json, os, resource, subprocess, sys, time
from pathlib import Path

def held(root):
    parents, sums = {}, 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            pass
    family = [root]
    for process in family:
        family += [child for child, parent in parents.items() if parent == process]
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sums += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return sums

start = time.perf_counter()
run = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
most = 0
while True:
    try:
        run.wait(0.25)
        break
    except subprocess.TimeoutExpired:
        most = max(most, held(run.pid))
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([run.returncode, seconds, used.ru_utime + used.ru_stime, peak, most or None]))
"""


def make_ledger(store: Path, variants: int, seeds: int, images: int) -> int:
    """Writes a ledger of eight data sets with different numbers of classes; returns how many cells it has."""
    labels = {"baseline": ({}, 1.3, 1.0)}
    labels |= {f"d_state={k}": ({"d_state": k}, 1.1 + 0.02 * k, 0.5 + 0.1 * k) for k in range(1, variants)}
    names = [f"dataset_{classes}" for classes in CLASSES]
    design = Design(name="large", variants=labels, datasets=names, seeds=range(seeds), images=images)
    for name, classes in zip(names, CLASSES):
        others = {(v, d, s) for v in labels for d in names if d != name for s in range(seeds)}
        write_ledger(store, replace(design, classes=classes, missing=others))
    return variants * len(names) * seeds


def measured(arguments: list[str], bytecode: Path, root: Path = ROOT) -> dict[str, Any]:
    """What a Python of this environment takes to run `arguments` in a checkout. bytecode: where it keeps its own.

    Wall-clock seconds, CPU seconds, the largest resident set of its processes, and the most that they held at once
    (None where the system does not say).
    """
    command = [sys.executable, "-c", WATCHER, sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    # Where bytecode is never written, a seventh of a report's time would be Python's own compiler.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=environment)
    status, seconds, cpu_seconds, peak_bytes, together_bytes = json.loads(run.stdout)
    if status:
        raise SystemExit(f"{' '.join(arguments)} in {root} ended with status {status}:\n{run.stderr}")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": peak_bytes,
        "together_bytes": together_bytes,
    }


def report_of(root: Path, store: str, out: Path) -> dict[str, Any]:
    """What the report of a checkout takes, written into `out`."""
    return measured(["-m", "analysis.report", "large", "--store", store, "--out", str(out)], out.parent / "code", root)


def differing_files(first: Path, second: Path) -> list[str]:
    """Names of files that differ between two folders, byte for byte, or are in only one of them."""
    names = {path.relative_to(folder) for folder in (first, second) for path in folder.rglob("*") if path.is_file()}
    return sorted(str(name) for name in names if not _are_equal(first / name, second / name))


def _are_equal(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and first.read_bytes() == second.read_bytes()


def compared(other: Path, store: str, folder: Path, turns: int) -> dict[str, Any]:
    """Both reports in turns, the other checkout's first: what each took, the ratios ours to theirs, what differs."""
    runs: dict[str, list[dict[str, Any]]] = {"against": [], "report": []}
    differing: set[str] = set()
    for turn in range(turns):
        places = {what: folder / f"{what}_{turn}" for what in runs}
        for what, root in (("against", other), ("report", ROOT)):
            runs[what].append(report_of(root, store, places[what]))
        differing |= set(differing_files(places["against"], places["report"]))
    ratios = {}
    for name in runs["report"][0]:
        sides = [[run[name] for run in runs[what]] for what in ("report", "against")]
        if all(value is not None for side in sides for value in side):
            ratios[name] = typical_ratio(*sides)
    return {
        "turns": turns,
        "commit": describe_commit(other),
        "runs": runs,
        "ratios": ratios,
        "differing_files": sorted(differing),
    }


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number over several runs."""
    columns = {name: [run[name] for run in runs if run[name] is not None] for name in runs[0]}
    return {name: statistics.median(values) if values else None for name, values in columns.items()}


def row_text(what: str, row: dict[str, Any]) -> str:
    together = row["together_bytes"]
    text = f"{what:<14}{row['seconds']:>8.1f} s{row['cpu_seconds']:>8.1f} s of CPU{row['peak_bytes'] / 1e6:>8.0f} MB"
    return text if together is None else f"{text} ({together / 1e6:.0f} MB together)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000, help="test images of each cell")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, whose report is made by turns")
    parser.add_argument("--turns", type=int, default=3, help="with --against (3)")
    parser.add_argument("--out", type=Path, default=RESULTS / "report.json", help="where the JSON goes")
    options = parser.parse_args()
    if options.against is not None and not (options.against / "analysis").is_dir():
        parser.error(f"--against must be a checkout of this project, got {options.against}")
    if options.turns < 1:
        parser.error(f"--turns must be at least 1, got {options.turns}")
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), str(Path(name) / "store")
        start = time.perf_counter()
        cells = make_ledger(Path(store), options.variants, options.seeds, options.images)
        print(f"{cells} cells of {options.images} images made in {time.perf_counter() - start:.0f} s", flush=True)
        make_ledger(folder / "small", variants=3, seeds=2, images=50)
        for root in [ROOT, *([] if options.against is None else [options.against.resolve()])]:
            report_of(root, str(folder / "small"), folder / "warm")
        idle = measured(["-c", "import analysis.report.write"], folder / "code")
        comparison = None
        if options.against is None:
            written = folder / "report_0"
            report = report_of(ROOT, store, written)
        else:
            comparison = compared(options.against.resolve(), store, folder, options.turns)
            written = folder / "report_0"
            report = middle(comparison["runs"]["report"])
        files = [path for path in written.rglob("*") if path.is_file()]
        page_bytes = (written / "report.html").stat().st_size
    rows = [{"what": "import alone", **idle}, {"what": "report", **report}]
    if comparison is not None:
        rows.append({"what": "against", **middle(comparison["runs"]["against"])})
    for row in rows:
        print(row_text(row["what"], row))
    within = report["seconds"] < LIMIT_SECONDS and report["peak_bytes"] < LIMIT_BYTES
    print(f"{len(files)} files, page of {page_bytes / 1e6:.1f} MB; within 60 s and 2 GB: {'yes' if within else 'no'}")
    if comparison is not None:
        ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in comparison["ratios"].items())
        print(f"ratios to {comparison['commit']}, medians of {options.turns} turns: {ratios}")
        differing = comparison["differing_files"]
        print(f"files that differ: {', '.join(differing) or 'none, all are equal byte for byte'}")
    size = {"cells": cells, "images": options.images, "page_bytes": page_bytes}
    write_results(options.out, {**size, "rows": rows, "against": comparison})


if __name__ == "__main__":
    main()
