"""Whole training step on the CPU: how much of it is the scan, compared with other scans and with none.

    python benchmarks/step_cpu.py               # two threads; minutes, of which one stored step takes most
    python benchmarks/step_cpu.py --no-stored   # without it
    python benchmarks/step_cpu.py --against DIR # nano and micro in turns with those of another checkout, nothing else

A step is forward, loss and backward. "none" is the same network with scans that return their input and omit the
product that yields their step sizes; "stored" scans like mamba-ssm's selective_scan_ref, on which the public model
falls back without CUDA. The others take turns in one process: times are medians, ratios medians of the ratios turn by
turn; "stored" gets a single step. Memory is what a step adds to a separate process.
Writes benchmarks/results/step_cpu.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from checkouts import COLUMNS, in_turns
from machine import RESULTS, PeakMemory, describe_commit, write_results
from torch import Tensor
from turns import take_turns, typical_ratio

from medmamba_variants.config import PRESETS
from medmamba_variants.model import build_model
from medmamba_variants.parts.mixers import ss2d
from medmamba_variants.scan import use_backend
from medmamba_variants.scan.paths import ScanPath
from medmamba_variants.scan.products import product

# Preset, pixels, and whether one stored step is affordable.
NETWORKS = [("medmamba_t", 64, True), ("micro", 64, False), ("nano", 28, True)]
BATCH = 32
BACKENDS = ["cpu", "none", "portable"]


def stored_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    path: ScanPath,
    delta_weight: Tensor | None = None,
    *,
    discretisation: str = "mamba",
) -> Tensor:
    """The operator computed like selective_scan_ref, between the cross-scan and merge of a path without gaps.

    exp(Δ·A) and Δ·B·x are tensors (batch, K·channels, length, d_state), B and C are repeated for every channel, and
    autograd follows each step of a loop that indexes them.
    """
    assert discretisation == "mamba"
    channels, orders = x.shape[2], torch.from_numpy(path.table.astype("int64"))
    if delta_weight is not None:
        delta = product(delta, delta_weight)

    def along(values: Tensor) -> Tensor:
        """Values (batch, length, K, size) as (batch, K, size, length), in visiting order."""
        return torch.stack([values[:, order, k] for k, order in enumerate(orders)], 1).transpose(2, 3)

    u = torch.stack([x[:, order] for order in orders], 1).transpose(2, 3).flatten(1, 2)
    Δ = torch.nn.functional.softplus(along(delta).flatten(1, 2) + delta_bias.flatten().unsqueeze(1))
    B, C = (along(values).repeat_interleave(channels, 1) for values in (B, C))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", Δ, A.flatten(0, 1)))
    drive = torch.einsum("bdl,bdnl,bdl->bdln", Δ, B, u)
    h = torch.zeros_like(decay[:, :, 0])
    outputs = []
    for i in range(Δ.shape[2]):
        h = decay[:, :, i] * h + drive[:, :, i]
        outputs.append(torch.einsum("bdn,bdn->bd", h, C[:, :, :, i]))
    y = torch.stack(outputs, 2) + u * D.flatten().unsqueeze(1)
    merged = y.unflatten(1, (len(orders), channels)).transpose(2, 3).flatten(1, 2)
    return torch.zeros_like(x).index_add(1, orders.flatten(), merged)


STAND_INS: dict[str, Any] = {"none": lambda x, *_, **__: x, "stored": stored_scan}


@contextmanager
def scanning_with(backend: str) -> Iterator[None]:
    if backend not in STAND_INS:
        with use_backend(backend):
            yield
        return
    scan = ss2d.ss2d_scan
    ss2d.ss2d_scan = STAND_INS[backend]
    try:
        yield
    finally:
        ss2d.ss2d_scan = scan


def make_step(preset: str, pixels: int, batch: int = BATCH) -> Callable[[], None]:
    torch.manual_seed(0)
    model = build_model(PRESETS[preset], num_classes=6, in_channels=3).train()
    images, labels = torch.randn(batch, 3, pixels, pixels), torch.randint(6, (batch,))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss: Tensor = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()

    return step


def measure_times(preset: str, pixels: int, seconds: float, stored: bool) -> dict[str, list[float]]:
    step = make_step(preset, pixels)

    def scan_with(backend: str) -> None:
        with scanning_with(backend):
            step()

    taken = take_turns({backend: partial(scan_with, backend) for backend in BACKENDS}, seconds)
    if stored:
        start = time.perf_counter()
        scan_with("stored")
        taken["stored"] = [time.perf_counter() - start]
    return taken


def measure_memory(backend: str, preset: str, pixels: int, threads: int) -> int | None:
    command = [sys.executable, __file__, "--memory", backend, preset, str(pixels), "--threads", str(threads)]
    printed: int | None = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return printed


def print_memory(backend: str, preset: str, pixels: int) -> None:
    step = make_step(preset, pixels)
    with scanning_with(backend):
        # Compiles, and lets libraries start their threads. A whole step would leave free memory for reuse.
        make_step(preset, pixels, batch=2)()
        with PeakMemory() as memory:
            step()
    print(json.dumps(memory.bytes))


def format_table(rows: list[dict[str, Any]]) -> str:
    lines = ["{:<22}{:<11}{:>10}{:>10}{:>11}".format("network", "scan", "step ms", "× cpu", "memory MB")]
    for row in rows:
        ratio, memory = row["ratio_to_cpu"], row["memory_bytes"]
        shown = "–" if memory is None else f"{memory / 1e6:.0f}"
        lines.append(f"{row['network']:<22}{row['scan']:<11}{row['milliseconds']:>10.1f}{ratio:>10.2f}{shown:>11}")
    return "\n".join(lines)


def compare(options: argparse.Namespace) -> None:
    """Prints and writes the steps of this checkout beside those of another."""
    ours, theirs = Path(__file__).resolve().parent.parent, options.against.resolve()
    if not (theirs / "medmamba_variants").is_dir():
        raise SystemExit(f"--against must be a checkout of this project, got {theirs}")
    pixels = {preset: size for preset, size, _ in NETWORKS}
    rows = []
    for preset in options.networks.split(","):
        sizes = pixels[preset], BATCH, options.threads, options.turns, options.steps
        row = in_turns((ours, theirs), preset, *sizes)
        rows.append(row)
        print(f"{row['network']}, {options.threads} threads, losses {row['losses'][0]:.6f} and {row['losses'][1]:.6f}")
        for name in COLUMNS:
            of = row[name]
            print(
                f"  {name:<22}{1e3 * of['ours']:>8.1f} ms, theirs {1e3 * of['theirs']:>7.1f} ms, × {of['ratio']:.3f} "
                f"(half of the turns {of['middle_half'][0]:.3f} to {of['middle_half'][1]:.3f})",
                flush=True,
            )
    write_results(options.out, {"against": describe_commit(theirs), "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="time of each peer and network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-stored", action="store_true", help="leave out the stored steps")
    parser.add_argument("--against", type=Path, help="another checkout, whose steps take turns with ours")
    parser.add_argument("--turns", type=int, default=30, help="turns beside the other checkout")
    parser.add_argument("--steps", type=int, default=5, help="steps of such a turn")
    parser.add_argument("--networks", default="nano,micro", help="presets whose steps take such turns")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_against.json", help="where their times go")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.against is not None:
        compare(options)
        return
    if options.memory:
        backend, preset, pixels = options.memory
        print_memory(backend, preset, int(pixels))
        return
    rows = []
    for preset, pixels, affordable in NETWORKS:
        times = measure_times(preset, pixels, options.seconds, affordable and not options.no_stored)
        for backend, taken in times.items():
            # A single step is compared with every turn of cpu.
            beside = taken if len(taken) > 1 else taken * len(times["cpu"])
            memory = None if backend == "stored" else measure_memory(backend, preset, pixels, options.threads)
            rows.append(
                {
                    "network": f"{preset} {pixels}×{pixels}",
                    "batch": BATCH,
                    "scan": backend,
                    "milliseconds": 1e3 * statistics.median(taken),
                    "turns": len(taken),
                    "ratio_to_cpu": typical_ratio(beside, times["cpu"]),
                    "memory_bytes": memory,
                }
            )
    print(format_table(rows))
    measured = {"versions": {"torch": torch.__version__}, "threads": options.threads, "rows": rows}
    write_results(RESULTS / "step_cpu.json", measured)


if __name__ == "__main__":
    main()
