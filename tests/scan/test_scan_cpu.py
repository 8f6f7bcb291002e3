"""The numba scan against the loop in float64, and what must hold around it: threads, forks, caches, NaN, long paths."""

import math
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from numba.core.registry import cpu_target
from patience import HANG
from torch import Tensor

from medmamba_variants.scan import reference, ss2d_scan
from medmamba_variants.scan.cpu import launch as cpu
from medmamba_variants.scan.cpu import memory as cpu_memory
from medmamba_variants.scan.cpu import threads as cpu_threads
from medmamba_variants.scan.paths import ScanPath

pytestmark = pytest.mark.skipif(cpu.UNAVAILABLE is not None, reason=str(cpu.UNAVAILABLE))

NAMES = ("dx", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias")


def make_inputs(batch: int, channels: int, length: int, states: int, directions: int) -> list[Tensor]:
    """x, delta, A, B, C, D, delta_bias in float64."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    spread = 1 + 0.1 * torch.rand(directions, channels, states, generator=g, dtype=torch.float64)
    return [
        normal(batch, length, channels),
        normal(batch, length, directions, channels),
        -torch.arange(1.0, states + 1, dtype=torch.float64) * spread,
        normal(batch, length, directions, states),
        normal(batch, length, directions, states),
        normal(directions, channels),
        normal(directions, channels) - 3,
    ]


def make_path(directions: int, length: int, holes: bool) -> tuple[Tensor, Tensor]:
    """A random table and its marks; with holes, positions are missing and the state starts anew now and then."""
    g = torch.Generator().manual_seed(1)
    table = torch.stack([torch.randperm(length, generator=g) for _ in range(directions)]).int()
    resets = torch.zeros(directions, length, dtype=torch.uint8)
    if holes:
        table[torch.rand(directions, length, generator=g) < 0.2] = -1
        resets = ((torch.rand(directions, length, generator=g) < 0.15) & (table >= 0)).to(torch.uint8)
    return table, resets


def relative_error(result: Tensor, truth: Tensor) -> float:
    return float((result.double() - truth).norm() / truth.norm().clamp_min(1e-300))


# batch, channels, length, states, directions, holes
CASES = [
    (3, 48, 35, 16, 4, False),
    (2, 20, 70, 4, 3, True),
    (1, 20, 290, 4, 2, True),
    (2, 20, 40, 3, 2, True),
    (2, 7, 33, 1, 2, False),
    (1, 39, 5, 6, 2, True),
    (33, 5, 3, 2, 1, False),
    (2, 9, 1, 64, 4, False),
]


def scan_both_ways(inputs: list[Tensor], dy: Tensor, table: Tensor, resets: Tensor) -> list[Tensor]:
    """y and the seven gradients."""
    y, checkpoints = cpu.forward(*inputs, table, resets, True)
    return [y, *cpu.backward(dy, *inputs, table, resets, checkpoints)]


def true_scan_both_ways(inputs: list[Tensor], dy: Tensor, table: Tensor, resets: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    y = reference.scan(*leaves, table, resets)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def make_case(case: tuple) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    batch, channels, length, states, directions, holes = case
    inputs = make_inputs(batch, channels, length, states, directions)
    dy = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return inputs, dy, *make_path(directions, length, holes)


@pytest.fixture
def set_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torch.set_num_threads, undone afterwards; even the smallest scan is shared among the threads."""
    monkeypatch.setattr(cpu, "WORK_PER_THREAD", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Every kind of kernel takes seconds to compile: pairs of states (d_state 2 and 6) are tried in one dtype only.
WIDE_CASES = [case for case in CASES if case[3] not in (2, 6)]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, torch.float32) for case in CASES] + [(case, torch.float64) for case in WIDE_CASES],
    ids=str,
)
def test_value_and_gradients_equal_the_loop(case: tuple, dtype: torch.dtype) -> None:
    inputs, dy, table, resets = make_case(case)
    truth = true_scan_both_ways(inputs, dy, table, resets)
    results = scan_both_ways([tensor.to(dtype) for tensor in inputs], dy.to(dtype), table, resets)
    bound = 1e-6 if dtype == torch.float32 else 1e-12
    for name, result, true_result in zip(("y", *NAMES), results, truth):
        assert result.shape == true_result.shape and result.dtype == dtype
        assert relative_error(result, true_result) < bound, name


def test_value_is_the_same_without_backward() -> None:
    inputs, _, table, resets = make_case((2, 20, 300, 4, 3, True))
    y, checkpoints = cpu.forward(*inputs, table, resets, True)
    y_alone, nothing = cpu.forward(*inputs, table, resets, False)
    assert torch.equal(y, y_alone)
    assert checkpoints.numel() > 0 and nothing.numel() == 0


@pytest.mark.parametrize("team", ["openmp", "crew"])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_thread_count_does_not_change_a_bit(
    batch: int, team: str, set_threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    if team == "crew":
        monkeypatch.setattr(cpu_threads, "_openmp_parallel", lambda: None)
    elif (parallel := cpu_threads._openmp_parallel()) is None:
        pytest.skip("torch has not loaded libgomp")
    else:

        def recorded(function: int, arguments: int, threads: int, flags: int) -> None:
            sizes.append(threads)
            parallel(function, arguments, threads, flags)

        monkeypatch.setattr(cpu_threads, "_openmp_parallel", lambda: recorded)
    inputs, dy, table, resets = make_case((batch, 37, 70, 4, 3, True))
    single = [tensor.float() for tensor in inputs]
    set_threads(1)
    expected = scan_both_ways(single, dy.float(), table, resets)
    assert sizes == []
    for threads in (2, 3, 5):
        set_threads(threads)
        for result, one in zip(scan_both_ways(single, dy.float(), table, resets), expected):
            assert torch.equal(result, one)
    if team == "openmp":
        # The whole team, also where fewer threads have work. A batch of one gives the backward to one thread.
        assert sizes == [threads for threads in (2, 3, 5) for _ in range(1 if batch == 1 else 2)]
    else:
        assert sum(thread.name.startswith("scan-") for thread in threading.enumerate()) >= min(4, batch - 1)


def test_batch_items_do_not_depend_on_each_other() -> None:
    inputs, _, table, resets = make_case((5, 16, 33, 4, 2, False))
    y, _ = cpu.forward(*inputs, table, resets, False)
    alone = [tensor[3:4].contiguous() if tensor.shape[0] == 5 else tensor for tensor in inputs]
    assert torch.equal(cpu.forward(*alone, table, resets, False)[0], y[3:4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("which", "value"),
    # A is negative: exp(Δ · A) with A = +∞ is no scan.
    [
        (which, value)
        for which in range(7)
        for value in (math.nan, math.inf, -math.inf)
        if (which, value) != (2, math.inf)
    ],
)
def test_nan_and_infinity_pass_through(which: int, value: float, dtype: torch.dtype) -> None:
    inputs, dy, table, resets = make_case((2, 9, 20, 4, 2, True))
    inputs = [tensor.to(dtype) for tensor in inputs]
    inputs[which].view(-1)[inputs[which].numel() // 2] = value
    truth = true_scan_both_ways(inputs, dy.to(dtype), table, resets)
    results = scan_both_ways(inputs, dy.to(dtype), table, resets)
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(results[0]), kind(truth[0]))
    # Gradients are sums in another order than the loop's, so ∞ − ∞ may be ∞ there: what is finite must agree.
    for name, result, true_result in zip(NAMES, results[1:], truth[1:]):
        assert torch.equal(result.isfinite(), true_result.isfinite()), name
    assert not results[0].isfinite().all() or (which, value) in {(1, -math.inf), (2, -math.inf), (6, -math.inf)}


@pytest.mark.parametrize("which", [3, 4])
def test_lanes_without_a_channel_add_nothing_to_infinite_sums(which: int) -> None:
    inputs, dy, table, resets = make_case((2, 1, 20, 2, 2, False))
    inputs[which].view(-1)[inputs[which].numel() // 2] = math.inf
    truth = true_scan_both_ways(inputs, dy, table, resets)
    results = scan_both_ways(inputs, dy, table, resets)
    assert truth[4].isinf().any() or truth[5].isinf().any()
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        for name, result, true_result in zip(NAMES[3:5], results[4:6], truth[4:6]):
            assert torch.equal(kind(result), kind(true_result)), name


@pytest.mark.parametrize("shift", [-60.0, -12.0, 12.0, 60.0])
def test_extreme_steps_keep_relative_accuracy(shift: float) -> None:
    inputs, dy, table, resets = make_case((2, 16, 12, 4, 2, False))
    inputs[6] += shift
    inputs[5].zero_()
    single = [tensor.float() for tensor in inputs]
    truth = true_scan_both_ways([tensor.double() for tensor in single], dy.float().double(), table, resets)
    for name, result, true_result in zip(("y", *NAMES), scan_both_ways(single, dy.float(), table, resets), truth):
        # exp(−60 · A) underflows: gradients of A that small are zero here.
        floor = 1e-30 * true_result.numel()
        assert float((result - true_result).norm()) < 1e-5 * float(true_result.norm()) + floor, name


def test_very_long_path_equals_the_geometric_series() -> None:
    length, step, rate = 300_000, 0.25, 0.01
    ones = torch.ones(1, length, 1, 1, dtype=torch.float64)
    delta = torch.full((1, length, 1, 1), math.log(math.expm1(step)), dtype=torch.float64)
    table, resets = torch.arange(length).view(1, -1).int(), torch.zeros(1, length, dtype=torch.uint8)
    inputs = [ones[..., 0], delta, torch.full((1, 1, 1), -rate, dtype=torch.float64), ones, ones]
    inputs += [torch.zeros(1, 1, dtype=torch.float64)] * 2
    results = scan_both_ways(inputs, torch.ones_like(inputs[0]), table, resets)
    sums = (
        step
        * (1 - torch.exp(-step * rate * torch.arange(1.0, length + 1, dtype=torch.float64)))
        / (1 - math.exp(-step * rate))
    )
    assert relative_error(results[0].flatten(), sums) < 1e-9
    # x at position t reaches all later positions: the same series, backwards.
    assert relative_error(results[1].flatten(), sums.flip(0)) < 1e-9


def test_slow_decays_keep_their_rate_in_float32() -> None:
    """A state gathers 1 / (Δ · rate) steps: an error of the decay that always has one sign would gather with it."""
    generator = torch.Generator().manual_seed(3)
    length, channels = 2000, 16
    delta = torch.randn(1, length, 1, channels, generator=generator)
    rates = torch.logspace(-4, -0.5, 8).expand(1, channels, 8)
    # Each of a batch of eight reads one of the states.
    inputs = [
        torch.ones(8, length, channels),
        delta.expand(8, length, 1, channels),
        -rates,
        torch.ones(8, length, 1, 8),
        torch.eye(8).view(8, 1, 1, 8).expand(8, length, 1, 8),
        torch.zeros(1, channels),
        torch.zeros(1, channels),
    ]
    table, resets = torch.arange(length).view(1, -1).int(), torch.zeros(1, length, dtype=torch.uint8)
    y, _ = cpu.forward(*[one.contiguous() for one in inputs], table, resets, False)
    truth = reference.scan(*[one.double() for one in inputs], table, resets)
    for n in range(8):
        assert relative_error(y[n], truth[n]) < 2e-6, f"state {n}"


@pytest.mark.parametrize("case", [(0, 5, 6, 4, 3), (2, 5, 0, 4, 3), (2, 0, 6, 4, 3), (2, 5, 6, 4, 0)])
def test_empty_dimensions(case: tuple) -> None:
    batch, channels, length, states, directions = case
    inputs = make_inputs(batch, channels, length, states, directions)
    table = torch.zeros(directions, length, dtype=torch.int32) + torch.arange(length, dtype=torch.int32)
    resets = torch.zeros(directions, length, dtype=torch.uint8)
    results = scan_both_ways(inputs, torch.ones_like(inputs[0]), table, resets)
    assert not results[0].any()
    assert [result.shape for result in results[1:]] == [tensor.shape for tensor in inputs]
    assert all(result.isfinite().all() for result in results)


def test_path_that_visits_nothing_gives_zeros() -> None:
    inputs, dy, table, resets = make_case((2, 5, 6, 4, 3, False))
    for result in scan_both_ways(inputs, dy, torch.full_like(table, -1), resets):
        assert not result.any()


def test_supports_only_what_it_can_scan() -> None:
    assert cpu.supports(torch.zeros(1)) and cpu.supports(torch.zeros(1, dtype=torch.float64))
    assert not cpu.supports(torch.zeros(1, dtype=torch.bfloat16))
    assert not cpu.supports(torch.zeros(1, device="meta"))


def _scan_in_child(results: Any) -> None:
    inputs, _, table, resets = make_case((6, 16, 33, 4, 2, False))
    y, _ = cpu.forward(*inputs, table, resets, False)
    results.put((y.numpy().tobytes(), len(threading.enumerate())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_has_threads_of_its_own(set_threads: Any) -> None:
    inputs, _, table, resets = make_case((6, 16, 33, 4, 2, False))
    set_threads(3)
    y, _ = cpu.forward(*inputs, table, resets, False)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_scan_in_child, args=(results,))
    with warnings.catch_warnings():
        # Python warns of forks beside threads: the very thing that is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    content, threads = results.get(timeout=HANG)
    child.join(HANG)
    assert content == y.numpy().tobytes()
    assert threads >= 3


def test_shared_work_runs_everywhere_and_reports_errors() -> None:
    names: set[str] = set()
    barrier = threading.Barrier(3)

    def meet(index: int) -> None:
        barrier.wait(timeout=HANG)
        names.add(threading.current_thread().name)

    cpu_threads.run_in_crew(meet, 3)
    assert len(names) == 3

    def fail(index: int) -> None:
        if index == 1:
            raise ArithmeticError("on the other thread")

    with pytest.raises(ArithmeticError, match="on the other thread"):
        cpu_threads.run_in_crew(fail, 2)


def test_shared_work_makes_do_with_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cpu_threads, "_crew", cpu_threads._Crew())
    monkeypatch.setattr(cpu_threads.threading, "Thread", NoThread)
    calls: list[int] = []
    cpu_threads.run_in_crew(calls.append, 4)
    assert calls == [0]


def test_scratch_is_aligned_reused_and_bounded() -> None:
    first = cpu_memory.scratch_address("test", 1000)
    assert first % cpu_memory.ALIGNMENT == 0
    assert cpu_memory.scratch_address("test", 500) == first
    cpu_memory.scratch_address("test", cpu_memory.KEPT_BYTES + 1)
    cpu_memory.scratch_address("test", 10)
    assert cpu_memory._scratch.test[1] == 10


@pytest.fixture
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_memory, "LARGE_BYTES", 1000)
    monkeypatch.setattr(cpu_memory, "KEPT_RESULTS", 20_000)
    monkeypatch.setattr(cpu_memory, "_kept", {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_results_reuse_freed_blocks_only(dtype: torch.dtype, few_bytes: None) -> None:
    like = torch.empty(0, dtype=dtype)
    first, second = cpu_memory.empty((40, 50), like), cpu_memory.empty((2000,), like)
    assert first.dtype == dtype and first.shape == (40, 50) and first.is_contiguous()
    places = {tensor.data_ptr() for tensor in (first, second)}
    assert len(places) == 2 and all(place % cpu_memory.ALIGNMENT == 0 for place in places)
    part, freed = first[20:].fill_(7), second.data_ptr()
    del first, second
    assert len(cpu_memory._kept) == 1
    # A part still in use holds its block; another type, or a little less, may take the free one.
    assert cpu_memory.empty((1900 * dtype.itemsize // 8,), torch.empty(0, dtype=torch.float64)).data_ptr() == freed
    held, new = cpu_memory.empty((2000,), like).zero_(), cpu_memory.empty((2000,), like).zero_()
    assert held.data_ptr() == freed and new.data_ptr() not in places and bool((part == 7).all())
    del part
    # Far too large a block is left to others.
    assert cpu_memory.empty((1000,), like).data_ptr() not in places


def test_blocks_beyond_the_bound_are_given_up(few_bytes: None) -> None:
    like = torch.empty(0)
    tensors = [cpu_memory.empty((2000,), like) for _ in range(4)]
    last = tensors[-1].data_ptr()
    while tensors:
        tensors.pop(0)
    assert len(cpu_memory._kept) == 2 and cpu_memory.empty((2000,), like).data_ptr() == last
    too_large = cpu_memory.empty((10_000,), like)
    del too_large
    assert sum(block.nbytes for block in cpu_memory._kept.values()) <= cpu_memory.KEPT_RESULTS


def test_results_in_reused_blocks_are_tensors_like_others(few_bytes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_memory, "KEPT_RESULTS", 1 << 30)
    inputs, dy, table, resets = make_case(CASES[0])
    y, *gradients = scan_both_ways(inputs, dy, table, resets)
    before = [tensor.clone() for tensor in (y, *gradients)]
    again = scan_both_ways(inputs, dy, table, resets)
    large = {tensor.data_ptr() for tensor in again if 8 * tensor.numel() >= cpu_memory.LARGE_BYTES}
    del again
    third = scan_both_ways(inputs, dy, table, resets)
    assert large & {tensor.data_ptr() for tensor in third}
    for one, other, still in zip(before, third, (y, *gradients)):
        assert torch.equal(one, other) and torch.equal(one, still)
    path = ScanPath(len(table[0]), table.numpy(), resets.numpy(), table.numel())
    leaves = [tensor.requires_grad_() for tensor in inputs]
    result = ss2d_scan(*leaves, path)
    assert not result._is_view()
    result.mul_(2)
    for one, other in zip(before[1:], torch.autograd.grad(result, leaves, dy)):
        assert relative_error(other, 2 * one) < 1e-12


@pytest.mark.parametrize(
    "error",
    # No folder can be written; what unpickling a damaged file raises may be anything.
    [RuntimeError("cannot cache function: no locator available"), ModuleNotFoundError("No module named 'garbage'")],
    ids=["nowhere", "damaged"],
)
def test_kernels_work_without_a_cache(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def kernel(lanes: Any) -> Any:
        dispatcher = original(lanes)

        def enable_caching() -> None:
            tried.append("cache")
            raise error

        dispatcher.enable_caching = enable_caching
        return dispatcher

    original = cpu.sum_kernel
    monkeypatch.setattr(cpu, "sum_kernel", kernel)
    total = cpu._compiled.__wrapped__("sum", cpu._lanes(8, True, 1, False))
    parts = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]], dtype=torch.float64)
    parts = torch.nn.functional.pad(parts.unsqueeze(-1), (0, cpu._lanes(8, True, 1, False).count - 1)).contiguous()
    dA, dD, dbias = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    arguments = array("q", [parts.data_ptr(), 2, dA.data_ptr(), dD.data_ptr(), dbias.data_ptr(), 0, 1, 1, 1, 0])
    total.ctypes(arguments.buffer_info()[0])
    assert tried == ["cache"] and [dA.item(), dD.item(), dbias.item()] == [11.0, 22.0, 33.0]


NARROW = """
import sys, torch
sys.path[:0] = sys.argv[2:]
import test_scan_cpu as t
from numba.core.caching import FunctionCache
hits = []
load = FunctionCache.load_overload
FunctionCache.load_overload = lambda *a: hits.append(load(*a) is not None) or load(*a)
inputs, dy, table, resets = t.make_case((2, 13, 40, 4, 2, True))
results = t.scan_both_ways([i.float() for i in inputs], dy.float(), table, resets)
torch.save(results, sys.argv[1])
print(t.cpu.vector_bytes(), hits)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="names x86 features")
def test_narrower_vectors_and_the_cache_on_disk(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment |= {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2", "PYTHONWARNINGS": ""}
    folders = map(str, Path(__file__).parents[:2])
    command = [sys.executable, "-c", NARROW, str(tmp_path / "results"), *folders]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.strip())
    # The first process compiles forward, backward and sum; the second one finds them.
    assert outputs == ["16 [False, False, False]", "16 [True, True, True]"]
    truth = true_scan_both_ways(*make_case((2, 13, 40, 4, 2, True)))
    for name, result, true_result in zip(("y", *NAMES), torch.load(tmp_path / "results", weights_only=True), truth):
        assert relative_error(result, true_result) < 1e-6, name


def test_cached_code_is_tied_to_sources_and_processor() -> None:
    dispatcher = cpu.sum_kernel(cpu._lanes(4, False, 1, False))
    dispatcher.enable_caching()
    codegen = cpu_target.target_context.codegen()
    key = dispatcher._cache._index_key((), codegen)
    assert key[1] == codegen.magic_tuple()
    for lanes in (
        cpu.Lanes(4, cpu.vector_bytes() // 8, False, 1, False, cpu._revision()),
        cpu.Lanes(4, cpu.vector_bytes() // 4, False, 1, True, cpu._revision()),
        cpu.Lanes(4, cpu.vector_bytes() // 4, False, 1, False, "other sources"),
    ):
        other = cpu.sum_kernel(lanes)
        other.enable_caching()
        assert other._cache._index_key((), codegen) != key
