"""The scan layer: its gate, and what people do with a layer besides training it."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medmamba_variants.design import mixers as design
from medmamba_variants.fused.gate import gated
from medmamba_variants.parts.mixers.ss2d import SS2D
from medmamba_variants.scan import use_backend


def layer(channels=8, **axes):
    torch.manual_seed(0)
    return SS2D(channels, design.SS2D(d_state=8, **axes))


def moved(module):
    """The layer in double precision, its parameters away from their initial values, where many do not matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float32, torch.bfloat16)])
def test_the_gate_is_the_product_and_keeps_its_factors_only(dtypes):
    y, z = (torch.randn(3, 5).to(dtype).requires_grad_() for dtype in dtypes)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = gated(y, z)
    assert {tensor.data_ptr() for tensor in kept} == {y.data_ptr(), z.data_ptr()}
    expected = y * F.silu(z)
    dout = torch.randn_like(out)
    assert out.dtype == expected.dtype and torch.equal(out, expected)
    for one, other in zip(torch.autograd.grad(out, (y, z), dout), torch.autograd.grad(expected, (y, z), dout)):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_the_gate_has_a_second_derivative():
    y, z = (torch.randn(3, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(gated, (y, z))
    assert torch.autograd.gradgradcheck(gated, (y, z))


def test_double_precision_is_double_throughout():
    module = layer(2).double()
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64)
    with torch.no_grad():
        module.dt_projs_bias.zero_()  # long steps, so that the rates of decay matter

    def output(a_logs):
        return torch.func.functional_call(module, {"A_logs": a_logs}, (x,)) / module.out_proj.weight.norm()

    a_logs = torch.randn_like(module.A_logs).requires_grad_()
    assert torch.autograd.gradcheck(output, a_logs, eps=1e-7, atol=1e-6, rtol=1e-4)


def test_a_second_derivative_through_the_scan_is_refused_in_words():
    module = layer()
    x = torch.randn(2, 4, 4, 8, requires_grad=True)
    (dx,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="ss2d_scan can be differentiated once only"):
        dx.square().sum().backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("grad", [False, True])
def test_a_trace_can_be_saved(grad):
    module, x = layer(), torch.randn(2, 4, 4, 8)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(module, x, check_trace=False)
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        again = torch.jit.load(file)
        assert torch.allclose(again(x), module(x), atol=1e-6)


@pytest.mark.parametrize("name", ["A_logs", "out_norm.weight", "in_proj.weight"])
def test_an_ensemble_over_some_parameters(name):
    module, x = layer(), torch.randn(2, 4, 4, 8)
    parameters = {key: value.detach() for key, value in module.named_parameters()}
    stacked = torch.stack([parameters[name], 1.1 * parameters[name]])

    def member(value):
        return torch.func.functional_call(module, parameters | {name: value}, (x,))

    together = torch.vmap(member)(stacked)
    for one, value in zip(together, stacked):
        assert torch.allclose(one, member(value), atol=1e-6)


ALL_AT_ONCE = {"scan_window": 3, "merge": "softmax", "direction_weights": "shared"}


@pytest.mark.parametrize("axes", [{}, ALL_AT_ONCE], ids=str)
def test_traces_as_one_graph(axes):
    torch._dynamo.reset()
    module, x = layer(**axes), torch.randn(2, 4, 4, 8)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for function in (module, compiled):
        module.zero_grad()
        y = function(x)
        y.square().sum().backward()
        results.append([y, *(parameter.grad for parameter in module.parameters())])
    for one, other in zip(*results):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_a_window_as_large_as_the_map_is_none():
    plain = moved(layer())
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    for window, same in ((7, True), (99, True), (6, False), (5, False)):
        windowed = layer(scan_window=window).double()
        windowed.load_state_dict(plain.state_dict())
        assert torch.equal(windowed(x), plain(x)) == same


def test_a_window_sees_nothing_of_the_others():
    """Without the convolution before the scan, a map in windows is its windows as maps of their own."""
    windowed, plain = moved(layer(scan_window=3, d_conv=1)), moved(layer(d_conv=1))
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    y, whole = windowed(x), plain(x)
    for top in (0, 3):
        for left in (0, 3, 6):
            tile = slice(top, top + 3), slice(left, left + 3)
            alone = plain(x[:, tile[0], tile[1]])
            torch.testing.assert_close(y[:, tile[0], tile[1]], alone, rtol=1e-10, atol=1e-12)
            assert not torch.allclose(whole[:, tile[0], tile[1]], alone)


def without_norm(module):
    """The layer with neither norm nor projection after the scan: linear in what its directions give."""
    module.out_norm, module.out_proj = nn.Identity(), nn.Identity()
    return module


def one_by_one(module):
    """What each direction of a layer gives, (K, …), by layers of a single direction with its parameters."""
    K, outputs = len(module.directions), []
    for k, direction in enumerate(module.directions):
        single = without_norm(layer(scan_directions=(direction,)).double())
        state = {}
        for name, value in module.state_dict(keep_vars=True).items():
            if name.startswith(("x_proj", "dt_projs", "A_logs", "Ds")):
                value = value.unflatten(0, (K, -1)).select(0, k) if name in ("A_logs", "Ds") else value[k : k + 1]
            if name != "merge_logits":
                state[name] = value
        outputs.append(lambda x, single=single, state=state: torch.func.functional_call(single, state, (x,)))
    return lambda x: torch.stack([output(x) for output in outputs])


@pytest.mark.parametrize("directions", ["cross4", ("rows", "spiral_top_left", "random_0")])
@pytest.mark.parametrize("merge", ["sum", "mean", "softmax"])
def test_a_merge_is_that_of_separate_scans(merge, directions):
    module = without_norm(moved(layer(merge=merge, scan_directions=directions)))
    K = len(module.directions)
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    logits = getattr(module, "merge_logits", torch.zeros(K))
    weights = {"sum": torch.ones(K), "mean": torch.full((K,), 1 / K, dtype=torch.float64)}.get(merge, logits.softmax(0))
    expected = (weights.view(K, 1, 1, 1, 1) * one_by_one(module)(x)).sum(0)
    y = module(x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)
    parameters = list(module.parameters())
    for one, other in zip(*(torch.autograd.grad(out.square().sum(), parameters) for out in (y, expected))):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
        assert one.count_nonzero() > 0


def test_a_learned_merge_starts_as_the_mean():
    x = torch.randn(2, 5, 7, 8)
    learned, mean = layer(merge="softmax"), layer(merge="mean")
    assert learned.merge_logits.tolist() == [0.0] * 4
    torch.testing.assert_close(learned(x), mean(x))
    with torch.no_grad():
        learned.merge_logits[1] = 3.0
    assert not torch.allclose(learned(x), mean(x), rtol=1e-3)


SCAN = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


@pytest.mark.parametrize("axes", [{}, {"scan_directions": "eight", "scan_window": 3}, {"merge": "softmax"}], ids=str)
def test_a_shared_set_is_equal_sets_of_their_own(axes):
    shared, own = moved(layer(direction_weights="shared", **axes)), layer(**axes).double()
    K = len(own.directions)
    given = shared.state_dict()
    for name in SCAN:
        assert own.state_dict()[name].shape[0] == K * given[name].shape[0]
    own.load_state_dict(
        {name: value.repeat(K, *[1] * (value.dim() - 1)) if name in SCAN else value for name, value in given.items()}
    )
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    results = shared(x), own(x)
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    for y in results:
        y.square().sum().backward()
    others = dict(own.named_parameters())
    for name, parameter in shared.named_parameters():
        gradient = others[name].grad
        if name in SCAN:
            gradient = gradient.unflatten(0, (K, -1)).sum(0).view_as(parameter)
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backend", ["cpu", "portable", "reference"])
@pytest.mark.parametrize("half", ["autocast", "cast"])
def test_half_precision_is_near_the_whole(backend, half):
    module, x = layer(**ALL_AT_ONCE), torch.randn(2, 5, 7, 8)
    expected = module(x)
    with use_backend(backend):
        if half == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = module(x)
        else:
            y = copy.deepcopy(module).bfloat16()(x.bfloat16())
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.01)
    y.float().square().sum().backward()
