"""Operators of sequence mixers on the CPU against their plain recurrence and the published form in plain torch.

    python benchmarks/sequence_mixers.py                 # minutes, most of them recurrences; two threads
    python benchmarks/sequence_mixers.py --shapes 64x48x14x14 --operators ssd

Each is timed forward and backward, in turns in one process, ours in every turn: times are medians, ratios medians of
the ratios turn by turn. Paths are the four of the cross scan, with four heads and, where states have a size of their
own, 64. The recurrence is a step after the other under autograd; "published" is state-space duality as in listing 1 of
Mamba-2 (decays of all pairs of steps within chunks, states between them), xLSTM's parallel form (appendix A), and
attention between all pairs. Memory is what forward and backward add to a separate process at their peak. Results and
gradients are compared on two items of the batch. A form that would keep more than LARGEST bytes is left out.
Writes benchmarks/results/sequence_mixers.json.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from machine import RESULTS, PeakMemory, write_results
from torch import Tensor
from torch.nn import functional as F
from turns import take_turns, typical_ratio

from medmamba_variants.parts.mixers.attention import linear_attention
from medmamba_variants.parts.mixers.sequences.mlstm import matrix_memory
from medmamba_variants.parts.mixers.ssd import sum_without_order
from medmamba_variants.scan.dual.op import dual_scan
from medmamba_variants.scan.dual.products import in_order, in_place
from medmamba_variants.scan.paths import scan_path

# batch × channels × height × width.
SHAPES = ["64x48x14x14", "32x96x28x28"]
HEADS, STATES, CHUNK = 4, 64, 64
LEAST = 1e-6
LARGEST = 8e9
Operator = Callable[..., Tensor]


def ssd(x: Tensor, step: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, path: Any) -> Tensor:
    return dual_scan(x[:, :, None], step, log_decay, B[:, :, :, None], C[:, :, :, None], path, CHUNK)[:, :, 0]


def along(x: Tensor, step: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, path: Any) -> list[Tensor]:
    """Arguments as images of their own for each direction, (batch · K, length, …), x times the step."""
    x, step, log_decay, B, C = (in_order(each, path).flatten(0, 1) for each in (x[:, :, None], step, log_decay, B, C))
    return [x * step[..., None], log_decay, B, C]


def merged(y: Tensor, path: Any) -> Tensor:
    return in_place(y.unflatten(0, (-1, path.directions)), path).sum(2)


def ssd_recurrence(*given: Any) -> Tensor:
    x, log_decay, B, C = along(*given)
    h = x.new_zeros(len(x), *x.shape[2:], B.shape[-1])
    outputs = []
    for u, decay, key, query in zip(*(each.unbind(1) for each in (x, log_decay.exp(), B, C))):
        h = decay[..., None, None] * h + u[..., None] * key[:, None, None]
        outputs.append((h * query[:, None, None]).sum(-1))
    return merged(torch.stack(outputs, 1), given[-1])


def pairwise_sums(terms: Tensor) -> Tensor:
    """Sums of the terms after j up to i, for every pair of places on the last axis; −inf for j > i."""
    size = terms.shape[-1]
    below = torch.ones(size, size, dtype=torch.bool).tril(-1)
    sums = terms[..., None].expand(*terms.shape, size).masked_fill(~below, 0).cumsum(-2)
    return sums.masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), -math.inf)


def ssd_published(*given: Any) -> Tensor:
    x, log_decay, B, C = along(*given)
    length = x.shape[1]
    missing = -length % CHUNK
    x, log_decay = F.pad(x, (0, 0, 0, 0, 0, missing)), F.pad(log_decay, (0, 0, 0, missing))
    # B and C for each head, as the listing takes them.
    B, C = (F.pad(each, (0, 0, 0, missing))[:, :, None].expand(-1, -1, HEADS, -1) for each in (B, C))
    x, log_decay, B, C = (each.unflatten(1, (-1, CHUNK)) for each in (x, log_decay, B, C))
    log_decay = log_decay.permute(0, 3, 1, 2)
    since = log_decay.cumsum(-1)
    within = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", C, B, pairwise_sums(log_decay).exp(), x)
    ends = torch.einsum("bclhn,bhcl,bclhp->bchpn", B, (since[..., -1:] - since).exp(), x)
    ends = torch.cat([torch.zeros_like(ends[:, :1]), ends], 1)
    handed_on = pairwise_sums(F.pad(since[..., -1], (1, 0))).exp()
    starts = torch.einsum("bhzc,bchpn->bzhpn", handed_on, ends)[:, :-1]
    between = torch.einsum("bclhn,bchpn,bhcl->bclhp", C, starts, since.exp())
    return merged((within + between).flatten(1, 2)[:, :length], given[-1])


def unordered_recurrence(u: Tensor, weights: Tensor, B: Tensor, C: Tensor) -> Tensor:
    h = u.new_zeros(len(u), *u.shape[2:], B.shape[-1])
    for each, key in zip((u * weights[..., None]).unbind(1), B.unbind(1)):
        h = h + each[..., None] * key[:, None, None]
    return torch.stack([(h * query[:, None, None]).sum(-1) for query in C.unbind(1)], 1)


def memory_along(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, path: Any) -> list[Tensor]:
    """Arguments as images of their own for each direction and head, (batch · K · H, length, …)."""
    shared = [
        in_order(each[:, :, None], path).transpose(2, 3).flatten(0, 2) for each in (q, k * k.shape[-1] ** -0.5, v)
    ]
    return shared + [in_order(each, path).transpose(2, 3).flatten(0, 2) for each in (i, F.logsigmoid(f))]


def memory_merged(y: Tensor, path: Any) -> Tensor:
    return merged(y.unflatten(0, (-1, HEADS)).transpose(1, 2), path)


def memory_recurrence(*given: Any) -> Tensor:
    steps = [each.unbind(1) for each in memory_along(*given)]
    q, k, v, i, _ = (each[0] for each in steps)
    C, n, m = k.new_zeros(*k.shape, v.shape[1]), torch.zeros_like(k), torch.zeros_like(i)
    outputs = []
    for q, k, v, i, log_f in zip(*steps):
        before, m = m, torch.maximum(log_f + m, i)
        forget, write = (log_f + before - m).exp()[:, None], (i - m).exp()[:, None]
        C = forget[..., None] * C + (write * k)[..., None] * v[:, None]
        n = forget * n + write * k
        weight = torch.maximum((n * q).sum(-1).abs(), (-m).exp())
        outputs.append((q[..., None] * C).sum(1) / weight[:, None])
    return memory_merged(torch.stack(outputs, 1), given[-1])


def memory_published(*given: Any) -> Tensor:
    q, k, v, i, log_f = memory_along(*given)
    logs = pairwise_sums(log_f) + i[:, None]
    m = logs.amax(-1, keepdim=True)
    weights = (q @ k.transpose(1, 2)) * (logs - m).exp()
    return memory_merged(weights @ v / torch.maximum(weights.sum(-1, keepdim=True).abs(), (-m).exp()), given[-1])


def attention_recurrence(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    state, total = value.new_zeros(*key.shape[:2], key.shape[3], value.shape[3]), torch.zeros_like(key[:, :, 0])
    for k, v in zip(key.unbind(2), value.unbind(2)):
        state = state + k[..., None] * v[:, :, None]
        total = total + k
    outputs = [
        (q[..., None] * state).sum(2) / ((q * total).sum(-1, keepdim=True) + LEAST * key.shape[2])
        for q in query.unbind(2)
    ]
    return torch.stack(outputs, 2)


def attention_published(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = query @ key.transpose(2, 3)
    return weights / (weights.sum(-1, keepdim=True) + LEAST * key.shape[2]) @ value


PEERS: dict[str, dict[str, Operator]] = {
    "ssd": {"ours": ssd, "published": ssd_published, "recurrence": ssd_recurrence},
    "nc_ssd": {"ours": sum_without_order, "recurrence": unordered_recurrence},
    "mlstm": {"ours": matrix_memory, "published": memory_published, "recurrence": memory_recurrence},
    "linear_attention": {
        "ours": linear_attention,
        "published": attention_published,
        "recurrence": attention_recurrence,
    },
}


def make_inputs(operator: str, shape: tuple[int, int, int, int]) -> tuple[list[Tensor], list[Any]]:
    """Leaves that have a gradient, and what follows them."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    length, each = height * width, channels // HEADS
    path = scan_path("cross4", height, width)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(batch, *sizes, generator=generator)

    steps = torch.exp(torch.rand(batch, length, 4, HEADS, generator=generator) * math.log(100) + math.log(1e-3))
    keys = normal(length, 4, STATES), normal(length, 4, STATES)
    made: tuple[tuple[Tensor, ...], list[Any]]
    if operator == "ssd":
        made = (normal(length, HEADS, each), steps, -steps * torch.linspace(1, 16, HEADS), *keys), [path]
    elif operator == "nc_ssd":
        made = (normal(length, HEADS, each), steps[:, :, 0], keys[0][:, :, 0], keys[1][:, :, 0]), []
    elif operator == "mlstm":
        qkv = [normal(length, HEADS, each) for _ in range(3)]
        made = (*qkv, normal(length, 4, HEADS), normal(length, 4, HEADS) + 4), [path]
    else:
        made = tuple(F.elu(normal(HEADS, length, each)) + positive for positive in (1, 1, 0)), []
    return [leaf.detach().contiguous().requires_grad_() for leaf in made[0]], made[1]


def kept_bytes(operator: str, form: str, shape: tuple[int, int, int, int]) -> float:
    """About what a form keeps for its backward pass: three states a step, or five numbers for each pair of steps."""
    batch, channels, height, width = shape
    length, each = height * width, channels // HEADS
    images = batch * HEADS * (1 if operator in ("nc_ssd", "linear_attention") else 4)
    if form == "recurrence":
        return 4.0 * images * length * 3 * each * (STATES if operator.endswith("ssd") else each)
    return 4.0 * images * length * 5 * (CHUNK if operator == "ssd" else length) if form == "published" else 0.0


def run(function: Operator, leaves: list[Tensor], rest: list[Any], dy: Tensor) -> list[Tensor]:
    y = function(*leaves, *rest)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def gradient_at_output(operator: str, leaves: list[Tensor]) -> Tensor:
    # Whatever is mixed has the shape of the values.
    return torch.randn(leaves[2 if operator in ("mlstm", "linear_attention") else 0].shape)


def largest_error(operator: str, peer: str, shape: tuple[int, int, int, int]) -> float:
    """Of result and gradients, relative, against our operator in double precision on two items of the batch."""
    results = []
    for function, dtype in ((PEERS[operator][peer], torch.float32), (PEERS[operator]["ours"], torch.float64)):
        leaves, rest = make_inputs(operator, (2, *shape[1:]))
        leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
        torch.manual_seed(1)
        results.append(run(function, leaves, rest, gradient_at_output(operator, leaves).to(dtype)))
    return max(float((one - truth).norm() / truth.norm()) for one, truth in zip(*results))


def print_memory(operator: str, peer: str, shape: tuple[int, int, int, int]) -> None:
    function = PEERS[operator][peer]
    # Compiles, and lets libraries start their threads.
    leaves, rest = make_inputs(operator, (1, shape[1], 3, 2))
    run(function, leaves, rest, gradient_at_output(operator, leaves))
    leaves, rest = make_inputs(operator, shape)
    dy = gradient_at_output(operator, leaves)
    with PeakMemory() as memory:
        run(function, leaves, rest, dy)
    print(json.dumps(memory.bytes))


def measure_memory(operator: str, peer: str, shape: str, threads: int) -> int | None:
    command = [sys.executable, __file__, "--memory", operator, peer, "--shapes", shape, "--threads", str(threads)]
    printed: int | None = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return printed


def format_table(rows: list[dict[str, Any]]) -> str:
    head = ("operator", "shape", "form", "ms", "× ours", "MB", "× ours", "error")
    lines = ["{:<18}{:<14}{:<12}{:>10}{:>9}{:>11}{:>9}{:>9}".format(*head)]
    for row in rows:
        memory = "–" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f}"
        share = "–" if row["memory_ratio"] is None else f"{row['memory_ratio']:.1f}"
        times = f"{row['milliseconds']:>10.1f}{row['time_ratio']:>9.1f}{memory:>11}{share:>9}{row['error']:>9.0e}"
        lines.append(f"{row['operator']:<18}{row['shape']:<14}{row['form']:<12}{times}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="batch x channels x height x width")
    parser.add_argument("--operators", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--forms", nargs="+", default=["published", "recurrence"], help="what ours is compared with")
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each form, for each operator and shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shapes = {text: tuple(map(int, text.split("x"))) for text in options.shapes}
    if any(len(shape) != 4 or shape[1] % HEADS for shape in shapes.values()):
        raise SystemExit(
            f"--shapes must be batch x channels x height x width, channels a multiple of {HEADS}, got {options.shapes}"
        )
    if options.memory:
        print_memory(*options.memory, next(iter(shapes.values())))  # type: ignore[arg-type]
        return
    rows: list[dict[str, Any]] = []
    for operator in options.operators:
        for text, shape in shapes.items():
            peers = {
                form: function
                for form, function in PEERS[operator].items()
                if form in ("ours", *options.forms) and kept_bytes(operator, form, shape) < LARGEST  # type: ignore[arg-type]
            }
            errors = {peer: largest_error(operator, peer, shape) for peer in peers}  # type: ignore[arg-type]
            leaves, rest = make_inputs(operator, shape)  # type: ignore[arg-type]
            dy = gradient_at_output(operator, leaves)
            functions = {peer: partial(run, function, leaves, rest, dy) for peer, function in peers.items()}
            taken = take_turns(functions, options.seconds)
            memories = {peer: measure_memory(operator, peer, text, options.threads) for peer in peers}
            for peer in peers:
                # A fast wrong answer is not a result.
                if not errors[peer] < 1e-4:
                    raise SystemExit(f"{operator}, {peer} at {text}: error must be below 1e-4, got {errors[peer]:.1e}")
                memory, least = memories[peer], memories["ours"]
                rows.append(
                    {
                        "operator": operator,
                        "shape": text,
                        "form": peer,
                        "milliseconds": 1e3 * statistics.median(taken[peer]),
                        "turns": len(taken[peer]),
                        "time_ratio": typical_ratio(taken[peer], taken["ours"]),
                        "memory_bytes": memory,
                        "memory_ratio": memory / least if memory and least else None,
                        "error": errors[peer],
                    }
                )
                print(format_table(rows[-1:]).splitlines()[1], flush=True)
    print(format_table(rows))
    measured = {"versions": {"torch": torch.__version__}, "threads": options.threads, "rows": rows}
    write_results(RESULTS / "sequence_mixers.json", measured)


if __name__ == "__main__":
    main()
