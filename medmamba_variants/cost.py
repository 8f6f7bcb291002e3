"""Costs of a variant: parameters and multiply-adds counted without running it, seconds and bytes by running it.

Convention of counting: one multiply-add of a convolution, a matrix product or the scan is one MAC, and two flops;
papers that print "FLOPs" mostly mean MACs. Norms, activations, gates, pooling, maxima and additions are not counted,
as in all such tables; an operation that is neither counted nor known to be free is an error: no choice is silently
free. The scan counts through its operator's formula, nine multiply-adds for each state of each channel, direction and
position (VMamba's convention), and the product that yields its step sizes; the usual counters take the scan for zero.
A fast Fourier transform of n complex points counts 5·n·log2(n) flops, of real ones half as many
(`design.spectral.transforms`), whatever the algorithm; a cosine transform is the matrix products that make it, a Haar
transform sums alone.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from medmamba_variants.config import VariantConfig
from medmamba_variants.model import build_model
from medmamba_variants.operations import FORMULAS, FREE, shape_alone


class UncountedError(ValueError):
    """Raised for an operation that is neither counted nor known to be free."""


@dataclass(frozen=True)
class ModuleCost:
    """The cost of a module for one image: parameters, multiply-adds and flops, those of its children included."""

    params: int
    macs: int
    flops: int


@dataclass(frozen=True)
class Cost:
    """The cost of a variant for one image; `by_module` has paths of modules such as `stages.0.1.branches.1` as keys."""

    params: int
    macs: int
    flops: int
    by_module: dict[str, ModuleCost]


@dataclass(frozen=True)
class Measurement:
    """Measured time and memory of one batch: median seconds, images per second, peak bytes.

    `peak_bytes` counts what is allocated during the step on top of parameters, gradients and input; on CUDA by the
    allocator's statistics, on a CPU by the profiler's record of torch's allocations (what a kernel allocates
    outside of torch is not seen).
    """

    seconds: float
    images_per_second: float
    peak_bytes: int
    batch_size: int
    device: str
    threads: int


@lru_cache(maxsize=4096)
def count_cost(
    config: VariantConfig, *, image_size: int | tuple[int, int], num_classes: int, in_channels: int = 3
) -> Cost:
    """Parameters, MACs and flops of a variant for one image of `image_size` (side, or height and width) pixels.

    Nothing is computed: the network lives on the meta device. Raises ValueError where the variant cannot take such
    images.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes=num_classes, in_channels=in_channels)
    return count_model(model, image_size=image_size, in_channels=in_channels)


def count_model(model: nn.Module, *, image_size: int | tuple[int, int], in_channels: int = 3) -> Cost:
    """Parameters, MACs and flops of a built model for one image, on any device, in any precision; see `count_cost`."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    some = next(model.parameters())
    images = torch.zeros(1, in_channels, height, width, device=some.device, dtype=some.dtype)
    with (
        _left_as_found(model),
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter,
        _Guard() as guard,
    ):
        model.eval()(images)
    guard.check()
    root = type(model).__name__
    counted = {name: sum(operations.values()) for name, operations in counter.get_flop_counts().items()}

    def flops_of(name: str, module: nn.Module) -> int:
        if isinstance(module, nn.ModuleList):
            # A list is never called itself, so the counter does not see it.
            return sum(flops_of(f"{name}.{child}", part) for child, part in module.named_children())
        return counted.get(f"{root}.{name}" if name else root, 0)

    by_module = {}
    for name, module in model.named_modules():
        flops = flops_of(name, module)
        params = sum(parameter.numel() for parameter in module.parameters())
        by_module[name] = ModuleCost(params, flops // 2, flops)
    total = by_module.pop("")
    return Cost(total.params, total.macs, total.flops, by_module)


class _Guard(TorchDispatchMode):
    """Dispatch mode that watches a count for operations that have no formula and are not known to be free."""

    def __init__(self) -> None:
        super().__init__()
        self._unknown: set[str] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = operation._overloadpacket
        if packet not in flop_registry and packet not in FORMULAS and _out_of_place(packet) not in FREE:
            self._unknown.add(str(packet))
        known = shape_alone(packet, args)
        return operation(*args, **(kwargs or {})) if known is None else known

    def check(self) -> None:
        """Raises UncountedError naming what would have been counted as zero."""
        if self._unknown:
            raise UncountedError(
                "every operation of a network must have a formula in torch's flop counter or be free by convention "
                f"(FREE in medmamba_variants.operations), got {', '.join(sorted(self._unknown))}"
            )


def _out_of_place(packet: Any) -> Any:
    """The operation of which this one is the form in place, else the operation itself."""
    name = packet.__name__
    return getattr(torch.ops.aten, name.removesuffix("_"), packet) if name.endswith("_") else packet


def measure_latency(
    model: nn.Module,
    *,
    image_size: int | tuple[int, int],
    in_channels: int = 3,
    batch_size: int = 1,
    backward: bool = False,
    device: str | torch.device = "cpu",
    repeats: int = 10,
) -> Measurement:
    """Measures median time and peak memory of a batch through a model on a device: inference, or forward and backward.

    Two steps warm up, `repeats` are timed, one more is watched for memory. Gradients are cleared after each step.
    Moves the model to the device and leaves it there, with its modes, its batch norms' statistics and torch's global
    generators restored. Images have the model's precision.
    """
    if batch_size < 1 or repeats < 1:
        raise ValueError(f"batch_size and repeats must be at least 1, got batch_size={batch_size}, repeats={repeats}")
    device = torch.device(device)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    model.to(device)
    images = torch.randn(batch_size, in_channels, height, width, generator=torch.Generator().manual_seed(0))
    images = images.to(device, next(model.parameters()).dtype)

    def step() -> None:
        if not backward:
            with torch.inference_mode():
                model(images)
            return
        model(images).sum().backward()
        for parameter in model.parameters():
            parameter.grad = None

    # Drop path draws from the global generator of its device.
    with _left_as_found(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.train(backward)
        for _ in range(2):
            step()
        seconds = statistics.median(_seconds(step, device) for _ in range(repeats))
        peak_bytes = _cuda_peak(step, device) if device.type == "cuda" else _cpu_peak(step)
    return Measurement(
        seconds=seconds,
        images_per_second=batch_size / seconds,
        peak_bytes=peak_bytes,
        batch_size=batch_size,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        threads=torch.get_num_threads(),
    )


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """Context that restores modules' modes and buffers' values, since batch norms in training follow their inputs."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _cuda_peak(step: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(step: Callable[[], None]) -> int:
    # Otherwise the profiler's library writes to stderr, even that it found no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    assert record.profiler is not None and record.profiler.kineto_results is not None
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
