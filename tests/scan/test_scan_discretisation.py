"""Rules of discretisation: their factors against scipy, the scan under each against the loop, and who knows them."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.signal import cont2discrete, dlsim
from test_scan import PATHS, assert_agree, make

from medmamba_variants.cost import _cpu_peak
from medmamba_variants.scan import backends, reference, ss2d_scan, use_backend
from medmamba_variants.scan.discretisation.factors import factors, factors_and_slopes
from medmamba_variants.scan.discretisation.rules import RULES
from medmamba_variants.scan.paths import scan_path

OTHERS = RULES[1:]
Z = torch.tensor([0.0, -1e-300, -1e-12, -1e-4, -0.1, -0.999, -1.0, -1.001, -3.0, -40.0, -800.0], dtype=torch.float64)


def loop(inputs, path, rule):
    return reference.scan(*inputs, torch.tensor(path.table), torch.tensor(path.resets), rule)


def in_steps(factor_of):
    """The factors of a hold for all Z: entries of the exponential of a system whose input is a polynomial in time."""
    return torch.tensor(np.array([factor_of(expm(np.diag([z, 0, 0.0]) + np.diag([1.0, 1], 1))) for z in Z.tolist()]))


def test_factors_are_those_of_exponentials_of_matrices():
    one, two = in_steps(lambda e: e[0, 1]), in_steps(lambda e: e[0, 2])
    for rule, now, before in (("zoh", one, None), ("foh", two, one - two)):
        decay, ours, ours_before = factors(rule, Z)
        torch.testing.assert_close(decay, Z.exp())
        torch.testing.assert_close(ours, now, rtol=1e-13, atol=0)
        if before is None:
            assert ours_before is None
        else:
            torch.testing.assert_close(ours_before, before, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(("rule", "method"), [("zoh", "zoh"), ("bilinear", "bilinear")])
def test_factors_are_scipys(rule, method):
    step, z = 0.3, Z[1:]
    for each in z.tolist():
        system = tuple(np.array([[value]]) for value in (each / step, 2.0, 1.0, 0.0))
        decay, gain, *_ = cont2discrete(system, step, method)
        ours, now, before = factors(rule, torch.tensor([each], dtype=torch.float64))
        assert before is None
        assert ours.item() == pytest.approx(decay.item(), rel=1e-12, abs=1e-300)
        assert (step * now * 2).item() == pytest.approx(gain.item(), rel=1e-12)


@pytest.mark.parametrize("rule", OTHERS)
def test_derivatives_are_those_of_the_factors(rule):
    z = Z.clone().requires_grad_()
    given, slopes = factors_and_slopes(rule, Z)
    for factor, again, slope in zip(factors(rule, z), given, slopes):
        assert (factor is None) == (slope is None)
        if factor is not None:
            torch.testing.assert_close(factor, again)
            (expected,) = torch.autograd.grad(factor.sum(), z, retain_graph=True)
            # Autograd differentiates fractions that cancel, so its digits are fewer.
            torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["portable", "reference"])
@pytest.mark.parametrize("method", ["zoh", "foh"])
def test_a_scan_of_constant_parameters_is_scipys_simulation(backend, method):
    rng = np.random.default_rng(0)
    d_state, length, step = 3, 25, 0.4
    A, B, C = -rng.uniform(0.1, 4, d_state), rng.normal(size=d_state), rng.normal(size=d_state)
    system = cont2discrete((np.diag(A), B[:, None], C[None], np.zeros((1, 1))), step, method)
    x = rng.normal(size=length)
    _, y, _ = dlsim(system, x)
    if method == "zoh":  # There a state is that before the step's input, which ours has read.
        y = np.append(y[1:], dlsim(system, np.append(x, 0))[1][-1:], axis=0)
    before_softplus = torch.full((1, length, 1, 1), np.log(np.expm1(step)), dtype=torch.float64)
    given = [torch.tensor(each).expand(1, length, 1, d_state) for each in (B, C)]
    with use_backend(backend):
        ours = ss2d_scan(
            torch.tensor(x)[None, :, None], before_softplus, torch.tensor(A)[None, None], *given, None, None,
            scan_path(("rows",), 1, length), discretisation=method,
        )  # fmt: skip
    np.testing.assert_allclose(ours[0], y, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("rule", OTHERS)
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("channels", "d_state"), [(3, 2), (1, 1)])
def test_portable_equals_the_loop(rule, name, channels, d_state):
    path = PATHS[name]()
    inputs = make(path, channels=channels, d_state=d_state)
    assert_agree(inputs, ss2d_scan(*inputs, path, discretisation=rule), loop(inputs, path, rule), 1e-11)


@pytest.mark.parametrize("rule", OTHERS)
def test_it_agrees_in_float32_and_with_a_factor(rule):
    path = PATHS["windows"]()
    exact = make(path, channels=5, d_state=4)
    weight = torch.randn(2, 5, 3, dtype=torch.float64)
    low_rank = torch.randn(2, 35, 2, 3, dtype=torch.float64)
    exact[1] = torch.einsum("blkr,kcr->blkc", low_rank, weight).requires_grad_()
    inputs = [tensor.detach().float().requires_grad_() for tensor in exact]
    truth = loop([tensor.double() for tensor in inputs], path, rule)
    assert_agree(inputs, ss2d_scan(*inputs, path, discretisation=rule), truth, 2e-6)
    y = ss2d_scan(exact[0], low_rank, *exact[2:], path, weight, discretisation=rule)
    torch.testing.assert_close(y, loop(exact, path, rule))


def test_rules_differ_and_meet_where_steps_are_short():
    path = PATHS["cross4"]()
    inputs = make(path, grad=False)
    long = [ss2d_scan(*inputs, path, discretisation=rule) for rule in RULES]
    assert min(float((one - other).abs().max()) for i, one in enumerate(long) for other in long[:i]) > 1e-2
    inputs[1] = inputs[1] - 30
    mamba, zoh, bilinear, _ = [ss2d_scan(*inputs, path, discretisation=rule) for rule in RULES]
    torch.testing.assert_close(zoh, mamba, rtol=0, atol=1e-12)
    torch.testing.assert_close(bilinear, mamba, rtol=0, atol=1e-12)


def test_what_a_direction_leaves_out_does_not_leak():
    path = PATHS["pauses"]()
    inputs = make(path, grad=False)
    for rule in OTHERS:
        expected = ss2d_scan(*inputs, path, discretisation=rule)
        left_out = [tensor.clone() for tensor in inputs]
        for tensor in left_out[:2]:
            tensor[:, [4, 7]] = torch.nan  # Positions that no direction visits.
        assert torch.equal(ss2d_scan(*left_out, path, discretisation=rule), expected)


@pytest.mark.parametrize("rule", OTHERS)
def test_what_is_kept_is_a_state_a_chunk(rule):
    """Memory: between the chunks no more than their first states lives on, so the peak stays below that of all."""
    path = scan_path("cross4", 48, 48)
    inputs = make(path, batch=1, channels=16, d_state=16, dtype=torch.float32)
    peak = _cpu_peak(lambda: torch.autograd.grad(ss2d_scan(*inputs, path, discretisation=rule).sum(), inputs))
    all_states = 4 * 48 * 48 * 16 * 16 * 4
    assert peak < 0.8 * all_states


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("compiler", [None, "aot_eager"])
def test_it_is_an_operator_for_torch(compiler):
    path = PATHS["cross4"]()
    inputs = make(path)

    def run(*tensors):
        return ss2d_scan(*tensors, path, discretisation="foh").sin()

    if compiler:
        torch._dynamo.reset()
        assert_agree(inputs, torch.compile(run, fullgraph=True, backend=compiler)(*inputs), run(*inputs), 1e-12)
    else:
        table, resets = torch.tensor(path.table), torch.tensor(path.resets)
        arguments = (*inputs, None, table, resets, path.visited, True, "portable", "foh")
        torch.library.opcheck(torch.ops.medmamba.ss2d_scan.default, arguments)


def test_who_knows_which_rule():
    path = PATHS["cross4"]()
    inputs = make(path, grad=False)
    assert backends.backend_name("cpu", torch.float32, "zoh") == "portable"
    with use_backend("reference"):
        assert backends.backend_name("cpu", torch.float64, "foh") == "reference"
    with (
        use_backend("cpu"),
        pytest.raises(
            ValueError, match=r"^the discretisation must be one of the scan's backend 'cpu': mamba; got zoh$"
        ),
    ):
        ss2d_scan(*[tensor.float() for tensor in inputs], path, discretisation="zoh")
    with pytest.raises(
        ValueError, match=r"^the scan's discretisation must be one of mamba, zoh, bilinear, foh, got 'euler'$"
    ):
        ss2d_scan(*inputs, path, discretisation="euler")
