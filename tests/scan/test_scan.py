"""The scan operator: backends against the loop in values and all gradients, and the operator's manners."""

import multiprocessing
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from patience import HANG
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from medmamba_variants.scan import backends, chunks, op, portable, reference, selective_scan, ss2d_scan, use_backend
from medmamba_variants.scan.dispatch import scan_macs
from medmamba_variants.scan.paths import custom_path, scan_path, window_path

NAMES = ("x", "delta", "A", "B", "C", "D", "delta_bias")

PATHS = {
    "cross4": lambda: scan_path("cross4", 3, 4),
    "eight": lambda: scan_path("eight", 5, 4),
    "one position": lambda: scan_path("cross4", 1, 1),
    "one direction twice": lambda: scan_path(("columns_right", "columns_right"), 2, 7),
    "windows": lambda: window_path(("rows", "columns_reverse"), 5, 7, (2, 3)),
    # Pauses at the ends, at the start and in the middle, positions left out by one direction or by all, marks.
    "pauses": lambda: custom_path(
        [[0, 5, 2], [-1, 3, -1, -1, 1, 0, 2, 5, -1], [6, 5, 0, 2], [-1, -1, 1]],
        8,
        [[0, 1, 0], [0, 0, 1, 0, 0, 1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1]],
    ),
    # Pauses and marks on both sides of the borders between chunks of steps.
    "long": lambda: custom_path(
        [[*range(16), -1, *range(16, 39)], [-1] * 17 + list(range(38, 15, -1))],
        40,
        [[step in (7, 8, 15, 17, 39) for step in range(40)], [step in (0, 3, 16, 24, 25) for step in range(40)]],
    ),
}


def make(path, batch=2, channels=3, d_state=2, dtype=torch.float64, grad=True, seed=0):
    """The seven tensors of a scan over a path, in the order of NAMES."""
    rng = torch.Generator().manual_seed(seed)
    K, length = path.directions, path.length

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    A = -torch.rand(K, channels, d_state, generator=rng, dtype=torch.float64) - 0.1
    inputs = [
        normal(batch, length, channels),
        normal(batch, length, K, channels),
        A.to(dtype),
        normal(batch, length, K, d_state),
        normal(batch, length, K, d_state),
        normal(K, channels),
        normal(K, channels),
    ]
    return [tensor.requires_grad_(grad) for tensor in inputs]


def loop(inputs, path):
    return reference.scan(*inputs, torch.tensor(path.table), torch.tensor(path.resets))


def relative(got, expected):
    got, expected = got.detach().double(), expected.detach().double()
    # Where the truth is zero throughout (the gradient of A after a single step), the error itself.
    return float((got - expected).norm()) / (float(expected.norm()) or 1.0)


def assert_agree(inputs, y, expected, tolerance):
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    gradients = torch.autograd.grad(y, inputs, dy.to(y.dtype))
    truth = torch.autograd.grad(expected, inputs, dy.to(expected.dtype))
    assert relative(y, expected) < tolerance
    for name, gradient, expected_gradient in zip(NAMES, gradients, truth):
        assert gradient.shape == expected_gradient.shape
        assert relative(gradient, expected_gradient) < tolerance, name


# Values and gradients


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("channels", "d_state"), [(3, 2), (1, 1), (17, 5)])
def test_backend_equals_the_loop(backend, name, channels, d_state):
    path = PATHS[name]()
    inputs = make(path, channels=channels, d_state=d_state)
    assert_agree(inputs, ss2d_scan(*inputs, path), loop(inputs, path), 1e-12)


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 16, 17, 63])
def test_chunks_of_any_number_of_steps(backend, steps):
    path = scan_path(("columns", "rows_reverse"), 1, steps)
    inputs = make(path, dtype=torch.float64)
    assert_agree(inputs, ss2d_scan(*inputs, path), loop(inputs, path), 1e-12)


def test_float32_keeps_its_digits(backend):
    path = scan_path("cross4", 7, 9)
    exact = make(path, d_state=16, channels=5)
    inputs = [tensor.detach().float().requires_grad_() for tensor in exact]
    y, expected = ss2d_scan(*inputs, path), loop(exact, path)
    assert y.dtype == torch.float32
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    assert relative(y, expected) < 1e-6
    gradients = torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, exact, dy.double())
    for name, gradient, truth in zip(NAMES, *gradients):
        assert relative(gradient, truth) < 2e-6, name


def test_the_loop_is_the_recurrence():
    # Two steps by hand: one channel, one state, one direction that runs backwards.
    x, delta = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[[0.5]], [[-1.0]]]])
    A, D, delta_bias = torch.tensor([[[-0.7]]]), torch.tensor([[0.1]]), torch.tensor([[0.25]])
    B, C = torch.tensor([[[[1.5]], [[-0.5]]]]), torch.tensor([[[[0.3]], [[0.9]]]])
    steps = np.log1p(np.exp(np.array([0.5, -1.0]) + 0.25))
    first = steps[1] * -0.5 * 3.0
    second = np.exp(steps[0] * -0.7) * first + steps[0] * 1.5 * 2.0
    expected = [0.3 * second + 0.1 * 2.0, 0.9 * first + 0.1 * 3.0]
    path = scan_path(("rows_reverse",), 1, 2)
    y = loop((x, delta, A, B, C, D, delta_bias), path)
    assert y.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_gradcheck(backend):
    path = custom_path([[1, 4, 0], [-1, 2, 1], [3, -1, 4]], 5, [[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    inputs = make(path, batch=2, channels=2, d_state=2)
    assert torch.autograd.gradcheck(lambda *tensors: ss2d_scan(*tensors, path), inputs)


def test_softplus_holds_at_both_ends(backend):
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    with torch.no_grad():
        inputs[1].copy_(torch.linspace(-60.0, 60.0, inputs[1].numel()).view_as(inputs[1]))
    assert_agree(inputs, ss2d_scan(*inputs, path), loop(inputs, path), 1e-9)


def test_portable_softplus_is_exact_to_rounding():
    r = torch.linspace(-80, 80, 10001, dtype=torch.float64)
    exact = torch.from_numpy(np.logaddexp(0, r.numpy()))
    assert float(((chunks.softplus(r) - exact) / exact).abs().max()) < 1e-14
    assert float(((chunks.softplus(r.float()) - exact) / exact).abs().max()) < 1e-5  # the argument is rounded, too
    special = chunks.softplus(torch.tensor([float("nan"), float("inf"), -float("inf")]))
    assert torch.equal(special[1:], torch.tensor([float("inf"), 0.0])) and special[0].isnan()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 1, 3, 4])
def test_nan_and_infinity_stay_where_the_loop_has_them(backend, bad, where):
    path = custom_path(
        [[0, 5, 2, 3], [-1, 3, -1, 0], [4, 1, -1, 5], [2, 5, -1, -1]],
        6,
        [[0, 0, 1, 0], [0] * 4, [0, 1, 0, 0], [0] * 4],
    )
    inputs = make(path)
    with torch.no_grad():
        # Position 5: after it direction 0 starts anew, and direction 3 pauses to its end.
        # Position 0 is what a pause must not be mistaken for.
        inputs[where][0, 5] = bad
        inputs[1][1, 0] = bad
    assert_same_holes(inputs, path)


def test_a_state_that_forgets_at_once_survives_pauses(backend):
    path = custom_path([[0, 2, 1], [-1, 1, 0]], 3)
    inputs = make(path)
    with torch.no_grad():
        inputs[2][1, 0, 0] = -float("inf")
    assert ss2d_scan(*inputs, path).isfinite().all()
    assert_same_holes(inputs, path)


def assert_same_holes(inputs, path):
    y, expected = ss2d_scan(*inputs, path), loop(inputs, path)
    torch.testing.assert_close(y, expected, equal_nan=True, rtol=1e-9, atol=1e-12)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    gradients, truths = torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy)
    for gradient, truth in zip(gradients, truths):
        assert torch.equal(gradient.isfinite(), truth.isfinite())
        finite = truth.isfinite()
        torch.testing.assert_close(gradient[finite], truth[finite], rtol=1e-9, atol=1e-12)


def test_positions_nobody_visits_get_nothing(backend):
    path = custom_path([[4, 1], [1, 0]], 5)
    inputs = make(path)
    y = ss2d_scan(*inputs, path)
    assert y.detach()[:, [2, 3]].abs().max() == 0 and (y.detach()[:, [0, 1, 4]] != 0).all()
    dx, ddelta, _, dB, dC, _, _ = torch.autograd.grad(y.sum(), inputs)
    for gradient in (dx, ddelta, dB, dC):
        assert gradient[:, [2, 3]].abs().max() == 0
    assert ddelta[:, 4, 1].abs().max() == 0 and (ddelta[:, 4, 0] != 0).all()


def test_no_batch_and_no_channels(backend):
    path = scan_path("cross4", 2, 3)
    for sizes in ({"batch": 0}, {"channels": 0}):
        inputs = make(path, **sizes)
        y = ss2d_scan(*inputs, path)
        assert y.shape == inputs[0].shape
        for gradient, tensor in zip(torch.autograd.grad(y.sum(), inputs), inputs):
            assert gradient.shape == tensor.shape and not gradient.any()


def test_missing_skip_and_bias_are_zeros(backend):
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    zeros = torch.zeros_like(inputs[5])
    got = ss2d_scan(*inputs[:5], None, None, path)
    expected = ss2d_scan(*inputs[:5], zeros, zeros, path)
    assert torch.equal(got, expected)
    for gradient, truth in zip(*(torch.autograd.grad(y.square().sum(), inputs[:5]) for y in (got, expected))):
        assert torch.equal(gradient, truth)


def test_strides_do_not_matter(backend):
    path = scan_path("cross4", 3, 4)
    inputs = make(path)
    strided = [tensor.detach().mT.contiguous().mT.requires_grad_() for tensor in inputs]
    assert not any(tensor.is_contiguous() for tensor in strided)
    y, expected = ss2d_scan(*strided, path), ss2d_scan(*inputs, path)
    assert torch.equal(y, expected)
    # The gradient of a sum is one number expanded: no element of it has memory of its own.
    for gradient, truth in zip(torch.autograd.grad(y.sum(), strided), torch.autograd.grad(expected.sum(), inputs)):
        assert torch.equal(gradient, truth)


def test_inputs_are_left_alone(backend):
    path = PATHS["pauses"]()
    inputs = make(path)
    before = [tensor.detach().clone() for tensor in inputs]
    dy = torch.ones_like(inputs[0])
    torch.autograd.grad(ss2d_scan(*inputs, path), inputs, dy)
    assert all(torch.equal(tensor, old) for tensor, old in zip(inputs, before)) and (dy == 1).all()


# The one-dimensional face


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_selective_scan_equals_the_golden_values(backend, golden_root, dtype, tolerance):
    golden = np.load(golden_root / "selective_scan_float64.npz", allow_pickle=False)
    names = ("u", *NAMES[1:])
    inputs = [torch.from_numpy(golden[f"in/{name}"]).to(dtype).requires_grad_() for name in names]
    y = selective_scan(*inputs)
    assert y.dtype == dtype
    assert relative(y, torch.from_numpy(golden["y"])) < tolerance
    for name, gradient in zip(names, torch.autograd.grad(y, inputs, torch.from_numpy(golden["dy"]).to(dtype))):
        assert relative(gradient, torch.from_numpy(golden[f"grad/{name}"])) < tolerance, name


def test_selective_scan_groups_are_separate_scans(backend):
    rng = torch.Generator().manual_seed(3)
    u, delta = torch.randn(2, 2, 6, 5, generator=rng)
    A = -torch.rand(6, 4, generator=rng)
    B, C = torch.randn(2, 2, 3, 4, 5, generator=rng)
    y = selective_scan(u, delta, A, B, C)
    for k in range(3):
        group = slice(2 * k, 2 * k + 2)
        alone = selective_scan(u[:, group], delta[:, group], A[group], B[:, k], C[:, k])
        assert torch.equal(y[:, group], alone)


def test_selective_scan_takes_b_and_c_without_groups_each_by_itself():
    u, delta = torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(4))
    A, B, C = -torch.ones(6, 4), torch.ones(2, 4, 5), torch.arange(40.0).view(2, 4, 5)
    y = selective_scan(u, delta, A, B, C)
    assert torch.equal(selective_scan(u, delta, A, B.unsqueeze(1), C), y)
    assert torch.equal(selective_scan(u, delta, A, B, C.unsqueeze(1)), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": (2, 6)}, r"u must be \(batch, K·channels, length\), .* got \(2, 6\), \(6, 4\), \(2, 3, 4, 5\)"),
        ({"u": (2, 6, 0)}, r"u must have at least one step, got shape \(2, 6, 0\)"),
        ({"u": (2, 7, 5)}, "second axis must be K·channels for the 3 groups of B, got 7"),
        ({"delta": (2, 6, 4)}, r"delta must be \(batch, K·channels, length\) = \(2, 6, 5\), got \(2, 6, 4\)"),
        ({"A": (5, 4)}, r"A must be \(K·channels, d_state\) = \(6, 4\), got \(5, 4\)"),
        ({"C": (2, 3, 2, 5)}, r"C must be \(batch, K, d_state, length\) = \(2, 3, 4, 5\), got \(2, 3, 2, 5\)"),
        ({"D": (3, 2)}, r"D must be \(K·channels,\) = \(6,\), got \(3, 2\)"),
    ],
)
def test_selective_scan_refuses(change, message):
    shapes = {"u": (2, 6, 5), "delta": (2, 6, 5), "A": (6, 4), "B": (2, 3, 4, 5), "C": (2, 3, 4, 5)} | change
    with pytest.raises(ValueError, match=message):
        selective_scan(**{name: torch.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("name", NAMES)
def test_selective_scan_refuses_what_is_no_tensor(name):
    shapes = {"u": (2, 6, 5), "delta": (2, 6, 5), "A": (6, 4), "B": (2, 3, 4, 5), "C": (2, 3, 4, 5)}
    name = "u" if name == "x" else name
    with pytest.raises(ValueError, match=rf"^{name} must be a tensor( or None)?, got list$"):
        selective_scan(**{other: torch.zeros(shape) for other, shape in shapes.items()} | {name: [1.0]})


# Gradients and modes


def test_gradients_only_where_asked_for(backend):
    path = scan_path("cross4", 2, 3)
    everything = torch.autograd.grad(ss2d_scan(*(inputs := make(path)), path).square().sum(), inputs)
    for wanted in range(7):
        inputs = make(path, grad=False)
        inputs[wanted].requires_grad_()
        ss2d_scan(*inputs, path).square().sum().backward()
        assert torch.equal(inputs[wanted].grad, everything[wanted])
        assert all(tensor.grad is None for index, tensor in enumerate(inputs) if index != wanted)


def test_nothing_is_kept_where_no_gradient_is_asked_for(monkeypatch):
    asked = []
    forward = portable.forward
    monkeypatch.setattr(portable, "forward", lambda *args: asked.append(args[-1]) or forward(*args))
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    with use_backend("portable"):
        with torch.no_grad():
            assert not ss2d_scan(*inputs, path).requires_grad
        assert not ss2d_scan(*[tensor.detach() for tensor in inputs], path).requires_grad
        assert ss2d_scan(*inputs, path).requires_grad
    assert asked == [False, False, True]


@pytest.mark.parametrize("mode", [nullcontext, lambda: FlopCounterMode(display=False)])
def test_second_derivative_is_refused(mode):
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    with mode():
        (dx,) = torch.autograd.grad(ss2d_scan(*inputs, path).sum(), inputs[0], create_graph=True)
        with pytest.raises(RuntimeError, match="ss2d_scan can be differentiated once only"):
            torch.autograd.grad(dx.sum(), inputs[1])


def test_second_derivative_is_refused_whatever_the_strides():
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    x, delta = (tensor.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for tensor in inputs[:2])
    assert not x.is_contiguous() and not delta.is_contiguous()
    rest = [tensor.detach() for tensor in inputs[2:]]
    (dx,) = torch.autograd.grad(ss2d_scan(x, delta, *rest, path).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="ss2d_scan can be differentiated once only"):
        torch.autograd.grad(dx.sum(), delta)


def test_recomputation_agrees(backend):
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    y = checkpoint(lambda *tensors: ss2d_scan(*tensors, path), *inputs, use_reentrant=False)
    assert_agree(inputs, y, loop(inputs, path), 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_float32_state(backend, dtype):
    path = scan_path("cross4", 5, 7)
    inputs = make(path, dtype=torch.float32)
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs[:5]] + inputs[5:]
    y = ss2d_scan(*halves, path)
    assert y.dtype == dtype
    exact = ss2d_scan(*[tensor.detach().float() for tensor in halves], path)
    # Rounded once, at the end.
    assert torch.equal(y, exact.to(dtype))
    for gradient, tensor in zip(torch.autograd.grad(y.float().sum(), halves), halves):
        assert gradient.dtype == tensor.dtype and gradient.isfinite().all()


def test_autocast_does_not_reach_the_state(backend):
    path = scan_path("cross4", 5, 7)
    inputs = make(path, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = ss2d_scan(*inputs, path)
    assert torch.equal(y, ss2d_scan(*inputs, path))


def test_widest_dtype_is_the_state_s():
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    y = ss2d_scan(inputs[0].float(), *inputs[1:], path)
    assert y.dtype == torch.float32
    assert torch.equal(y, ss2d_scan(inputs[0].float().double(), *inputs[1:], path).float())


# The operator


# opcheck itself looks at .grad of tensors it has cloned.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", ["cross4", "pauses"])
def test_opcheck(backend, name):
    path = PATHS[name]()
    table, resets = op.path_tensors(path, torch.device("cpu"))
    inputs = make(path)
    arguments = (*inputs, None, table, resets, path.visited, True, backend)
    torch.library.opcheck(torch.ops.medmamba.ss2d_scan.default, arguments)
    with torch.no_grad():
        y, checkpoints = torch.ops.medmamba.ss2d_scan(*arguments)
    inputs = [tensor.detach() for tensor in inputs]
    arguments = (torch.ones_like(y), *inputs, None, table, resets, checkpoints, path.visited, backend)
    torch.library.opcheck(torch.ops.medmamba.ss2d_scan_backward.default, arguments)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("given", [False, True])
def test_traces_as_one_graph(backend, compiler, given):
    torch._dynamo.reset()
    path = window_path("cross4", 3, 4, (2, 2)) if given else scan_path("cross4", 3, 4)

    def function(*tensors):
        return ss2d_scan(*tensors, path if given else scan_path("cross4", 3, 4)).sin()

    compiled = torch.compile(function, fullgraph=True, backend=compiler)
    inputs = make(path)
    assert_agree(inputs, compiled(*inputs), loop(inputs, path).sin(), 1e-12)
    with torch.no_grad():
        assert relative(compiled(*inputs), function(*inputs)) < 1e-12


def test_compiled_code_follows_the_backend_asked_for():
    torch._dynamo.reset()
    path = scan_path("cross4", 2, 3)
    inputs = make(path, grad=False)
    compiled = torch.compile(lambda *tensors: ss2d_scan(*tensors, path), fullgraph=True, backend="eager")
    calls = []
    for name in ("portable", "reference", "portable"):
        module = backends.load_backend(name)
        with pytest.MonkeyPatch.context() as patch, use_backend(name):
            forward = module.forward
            patch.setattr(module, "forward", lambda *args, f=forward, n=name: calls.append(n) or f(*args))
            compiled(*inputs)
    assert calls == ["portable", "reference", "portable"]


def flops(inputs, path, device="cpu"):
    tensors = [tensor.detach().to(device).requires_grad_() for tensor in inputs]
    with FlopCounterMode(display=False) as counter:
        ss2d_scan(*tensors, path).sum().backward()
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    assert set(counts) == {"medmamba.ss2d_scan", "medmamba.ss2d_scan_backward"}
    return counts["medmamba.ss2d_scan"], counts["medmamba.ss2d_scan_backward"]


def test_flops_are_counted(backend):
    path = scan_path("cross4", 3, 5)
    inputs = make(path, batch=2, channels=7, d_state=4, dtype=torch.float32)
    macs = 9 * 2 * (3 * 5 * 4) * 7 * 4
    assert scan_macs(2, path.visited, 7, 4) == macs
    assert flops(inputs, path) == flops(inputs, path, "meta") == (2 * macs, 4 * macs)


def test_flops_of_visited_positions_only():
    path = PATHS["pauses"]()
    assert path.visited == 3 + 5 + 4 + 1
    assert flops(make(path), path)[0] == 18 * 2 * path.visited * 3 * 2


def test_counting_does_not_change_results(backend):
    path = PATHS["pauses"]()
    inputs = make(path)
    with FlopCounterMode(display=False):
        y = ss2d_scan(*inputs, path)
        gradients = torch.autograd.grad(y.sum(), inputs)
    expected = ss2d_scan(*inputs, path)
    assert torch.equal(y, expected)
    for gradient, truth in zip(gradients, torch.autograd.grad(expected.sum(), inputs)):
        assert torch.equal(gradient, truth)


def test_path_tensors_are_made_once_and_outlive_inference_mode():
    path = custom_path([[2, 0, 1]], 3)
    inputs = make(path)
    with torch.inference_mode():
        ss2d_scan(*[tensor.detach() for tensor in inputs], path)
    table, _ = op.path_tensors(path, torch.device("cpu"))
    assert op.path_tensors(path, torch.device("cpu"))[0] is table and not table.is_inference()
    ss2d_scan(*inputs, path).sum().backward()


def test_a_tracer_leaves_no_stand_ins_behind():
    path = custom_path([[2, 0, 1]], 3)
    inputs = make(path, grad=False)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        ss2d_scan(*[mode.from_tensor(tensor) for tensor in inputs], path)
    assert not path.tensors
    assert relative(ss2d_scan(*inputs, path), loop(inputs, path)) < 1e-12


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": (2, 12)}, r"x must be \(batch, length, channels\), got shape \(2, 12\)"),
        ({"x": (2, 13, 3)}, r"x must have the path's length 12, got 13 in shape \(2, 13, 3\)"),
        ({"delta": (2, 12, 3, 3)}, r"delta must be .* = \(2, 12, 4, 3\), got \(2, 12, 3, 3\)"),
        ({"A": (12, 2)}, r"A must be \(K, channels, d_state\) with d_state at least 1, got shape \(12, 2\)"),
        ({"A": (4, 3, 0)}, r"A must be \(K, channels, d_state\) with d_state at least 1, got shape \(4, 3, 0\)"),
        ({"A": (3, 3, 2)}, r"A must be \(K, channels, d_state\) = \(4, 3, 2\), got \(3, 3, 2\)"),
        ({"B": (2, 12, 4, 3)}, r"B must be \(batch, length, K, d_state\) = \(2, 12, 4, 2\), got \(2, 12, 4, 3\)"),
        ({"C": (1, 12, 4, 2)}, r"C must be \(batch, length, K, d_state\) = \(2, 12, 4, 2\), got \(1, 12, 4, 2\)"),
        ({"D": (12,)}, r"D must be \(K, channels\) = \(4, 3\), got \(12,\)"),
        ({"delta_bias": (4, 2)}, r"delta_bias must be \(K, channels\) = \(4, 3\), got \(4, 2\)"),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    path = scan_path("cross4", 3, 4)
    inputs = dict(zip(NAMES, make(path, grad=False)))
    for name, shape in change.items():
        inputs[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message) as caught:
        ss2d_scan(**inputs, path=path)
    assert "\n" not in str(caught.value)


def test_other_wrong_arguments_are_refused():
    path = scan_path("cross4", 3, 4)
    inputs = make(path, grad=False)
    with pytest.raises(ValueError, match=r"floating-point tensors of 16, 32 or 64 bits, got torch\.int64"):
        ss2d_scan(inputs[0].long(), *inputs[1:], path)
    with pytest.raises(ValueError, match="B must be on x's device cpu, got meta"):
        ss2d_scan(*inputs[:3], inputs[3].to("meta"), *inputs[4:], path)
    with pytest.raises(ValueError, match=r"path must be a ScanPath, as scan\.paths makes them, got ndarray"):
        ss2d_scan(*inputs, path.table)
    # Of which torch tells no common dtype.
    with pytest.raises(ValueError, match=r"of 16, 32 or 64 bits, got torch\.float8_e5m2"):
        ss2d_scan(inputs[0].to(torch.float8_e5m2), *inputs[1:], path)


@pytest.mark.parametrize("name", [*NAMES, "delta_weight"])
def test_what_is_no_tensor_is_refused(name):
    path = scan_path("cross4", 3, 4)
    inputs = dict(zip(NAMES, make(path, grad=False)))
    with pytest.raises(ValueError, match=rf"^{name} must be a tensor( or None)?, got ndarray$"):
        ss2d_scan(**inputs | {name: inputs.get(name, torch.zeros(4, 3, 2)).numpy()}, path=path)
    with pytest.raises(ValueError, match=r"^A must be a tensor, got NoneType$"):
        ss2d_scan(**inputs | {"A": None}, path=path)


# Backends


def test_use_backend_nests_and_restores():
    def now():
        return backends.backend_name("cpu", torch.float32)

    automatic = now()
    with use_backend("reference"):
        with use_backend("portable"):
            assert now() == "portable"
        assert now() == "reference"
        with pytest.raises(KeyError), use_backend("portable"):
            raise KeyError
        assert now() == "reference"
    assert now() == automatic


def test_use_backend_is_over_when_all_threads_have_left():
    automatic = backends.backend_name("cpu", torch.float32)
    with ThreadPoolExecutor(max_workers=1) as other_thread:
        first = use_backend("portable")
        first.__enter__()
        second = use_backend("reference")
        other_thread.submit(second.__enter__).result()
        first.__exit__(None, None, None)
        assert backends.backend_name("cpu", torch.float32) == "reference"
        other_thread.submit(second.__exit__, None, None, None).result()
    assert backends.backend_name("cpu", torch.float32) == automatic


def enter_and_leave():
    with use_backend("portable"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_use_backend_in_a_child_forked_while_another_thread_enters():
    child = multiprocessing.get_context("fork").Process(target=enter_and_leave)
    # Held by this thread, as by one that the child does not have.
    with backends._turn, warnings.catch_warnings():
        # Python warns of forks beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(HANG)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0


def test_backends_that_cannot_are_refused(monkeypatch):
    with (
        pytest.raises(ValueError, match=r"must be one of reference, portable, .*, got 'fast'"),
        use_backend("fast"),
    ):
        raise AssertionError("not reached")
    monkeypatch.setitem(backends.BACKENDS, "triton", "medmamba_variants.scan.absent")
    monkeypatch.delitem(backends._loaded, "triton", raising=False)
    with (
        pytest.raises(ImportError, match="the scan's backend 'triton' cannot be imported here: No module named"),
        use_backend("triton"),
    ):
        raise AssertionError("not reached")


def test_a_backend_that_does_not_support_the_tensors_says_so(monkeypatch):
    monkeypatch.setattr(portable, "supports", lambda x: False)
    monkeypatch.setattr(backends, "_chosen", {})
    path = scan_path("cross4", 2, 3)
    with (
        use_backend("portable"),
        pytest.raises(ValueError, match=r"backend 'portable' cannot scan torch\.float64 on cpu"),
    ):
        ss2d_scan(*make(path), path)


def test_portable_serves_where_nothing_better_works(monkeypatch):
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setitem(backends.PREFERRED, "cpu", ("absent", "portable"))
    monkeypatch.setitem(backends.BACKENDS, "absent", "medmamba_variants.scan.absent")
    assert backends.backend_name("cpu", torch.float32) == "portable"


@pytest.mark.slow
def test_portable_is_eight_times_as_fast_as_the_loop():
    path = scan_path("cross4", 14, 14)
    inputs = make(path, batch=64, channels=48, d_state=16, dtype=torch.float32)
    dy = torch.randn(inputs[0].shape)

    def seconds(scan, repetitions):
        times = []
        for _ in range(repetitions):
            start = time.process_time()
            torch.autograd.grad(scan(), inputs, dy)
            times.append(time.process_time() - start)
        return min(times)

    # One thread and its processor time: a busy machine slows both alike.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = seconds(lambda: loop(inputs, path), 3)
        with use_backend("portable"):
            fast = seconds(lambda: ss2d_scan(*inputs, path), 8)
    finally:
        torch.set_num_threads(threads)
    assert plain / fast > 8


@pytest.mark.gpu
def test_portable_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    path = PATHS["pauses"]()
    inputs = make(path)
    on_gpu = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    with use_backend("portable"):
        y = ss2d_scan(*on_gpu, path)
    expected = loop(inputs, path)
    assert relative(y.cpu(), expected) < 1e-12
    gradients = torch.autograd.grad(y.sum(), on_gpu), torch.autograd.grad(expected.sum(), inputs)
    for gradient, truth in zip(*gradients):
        assert relative(gradient.cpu(), truth) < 1e-12
