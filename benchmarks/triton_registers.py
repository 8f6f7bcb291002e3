"""Resources of the Triton kernels on GPUs, found without one: registers, spills, shared memory and instructions.

    python benchmarks/triton_registers.py                         # every launch the scan may choose; 5 to 30 minutes
    python benchmarks/triton_registers.py --quick                 # d_state 16, the largest blocks; a minute

Compiles both kernels for sm_80, sm_90 and sm_100 with the assembler that comes with Triton, and reads the machine code.
A launch is one of the blocks that `scan.triton_sizes` offers. "plain" is a path that visits everything in whole groups
of steps; "ragged" has channels that fill no block; "marked" in addition has pauses, marks and states that fill no power
of two; "wide" in addition needs 64-bit offsets.
Exits with 1 if a kernel spills registers to memory, or if interrupted.
Writes benchmarks/results/triton_registers.json and .md, unless --quick or a choice of launches was given.
"""

import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Interpreted kernels cannot be compiled.
os.environ.pop("TRITON_INTERPRET", None)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from medmamba_variants.scan.triton.backward import backward_kernel
from medmamba_variants.scan.triton.forward import forward_kernel
from medmamba_variants.scan.triton.sizes import REGISTERS, Sizes

TARGETS = [80, 90, 100]
STATES = [1, 2, 4, 8, 16, 32, 64, 128]
TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
PATHS = ["plain", "ragged", "marked", "wide"]
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
RESULTS = Path(__file__).parent / "results"
# A multiprocessor's registers, and the most programs that it holds (on all three targets).
PROCESSOR_REGISTERS, PROGRAMS = 65536, 32
# Enough launches to take longer to compile than a process takes to start.
WORTH_A_PROCESS = 8
# Tensors in the dtype of x; all others are float32 or the path's.
IN_DTYPE = {"x", "delta", "B", "C", "dy", "ddelta"}


@dataclass(frozen=True)
class Launch:
    """A launch, one way to compile a kernel, and the outcome."""

    target: int
    kernel: str
    dtype: str
    d_state: int
    path: str
    sum: str
    block: int
    warps: int
    registers: int = 0
    spilled_bytes: int = 0
    shared_bytes: int = 0
    resident_warps: int = 0
    instructions_a_step: float = 0.0
    exponentials_a_step: float = 0.0
    shuffles_a_step: float = 0.0


def launches(options: argparse.Namespace) -> list[Launch]:
    """The launches to compile."""
    states = options.states or ([16] if options.quick else STATES)
    dtypes = options.dtypes or (["float32"] if options.quick else ["float32", "bfloat16"])
    result = []
    for target, kernel, dtype, d_state, path, deterministic in itertools.product(
        options.targets or TARGETS, ("forward", "backward"), dtypes, states, options.paths or PATHS, (False, True)
    ):
        # Directions in turn are the exception, with one more tensor: examined where registers are already scarce.
        if deterministic and (options.quick or path != "marked" or d_state != 16):
            continue
        sizes = sizes_of(d_state, path, deterministic)
        tile = sizes.forward_tile if kernel == "forward" else sizes.backward_tile
        offered = sizes.candidates(tile)
        blocks = [options.block] if options.block else offered[:1] if options.quick else offered
        for block in blocks:
            warps = options.warps or sizes.options(block, tile)["num_warps"]
            result.append(Launch(target, kernel, dtype, d_state, path, sizes.constants(1)["SUM"], block, warps))
    return result


def sizes_of(d_state: int, path: str, deterministic: bool) -> Sizes:
    """Sizes as in MedMamba-T, with four directions; see the top for the paths."""
    plain = Sizes(
        batch=1,
        length=784,
        channels=192,
        states=d_state,
        directions=4,
        steps=784,
        pauses=False,
        resets=False,
        complete=True,
        deterministic=deterministic,
    )
    if path == "plain":
        return plain
    ragged = replace(plain, channels=187)
    if path == "ragged":
        return ragged
    length = 10**9 if path == "wide" else 784
    # One state less has the same padding, except for powers of two up to 2.
    states = d_state - 1 if d_state > 2 else d_state
    return replace(ragged, length=length, states=states, pauses=True, resets=True, complete=False)


def compile_kernel(launch: Launch) -> Any:
    """The compiled kernel, specialised as Triton would at run time for aligned tensors."""
    kernel = forward_kernel if launch.kernel == "forward" else backward_kernel
    sizes = sizes_of(launch.d_state, launch.path, launch.sum == "in turn")
    constants = sizes.constants(launch.block) | {"KEEP": True, "ATOMIC_BC": launch.sum == "atomic"}
    integers = dict(
        zip(
            ("length", "channels", "states", "directions", "steps", "blocks", "directions_each", "chunk", "kept"),
            sizes.integers(launch.block),
        )
    )
    signature, aligned, fixed = {}, [], {}
    for index, name in enumerate(kernel.arg_names):
        if kernel.params[index].is_constexpr or integers.get(name) == 1:
            signature[name] = "constexpr"
            fixed[name] = (constants | integers)[name]
        elif name in integers:
            signature[name] = "i32"
            aligned += [index] if integers[name] % 16 == 0 else []
        elif name == "block_stride":
            signature[name] = "i64"
        else:
            types = {"table": "*i32", "resets": "*u8"}
            signature[name] = types.get(name, "*" + (TYPES[launch.dtype] if name in IN_DTYPE else "fp32"))
            aligned.append(index)
    attributes = {(index,): [["tt.divisibility", 16]] for index in aligned}
    source = ASTSource(kernel, signature, fixed, attributes)
    options = {"num_warps": launch.warps, "maxnreg": REGISTERS}
    return triton.compile(source, GPUTarget("cuda", launch.target, 32), options)


def measure(launch: Launch) -> Launch:
    """The launch with the resources that its machine code takes."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compile_kernel(launch).asm["cubin"])
        file.flush()
        usage = tool("cuobjdump", "--dump-resource-usage", file.name)
        listing = tool("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    if found is None:
        raise SystemExit(f"cuobjdump named no registers: {usage!r}")
    registers, stack, shared, local = map(int, found.groups())
    # Registers are allotted to a warp in units of 8 per thread.
    programs = min(PROGRAMS, PROCESSOR_REGISTERS // (-(-registers // 8) * 8 * 32 * launch.warps))
    body = inner_loops(listing)
    group = sizes_of(launch.d_state, launch.path, False).constants(launch.block)["GROUP"]
    return replace(
        launch,
        registers=registers,
        spilled_bytes=stack + local,
        shared_bytes=shared,
        resident_warps=programs * launch.warps,
        instructions_a_step=len(body) / group,
        exponentials_a_step=sum(name.startswith("MUFU.EX2") for name in body) / group,
        shuffles_a_step=sum(name.startswith("SHFL") for name in body) / group,
    )


def inner_loops(listing: str) -> list[str]:
    """The instructions of all innermost loops, each of which walks a group of steps."""
    labels: dict[str, int] = {}
    names: list[str] = []
    ends: list[tuple[int, int]] = []
    for line in listing.splitlines():
        if label := re.match(r"(\.L\w+):", line):
            labels[label.group(1)] = len(names)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)", line):
            names.append(instruction.group(1))
            to = re.search(r"\.L\w+", instruction.group(2))
            # A branch to itself is the padding after the end.
            if instruction.group(1).startswith("BRA") and to and labels.get(to.group(0), len(names)) < len(names) - 1:
                ends.append((labels[to.group(0)], len(names)))
    inner = [a for a in ends if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in ends)]
    return [name for start, end in inner for name in names[start:end]]


def tool(name: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def table(rows: list[Launch]) -> str:
    """A Markdown table of measured launches."""
    heads = ["sm", "kernel", "dtype", "d_state", "path", "sum", "block", "warps", "registers", "spilled bytes"]
    heads += ["shared bytes", "resident warps", "instructions a step", "exp2 a step", "shuffles a step"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [f"{value:g}" if isinstance(value, float) else str(value) for value in asdict(row).values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--targets", type=integers, help="compute capabilities, such as 80,90")
    parser.add_argument("--states", type=integers, help="values of d_state, powers of two")
    parser.add_argument("--dtypes", type=words, help=f"of {', '.join(TYPES)}")
    parser.add_argument("--paths", type=words, help=f"of {', '.join(PATHS)}")
    parser.add_argument("--block", type=int, help="channels of a program, instead of those the scan offers")
    parser.add_argument("--warps", type=int, help="warps of a program, instead of those its block would have")
    parser.add_argument("--jobs", type=int, help="processes that compile; left out, one a core if it is worth it")
    options = parser.parse_args()
    chosen = launches(options)
    jobs = options.jobs or max(1, min(os.cpu_count() or 1, len(chosen) // WORTH_A_PROCESS))
    rows = []
    # Spawned, not forked: Triton has threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) if jobs > 1 else nullcontext() as pool:
        try:
            for row in (pool.map if pool else map)(measure, chosen):
                rows.append(row)
                print(table(rows[-1:]).splitlines()[-1], flush=True)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            if pool:
                pool.shutdown(cancel_futures=True)
    spilling = [row for row in rows if row.spilled_bytes]
    part = "" if len(rows) == len(chosen) else f" of {len(chosen)}"
    summary = f"{len(rows)}{part} kernels compiled, {len(spilling)} spill registers"
    print(summary)
    if not any(value for name, value in vars(options).items() if name != "jobs"):
        write(rows, summary)
    if spilling:
        print(f"spilled: {spilling[0]}", file=sys.stderr)
    if spilling or part:
        raise SystemExit(1)


def write(rows: list[Launch], summary: str) -> None:
    """Writes the results as JSON and as a Markdown page."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/triton_registers.py",
        "commit": commit,
        "triton": triton.__version__,
        "ptxas": tool("ptxas", "--version").splitlines()[-2].strip(),
        "machine": platform.platform(),
        "note": "compiled without a GPU; nothing here was run or timed",
    }
    RESULTS.mkdir(exist_ok=True)
    content = {"about": about, "summary": summary, "launches": [asdict(row) for row in rows]}
    (RESULTS / "triton_registers.json").write_text(json.dumps(content, indent=1) + "\n")
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    text = f"# Registers of the Triton kernels\n\n{summary}.\n\n{facts}\n\n{table(rows)}\n"
    (RESULTS / "triton_registers.md").write_text(text)


if __name__ == "__main__":
    main()
