"""The Triton kernels under Triton's interpreter, on the CPU: values and all gradients against the loop in float64.

Run by test_scan_triton.py in a process of its own, in which TRITON_INTERPRET is set before Triton is imported.
"""

import os
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from test_scan import NAMES, PATHS, loop, make, relative
from test_scan_factored import arguments_of, assert_same, make_projected, true_scan
from test_scan_factored import scan as scan_projected

from medmamba_variants.scan import backends, ss2d_scan, use_backend
from medmamba_variants.scan.op import path_tensors
from medmamba_variants.scan.paths import custom_path, scan_path, window_path
from medmamba_variants.scan.triton import launch as backend
from medmamba_variants.scan.triton.functions import far, softplus, softplus_derivative
from medmamba_variants.scan.triton.sizes import Sizes

assert os.environ["TRITON_INTERPRET"] == "1"

# Triton 3.6's interpreter reads numbers out of arrays.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")

torch.set_num_threads(1)
TOLERANCE = 1e-6
# The interpreter computes with numpy, which remarks on what a GPU passes through.
not_finite = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")


@pytest.fixture(autouse=True)
def _through_triton():
    with use_backend("triton"):
        yield


@pytest.fixture(params=["any order", "deterministic"])
def mode(request):
    torch.use_deterministic_algorithms(request.param == "deterministic")
    yield request.param
    torch.use_deterministic_algorithms(False)


def assert_exact(path, blocks=None, batch=1, tolerance=TOLERANCE, change=None, **sizes):
    """The scan in float32 equals the loop in float64, in y and the seven gradients."""
    exact = make(path, batch=batch, **sizes)
    if change is not None:
        with torch.no_grad():
            change(exact)
    inputs = [tensor.detach().float().requires_grad_() for tensor in exact]
    expected = loop(exact, path)
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        if blocks is not None:
            patch.setattr(Sizes, "candidates", lambda self, tile: [blocks])
        y = ss2d_scan(*inputs, path)
        gradients = torch.autograd.grad(y, inputs, dy.float())
    truths = torch.autograd.grad(expected, exact, dy)
    assert relative(y, expected) < tolerance
    for name, gradient, truth in zip(NAMES, gradients, truths):
        assert gradient.shape == truth.shape
        assert gradient.is_contiguous()
        assert relative(gradient, truth) < tolerance, name


# Values and gradients


@pytest.mark.parametrize(("channels", "d_state", "block"), [(7, 1, 8), (33, 8, 32), (7, 16, 4), (5, 5, 8)])
def test_equals_the_loop(mode, channels, d_state, block):
    assert_exact(scan_path(("rows", "columns_reverse"), 2, 4), blocks=block, channels=channels, d_state=d_state)


@pytest.mark.parametrize(("batch", "channels", "d_state", "rank"), [(1, 5, 3, 1), (2, 4, 2, 3)])
def test_a_product_of_low_rank_and_parts_of_a_projection(mode, batch, channels, d_state, rank):
    path = PATHS["pauses"]()
    exact = make_projected(path, batch=batch, channels=channels, d_state=d_state, rank=rank)
    leaves = [tensor.detach().float().requires_grad_() for tensor in exact]
    assert_same(leaves, scan_projected(leaves, path), true_scan(exact, path), exact, TOLERANCE)


def test_the_product_is_not_kept_and_made_again_alike_under_autocast():
    path = scan_path(("rows", "columns"), 2, 3)
    leaves = make_projected(path, channels=4, d_state=2, rank=1, dtype=torch.float32)
    kept = []

    def pack(tensor):
        kept.append(tensor.shape)
        return tensor

    (x, delta, A, B, C, *rest), weight = arguments_of(leaves)
    narrow = x.bfloat16(), delta.bfloat16(), A, B.bfloat16(), C.bfloat16(), *rest
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu"):
        y = ss2d_scan(*narrow, path, weight.bfloat16())
    assert delta.shape in kept and (*delta.shape[:3], 4) not in kept
    made = torch.einsum("blkr,kdr->blkd", narrow[1], weight.bfloat16())
    expected = ss2d_scan(narrow[0], made, *narrow[2:], path)
    assert y.dtype == torch.bfloat16 and torch.equal(y, expected)
    for gradient, truth in zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), leaves)):
        assert gradient.dtype == torch.float32 and relative(gradient, truth) < 0.01


def test_the_product_has_the_wider_dtype():
    path = scan_path(("rows", "columns"), 2, 3)
    leaves = make_projected(path, channels=4, d_state=2, rank=2, dtype=torch.float32)
    (x, delta, *rest), weight = arguments_of(leaves)
    y = ss2d_scan(x, delta.bfloat16(), *rest, path, weight)
    expected = ss2d_scan(x, delta.bfloat16().float(), *rest, path, weight)
    assert torch.equal(y, expected)
    gradients = torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), leaves)
    assert all(relative(*pair) < 0.01 for pair in zip(*gradients))


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"channels": 0}])
def test_a_product_of_nothing(sizes):
    leaves = make_projected(scan_path("cross4", 2, 3), dtype=torch.float32, **sizes)
    y = scan_projected(leaves, scan_path("cross4", 2, 3))
    for gradient, leaf in zip(torch.autograd.grad(y.sum(), leaves), leaves):
        assert gradient.shape == leaf.shape and not gradient.any()


def test_windows_start_anew(mode):
    path = window_path(("rows", "columns_reverse"), 3, 5, (2, 3))
    assert_exact(path, channels=3, d_state=5)


@pytest.mark.parametrize("name", ["pauses", "one position"])
def test_pauses_and_a_single_step(mode, name):
    assert_exact(PATHS[name](), channels=3, d_state=2, blocks=4)


def test_chunks_and_marks_on_their_borders():
    path = PATHS["long"]()
    assert backend.checkpoint_shape(*make(path)[0:3:2], path.steps)[2] == 3
    assert_exact(path, channels=3, d_state=3)


@pytest.mark.parametrize("steps", [1, 3, 4, 9])
def test_one_direction_of_any_number_of_steps(steps):
    assert_exact(scan_path(("rows_reverse",), 1, steps), channels=2, d_state=2)


def test_one_direction_that_leaves_positions_out():
    path = custom_path([[4, 1]], 6)
    assert_exact(path, batch=2, channels=5, d_state=2, blocks=4)
    inputs = make(path, dtype=torch.float32)
    y = ss2d_scan(*inputs, path)
    dx, ddelta, _, dB, dC, _, _ = torch.autograd.grad(y.sum(), inputs)
    for tensor in (y.detach(), dx, ddelta, dB, dC):
        assert tensor[:, [0, 2, 3, 5]].abs().max() == 0 and (tensor[:, [1, 4]] != 0).any()


def test_wide_offsets(monkeypatch):
    monkeypatch.setattr(Sizes, "wide", True)
    assert Sizes(1, 3, 2, 2, 2, 3, False, False, True, False).constants(4)["WIDE"] is True
    assert_exact(scan_path(("columns", "rows_reverse"), 3, 2), channels=2, d_state=2)


@triton.jit
def _far_kernel(index, offset, stride):
    tl.store(offset, far(tl.load(index), stride))


def test_offsets_of_partial_sums_are_wide():
    index, offset = torch.tensor([3], dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
    _far_kernel[(1,)](index, offset, 1 << 30)
    assert offset.item() == 3 << 30


def test_offsets_become_wide_where_32_bits_end():
    sizes = Sizes(1, 10**6, 96, 16, 4, 10**6, False, False, True, False)
    assert not sizes.wide
    assert Sizes(1, 10**7, 96, 16, 4, 10**7, False, False, True, False).wide


def test_skip_and_bias_may_be_missing():
    path = scan_path(("rows", "columns"), 2, 3)
    inputs = make(path, dtype=torch.float32, batch=1)
    zeros = torch.zeros_like(inputs[5])
    assert torch.equal(ss2d_scan(*inputs[:5], None, None, path), ss2d_scan(*inputs[:5], zeros, zeros, path))


def test_no_batch_and_no_channels():
    path = scan_path("cross4", 2, 3)
    for sizes in ({"batch": 0}, {"channels": 0}):
        inputs = make(path, dtype=torch.float32, **sizes)
        y = ss2d_scan(*inputs, path)
        assert y.shape == inputs[0].shape
        for gradient, tensor in zip(torch.autograd.grad(y.sum(), inputs), inputs):
            assert gradient.shape == tensor.shape and not gradient.any()


# Numbers


@triton.jit
def _softplus_kernel(r, value, slope):
    index = tl.arange(0, 1024)
    loaded = tl.load(r + index)
    tl.store(value + index, softplus(loaded))
    tl.store(slope + index, softplus_derivative(loaded))


@not_finite
def test_softplus_keeps_its_digits_at_both_ends():
    r = torch.linspace(-80, 80, 1024)
    value, slope = torch.empty_like(r), torch.empty_like(r)
    _softplus_kernel[(1,)](r, value, slope)
    exact = torch.logaddexp(r.double(), torch.zeros(1, dtype=torch.float64))
    # Far below zero the argument of exp is rounded, too.
    assert float(((value - exact) / exact).abs().max()) < 1e-5
    near = r.abs() < 8
    assert float(((value - exact) / exact)[near].abs().max()) < 1e-6
    assert float(((slope - r.double().sigmoid()) / r.double().sigmoid()).abs().max()) < 1e-5
    special = torch.full_like(r, float("nan"))
    special[1], special[2] = float("inf"), -float("inf")
    _softplus_kernel[(1,)](special, value, slope)
    assert value[0].isnan() and value[1] == float("inf") and value[2] == 0
    assert slope[0].isnan() and slope[1] == 1 and slope[2] == 0


@not_finite
@pytest.mark.parametrize("where", [0, 1, 3, 4])
def test_nan_and_infinity_stay_where_the_loop_has_them(where):
    path = custom_path([[0, 5, 2, 3], [-1, 3, -1, 0], [2, 5, -1, -1]], 6, [[0, 0, 1, 0], [0] * 4, [0] * 4])
    inputs = make(path, batch=1, channels=2, dtype=torch.float32)
    with torch.no_grad():
        # After it direction 0 starts anew, and direction 2 pauses to its end.
        inputs[where][0, 5] = float("nan") if where % 2 else float("inf")
    y, expected = ss2d_scan(*inputs, path), loop(inputs, path)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    pairs = [(y, expected), *zip(*(torch.autograd.grad(result, inputs, dy) for result in (y, expected)))]
    for got, truth in pairs:
        assert torch.equal(got.isfinite(), truth.isfinite())
        assert relative(got[truth.isfinite()], truth[truth.isfinite()]) < TOLERANCE
    assert not y.isfinite().all()


@not_finite
@pytest.mark.parametrize("d_state", [2, 3, 5])
@pytest.mark.parametrize("where", range(7), ids=NAMES)
def test_states_beyond_the_last_make_no_nan_of_infinity(where, d_state):
    path = scan_path(("rows",), 1, 6)
    inputs = make(path, batch=1, channels=3, d_state=d_state, dtype=torch.float32)
    with torch.no_grad():
        # All of one sign, or infinities would cancel in the truth, too.
        for tensor in (*inputs[:2], *inputs[3:]):
            tensor.abs_()
        inputs[where].view(-1)[inputs[where].numel() // 2] = -float("inf") if where == 2 else float("inf")
    y, expected = ss2d_scan(*inputs, path), loop(inputs, path)
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(y), kind(expected))
    dy = torch.ones_like(y)
    for gradient, truth in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy)):
        assert torch.equal(gradient.isfinite(), truth.isfinite())


@not_finite
def test_a_state_that_forgets_at_once_survives_pauses():
    path = custom_path([[0, 2, 1], [-1, 1, 0]], 3)
    inputs = make(path, dtype=torch.float32)
    with torch.no_grad():
        inputs[2][1, 0, 0] = -float("inf")
    assert relative(ss2d_scan(*inputs, path), loop(inputs, path)) < TOLERANCE


# Dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_in_and_out_around_a_float32_state(monkeypatch, dtype):
    seen = []
    forward, gradients_of = backend.forward, backend.backward
    monkeypatch.setattr(backend, "forward", lambda *args: seen.append(args[0].dtype) or forward(*args))
    monkeypatch.setattr(backend, "backward", lambda *args: seen.append(args[0].dtype) or gradients_of(*args))
    path = scan_path(("rows", "columns_reverse"), 2, 5)
    inputs = make(path, batch=1, channels=5, d_state=5, dtype=torch.float32)
    # x, delta, B and C as under autocast; the parameters stay as they are.
    native = [t.detach().to(dtype if i in (0, 1, 3, 4) else t.dtype).requires_grad_() for i, t in enumerate(inputs)]
    widened = [tensor.detach().float().requires_grad_() for tensor in native]
    y, wide = ss2d_scan(*native, path), ss2d_scan(*widened, path)
    assert y.dtype == dtype
    # Rounded once, at the end.
    assert torch.equal(y, wide.to(dtype))
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients, truths = torch.autograd.grad(y, native, dy), torch.autograd.grad(wide, widened, dy.float())
    for name, gradient, truth, tensor in zip(NAMES, gradients, truths, native):
        assert gradient.dtype == tensor.dtype
        # The interpreter cuts bfloat16 off where a GPU rounds.
        slack = 2**-7 if gradient.dtype == torch.bfloat16 else 0
        torch.testing.assert_close(gradient, truth.to(tensor.dtype), rtol=slack, atol=0, msg=name)
    assert seen == [dtype, torch.float32, dtype, torch.float32]


def test_64_bits_are_refused():
    path = scan_path("cross4", 2, 3)
    with pytest.raises(ValueError, match=r"backend 'triton' cannot scan torch\.float64 on cpu"):
        ss2d_scan(*make(path), path)


# Manners


def test_any_path_is_served_by_the_kernel_for_marks_and_pauses(monkeypatch):
    # What a stream that is being captured gets, on which nothing can be read.
    monkeypatch.setattr(backend, "_path_facts", lambda table, resets: (True, True))
    assert_exact(scan_path(("rows", "columns_reverse"), 2, 4), channels=3, d_state=2)


def test_a_path_is_looked_at_once():
    path = window_path(("rows",), 2, 3, (1, 3))
    table, resets = path_tensors(path, torch.device("cpu"))
    assert backend._path_facts(table, resets) == (False, True)
    assert backend._facts[table] == (False, True)
    held = custom_path([[0, -1]], 2)
    assert backend._path_facts(*path_tensors(held, torch.device("cpu"))) == (True, False)


# opcheck itself looks at .grad of tensors it has cloned.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype):
    path = custom_path([[0, 1, 2, 3, 4], [1, -1, 2]], 5)
    table, resets = path_tensors(path, torch.device("cpu"))
    inputs = make(path, batch=1, dtype=dtype)
    # Without the test of autograd under tracing, which compares sums of different order bit for bit.
    utilities = ("test_schema", "test_faketensor", "test_autograd_registration")
    arguments = (*inputs, None, table, resets, path.visited, True, "triton")
    torch.library.opcheck(torch.ops.medmamba.ss2d_scan.default, arguments, test_utils=utilities)
    with torch.no_grad():
        y, checkpoints = torch.ops.medmamba.ss2d_scan(*arguments)
    assert y.dtype == dtype and checkpoints.dtype == torch.float32
    arguments = (
        torch.ones_like(y),
        *(t.detach() for t in inputs),
        None,
        table,
        resets,
        checkpoints,
        path.visited,
        "triton",
    )
    torch.library.opcheck(torch.ops.medmamba.ss2d_scan_backward.default, arguments, test_utils=utilities)


def test_traces_as_one_graph():
    path = scan_path(("rows", "columns"), 2, 3)
    compiled = torch.compile(lambda *tensors: ss2d_scan(*tensors, path).sin(), fullgraph=True, backend="aot_eager")
    inputs = make(path, batch=1, dtype=torch.float32)
    inputs[0] = inputs[0].detach().bfloat16().requires_grad_()
    y, plain = compiled(*inputs), ss2d_scan(*inputs, path).sin()
    assert torch.equal(y, plain)
    for gradient, truth in zip(*(torch.autograd.grad(result.float().sum(), inputs) for result in (y, plain))):
        assert torch.equal(gradient, truth)


def test_automatic_choice_is_not_the_interpreter(monkeypatch):
    monkeypatch.setattr(backends, "_asked_for", None)
    assert backends.backend_name("cpu", torch.float32) != "triton"


# A peer for the benchmark


@pytest.mark.parametrize(("height", "width"), [(3, 5), (37, 4), (1, 1)])
def test_cross_scan_and_merge_are_those_of_torch(monkeypatch, height, width):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import cross_scan

    rng = torch.Generator().manual_seed(0)
    # Not contiguous.
    x = torch.randn(2, height, width, 3, generator=rng).permute(0, 3, 1, 2).requires_grad_()
    weights = torch.randn(2, 4, 3, height * width, generator=rng)
    results = []
    for kind in ("torch", "triton"):
        lay_out, merge = (getattr(cross_scan, f"{name}_by_{kind}") for name in ("scan", "merge"))
        xs = lay_out(x)
        y = merge(weights * xs, height, width)
        results.append((xs, y, *torch.autograd.grad(y.square().sum(), x)))
    for expected, got in zip(*results):
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected)
    # The four directions are the operator's.
    path = scan_path("cross4", height, width)
    for k, order in enumerate(path.table):
        assert torch.equal(results[0][0][:, k], x.flatten(2)[:, :, order.tolist()])
