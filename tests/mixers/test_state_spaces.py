"""H3, Mamba-3 and the scan in two dimensions: told again step by step, and what sets them apart from a raster."""

import pytest
import torch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.sequences import state_spaces as design
from medmamba_variants.parts.mixers.sequences.mamba3 import trapezoidal_scan
from medmamba_variants.parts.mixers.sequences.two_d import plane_scan
from medmamba_variants.scan.lines import scan_lines
from medmamba_variants.scan.paths import scan_path


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = randn(2, 5, 7, 6)
DIRECTIONS = [("rows",), ("rows", "columns_reverse", "diagonals")]


def branch(component, channels=6):
    """A branch in double precision, its parameters away from their first values and its steps long."""
    torch.manual_seed(0)
    module = component.builder()(channels, component, 0.0).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_((2 if name.endswith("dt_projs_bias") else 0.3) * torch.rand_like(parameter))
    return module


def assert_same(ours, theirs, leaves, rtol=1e-8):
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-10)
    dy = randn(*ours.shape, seed=7)
    pairs = zip(
        *(torch.autograd.grad(y, leaves, dy, retain_graph=True, materialize_grads=True) for y in (ours, theirs))
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=100 * rtol, atol=1e-9)


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("taps", [1, 3, 40])
def test_h3_is_told_step_by_step(directions, taps):
    module = branch(design.H3(d_state=4, scan_directions=directions, shift_taps=taps))
    p = dict(module.mixer.named_parameters())
    q, k, v = (module.norm(X) @ p["qkv.weight"].T).flatten(1, 2).split(6, -1)
    total = torch.zeros_like(q)
    for index, order in enumerate(scan_path(directions, 5, 7).table.tolist()):
        part = slice(6 * index, 6 * index + 6)
        step = torch.log1p(p["dt_projs_bias"][part].exp())[:, None]
        taken = torch.exp(-step * p["A_logs"][part].exp())
        h = torch.zeros(2, 6, 4, dtype=torch.float64)
        for t, place in enumerate(order):
            # The newest key meets the last tap.
            shifted = sum(
                p["shift"][part, 0, taps - 1 - lag] * k[:, order[t - lag]] for lag in range(taps) if t - lag >= 0
            )
            driven = shifted * v[:, place]
            h = taken * h + step * p["Bs"] * driven[:, :, None]
            total[:, place] += (h * p["Cs"]).sum(2) + p["Ds"][part] * driven
    y = F.layer_norm(total, (6,), p["out_norm.weight"], p["out_norm.bias"]) * q
    assert_same(module(X), (y @ p["mixing.weight"].T).view_as(X), list(module.parameters()))


def turning_recurrence(x, delta, newer, rates, angles, B, C, path):
    """Mamba-3 with complex states: every step decays and turns the state, and meets both ends of a trapezoid."""
    y = torch.zeros_like(x)
    pairs = angles.shape[-1]
    B, C = (torch.view_as_complex(each.unflatten(-1, (pairs, 2)).contiguous()) for each in (B, C))
    for k, order in enumerate(path.table.tolist()):
        h = torch.zeros(x.shape[0], x.shape[2], pairs, x.shape[3], dtype=torch.complex128)
        before = torch.zeros_like(h)
        for p in order:
            step, weight = delta[:, p, k, :, None, None], newer[:, p, k, :, None, None]
            # A positive angle turns the state backwards, as the paper's transposed rotations of B and C do.
            turn = torch.exp(-1j * step * angles[:, p, k, None, :, None])
            decay = torch.exp(-step * rates[k, :, None, None])
            drive = B[:, p, k, :, :, None] * x[:, p, :, None, :]
            h = decay * turn * h + (1 - weight) * step * decay * turn * before + weight * step * drive
            before = drive
            y[:, p] += (C[:, p, k, :, :, None].conj() * h).real.sum(2)
    return y


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_mamba3_is_a_recurrence_of_complex_states(directions):
    K = len(directions)
    path = scan_path(directions, 5, 7)
    leaves = [randn(2, 35, 3, 4), randn(2, 35, K, 3, seed=1).exp(), randn(2, 35, K, 3, seed=2).sigmoid()]
    leaves += [randn(K, 3, seed=3).exp(), randn(2, 35, K, 2, seed=4), randn(2, 35, K, 3, 4, seed=5)]
    leaves = [leaf.requires_grad_() for leaf in (*leaves, randn(2, 35, K, 3, 4, seed=6))]
    assert_same(trapezoidal_scan(*leaves, path), turning_recurrence(*leaves, path), leaves)


def test_the_layer_around_mamba3_is_written_out():
    component = design.Mamba3(expand=2.0, scan_directions=("rows", "columns_reverse"), heads=3, ssd_state=4)
    module = branch(component)
    layer, p = module.mixer, dict(module.mixer.named_parameters())
    sizes = [12, 12, *[4, 4, 2, 3, 3] * 2]
    z, inner, *rest = (module.norm(X) @ p["in_proj.weight"].T).split(sizes, -1)
    u = F.silu(layer.conv2d(inner.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).reshape(2, 35, 3, 4)
    B, C, angles, delta, newer = (torch.stack([rest[j], rest[5 + j]], 3).flatten(1, 2) for j in range(5))

    def normed(each, index):
        each = each / (each.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p["BC_weight"][index, :, 0]
        return each[:, :, :, None] + p["BC_bias"][index]

    delta = torch.log1p((delta + p["dt_projs_bias"]).exp())
    path = scan_path(component.directions, 5, 7)
    given = (u, delta, newer.sigmoid(), p["A_logs"].exp(), angles, normed(B, 0), normed(C, 1))
    y = turning_recurrence(*given, path) + u * p["Ds"].sum(0)[:, None]
    y = layer.out_norm(y.flatten(2)).view_as(inner)
    torch.testing.assert_close(module(X), layer.out_proj(y * F.silu(z)), rtol=1e-8, atol=1e-10)


def recurrence_in_two_dimensions(x, delta, A, B, C):
    _, height, width, _ = x.shape
    g, h, y = ([[None] * width for _ in range(height)] for _ in range(3))
    for i in range(height):
        for j in range(width):
            taken = torch.exp(delta[:, i, j, :, None] * A)
            drive = (delta[:, i, j] * x[:, i, j])[..., None] * B[:, i, j, None]
            g[i][j] = drive + (taken * g[i][j - 1] if j else 0)
            h[i][j] = g[i][j] + (taken * h[i - 1][j] if i else 0)
            y[i][j] = (h[i][j] * C[:, i, j, None]).sum(-1)
    return torch.stack([torch.stack(row, 1) for row in y], 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (4, 6)])
def test_two_dimensions_are_a_double_loop(size):
    leaves = [randn(2, *size, 3), randn(2, *size, 3, seed=1).exp(), -randn(3, 4, seed=2).exp()]
    leaves = [leaf.requires_grad_() for leaf in (*leaves, randn(2, *size, 4, seed=3), randn(2, *size, 4, seed=4))]
    assert_same(plane_scan(*leaves), recurrence_in_two_dimensions(*leaves), leaves)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lines_have_the_right_gradients(axis):
    leaves = [randn(3, 4, 2, seed=seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(lambda decay, drive: scan_lines(decay, drive, axis), leaves)


@pytest.mark.parametrize("corners", [1, 2, 4])
def test_the_layer_in_two_dimensions_is_written_out(corners):
    module = branch(design.TwoD(d_state=3, expand=1.5, d_conv=3, dt_rank=2, corners=corners))
    layer, p = module.mixer, dict(module.mixer.named_parameters())
    inner, z = (module.norm(X) @ p["in_proj.weight"].T).split(9, -1)
    inner = F.silu(layer.conv2d(inner.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    total = torch.zeros_like(inner)
    turns = {1: [()], 2: [(), (1, 2)], 4: [(), (1, 2), (2,), (1,)]}[corners]
    for k, axes in enumerate(turns):
        seen = inner.flip(axes)
        low_rank, B, C = (seen @ p["x_proj_weight"][k].T).split([2, 3, 3], -1)
        delta = torch.log1p((low_rank @ p["dt_projs_weight"][k].T + p["dt_projs_bias"][k]).exp())
        A = -p["A_logs"].view(corners, 9, 3)[k].exp()
        y = recurrence_in_two_dimensions(seen, delta, A, B, C) + p["Ds"].view(corners, 9)[k] * seen
        total = total + y.flip(axes)
    expected = layer.out_proj(layer.out_norm(total) * F.silu(z))
    assert_same(module(X), expected, list(module.parameters()))


def test_two_dimensions_are_no_raster():
    """From the upper left corner a position sees the rectangle up to it; a raster sees all rows above in full."""
    x = randn(1, 4, 5, 2).requires_grad_()
    delta, A = torch.full((1, 4, 5, 2), 0.1, dtype=torch.float64), -torch.ones(2, 3, dtype=torch.float64)
    B, C = randn(1, 4, 5, 3, seed=1), randn(1, 4, 5, 3, seed=2)
    (gradient,) = torch.autograd.grad(plane_scan(x, delta, A, B, C)[0, 2, 3].sum(), x)
    seen = gradient[0].abs().sum(-1) > 0
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[:3, :4] = True
    assert torch.equal(seen, expected)
    # Where nothing decays, all of the rectangle counts alike.
    y = plane_scan(x, delta, 0 * A, torch.ones_like(B), torch.ones_like(C))
    torch.testing.assert_close(y, 0.3 * x.cumsum(1).cumsum(2))


def test_pairs_need_an_even_state():
    with pytest.raises(ValueError, match=r"^ssd_state must be even, since mamba3 turns pairs, got 5 in stage 0"):
        VariantConfig.from_dict({"branches": [[0.5, "conv"], [0.5, "mamba3"]], "ssd_state": 5})
