"""mamba-ssm's and VMamba's names on this suite's scan: each form of the arguments against the recurrence in float64."""

import importlib
import importlib.util
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from medmamba_variants.drop_in.standing_in import MODULES, as_mamba_ssm
from medmamba_variants.scan import selective_scan

BATCH, INNER, LENGTH, N, GROUPS = 2, 6, 7, 3, 2
SHAPES = {
    "fixed": (INNER, N),
    "ungrouped": (BATCH, N, LENGTH),
    "one group": (BATCH, 1, N, LENGTH),
    "groups": (BATCH, GROUPS, N, LENGTH),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def per_channel(values):
    """B or C in any form as (batch, channels, d_state, length)."""
    if values.dim() == 2:
        return values[None, :, :, None].expand(BATCH, -1, -1, LENGTH)
    values = values.unsqueeze(1) if values.dim() == 3 else values
    return values.repeat_interleave(INNER // values.shape[1], dim=1)


def recurrence(u, delta, A, B, C, D, z, delta_bias, softplus):
    """Equation 2 of Gu and Dao, arXiv 2312.00752, step by step: y and the last state."""
    steps = delta if delta_bias is None else delta + delta_bias[:, None]
    steps = F.softplus(steps) if softplus else steps
    B, C = per_channel(B), per_channel(C)
    h, ys = torch.zeros(BATCH, INNER, N, dtype=u.dtype), []
    for t in range(u.shape[2]):
        Δ = steps[:, :, t, None]
        h = torch.exp(Δ * A) * h + Δ * B[..., t] * u[:, :, t, None]
        ys.append((C[..., t] * h).sum(2))
    y = torch.stack(ys, 2)
    y = y if D is None else y + D[:, None] * u
    return (y if z is None else y * z * torch.sigmoid(z)), h


def make(form_of_b, form_of_c, positive=False):
    delta = normal(BATCH, INNER, LENGTH, seed=2)
    tensors = {
        "u": normal(BATCH, INNER, LENGTH, seed=1),
        "delta": delta.abs() if positive else delta,
        "A": -normal(INNER, N, seed=3).exp(),
        "B": normal(*SHAPES[form_of_b], seed=4),
        "C": normal(*SHAPES[form_of_c], seed=5),
        "D": normal(INNER, seed=6),
        "z": normal(BATCH, INNER, LENGTH, seed=7),
        "delta_bias": normal(INNER, seed=8).abs(),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def assert_agree(got, expected, inputs):
    """Values and all gradients, in float64."""
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    weights = [normal(*other.shape, seed=9) for other in expected]
    found, truth = (
        torch.autograd.grad(sum((w * v).sum() for w, v in zip(weights, values)), list(inputs.values()))
        for values in (got, expected)
    )
    for name, one, other in zip(inputs, found, truth):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture
def interface():
    with as_mamba_ssm():
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface")


@pytest.mark.parametrize("form_of_c", SHAPES)
@pytest.mark.parametrize("form_of_b", SHAPES)
@pytest.mark.parametrize("softplus", [True, False])
def test_every_form_of_b_and_c_with_gate_and_last_state(interface, form_of_b, form_of_c, softplus):
    inputs = make(form_of_b, form_of_c, positive=not softplus)
    got = interface.selective_scan_fn(**inputs, delta_softplus=softplus, return_last_state=True)
    assert_agree(got, recurrence(*inputs.values(), softplus), inputs)


def test_what_is_left_out_is_left_out(interface):
    inputs = make("groups", "groups")
    for name in ("D", "z", "delta_bias"):
        inputs[name] = None
    y = interface.selective_scan_fn(**{n: t for n, t in inputs.items() if t is not None}, delta_softplus=True)
    torch.testing.assert_close(y, recurrence(*inputs.values(), True)[0])


def test_a_step_size_of_zero_is_one_and_has_its_slope(interface):
    """Without softplus: the state stays where it is, and the slope is that of the recurrence itself."""
    inputs = make("ungrouped", "ungrouped", positive=True)
    with torch.no_grad():
        inputs["delta"][:, :, 2] = 0
        inputs["delta_bias"].zero_()
    got = interface.selective_scan_fn(**inputs, return_last_state=True)
    assert_agree(got, recurrence(*inputs.values(), False), inputs)


def test_the_state_keeps_32_bits_where_y_has_16():
    inputs = {name: tensor.detach() for name, tensor in make("ungrouped", "ungrouped").items()}
    half = {name: tensor.bfloat16() if name in "uBC" else tensor.float() for name, tensor in inputs.items()}
    y, state = selective_scan(**half, return_last_state=True)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    wide = {name: tensor.float() for name, tensor in half.items()}
    torch.testing.assert_close(state, selective_scan(**wide, return_last_state=True)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.complex64}, "A must be real, as every state of these kernels is, got torch.complex64"),
        ({"B": torch.complex128}, "B must be real"),
        ({"z": (2, 6, 6)}, r"z must be \(batch, K·channels, length\) = \(2, 6, 7\), got \(2, 6, 6\)"),
        ({"B": (6, 4)}, r"B must be \(K·channels, d_state\) = \(6, 3\), got \(6, 4\)"),
        ({"B": (6, 3), "C": (2, 4, 3, 7)}, "second axis must be K·channels for the 4 groups of C, got 6"),
        ({"B": (6, 3), "C": (2, 2, 3, 8)}, r"C must be \(batch, K, d_state, length\) = \(2, 2, 3, 7\)"),
    ],
)
def test_wrong_arguments_are_one_line(change, message):
    inputs = {name: tensor.detach() for name, tensor in make("groups", "groups").items()}
    for name, new in change.items():
        inputs[name] = inputs[name].to(new) if isinstance(new, torch.dtype) else torch.zeros(new, dtype=torch.float64)
    with pytest.raises(ValueError, match=message) as caught:
        selective_scan(**inputs)
    assert "\n" not in str(caught.value)


def test_a_negative_step_size_is_refused(interface):
    inputs = make("ungrouped", "ungrouped")
    with pytest.raises(ValueError, match=r"delta must not be negative without delta_softplus, got -"):
        interface.selective_scan_fn(**inputs)


@pytest.mark.parametrize("with_gate", [True, False])
def test_the_compiled_halves_serve_a_foreign_autograd_function(with_gate):
    """As mamba-ssm's own: out, x, out_z from fwd, the last state in x, and gradients from bwd."""
    inputs = make("groups", "groups")
    if not with_gate:
        inputs["z"] = None
    with as_mamba_ssm():
        cuda = importlib.import_module("selective_scan_cuda")
    given = [None if tensor is None else tensor.detach() for tensor in inputs.values()]
    out, x, *rest = cuda.fwd(*given, True)
    expected, state = recurrence(*inputs.values(), True)
    torch.testing.assert_close(rest[0] if with_gate else out, expected)
    torch.testing.assert_close(x[:, :, -1, 1::2], state)
    dy = normal(*expected.shape, seed=9)
    dz = torch.empty_like(dy) if with_gate else None
    u, delta, A, B, C, D, z, bias = given
    found = cuda.bwd(u, delta, A, B, C, D, z, bias, dy, x, out, dz, True, with_gate)
    named = dict(zip(("u", "delta", "A", "B", "C", "D", "delta_bias", "z"), found))
    wanted = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    for name, truth in zip(wanted, torch.autograd.grad(expected, list(wanted.values()), dy)):
        torch.testing.assert_close(named[name], truth, msg=lambda text, name=name: f"{name}: {text}")
    if with_gate:
        assert found[7] is dz
        torch.testing.assert_close(found[8], expected)


@pytest.mark.parametrize("name", ["selective_scan_cuda_oflex", "selective_scan_cuda_core"])
def test_vmamba_s_kernels(name):
    inputs = make("groups", "groups")
    inputs["z"] = None
    expected, _ = recurrence(*inputs.values(), True)
    with as_mamba_ssm():
        cuda = importlib.import_module(name)
    given = [tensor.detach() for tensor in inputs.values() if tensor is not None]
    rest = (1, True) if name.endswith("oflex") else (1,)
    out, x, *_ = cuda.fwd(*given, True, *rest)
    torch.testing.assert_close(out, expected)
    dy = normal(*expected.shape, seed=9)
    found = cuda.bwd(*given, dy, x, True, 1)
    truths = torch.autograd.grad(expected, [tensor for tensor in inputs.values() if tensor is not None], dy)
    for gradient, truth in zip(found, truths):
        torch.testing.assert_close(gradient, truth)


def test_oflex_gives_32_bits_where_they_are_asked_for():
    inputs = {name: tensor.detach().bfloat16() for name, tensor in make("groups", "groups").items() if name != "z"}
    with as_mamba_ssm():
        cuda = importlib.import_module("selective_scan_cuda_oflex")
    outs = [cuda.fwd(*inputs.values(), True, 1, wide)[0] for wide in (True, False)]
    assert [out.dtype for out in outs] == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(outs[0].bfloat16(), outs[1])


def test_mamba_s_layer_against_its_equations():
    """Figure 3 of Gu and Dao: projection, causal filter, selection, scan, gate, projection."""
    torch.manual_seed(0)
    with as_mamba_ssm():
        from mamba_ssm import Mamba
    layer = Mamba(d_model=8, d_state=N, d_conv=4, expand=2).double()
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "A_log": (16, N),
        "D": (16,),
        "in_proj.weight": (32, 8),
        "conv1d.weight": (16, 1, 4),
        "conv1d.bias": (16,),
        "x_proj.weight": (1 + 2 * N, 16),
        "dt_proj.weight": (16, 1),
        "dt_proj.bias": (16,),
        "out_proj.weight": (8, 16),
    }
    # softplus of the offset lies between dt_min and dt_max.
    assert F.softplus(layer.dt_proj.bias).min() >= 0.001 and F.softplus(layer.dt_proj.bias).max() <= 0.1
    sequences = normal(2, 5, 8).requires_grad_()
    x, z = (sequences @ layer.in_proj.weight.T).chunk(2, dim=2)
    padded = torch.cat([torch.zeros(2, 3, 16, dtype=torch.float64), x], dim=1)
    x = sum(layer.conv1d.weight[:, 0, k] * padded[:, k : k + 5] for k in range(4)) + layer.conv1d.bias
    x = x * torch.sigmoid(x)
    delta, B, C = (x @ layer.x_proj.weight.T).split([1, N, N], dim=2)
    Δ = F.softplus(delta @ layer.dt_proj.weight.T + layer.dt_proj.bias)
    A = -torch.exp(layer.A_log.float()).double()
    h, ys = torch.zeros(2, 16, N, dtype=torch.float64), []
    for t in range(5):
        h = torch.exp(Δ[:, t, :, None] * A) * h + Δ[:, t, :, None] * B[:, t, None] * x[:, t, :, None]
        ys.append((h * C[:, t, None]).sum(2) + layer.D * x[:, t])
    expected = (torch.stack(ys, 1) * z * torch.sigmoid(z)) @ layer.out_proj.weight.T
    got = layer(sequences)
    leaves = [sequences, *layer.parameters()]
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)
    for one, other in zip(*(torch.autograd.grad(value.square().sum(), leaves) for value in (got, expected))):
        # A, D and the offset go through 32 bits, as in mamba-ssm.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("first_in", [True, False])
@pytest.mark.parametrize("first_out", [True, False])
@pytest.mark.parametrize("scans", [0, 1, 2])
def test_the_cross_scan_and_its_merge(first_in, first_out, scans):
    with as_mamba_ssm():
        csm = importlib.import_module("csm_triton")
    maps = normal(2, 3, 4, 5)
    rows, columns = maps.flatten(2), maps.transpose(2, 3).flatten(2)
    one, two = rows, columns if scans == 0 else rows
    expected = torch.stack([one, two, *((one, two) if scans == 1 else (one.flip(-1), two.flip(-1)))], dim=1)
    given = maps if first_in else maps.permute(0, 2, 3, 1)
    got = csm.cross_scan_fn(given, first_in, first_out, scans=scans)
    assert torch.equal(got if first_out else got.permute(0, 2, 3, 1), expected)
    # The merge puts each back in its place: of a scanned map it makes four times the map.
    shaped = got.unflatten(-1, (4, 5)) if first_out else got.unflatten(1, (4, 5))
    merged = csm.cross_merge_fn(shaped, first_in, first_out, scans=scans)
    torch.testing.assert_close(merged if first_in else merged.transpose(1, 2), 4 * rows)


def test_the_cross_scan_one_by_one():
    with as_mamba_ssm():
        csm = importlib.import_module("csm_triton")
    maps = normal(2, 4, 3, 4, 5).requires_grad_()
    got = csm.cross_scan_fn(maps, one_by_one=True)
    alone = torch.stack([csm.cross_scan_fn(maps[:, k])[:, k] for k in range(4)], dim=1)
    assert torch.equal(got, alone)
    back = csm.cross_merge_fn(got.unflatten(-1, (4, 5)), one_by_one=True)
    assert torch.equal(back, maps.flatten(3))
    assert torch.equal(torch.autograd.grad(got.sum(), maps)[0], torch.ones_like(maps))


def test_the_stand_ins_come_and_go(monkeypatch):
    mine = type(sys)("causal_conv1d")
    monkeypatch.setitem(sys.modules, "causal_conv1d", mine)
    assert importlib.util.find_spec("mamba_ssm") is None, "this test is for machines without mamba-ssm"
    with as_mamba_ssm():
        assert importlib.util.find_spec("mamba_ssm") is not None
        for name, content in MODULES.items():
            module = importlib.import_module(name)
            assert all(hasattr(module, each) for each in content)
        with pytest.raises(ImportError):
            importlib.import_module("mamba_ssm.modules.mamba2")
        assert sys.modules["causal_conv1d"] is not mine
    assert sys.modules["causal_conv1d"] is mine and "mamba_ssm" not in sys.modules


def test_a_script_runs_unchanged(tmp_path):
    (tmp_path / "beside.py").write_text("from mamba_ssm.ops.selective_scan_interface import selective_scan_fn\n")
    (tmp_path / "train.py").write_text(
        "import sys\nfrom beside import selective_scan_fn\n"
        "if __name__ == '__main__':\n    print(selective_scan_fn.__module__, sys.argv[1:])\n"
    )
    command = [sys.executable, "-m", "medmamba_variants.drop_in"]
    done = subprocess.run([*command, str(tmp_path / "train.py"), "--epochs", "3"], capture_output=True, text=True)
    assert done.stdout.strip() == "medmamba_variants.drop_in.interface ['--epochs', '3']", done.stderr
    done = subprocess.run([*command, "none.py"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: the first argument must be a Python script, got none.py\n"
