"""Backends of the scan side by side on the CPU: time, extra memory, and error against float64.

    python benchmarks/scan_cpu.py            # a few minutes; two threads, a quiet machine
    python benchmarks/scan_cpu.py --seconds 1 --shapes "64x32x7x7x8"

All backends take turns in one process: times are medians, ratios medians of the ratios turn by turn, which hold even
on a machine that is not quite idle. The error is the largest relative error of y and the seven gradients against the
loop in float64, on two items of the batch.
Memory is what one forward + backward adds to the process at its peak, measured in a separate process.
Writes benchmarks/results/scan_cpu.json and .svg.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, PeakMemory, write_results
from torch import Tensor
from turns import take_turns, typical_ratio

from medmamba_variants.scan import ss2d_scan, use_backend
from medmamba_variants.scan.paths import ScanPath, scan_path

# batch × channels × height × width × d_state, four directions.
SHAPES = [
    "64x48x14x14x16",
    "32x96x28x28x16",
    "16x192x7x7x16",
    "64x32x7x7x8",
    "64x64x4x4x8",
    "32x96x28x28x1",
    "32x52x9x7x16",
]
BACKENDS = ["cpu", "portable", "reference"]
# The loop keeps every step for autograd: with more steps than this it needs minutes.
REFERENCE_LENGTH = 100

Shape = tuple[int, int, int, int, int]


def parse_shape(text: str) -> Shape:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise SystemExit(
            f"--shapes must be batch x channels x height x width x d_state, such as 64x48x14x14x16, got {text!r}"
        )
    batch, channels, height, width, states = map(int, match.groups())
    return batch, channels, height, width, states


def make_inputs(shape: Shape) -> tuple[list[Tensor], Tensor, ScanPath]:
    """Inputs as Mamba initialises them: A near −1 … −d_state, steps between .001 and .1."""
    batch, channels, height, width, states = shape
    generator = torch.Generator().manual_seed(0)
    path = scan_path("cross4", height, width)
    directions, length = len(path.table), height * width

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    step = torch.exp(torch.rand(directions, channels, generator=generator) * math.log(100) + math.log(1e-3))
    inputs = [
        normal(batch, length, channels),
        normal(batch, length, directions, channels) * 0.5,
        -torch.arange(1.0, states + 1) * (1 + 0.1 * torch.rand(directions, channels, states, generator=generator)),
        normal(batch, length, directions, states),
        normal(batch, length, directions, states),
        normal(directions, channels),
        step + torch.log(-torch.expm1(-step)),
    ]
    return [tensor.requires_grad_() for tensor in inputs], normal(batch, length, channels), path


def is_feasible(backend: str, shape: Shape) -> bool:
    return backend != "reference" or shape[2] * shape[3] <= REFERENCE_LENGTH


def measure_error(backend: str, inputs: list[Tensor], dy: Tensor, path: ScanPath) -> float:
    few = [tensor.detach()[:2] if tensor.dim() > 2 and i != 2 else tensor.detach() for i, tensor in enumerate(inputs)]
    results = {}
    for name, dtype in ((backend, torch.float32), ("reference", torch.float64)):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in few]
        with use_backend(name):
            y = ss2d_scan(*leaves, path)
            results[dtype] = [y.detach(), *torch.autograd.grad(y, leaves, dy[:2].to(dtype))]
    pairs = zip(results[torch.float32], results[torch.float64])
    return max(float((one - truth).norm() / truth.norm()) for one, truth in pairs)


def measure_times(backends: list[str], shape: Shape, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Times each forward, and each forward + backward, of each backend, turn by turn, in seconds."""
    inputs, dy, path = make_inputs(shape)

    def forward(backend: str) -> None:
        with use_backend(backend), torch.no_grad():
            ss2d_scan(*inputs, path)

    def both(backend: str) -> None:
        with use_backend(backend):
            torch.autograd.grad(ss2d_scan(*inputs, path), inputs, dy)

    return {
        kind: take_turns({backend: partial(function, backend) for backend in backends}, seconds)
        for kind, function in (("forward", forward), ("both", both))
    }


def print_memory(backend: str, shape: Shape) -> None:
    """Prints how many bytes one forward + backward adds to this process at its peak."""
    _, channels, _, _, states = shape
    with use_backend(backend):
        # Compiles, and lets libraries start their threads.
        small, small_dy, small_path = make_inputs((1, channels, 3, 2, states))
        torch.autograd.grad(ss2d_scan(*small, small_path), small, small_dy)
        inputs, dy, path = make_inputs(shape)
        with PeakMemory() as memory:
            torch.autograd.grad(ss2d_scan(*inputs, path), inputs, dy)
    print(json.dumps(memory.bytes))


def measure_memory(backend: str, shape: str, threads: int) -> int | None:
    command = [sys.executable, __file__, "--memory", backend, "--shapes", shape, "--threads", str(threads)]
    printed: int | None = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return printed


def format_table(rows: list[dict[str, Any]]) -> str:
    head = ("shape", "backend", "forward ms", "fwd+bwd ms", "× portable", "", "× reference", "", "memory MB", "error")
    lines = ["{:<18}{:<11}{:>11}{:>12}{:>12}{:>7}{:>13}{:>7}{:>11}{:>9}".format(*head)]

    def show(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    for row in rows:
        cells = [row["shape"], row["backend"], show(row["forward_ms"], ".2f"), show(row["both_ms"], ".2f")]
        for peer in ("portable", "reference"):
            cells += [show(row[f"{kind}_speedup_over_{peer}"], ".1f") for kind in ("forward", "both")]
        cells += [show(row["memory_bytes"] and row["memory_bytes"] / 1e6, ".1f"), show(row["error"], ".0e")]
        lines.append("{:<18}{:<11}{:>11}{:>12}{:>12}{:>7}{:>13}{:>7}{:>11}{:>9}".format(*cells))
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.7 + 0.6 * len(shapes)), sharey=True, layout="constrained")
    for axis, (kind, title) in zip(axes, (("forward_ms", "forward"), ("both_ms", "forward + backward"))):
        for i, (backend, hatch) in enumerate(zip(BACKENDS, ("", "//", ".."))):
            mine = [(shapes.index(row["shape"]), row[kind]) for row in rows if row["backend"] == backend]
            if mine:
                places, times = zip(*mine)
                bars = axis.barh(
                    np.array(places) + 0.27 * (i - 1), times, 0.25, label=backend, hatch=hatch, edgecolor="white"
                )
                axis.bar_label(bars, fmt=lambda ms: f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}", padding=2, fontsize=8)
        axis.set(xscale="log", xlabel="ms (logarithmic)", title=title)
        axis.margins(x=0.15)
    axes[0].set_yticks(range(len(shapes)), shapes)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("batch × channels × height × width × d_state")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(BACKENDS))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="batch x channels x height x width x d_state")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--seconds", type=float, default=6.0, help="time of each peer, for each shape and direction")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print_memory(options.memory, parse_shape(options.shapes[0]))
        return
    rows = []
    for text in options.shapes:
        shape = parse_shape(text)
        backends = [backend for backend in options.backends if is_feasible(backend, shape)]
        times = measure_times(backends, shape, options.seconds)
        for backend in backends:
            row: dict[str, Any] = {"shape": text, "backend": backend}
            for kind, taken in times.items():
                row[f"{kind}_ms"] = 1e3 * statistics.median(taken[backend])
                row[f"{kind}_turns"] = len(taken[backend])
                for peer in ("portable", "reference"):
                    ratio = typical_ratio(taken[peer], taken[backend]) if peer in taken else None
                    row[f"{kind}_speedup_over_{peer}"] = ratio
            row["memory_bytes"] = measure_memory(backend, text, options.threads)
            row["error"] = measure_error(backend, *make_inputs(shape))
            # A fast wrong answer is not a result.
            if not row["error"] < 1e-5:
                raise SystemExit(f"{backend} at {text}: relative error must be below 1e-5, got {row['error']:.1e}")
            rows.append(row)
    print(format_table(rows))
    versions = {name: sys.modules[name].__version__ for name in ("torch", "numpy", "numba")}
    write_results(RESULTS / "scan_cpu.json", {"versions": versions, "threads": options.threads, "rows": rows})
    draw(rows, RESULTS / "scan_cpu.svg")


if __name__ == "__main__":
    main()
