"""Mixers with memory: the matrix memory in its parallel form, networks step by step, an equation solved finely."""

import math

import pytest
import torch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.sequences import recurrent as design
from medmamba_variants.parts.mixers.sequences.mlstm import matrix_memory
from medmamba_variants.parts.mixers.sequences.nmode import neural_memory
from medmamba_variants.scan.paths import scan_path


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = randn(2, 5, 7, 6)


def branch(component, channels=6):
    """A branch in double precision, its parameters away from their first values."""
    torch.manual_seed(0)
    module = component.builder()(channels, component, 0.0).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def parallel_memory(q, k, v, i, f):
    """One head along one sequence, (length, P) and (length,): xLSTM, appendix A, all pairs of steps at once."""
    length, size = q.shape
    logs = torch.full((length, length), -math.inf, dtype=q.dtype)
    for t in range(length):
        for s in range(t + 1):
            logs[t, s] = F.logsigmoid(f[s + 1 : t + 1]).sum() + i[s]
    m = logs.max(1).values
    weights = (q @ k.T / size**0.5) * torch.exp(logs - m[:, None])
    return weights @ v / torch.maximum(weights.sum(1).abs(), torch.exp(-m))[:, None]


@pytest.mark.parametrize("sharpness", [1, 30])
@pytest.mark.parametrize("directions", [("rows",), ("columns_reverse", "diagonals", "rows_reverse")])
def test_the_matrix_memory_is_its_parallel_form(directions, sharpness):
    path = scan_path(directions, 5, 7)
    q, k, v = (randn(2, 35, 3, 4, seed=seed).requires_grad_() for seed in range(3))
    i, f = ((sharpness * randn(2, 35, len(directions), 3, seed=seed)).requires_grad_() for seed in (3, 4))
    ours = matrix_memory(q, k, v, i, f, path)
    theirs = torch.zeros_like(ours)
    for index, order in enumerate(path.table.tolist()):
        for image in range(2):
            for head in range(3):
                given = [each[image, order, head] for each in (q, k, v)]
                gates = [each[image, order, index, head] for each in (i, f)]
                theirs[image, order, head] += parallel_memory(*given, *gates)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    dy = randn(*ours.shape, seed=9)
    pairs = zip(*(torch.autograd.grad(y, (q, k, v, i, f), dy) for y in (ours, theirs)))
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_large_gates_stay_finite_in_single_precision():
    q, k, v = (randn(1, 40, 2, 3, seed=seed).float().requires_grad_() for seed in range(3))
    i, f = ((300 * randn(1, 40, 1, 2, seed=seed)).float().requires_grad_() for seed in (3, 4))
    y = matrix_memory(q, k, v, i, f, scan_path(("rows",), 5, 8))
    assert all(each.isfinite().all() for each in (y, *torch.autograd.grad(y.sum(), (q, k, v, i, f))))


def test_the_memory_knows_only_what_came_before():
    component = design.MLSTM(d_conv=1, heads=2, scan_directions=("rows",))
    module = branch(component)
    changed = X.clone()
    changed[:, 3, 2, 0] += 1
    differs = (module(X) - module(changed)).abs().amax((0, 3)).flatten() > 1e-12
    assert differs.tolist() == [False] * (3 * 7 + 2) + [True] * (2 * 7 - 2)
    both = branch(design.MLSTM(d_conv=1, heads=2, scan_directions=("rows", "rows_reverse")))
    assert ((both(X) - both(changed)).abs().amax(3) > 1e-12).all()


def test_the_layer_around_the_memory_is_written_out():
    component = design.MLSTM(expand=2.0, d_conv=3, heads=3, scan_directions=("rows", "columns_reverse"))
    module = branch(component)
    layer = module.mixer
    inner, z = layer.in_proj(module.norm(X)).split(12, -1)
    seen = F.silu(layer.conv2d(inner.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    q, k, v = (
        torch.cat([source[..., 4 * h : 4 * h + 4] @ layer.qkv_weight[index, h] for h in range(3)], -1).flatten(1, 2)
        for index, source in enumerate((seen, seen, inner))
    )
    gates = layer.gates(torch.cat([each.unflatten(2, (3, 4)) for each in (q, k, v)], 3).flatten(2))
    i, f = gates.unflatten(2, (2, 2, 3)).unbind(2)
    q, k, v = (each.unflatten(2, (3, 4)) for each in (q, k, v))
    read = matrix_memory(q, k, v, i, f, scan_path(component.directions, 5, 7))
    mean, variance = read.mean(-1, keepdim=True), read.var(-1, unbiased=False, keepdim=True)
    y = ((read - mean) / (variance + 1e-5).sqrt()).flatten(2) * layer.out_norm.weight + layer.out_norm.bias
    y = y.view(2, 5, 7, 12) + layer.skip * seen
    torch.testing.assert_close(module(X), layer.out_proj(y * F.silu(z)))


def cell(kind, x, h, c, w, u, b, d):
    """One step of a network, gates in torch's order."""
    if kind == "rnn":
        return torch.tanh(w @ x + b + u @ h + d), c
    given, state = (w @ x + b).chunk({"lstm": 4, "gru": 3}[kind]), (u @ h + d).chunk({"lstm": 4, "gru": 3}[kind])
    if kind == "lstm":
        i, f, g, o = (one + other for one, other in zip(given, state))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    r, z = (given[0] + state[0]).sigmoid(), (given[1] + state[1]).sigmoid()
    return (1 - z) * torch.tanh(given[2] + r * state[2]) + z * h, c


def read(kind, sequence, weights):
    """Outputs along a list of vectors."""
    h = c = torch.zeros(weights[1].shape[1], dtype=torch.float64)
    outputs = []
    for x in sequence:
        h, c = cell(kind, x, h, c, *weights)
        outputs.append(h)
    return outputs


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("sweep", ["raster", "cross"])
@pytest.mark.parametrize("kind", [design.LSTM, design.GRU, design.RNN])
def test_networks_are_told_step_by_step(kind, sweep, both):
    component = kind(rnn_units=0.5, rnn_sweep=sweep, bidirectional=both)
    module = branch(component)
    normed, weights = module.norm(X), list(module.network)
    places = {"raster": [[[(i, j) for i in range(5) for j in range(7)]]]}
    places["cross"] = [
        [[(i, j) for j in range(7)] for i in range(5)],
        [[(i, j) for i in range(5)] for j in range(7)],
    ]
    parts = []
    for sequences in places[sweep]:
        for start in range(2 if both else 1):
            part = torch.zeros(2, 5, 7, 3, dtype=torch.float64)
            for image in range(2):
                for sequence in sequences:
                    order = sequence[::-1] if start else sequence
                    outputs = read(
                        component.word, [normed[image, i, j] for i, j in order], weights[4 * start : 4 * start + 4]
                    )
                    for (i, j), h in zip(order, outputs):
                        part[image, i, j] = h
            parts.append(part)
    expected = module.mixing(torch.cat(parts, -1))
    torch.testing.assert_close(module(X), expected, rtol=1e-9, atol=1e-11)


def test_the_traced_operator_has_the_gradients_of_the_network():
    module = branch(design.GRU(rnn_units=0.5))
    sequences = randn(3, 6, 6).requires_grad_()
    leaves = [sequences, *module.network]
    dy = randn(3, 6, 6, seed=1)
    ours = torch.autograd.grad(torch.ops.medmamba.recurrent(sequences, leaves[1:], "gru", True), leaves, dy)
    theirs = torch.autograd.grad(module._read(sequences), leaves, dy)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_the_solver_has_its_order(solver, order):
    gamma = 2 * randn(50)
    exact = neural_memory(gamma, 2000, "rk4")
    errors = [(neural_memory(gamma, steps, solver) - exact).abs().max() for steps in (8, 16)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_the_equation_is_solved():
    gamma = 2 * randn(50)
    y = torch.zeros_like(gamma)
    for _ in range(20_000):
        y = y + (torch.sin(y + gamma) ** 2 - y) / 20_000
    torch.testing.assert_close(neural_memory(gamma, 16, "rk4"), y, rtol=1e-3, atol=1e-4)
    module = branch(design.NmODE(ode_steps=2))
    seen = module.conv2d(module.in_proj(module.norm(X)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    half = torch.sin(seen) ** 2 / 2
    torch.testing.assert_close(module(X), module.mixing(half + (torch.sin(half + seen) ** 2 - half) / 2))


def test_the_memory_after_a_scan_reads_the_scan():
    module = branch(design.NmODESS2D(ode_steps=1, d_state=2, scan_directions=("rows",)))
    scanned = module.mixer(module.norm(X))
    torch.testing.assert_close(module(X), module.mixing(torch.sin(scanned + module.offset) ** 2))


def test_what_leaves_nothing_is_refused():
    def refuse(message, **axes):
        with pytest.raises(ValueError, match=message):
            VariantConfig.from_dict({"dims": [8, 16, 32, 64], **axes})

    half = [[0.5, "conv"], [0.5, "mlstm"]]
    refuse(r"^heads must leave every head two channels.*got 8 heads for the 8 inner channels", branches=half, heads=8)
    refuse(
        r"^rnn_units must leave lstm a unit, got 0.125 for its 4 channels in stage 0",
        branches=[[0.5, "conv"], [0.5, "lstm"]],
        rnn_units=0.125,
    )
