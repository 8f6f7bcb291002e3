"""Reports which backends scan on this machine, and checks them.

    python -m medmamba_variants.scan

It says which backend each device uses and why, and what the others lack. Then it compares every backend that works
here with the reference: y and all gradients against the loop in float64 on the same numbers. It exits with 1 if an
error is larger than rounding explains. This takes seconds, or longer when the CPU's kernels are compiled for the first
time.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from medmamba_variants.scan import reference
from medmamba_variants.scan.backends import BACKENDS, PREFERRED, backend_name, load_backend, use_backend
from medmamba_variants.scan.op import path_tensors, ss2d_scan
from medmamba_variants.scan.paths import ScanPath, custom_path, scan_path
from medmamba_variants.streams import end_with_reader

WHAT = {
    "reference": "the loop that defines the scan",
    "portable": "torch operations",
    "cpu": "numba kernels",
    "triton": "Triton kernels",
    "mamba_ssm": "mamba-ssm's CUDA kernels",
}
RESULTS = ("y", "dx", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias", "ddelta_weight")
# The largest relative error that rounding explains, each result taken as one vector.
ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: torch.finfo(torch.bfloat16).eps}
# Channels, d_state, rank of delta's product and path: a small stage of a network; a whole delta (rank 0) of channels
# that fill no vector, with pauses and marks.
CASES = (
    (64, 16, 4, scan_path("cross4", 5, 7)),
    (13, 8, 0, custom_path([[*range(20)], [-1, 7, 3, -1, 20, 0]], 21, [[i % 6 == 3 for i in range(20)], [0] * 6])),
)


def find_devices() -> dict[str, str]:
    """The types of device that torch computes on here, each with a description."""
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    if torch.accelerator.is_available() and (device := torch.accelerator.current_accelerator()):
        devices[device.type] = torch.cuda.get_device_name() if device.type == "cuda" else "accelerator"
    return devices


def why_not(backend: str, device: str, dtype: torch.dtype) -> str:
    """The reason why a backend cannot scan a dtype on a device; empty if it can."""
    try:
        module = load_backend(backend)
    except ImportError as error:
        return str(error.__cause__ or error)
    if module.supports(torch.empty(0, dtype=dtype, device=device)):
        return ""
    return getattr(module, "UNAVAILABLE", None) or f"does not scan {name_of(dtype)} on {device}"


def describe(device: str, what: str) -> Iterator[str]:
    """Lines on which backends serve a device, and why."""
    yield f"Backends on {device} ({what})"
    order = list(PREFERRED.get(device, ("portable",)))
    used = {dtype: backend_name(device, dtype) for dtype in (torch.float32, torch.float64)}
    for backend in order + [name for name in BACKENDS if name not in order]:
        dtypes = [name_of(dtype) for dtype, name in used.items() if name == backend]
        missing, _, install = why_not(backend, device, torch.float32).partition(" (")
        if dtypes:
            state = "used"
            reason = "the first choice here" if backend == order[0] else f"{order[0]} cannot scan {' or '.join(dtypes)}"
        elif missing:
            state, reason = "absent", missing
        else:
            state, reason = "works", f"stands in for {order[0]}" if backend in order else "only when asked for by name"
        yield f"  {backend:<10} {state:<7} {WHAT[backend]}: {reason}"
        if install:
            yield f"{'':<21}{install.removesuffix(')')}"


def make_inputs(channels: int, d_state: int, rank: int, path: ScanPath) -> list[Tensor]:
    """Inputs of a scan of two maps after the gradient of y, float64 on the CPU; with a rank, delta_weight is last."""
    generator = torch.Generator().manual_seed(0)
    K, length = path.directions, path.length

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A = -torch.arange(1.0, d_state + 1, dtype=torch.float64) * (1 + 0.1 * normal(K, channels, d_state).sigmoid())
    x, delta, bias = (2, length, channels), (2, length, K, rank or channels), normal(K, channels) - 2
    B, C = normal(2, 2, length, K, d_state)
    delta_weight = [normal(K, channels, rank) * rank**-0.5] if rank else []
    return [normal(*x), normal(*x), normal(*delta), A, B, C, normal(K, channels), bias, *delta_weight]


def check(backend: str, device: str, dtype: torch.dtype) -> tuple[bool, str]:
    """Checks a backend's y and gradients against the loop in float64 on the same rounded numbers."""
    errors = dict.fromkeys(RESULTS, 0.0)
    for channels, d_state, rank, path in CASES:
        if backend == "mamba_ssm" and path.resets.any():
            continue  # Its kernels cannot start a state anew.
        rounded = [tensor.to(dtype) for tensor in make_inputs(channels, d_state, rank, path)]
        try:
            with use_backend(backend):
                results = scan(partial(by_operator, path), [tensor.to(device) for tensor in rounded])
        # Whatever a kernel, its compiler or a driver raises is a finding here.
        except Exception as error:
            return False, f"{type(error).__name__}: {error}".splitlines()[0]
        truths = scan(partial(by_loop, path), [tensor.double() for tensor in rounded])
        for name, result, truth in zip(RESULTS, results, truths):
            relative = torch.dist(result, truth) / truth.norm()
            errors[name] = max(errors[name], float(relative.nan_to_num(nan=torch.inf)))
    worst = max(RESULTS[1:], key=lambda name: errors[name])
    words = f"{errors['y']:<10.1e}{errors[worst]:.1e} {worst:<14}{ALLOWED[dtype]:.0e}"
    return max(errors.values()) <= ALLOWED[dtype], words


def by_operator(path: ScanPath, *inputs: Tensor) -> Tensor:
    x, delta, A, B, C, D, delta_bias, *delta_weight = inputs
    return ss2d_scan(x, delta, A, B, C, D, delta_bias, path, *delta_weight)


def by_loop(path: ScanPath, *inputs: Tensor) -> Tensor:
    x, delta, A, B, C, D, delta_bias, *delta_weight = inputs
    if delta_weight:
        delta = torch.einsum("blkr,kdr->blkd", delta, *delta_weight)
    return reference.scan(x, delta, A, B, C, D, delta_bias, *path_tensors(path, torch.device("cpu")))


def scan(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """The result y of a scan and all gradients, as float64 on the CPU."""
    dy, *inputs = [tensor.requires_grad_() for tensor in tensors]
    y = function(*inputs)
    return [result.detach().double().cpu() for result in (y, *torch.autograd.grad(y, inputs, dy))]


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    devices = find_devices()
    for device, what in devices.items():
        print("\n".join(describe(device, what)), end="\n\n")
    print("Errors relative to the loop in float64")
    print("  device  backend    dtype      y         worst gradient        allowed")
    # More threads would wait for each other longer than these small scans take.
    torch.set_num_threads(1)
    red = []
    for device in devices:
        for backend in BACKENDS:
            for dtype in ALLOWED:
                # A state has at least float32: narrower tensors are converted for a backend that does not take them.
                if backend == "reference" or why_not(backend, device, torch.promote_types(dtype, torch.float32)):
                    continue
                passed, words = check(backend, device, dtype)
                print(f"  {device:<8}{backend:<11}{name_of(dtype):<11}{words}  {'ok' if passed else 'RED'}", flush=True)
                red += [] if passed else [f"{backend} in {name_of(dtype)} on {device}"]
    print("\nNot to be trusted: " + ", ".join(red) if red else "\nAll checks are green")
    return 1 if red else 0


if __name__ == "__main__":
    end_with_reader()
    sys.exit(main())
