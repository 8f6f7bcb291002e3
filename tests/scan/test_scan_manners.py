"""The operator and what torch has beside plain tensors: transforms, tracers, views still to be computed."""

import pytest
import torch
from test_scan import NAMES, loop, make, relative
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from medmamba_variants.scan import selective_scan, ss2d_scan
from medmamba_variants.scan.paths import scan_path

PATH = scan_path("cross4", 2, 3)

# torch loads its forward mode, and traces, by means that it calls outdated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.*:DeprecationWarning"),
]


@pytest.mark.parametrize("which", range(7), ids=NAMES)
def test_a_negation_that_torch_has_put_off_is_carried_out(which):
    inputs = make(PATH, grad=False)
    expected = ss2d_scan(*(-t if i == which else t for i, t in enumerate(inputs)), PATH)
    inputs[which] = torch._neg_view(inputs[which])
    assert inputs[which].is_contiguous() and inputs[which].is_neg()
    assert torch.equal(ss2d_scan(*inputs, PATH), expected)


def test_a_gradient_whose_negation_torch_has_put_off():
    inputs = make(PATH)
    y = ss2d_scan(*inputs, PATH)
    dy = torch.ones_like(y)
    expected = torch.autograd.grad(y, inputs, -dy, retain_graph=True)
    for gradient, truth in zip(torch.autograd.grad(y, inputs, torch._neg_view(dy)), expected):
        assert torch.equal(gradient, truth)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("which", range(7), ids=NAMES)
def test_forward_mode_is_refused(which, grad):
    # Without a word the tangent would be lost: a derivative of zero.
    inputs = make(PATH, grad=grad)
    with forward_ad.dual_level():
        inputs[which] = forward_ad.make_dual(inputs[which], torch.ones_like(inputs[which]))
        with pytest.raises(RuntimeError, match="no forward mode, no torch"):
            ss2d_scan(*inputs, PATH)


@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian"])
def test_transforms_of_torch_func_are_refused(transform):
    inputs = make(PATH, grad=False)
    transformed = getattr(torch.func, transform)(lambda x: ss2d_scan(x, *inputs[1:], PATH).sum())
    with pytest.raises(RuntimeError, match="no forward mode, no torch"):
        transformed(inputs[0])


def test_constants_of_a_transformed_function_may_be_scanned():
    inputs = make(PATH, dtype=torch.float32, grad=False)
    y = ss2d_scan(*inputs, PATH)
    gradient = torch.func.grad(lambda w: (w * ss2d_scan(*inputs, PATH)).sum())(torch.ones(()))
    assert gradient == pytest.approx(float(y.sum()))
    with forward_ad.dual_level():
        assert torch.equal(ss2d_scan(*inputs, PATH), y)


def test_vmap_scans_one_after_the_other():
    inputs = make(PATH, grad=False)
    y = torch.vmap(lambda x: ss2d_scan(x, *inputs[1:], PATH))(torch.stack([inputs[0], 2 * inputs[0]]))
    assert torch.equal(y[1], ss2d_scan(2 * inputs[0], *inputs[1:], PATH))


def test_gradients_through_vmap(backend):
    path = scan_path("cross4", 8, 9)  # longer than a chunk, so that checkpoints are needed
    inputs = make(path, grad=False)
    xs = torch.stack([inputs[0], 2 * inputs[0]]).requires_grad_()
    (got,) = torch.autograd.grad(torch.vmap(lambda x: ss2d_scan(x, *inputs[1:], path))(xs).sin().sum(), xs)
    for x, gradient in zip(xs.detach(), got):
        x.requires_grad_()
        assert relative(gradient, torch.autograd.grad(ss2d_scan(x, *inputs[1:], path).sin().sum(), x)[0]) < 1e-12


def test_zeros_without_memory(backend):
    inputs = make(PATH)
    y = ss2d_scan(*inputs, PATH)
    zero = torch._efficientzerotensor(y.shape, dtype=y.dtype)
    for gradient in torch.autograd.grad(y, inputs, zero):
        assert not gradient.any()
    plain = [tensor.detach() for tensor in inputs]
    for which in range(7):
        changed = [torch.zeros_like(t) if i == which else t for i, t in enumerate(plain)]
        truth = ss2d_scan(*changed, PATH)
        changed[which] = torch._efficientzerotensor(plain[which].shape, dtype=plain[which].dtype)
        assert torch.equal(ss2d_scan(*changed, PATH), truth)


def test_saved_tensors_may_come_back_with_other_strides(backend):
    path = scan_path("cross4", 8, 9)
    inputs = make(path)
    expected = torch.autograd.grad(ss2d_scan(*inputs, path).sin().sum(), inputs)

    def restride(tensor):
        return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, restride):
        loss = ss2d_scan(*inputs, path).sin().sum()
    for gradient, truth in zip(torch.autograd.grad(loss, inputs), expected):
        assert relative(gradient, truth) < 1e-12


def test_a_tangent_of_the_gradient_is_refused():
    inputs = make(PATH)
    y = ss2d_scan(*inputs, PATH)
    with forward_ad.dual_level():
        dy = forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y))
        with pytest.raises(RuntimeError, match="no forward mode, no torch"):
            torch.autograd.grad(y, inputs, dy)


def test_batched_gradients_are_refused(backend):
    inputs = make(PATH)
    y = ss2d_scan(*inputs, PATH)
    with pytest.raises(RuntimeError, match="no is_grads_batched"):
        torch.autograd.grad(y, inputs, torch.ones(2, *y.shape), is_grads_batched=True)


def test_two_paths_through_one_compiled_scan():
    torch._dynamo.reset()
    compiled = torch.compile(ss2d_scan, fullgraph=True, backend="eager")
    for path in (PATH, scan_path("cross4", 3, 2), scan_path(("rows",), 2, 3)):
        inputs = make(path, grad=False)
        assert torch.equal(compiled(*inputs, path), ss2d_scan(*inputs, path))


def test_a_path_from_outside_the_compiled_function_in_inference_mode():
    torch._dynamo.reset()
    inputs = make(PATH, grad=False)
    compiled = torch.compile(lambda *tensors: ss2d_scan(*tensors, PATH), fullgraph=True, backend="eager")
    with torch.inference_mode():
        assert torch.equal(compiled(*inputs), ss2d_scan(*inputs, PATH))


def test_a_stand_in_is_scanned_after_a_real_scan():
    inputs = make(PATH, grad=False)
    expected = ss2d_scan(*inputs, PATH)
    with FakeTensorMode() as mode:
        assert ss2d_scan(*[mode.from_tensor(tensor) for tensor in inputs], PATH).shape == expected.shape
    assert torch.equal(ss2d_scan(*inputs, PATH), expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_scan_computes():
    inputs = make(PATH, grad=False)
    traced = torch.jit.trace(lambda x: ss2d_scan(x, *inputs[1:], PATH), (inputs[0],), check_trace=False)
    assert torch.equal(traced(2 * inputs[0]), ss2d_scan(2 * inputs[0], *inputs[1:], PATH))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_is_the_same_with_gradients_and_without_and_has_them():
    """torch.jit.trace checks its graph by a second one, traced without gradients."""
    path = scan_path("cross4", 3, 5)
    leaves = make(path)
    traced = torch.jit.trace(lambda *inputs: ss2d_scan(*inputs, path), tuple(leaves))
    for gradient, truth in zip(
        torch.autograd.grad(traced(*leaves).square().sum(), leaves),
        torch.autograd.grad(ss2d_scan(*leaves, path).square().sum(), leaves),
    ):
        torch.testing.assert_close(gradient, truth)


@pytest.mark.parametrize("dynamic", [None, True])
def test_maps_of_several_sizes_through_one_compiled_function(dynamic):
    def function(x, *others):
        height, width = x.shape[1:3]
        return ss2d_scan(x.flatten(1, 2), *others, scan_path("cross4", height, width)).sin()

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=dynamic)
    for height, width in ((2, 3), (3, 4), (5, 4)):
        path = scan_path("cross4", height, width)
        inputs = make(path, batch=height, grad=False)
        y = compiled(inputs[0].unflatten(1, (height, width)), *inputs[1:])
        assert relative(y, loop(inputs, path).sin()) < 1e-12


@pytest.mark.parametrize("dynamic", [None, True])
def test_lengths_of_several_sizes_through_one_compiled_face(dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(selective_scan, fullgraph=True, backend="eager", dynamic=dynamic)
    for length in (3, 4, 7):
        rng = torch.Generator().manual_seed(length)
        u, delta = torch.randn(2, 2, 6, length, generator=rng)
        B, C = torch.randn(2, 2, 3, 4, length, generator=rng)
        A = -torch.rand(6, 4, generator=rng)
        assert torch.equal(compiled(u, delta, A, B, C), selective_scan(u, delta, A, B, C))


def test_subclasses_see_the_operator_whichever_argument_they_are():
    seen = []

    class Watching(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return super().__torch_function__(function, types, args, kwargs or {})

    for which in range(7):
        inputs = make(PATH, grad=False)
        inputs[which] = inputs[which].as_subclass(Watching)
        seen.clear()
        ss2d_scan(*inputs, PATH)
        assert any("ss2d_scan" in name for name in seen), NAMES[which]
