"""`selective_scan`, the face in mamba-ssm's layout: values, all gradients and manners, through every backend."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch.nn.functional import softplus
from torch.utils.flop_counter import FlopCounterMode

from medmamba_variants.scan import backends, selective_scan, use_backend

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def make(batch=2, K=3, channels=2, length=5, d_state=4, dtype=torch.float64, grad=True):
    """The seven tensors, in the order of NAMES."""
    rng = torch.Generator().manual_seed(0)
    inner = K * channels

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    A = -0.1 - normal(inner, d_state).exp()
    B, C = normal(2, batch, K, d_state, length)
    inputs = [normal(batch, inner, length), normal(batch, inner, length), A, B, C, normal(inner), normal(inner)]
    return [tensor.detach().to(dtype).requires_grad_(grad) for tensor in inputs]


def loop(u, delta, A, B, C, D, delta_bias):
    """The recurrence, channels first: equation 2 and algorithm 2 of Gu and Dao, Mamba, arXiv 2312.00752."""
    channels = u.shape[1] // B.shape[1]
    Δ = softplus(delta + delta_bias[:, None])
    B, C = (tensor.repeat_interleave(channels, dim=1) for tensor in (B, C))
    h, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        h = torch.exp(Δ[:, :, t, None] * A) * h + (Δ * u)[:, :, t, None] * B[..., t]
        outputs.append((h * C[..., t]).sum(2))
    return torch.stack(outputs, 2) + D[:, None] * u


def relative(got, expected):
    got, expected = got.detach().double(), expected.detach().double()
    return float((got - expected).norm()) / (float(expected.norm()) or 1.0)


def assert_equals_the_loop(inputs, tolerance=1e-12):
    """y and the seven gradients."""
    y, expected = selective_scan(*inputs), loop(*inputs)
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    assert relative(y, expected) < tolerance
    gradients, truths = (torch.autograd.grad(result, inputs, dy) for result in (y, expected))
    for name, gradient, truth in zip(NAMES, gradients, truths):
        assert gradient.shape == truth.shape
        assert relative(gradient, truth) < tolerance, name


@pytest.mark.parametrize(("K", "channels"), [(1, 5), (3, 2), (4, 17)])
@pytest.mark.parametrize("length", [1, 9])
def test_equals_the_loop(backend, K, channels, length):
    assert_equals_the_loop(make(K=K, channels=channels, length=length))


def test_strides_do_not_matter(backend):
    def strided(u, delta, A, B, C, D, delta_bias):
        # In memory: channels last, every second step, a row repeated.
        return (
            u.transpose(1, 2).contiguous().transpose(1, 2),
            delta.repeat_interleave(2, dim=2)[..., ::2],
            A.t().contiguous().t(),
            B.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
            C[:1].expand(2, -1, -1, -1),
            D[:1].expand(6),
            delta_bias,
        )

    inputs = make()
    with torch.no_grad():
        inputs[4].copy_(inputs[4][:1].expand_as(inputs[4]))
        inputs[5].fill_(0.5)
    y, expected = selective_scan(*strided(*inputs)), loop(*inputs)
    assert relative(y, expected) < 1e-12
    gradients = torch.autograd.grad(y.sum(), inputs)
    truths = list(torch.autograd.grad(expected.sum(), inputs))
    # What is repeated gets the sum.
    truths[4] = torch.cat([truths[4].sum(0, keepdim=True), torch.zeros_like(truths[4][:1])])
    truths[5] = torch.cat([truths[5].sum(0, keepdim=True), torch.zeros_like(truths[5][1:])])
    for name, gradient, truth in zip(NAMES, gradients, truths):
        assert relative(gradient, truth) < 1e-12, name


def test_gradcheck(backend):
    assert torch.autograd.gradcheck(selective_scan, make(batch=1, K=2, channels=1, length=3))


def test_no_batch_and_no_channels(backend):
    for sizes in ({"batch": 0}, {"channels": 0}):
        inputs = make(**sizes)
        y = selective_scan(*inputs)
        assert y.shape == inputs[0].shape
        for gradient, tensor in zip(torch.autograd.grad(y.sum(), inputs), inputs):
            assert gradient.shape == tensor.shape and not gradient.any()


def test_skip_and_bias_may_be_missing(backend):
    inputs = make()
    with torch.no_grad():
        inputs[5].zero_()
        inputs[6].zero_()
    expected = loop(*inputs)
    y = selective_scan(*inputs[:5])
    assert relative(y, expected) < 1e-12
    for gradient, truth in zip(*(torch.autograd.grad(result.sum(), inputs[:5]) for result in (y, expected))):
        assert relative(gradient, truth) < 1e-12


def test_gradients_only_where_asked_for(backend):
    everything = torch.autograd.grad(selective_scan(*(inputs := make())).square().sum(), inputs)
    for wanted in range(7):
        inputs = make(grad=False)
        inputs[wanted].requires_grad_()
        selective_scan(*inputs).square().sum().backward()
        assert torch.equal(inputs[wanted].grad, everything[wanted])
        assert all(tensor.grad is None for index, tensor in enumerate(inputs) if index != wanted)


def test_second_derivative_is_refused(backend):
    inputs = make()
    (du,) = torch.autograd.grad(selective_scan(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="ss2d_scan can be differentiated once only"):
        torch.autograd.grad(du.sum(), inputs[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1, 3, 4])
def test_nan_and_infinity_stay_where_the_loop_has_them(backend, which, bad):
    inputs = make()
    with torch.no_grad():
        # The first step of one group: the others stay finite.
        inputs[which][1, -1, ..., 1] = bad
    y, expected = selective_scan(*inputs), loop(*inputs)
    torch.testing.assert_close(y, expected, equal_nan=True, rtol=1e-9, atol=1e-12)
    assert y[:, :4].isfinite().all() and not y.isfinite().all()
    for gradient, truth in zip(*(torch.autograd.grad(result.sum(), inputs) for result in (y, expected))):
        assert torch.equal(gradient.isfinite(), truth.isfinite())


def test_autocast_does_not_reach_the_state(backend):
    inputs = make(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(*inputs)
    assert torch.equal(y, selective_scan(*inputs))


def test_half_precision_has_a_float32_state(backend):
    inputs = make(dtype=torch.float32)
    halves = [t.detach().to(torch.bfloat16 if i in (0, 1, 3, 4) else t.dtype) for i, t in enumerate(inputs)]
    y = selective_scan(*halves)
    # Rounded once, at the end.
    assert torch.equal(y, selective_scan(*[tensor.float() for tensor in halves]).bfloat16())


def test_traces_as_one_graph(backend):
    torch._dynamo.reset()
    compiled = torch.compile(lambda *inputs: selective_scan(*inputs).sin(), fullgraph=True, backend="aot_eager")
    inputs = make()
    y, expected = compiled(*inputs), loop(*inputs).sin()
    assert relative(y, expected) < 1e-12
    for gradient, truth in zip(*(torch.autograd.grad(result.sum(), inputs) for result in (y, expected))):
        assert relative(gradient, truth) < 1e-12


def test_flops_are_counted(backend):
    inputs = make(batch=2, K=3, channels=2, length=5, d_state=4, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        selective_scan(*inputs)
    assert counter.get_total_flops() == 2 * 9 * 2 * 3 * 2 * 5 * 4


def test_a_million_steps():
    if not backends._works("cpu", "cpu", torch.float64):
        pytest.skip("the cpu backend does not work here")
    length, K, steps = 10**6, 2, (0.01, 0.3)
    rng = np.random.default_rng(0)
    u, dy = rng.normal(size=(2, K, length))
    A, (B, C, D) = np.array([-0.001, -2.0]), rng.normal(size=(3, K))
    bias = np.log(np.expm1(steps))
    delta = torch.zeros(1, K, length, dtype=torch.float64)
    ones = torch.ones(1, 1, 1, length, dtype=torch.float64)
    B_all, C_all = (torch.from_numpy(values).view(1, K, 1, 1) * ones for values in (B, C))
    tensors = [torch.from_numpy(u)[None], delta, torch.from_numpy(A)[:, None], B_all, C_all]
    tensors += [torch.from_numpy(D), torch.from_numpy(bias)]
    inputs = [tensor.clone().requires_grad_() for tensor in tensors]
    with use_backend("cpu"):
        y = selective_scan(*inputs)
        gradients = torch.autograd.grad(y, inputs, torch.from_numpy(dy)[None])
    for k in range(K):
        # With constant coefficients the recurrence is a filter, and its gradient the filter backwards.
        Δ, decay = steps[k], math.exp(steps[k] * A[k])
        h = lfilter([Δ * B[k]], [1.0, -decay], u[k])
        dh = lfilter([C[k]], [1.0, -decay], dy[k, ::-1])[::-1]
        before = np.concatenate([[0.0], h[:-1]])
        dΔ = dh * (A[k] * decay * before + B[k] * u[k])
        slope = -math.expm1(-Δ)  # of softplus, where its value is Δ
        truths = {
            "u": dh * Δ * B[k] + D[k] * dy[k],
            "delta": dΔ * slope,
            "A": np.sum(dh * Δ * decay * before),
            "B": dh * Δ * u[k],
            "C": dy[k] * h,
            "D": np.sum(dy[k] * u[k]),
            "delta_bias": np.sum(dΔ) * slope,
        }
        assert relative(y[0, k], torch.from_numpy(C[k] * h + D[k] * u[k])) < 1e-10
        for gradient, (name, truth) in zip(gradients, truths.items()):
            found = gradient[0, k] if gradient.dim() > 2 else gradient[k]
            assert relative(found.flatten(), torch.from_numpy(np.atleast_1d(truth))) < 1e-9, name
