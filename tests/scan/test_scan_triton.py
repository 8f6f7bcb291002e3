"""The Triton backend: interpreted on the CPU, compiled without a GPU, refused where it cannot work, run on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from test_scan import NAMES, PATHS, loop, make, relative
from test_scan_factored import make_projected, true_scan
from test_scan_factored import scan as scan_projected

from medmamba_variants.scan import backends, ss2d_scan, use_backend
from medmamba_variants.scan.paths import scan_path

ROOT = Path(__file__).resolve().parents[2]
REGISTERS = ROOT / "benchmarks" / "triton_registers.py"

triton = pytest.importorskip("triton", reason="Triton is not installed")


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture
def registers(monkeypatch, capsys):
    """The benchmark of registers in this process: its exit status, the cells of its rows, its errors."""
    monkeypatch.syspath_prepend(REGISTERS.parent)
    import triton_registers

    def measured(*arguments):
        monkeypatch.setattr(sys, "argv", [str(REGISTERS), *arguments])
        try:
            status = triton_registers.main() or 0
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        rows = [line.split(" | ") for line in captured.out.splitlines() if line.startswith("|")]
        return status, rows, captured.err

    return measured


def version(module):
    return tuple(map(int, module.__version__.split(".")[:2]))


# Without a GPU


@pytest.mark.skipif(
    version(triton) < (3, 7) and version(numpy) >= (2, 4), reason="Triton 3.6's interpreter needs numpy below 2.4"
)
def test_kernels_are_exact_under_the_interpreter():
    # In a process of its own: interpreted kernels are another kind of object from the moment they are defined.
    tests = Path(__file__).with_name("interpreted_scan_triton.py")

    result = run("-m", "pytest", tests, "-p", "no:cacheprovider", TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout or "[100%]" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler comes with its Linux packages")
def test_kernels_compile_without_spills():
    result = run(REGISTERS, "--quick", "--paths", "plain", "--jobs", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {target}", kernel] for target in (80, 90, 100) for kernel in ("forward", "backward")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler comes with its Linux packages")
@pytest.mark.parametrize(
    ("path", "dtype", "sums"), [("marked", "float32", {"atomic", "in turn"}), ("ragged", "bfloat16", {"atomic"})]
)
def test_nothing_spills_where_registers_are_fewest(path, dtype, sums, registers):
    """On sm_100 alone spilled the deterministic forward of up to 15 states, and the backward of channels left over."""
    status, rows, error = registers("--targets", "100", "--states", "16", "--paths", path, "--dtypes", dtype)
    assert (status, error) == (0, "")
    assert {(row[1], row[5]) for row in rows} == {
        (kernel, total) for kernel in ("forward", "backward") for total in sums
    }


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler comes with its Linux packages")
def test_few_states_are_not_spread_over_lanes(registers):
    """Eight states, of which a thread can read four at once, took 48 shuffles a step and 1.7 times the instructions."""
    _, rows, _ = registers(
        "--targets", "90", "--states", "8", "--paths", "plain", "--block", "64", "--dtypes", "float32"
    )
    forward = next(row for row in rows if row[1] == "forward")
    assert float(forward[-1].strip(" |")) <= 8 and float(forward[-3]) < 250


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler comes with its Linux packages")
def test_a_spill_is_seen(registers):
    status, _, error = registers("--quick", "--paths", "plain", "--targets", "90", "--block", "64", "--warps", "1")
    assert status == 1
    assert "spilled: Launch(target=90" in error


@pytest.fixture
def fresh(monkeypatch):
    """No backend is loaded or chosen yet."""
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(backends, "_loaded", {})
    return monkeypatch


def forget(monkeypatch, *modules):
    """Makes Python import modules anew, and again when the test is over."""
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_without_triton_the_error_says_what_to_install(fresh):
    forget(fresh, *(name for name in sys.modules if name.startswith("medmamba_variants.scan.triton")))
    fresh.setitem(sys.modules, "triton", None)
    message = r"backend 'triton' .*: .*\(pip install 'triton>=3\.6'\)"
    with pytest.raises(ImportError, match=message) as caught, use_backend("triton"):
        raise AssertionError("not reached")
    assert "\n" not in str(caught.value)
    # Nobody asked for it by name: portable serves.
    assert not backends._works("triton", "cuda", torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_error_says_what_to_install(fresh):
    path = scan_path("cross4", 2, 3)
    with (
        use_backend("triton"),
        pytest.raises(
            ValueError, match=r"cannot scan torch\.float32 on cpu: torch finds no CUDA .*install a CUDA build of torch"
        ),
    ):
        ss2d_scan(*make(path, dtype=torch.float32), path)


def test_without_a_compiler_for_its_launcher_triton_is_not_used(monkeypatch):
    from medmamba_variants.scan.triton import launch as backend

    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton.runtime, "driver", Driver())
    with pytest.warns(RuntimeWarning, match=r"scans use torch operations, .*Failed to find C compiler\..*a C compiler"):
        monkeypatch.setattr(backend, "UNAVAILABLE", backend._why_unavailable())
    assert not backend.supports(torch.empty(0))


def test_scanning_on_the_cpu_imports_neither_triton_nor_torch_s_compiler():
    code = (
        "import sys, torch\n"
        "from medmamba_variants.scan import ss2d_scan\n"
        "from medmamba_variants.scan.paths import scan_path\n"
        "path = scan_path(('rows',), 1, 2)\n"
        "one = torch.ones(1, 2, 1)\n"
        "ss2d_scan(one, one.unsqueeze(2), -one[:, :1], one.unsqueeze(2), one.unsqueeze(2), None, None, path)\n"
        "assert 'medmamba_variants.scan.triton' not in sys.modules\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def sizes():
    from medmamba_variants.scan.triton.sizes import Sizes

    return Sizes(2, 196, 192, 16, 4, 196, False, False, True, False)


def test_blocks_are_measured_once(monkeypatch, sizes):
    from medmamba_variants.scan.triton import launch as backend

    monkeypatch.setattr(backend, "_measured", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    milliseconds, measured = {32: 3.0, 16: 1.0, 8: 2.0}, []

    def measure(run):
        run()
        return milliseconds[measured[-1]]

    monkeypatch.setattr(backend, "_milliseconds", measure)
    x = torch.empty(2, 196, 192)
    for _ in range(2):
        assert backend._block("forward", x, sizes, sizes.forward_tile, measured.append) == 16
    assert measured == [32, 16, 8]
    # Known already: a stream that is being captured gets it, too.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert backend._block("forward", x, sizes, sizes.forward_tile, measured.append) == 16
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    # Another dtype, another direction of the pass: measured for themselves.
    backend._block("backward", x, sizes, sizes.backward_tile, measured.append)
    backend._block("forward", x.bfloat16(), sizes, sizes.forward_tile, measured.append)
    assert len(measured) == 9


def test_a_measurement_does_not_wait_for_python(monkeypatch):
    from medmamba_variants.scan.triton import launch as backend

    seen = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            seen.append("event")

        def synchronize(self):
            seen.append("wait")

        def elapsed_time(self, end):
            return float(len(seen))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: seen.append("sleep"))
    least = backend._milliseconds(lambda: seen.append("run"))
    # The device is busy while what is measured is handed to it.
    assert seen == ["run"] + ["sleep", "event", "run", "event", "wait"] * backend.REPETITIONS
    assert least == 6.0


@pytest.mark.parametrize(("batch", "expected"), [(1, 8), (2, 16), (1000, 32)])
def test_nothing_is_measured_where_bits_must_repeat(monkeypatch, sizes, batch, expected):
    from dataclasses import replace

    from medmamba_variants.scan.triton import launch as backend

    class Device:
        multi_processor_count = 6

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Device)
    x = torch.empty(batch, 1, 1)
    fixed = replace(sizes, batch=batch, deterministic=True)
    block = backend._block("forward", x, fixed, fixed.forward_tile, lambda block: pytest.fail("measured"))
    # The largest that makes four programs a processor; the smallest where none does.
    assert block == expected


def test_blocks_fit_their_tile():
    from medmamba_variants.scan.triton.sizes import Sizes

    for states in (1, 2, 5, 16, 17, 64, 200, 1024):
        for channels in (1, 7, 96, 768):
            sizes = Sizes(2, 49, channels, states, 4, 49, True, True, False, False)
            for tile in (sizes.forward_tile, sizes.backward_tile):
                candidates = sizes.candidates(tile)
                assert candidates == sorted(set(candidates), reverse=True) and candidates
                for block in candidates:
                    warps = sizes.options(block, tile)["num_warps"]
                    assert block * sizes.padded_states <= tile * warps or warps == 8
                    assert sizes.blocks(block) * block >= channels > (sizes.blocks(block) - 1) * block
                    assert warps & (warps - 1) == 0
                    # A multiprocessor's registers, handed out in units of 8 a thread.
                    assert warps * 32 * 256 <= 65536


# On a GPU

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["any order", "deterministic"])
def mode(request):
    torch.use_deterministic_algorithms(request.param == "deterministic")
    yield request.param
    torch.use_deterministic_algorithms(False)


def gradients_on_gpu(inputs, path, dtype=torch.float32):
    """y and the seven gradients by the Triton kernels."""
    tensors = [tensor.detach().to("cuda", dtype).requires_grad_() for tensor in inputs]
    with use_backend("triton"):
        y = ss2d_scan(*tensors, path)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to("cuda", dtype)
        return y, torch.autograd.grad(y, tensors, dy)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("channels", "d_state"), [(7, 1), (33, 5), (96, 16), (33, 64), (5, 200)])
def test_gpu_equals_the_loop(mode, name, channels, d_state):
    path = PATHS[name]()
    inputs = make(path, channels=channels, d_state=d_state)
    y, gradients = gradients_on_gpu(inputs, path)
    expected = loop(inputs, path)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).double()
    assert relative(y.cpu(), expected) < 2e-6
    for what, gradient, truth in zip(NAMES, gradients, torch.autograd.grad(expected, inputs, dy)):
        assert relative(gradient.cpu(), truth) < 5e-6, what


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gpu_rounds_16_bits_once(dtype):
    path = scan_path("cross4", 9, 14)
    inputs = [tensor.detach().to(dtype) for tensor in make(path, channels=96, d_state=16)]
    y, gradients = gradients_on_gpu(inputs, path, dtype)
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    expected = loop(exact, path)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(dtype).double()
    step = torch.finfo(dtype).eps
    assert y.dtype == dtype and relative(y.cpu(), expected) < step
    for what, gradient, truth in zip(NAMES, gradients, torch.autograd.grad(expected, exact, dy)):
        assert gradient.dtype == dtype and relative(gradient.cpu(), truth) < step, what


@pytest.mark.gpu
@on_gpu
def test_gpu_takes_a_product_of_low_rank():
    path = PATHS["pauses"]()
    exact = make_projected(path, channels=33, d_state=8, rank=3)
    leaves = [tensor.detach().to("cuda", torch.float32).requires_grad_() for tensor in exact]
    with use_backend("triton"):
        y = scan_projected(leaves, path)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
        gradients = torch.autograd.grad(y, leaves, dy.cuda())
    expected = true_scan(exact, path)
    assert relative(y.cpu(), expected) < 2e-6
    for gradient, truth in zip(gradients, torch.autograd.grad(expected, exact, dy.double())):
        assert relative(gradient.cpu(), truth) < 5e-6


@pytest.mark.gpu
@on_gpu
def test_gpu_repeats_its_bits_where_asked():
    torch.use_deterministic_algorithms(True)
    try:
        path = scan_path("cross4", 23, 31)
        inputs = make(path, batch=5, channels=97, d_state=16, grad=False)
        first = gradients_on_gpu(inputs, path)
        for _ in range(5):
            again = gradients_on_gpu(inputs, path)
            assert torch.equal(again[0], first[0])
            assert all(torch.equal(a, b) for a, b in zip(again[1], first[1]))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@on_gpu
def test_gpu_has_no_races():
    # A lost addition or a note read too early would show as an error far above rounding in one run or another.
    path = scan_path("cross4", 23, 31)
    inputs = make(path, batch=64, channels=97, d_state=16, grad=False)
    torch.use_deterministic_algorithms(True)
    truth = gradients_on_gpu(inputs, path)
    torch.use_deterministic_algorithms(False)
    for _ in range(20):
        y, gradients = gradients_on_gpu(inputs, path)
        assert relative(y, truth[0]) < 2e-6
        assert all(relative(a, b) < 5e-6 for a, b in zip(gradients, truth[1]))


@pytest.mark.gpu
@on_gpu
def test_gpu_is_chosen_and_can_be_captured():
    assert backends.backend_name("cuda", torch.float32) == "triton"
    path = scan_path("cross4", 5, 7)
    tensors = [tensor.cuda() for tensor in make(path, channels=33, d_state=16, dtype=torch.float32, grad=False)]
    expected = ss2d_scan(*tensors, path)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ss2d_scan(*tensors, path)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = ss2d_scan(*tensors, path)
    graph.replay()
    assert relative(y, expected) < 2e-6
