"""Scan on a GPU beside the usual pipelines: time, memory, error, and how close it comes to the device's limit.

    python benchmarks/scan_gpu.py            # the scans of MedMamba-T and -B at 224 and 64 pixels; some minutes
    python benchmarks/scan_gpu.py --shapes 128x96x56x56x16 --dtypes bfloat16

Peers are the portable backend, and mamba-ssm's CUDA scan between a cross-scan and a cross-merge, once of torch's
operations and once of Triton kernels. Those get the same numbers as their models have them: channels first, and delta,
B and C already in the order of each direction, which is not timed.

First every result is compared with the loop in float64: the run at full size, with a gradient of y that is zero except
for the first and last items of the batch. If one is wrong, nothing is timed, and the exit code is 1. Then all take
turns in one process, each on a cold L2 cache. Times are medians of CUDA events around the eager call; memory is what a
forward + backward adds at its peak to its inputs. A peer without enough memory for a shape is left out there.

The floor is the larger of two times, from the device's properties. Exponentials: batch · 4 · length · channels ·
(d_state + 1) forward (a decay for each state, one for softplus) and twice that backward, where the states are computed
again, at 16 a clock and multiprocessor. Traffic: x, delta, B, C and y once forward; those and the gradients backward.
Writes benchmarks/results/scan_gpu.json. Without a CUDA device it says so and exits with 2.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from machine import RESULTS as RESULTS_FOLDER
from machine import describe_machine, write_results
from scan_cpu import Shape, make_inputs, parse_shape
from torch import Tensor

from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.design.mixers import SS2D
from medmamba_variants.scan import reference, ss2d_scan, use_backend
from medmamba_variants.scan.backends import load_backend
from medmamba_variants.scan.op import path_tensors
from medmamba_variants.scan.paths import ScanPath

DEVICE = "cuda"
OURS = "triton"
MODELS, PIXELS, BATCH = ("medmamba_t", "medmamba_b"), (224, 64), 128
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The largest relative error that rounding explains, each result taken as one vector.
ALLOWED = {torch.float32: 1e-5, torch.bfloat16: torch.finfo(torch.bfloat16).eps}
RESULTS = ("y", "dx", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias")
# Which of these results are per item of the batch.
PER_ITEM = {"y", "dx", "ddelta", "dB", "dC"}
DIRECTIONS = 4
EXPONENTIALS_A_CLOCK = 16
MINIMUM_ROUNDS, MAXIMUM_ROUNDS = 5, 100


def stage_shapes(config: VariantConfig, pixels: int, batch: int) -> Iterator[Shape]:
    """The scans of a network's stages: batch, channels, height, width and d_state."""
    side = pixels // config.patch_size
    for stage in config.structure.stages:
        width, mixer = next((w, mixer) for w, mixer in zip(stage.widths, stage.mixers) if isinstance(mixer, SS2D))
        yield batch, mixer.inner(width), side, side, mixer.d_state
        side //= 2


# Peers


@dataclass(frozen=True)
class Peer:
    """A way to compute the scan: a function of x, delta, A, B, C, D and delta_bias, and the layout that it takes."""

    name: str
    scan: Callable[..., Tensor]
    arrange: Callable[[list[Tensor]], list[Tensor]]


def peers(path: ScanPath, height: int, width: int) -> tuple[list[Peer], list[str]]:
    """All peers that can run here, ours first, and sentences about those that cannot."""
    found = [Peer(name, partial(scan_through, name, path), list) for name in (OURS, "portable")]
    try:
        interface = load_backend("mamba_ssm").selective_scan_interface
        import cross_scan
    except ImportError as error:
        return found, [f"mamba-ssm between cross-scan and cross-merge is left out: {error}"]
    arrange = partial(channels_first, path=path, height=height, width=width)
    for kind in ("torch", "Triton"):
        lay_out = getattr(cross_scan, f"scan_by_{kind.lower()}")
        merge = getattr(cross_scan, f"merge_by_{kind.lower()}")
        function = partial(scan_laid_out, lay_out, interface.selective_scan_fn, merge)
        found.append(Peer(f"mamba-ssm, {kind} cross-scan", function, arrange))
    return found, []


def scan_through(backend: str, path: ScanPath, *inputs: Tensor) -> Tensor:
    with use_backend(backend):
        return ss2d_scan(*inputs, path)


def scan_laid_out(
    lay_out: Callable[..., Tensor], selective_scan: Callable[..., Tensor], merge: Callable[..., Tensor], *inputs: Tensor
) -> Tensor:
    x, delta, A, B, C, D, delta_bias = inputs
    xs = lay_out(x).flatten(1, 2)
    ys = selective_scan(xs, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=True)
    return merge(ys.unflatten(1, (DIRECTIONS, -1)), *x.shape[2:])


def channels_first(tensors: list[Tensor], path: ScanPath, height: int, width: int) -> list[Tensor]:
    """Tensors with x, or y, as a map and the others as mamba-ssm takes them, in the order of each direction."""
    x, *others = tensors
    arranged = [x.transpose(1, 2).unflatten(2, (height, width))]
    for tensor in others:
        if tensor.dim() == 4:
            orders = torch.tensor(path.table, device=tensor.device).long()
            rows = torch.stack([tensor[:, order, k] for k, order in enumerate(orders)], dim=1)
            # delta has its directions and channels in one axis, B and C do not.
            arranged.append(rows.transpose(2, 3).flatten(1, 2) if tensor is others[0] else rows.transpose(2, 3))
        else:
            arranged.append(tensor.flatten(0, 1))
    return [tensor.contiguous() for tensor in arranged]


# Correctness


def inputs_on_device(shape: Shape, dtype: torch.dtype) -> tuple[list[Tensor], Tensor, ScanPath]:
    """Inputs as under autocast: x, delta, B, C and the gradient of y in dtype, the parameters in float32."""
    inputs, dy, path = make_inputs(shape)
    kinds = [dtype if i in (0, 1, 3, 4) else torch.float32 for i in range(len(inputs))]
    moved = [tensor.detach().to(DEVICE, kind) for tensor, kind in zip(inputs, kinds)]
    return moved, dy.to(DEVICE, dtype), path


def results_of(scan: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor) -> list[Tensor]:
    """The results of a scan: y and the seven gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    y = scan(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def measure_errors(peers: list[Peer], inputs: list[Tensor], dy: Tensor, path: ScanPath) -> list[dict[str, float]]:
    """The relative errors of each peer's eight results, NaN as infinity; none where memory is short."""
    items = sorted({0, dy.shape[0] - 1})
    few = [tensor[items] if name in PER_ITEM else tensor for name, tensor in zip(RESULTS[1:], inputs)]
    table, resets = path_tensors(path, torch.device(DEVICE))
    loop = partial(reference.scan, table=table, resets=resets)
    y, *gradients = results_of(loop, [tensor.double() for tensor in few], dy[items].double())
    # The other items then add nothing to the gradients of the parameters.
    masked = torch.zeros_like(dy)
    masked[items] = dy[items]
    errors = []
    for peer in peers:
        try:
            results = results_of(peer.scan, peer.arrange(inputs), *peer.arrange([masked]))
        except torch.OutOfMemoryError:
            errors.append({})
            continue
        truths = [*peer.arrange([y]), *peer.arrange(gradients)]
        found = {}
        for name, result, truth in zip(RESULTS, results, truths):
            same = result[items] if name in PER_ITEM else result
            error = torch.dist(same.double(), truth) / truth.norm()
            found[name] = float(error.nan_to_num(nan=math.inf))
        errors.append(found)
    return errors


# Speed


@dataclass(frozen=True)
class Device:
    """Limits of a scan on a GPU: exponentials and bytes per second, from the device's properties."""

    name: str
    exponentials: float
    bandwidth: float
    cache_bytes: int

    @staticmethod
    def of(properties: Any) -> "Device":
        # Clocks in kHz; memory moves its width twice a clock.
        return Device(
            name=properties.name,
            exponentials=properties.multi_processor_count * EXPONENTIALS_A_CLOCK * properties.clock_rate * 1e3,
            bandwidth=2 * properties.memory_clock_rate * 1e3 * properties.memory_bus_width / 8,
            cache_bytes=properties.L2_cache_size,
        )

    def floor(self, shape: Shape, element_bytes: int) -> float:
        """The least milliseconds that a forward + backward can take."""
        batch, channels, height, width, states = shape
        positions = batch * height * width
        scanned = positions * DIRECTIONS
        forward, backward = (times * scanned * channels * (states + 1) / self.exponentials for times in (1, 2))
        x, others = positions * channels, scanned * (channels + 2 * states)
        # Forward reads x, delta, B and C and writes y; backward reads those and dy and writes a gradient of each.
        forward = max(forward, (2 * x + others) * element_bytes / self.bandwidth)
        backward = max(backward, (3 * x + 2 * others) * element_bytes / self.bandwidth)
        return 1e3 * (forward + backward)


def time_once(scan: Callable[..., Tensor], leaves: list[Tensor], dy: Tensor, flush: Tensor) -> tuple[float, float]:
    """Times a forward and a backward, on a cold L2 cache, in milliseconds."""
    start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
    flush.zero_()
    start.record()
    y = scan(*leaves)
    middle.record()
    torch.autograd.grad(y, leaves, dy)
    end.record()
    end.synchronize()
    return start.elapsed_time(middle), middle.elapsed_time(end)


def peak_bytes(run: Callable[[], object]) -> int:
    """The bytes that a call adds at its peak to what is allocated."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(
    peers: list[Peer], inputs: list[Tensor], dy: Tensor, device: Device, seconds: float
) -> dict[str, dict[str, float]]:
    """Measures times and memory of the peers that have enough of it, in turns, for some seconds each."""
    flush = torch.empty(2 * device.cache_bytes, dtype=torch.uint8, device=DEVICE)
    runs, memory = {}, {}
    for peer in peers:
        leaves = [tensor.detach().requires_grad_() for tensor in peer.arrange(inputs)]
        (gradient,) = peer.arrange([dy])
        try:
            # The first call may compile and choose a block.
            time_once(peer.scan, leaves, gradient, flush)
            memory[peer.name] = peak_bytes(partial(results_of, peer.scan, leaves, gradient))
        except torch.OutOfMemoryError:
            continue
        runs[peer.name] = partial(time_once, peer.scan, leaves, gradient, flush)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}

    def unfinished(name: str) -> bool:
        taken = times[name]
        enough = sum(map(sum, taken)) >= 1e3 * seconds or len(taken) >= MAXIMUM_ROUNDS
        return len(taken) < MINIMUM_ROUNDS or not enough

    while waiting := [name for name in runs if unfinished(name)]:
        for name in waiting:
            times[name].append(runs[name]())
    return {
        name: {
            "forward_ms": statistics.median(forward for forward, _ in taken),
            "backward_ms": statistics.median(backward for _, backward in taken),
            "both_ms": statistics.median(map(sum, taken)),
            "least_both_ms": min(map(sum, taken)),
            "memory_bytes": memory[name],
        }
        for name, taken in times.items()
    }


# The report


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds to the rows of one shape and dtype how many times our time and memory a peer takes."""
    ours = next((row for row in rows if row["peer"] == OURS), None)
    for row in rows:
        row["times_ours"] = row["both_ms"] / ours["both_ms"] if ours else None
        row["memory_times_ours"] = row["memory_bytes"] / ours["memory_bytes"] if ours else None


def format_table(rows: list[dict[str, Any]]) -> str:
    form = "{:<18} {:<9} {:<30} {:>8} {:>9} {:>8} {:>6} {:>9} {:>7} {:>9} {:>8}"
    heads = ("shape", "dtype", "peer", "forward", "backward", "both ms", "floor", "memory MB", "× time", "× memory")
    lines = [form.format(*heads, "error")]
    for row in rows:
        numbers = [f"{row[key]:.3f}" for key in ("forward_ms", "backward_ms", "both_ms")]
        numbers += [f"{row['floor_fraction']:.0%}", f"{row['memory_bytes'] / 1e6:.1f}"]
        numbers += ["–" if row[key] is None else f"{row[key]:.2f}" for key in ("times_ours", "memory_times_ours")]
        lines.append(form.format(row["shape"], row["dtype"], row["peer"], *numbers, f"{row['error']:.0e}"))
    return "\n".join(lines)


def summarise(rows: list[dict[str, Any]]) -> str:
    """Counts shapes at which ours takes half the time and half the memory of the best mamba-ssm pipeline."""
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        if row["peer"].startswith("mamba-ssm") and row["times_ours"] is not None:
            key = row["shape"], row["dtype"]
            time, memory = best.get(key, (math.inf, math.inf))
            best[key] = min(time, row["times_ours"]), min(memory, row["memory_times_ours"])
    if not best:
        return "Nothing to say about mamba-ssm: it was not measured"
    fast, small = (sum(ratios[i] >= 2 for ratios in best.values()) for i in (0, 1))
    return (
        f"Beside the best mamba-ssm pipeline: twice as fast at {fast} and half of the memory at {small} of {len(best)}"
    )


def describe_device(device: Device) -> dict[str, Any]:
    loaded = {name: sys.modules.get(name) for name in ("torch", "triton", "mamba_ssm")}
    versions = {name: module.__version__ for name, module in loaded.items() if module}
    return describe_machine() | asdict(device) | {"cuda": torch.version.cuda, "versions": versions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="+", help="batch x channels x height x width x d_state, instead of the models'"
    )
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each peer, shape and dtype")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("scan_gpu needs a CUDA GPU, and torch finds none: not measured", file=sys.stderr)
        return 2
    models = [stage_shapes(PRESETS[model], pixels, BATCH) for model in MODELS for pixels in PIXELS]
    shapes = list(map(parse_shape, options.shapes or [])) or [shape for model in models for shape in model]
    cases = [(shape, name) for shape in dict.fromkeys(shapes) for name in options.dtypes]
    errors, left_out, red = {}, set(), False
    for shape, dtype in cases:
        inputs, dy, path = inputs_on_device(shape, DTYPES[dtype])
        found, missing = peers(path, *shape[2:4])
        left_out.update(missing)
        for peer, results in zip(found, measure_errors(found, inputs, dy, path)):
            if not results:
                left_out.add(f"{peer.name} is left out at {text_of(shape)} in {dtype}: there is not enough memory")
                continue
            worst = max(results, key=lambda name: results[name])
            errors[shape, dtype, peer.name] = results[worst]
            if results[worst] > ALLOWED[DTYPES[dtype]]:
                red = True
                print(f"RED  {text_of(shape)} {dtype} {peer.name}: relative error of {worst} {results[worst]:.1e}")
    print("\n".join(sorted(left_out)), end="\n" if left_out else "")
    if red:
        print("Something is wrong, so nothing is timed")
        return 1
    device, rows = Device.of(torch.cuda.get_device_properties(DEVICE)), []
    for shape, dtype in cases:
        inputs, dy, path = inputs_on_device(shape, DTYPES[dtype])
        found, _ = peers(path, *shape[2:4])
        found = [peer for peer in found if (shape, dtype, peer.name) in errors]
        floor = device.floor(shape, DTYPES[dtype].itemsize)
        mine: list[dict[str, Any]] = []
        for name, measured in measure(found, inputs, dy, device, options.seconds).items():
            about = {"shape": text_of(shape), "dtype": dtype, "peer": name}
            fraction = {"floor_ms": floor, "floor_fraction": floor / measured["both_ms"]}
            mine.append(about | measured | fraction | {"error": errors[shape, dtype, name]})
        compare(mine)
        rows += mine
    print(format_table(rows))
    print(summarise(rows))
    measured = {"machine": describe_device(device), "left_out": sorted(left_out), "rows": rows}
    write_results(RESULTS_FOLDER / "scan_gpu.json", measured)
    return 0


def text_of(shape: Shape) -> str:
    return "x".join(map(str, shape))


if __name__ == "__main__":
    sys.exit(main())
