"""State-space duality: chunks are the recurrence, paths are those of the map, and without order there is none."""

import pytest
import torch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.sequences import duality as design
from medmamba_variants.scan.dual.products import chunked_scan
from medmamba_variants.scan.paths import scan_path


def recurrence(x, log_decay, B, C):
    """Step by step: x (batch, length, heads, width), log_decay (batch, length, heads), B, C (batch, length, N)."""
    h = x.new_zeros(x.shape[0], x.shape[2], B.shape[-1], x.shape[3])
    outputs = []
    for t in range(x.shape[1]):
        h = log_decay[:, t, :, None, None].exp() * h + B[:, t, None, :, None] * x[:, t, :, None, :]
        outputs.append((C[:, t, None, :, None] * h).sum(2))
    return torch.stack(outputs, 1)


def branch(component, channels=6):
    """A branch in double precision, its parameters away from their first values and its steps long."""
    torch.manual_seed(0)
    module = component.builder()(channels, component, 0.0).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_((2 if name.endswith("dt_projs_bias") else 0.2) * torch.rand_like(parameter))
    return module


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (4, 4), (35, 64), (35, 8), (35, 7), (35, 1), (200, 64)])
def test_chunks_are_the_recurrence(length, chunk):
    torch.manual_seed(0)
    given = [torch.randn(2, length, *rest, dtype=torch.float64) for rest in ((3, 5), (3,), (4,), (4,))]
    given[1] = -given[1].exp()
    dout = torch.randn(2, length, 3, 5, dtype=torch.float64)
    results = []
    for function in (lambda *all: chunked_scan(*all, chunk=chunk), recurrence):
        leaves = [each.clone().requires_grad_() for each in given]
        y = function(*leaves)
        results.append([y, *torch.autograd.grad(y, leaves, dout)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_steps_that_forget_all_at_once_stay_finite():
    x, decay = torch.randn(1, 80, 2, 3), torch.full((1, 80, 2), -40.0).requires_grad_()
    B, C = torch.randn(2, 1, 80, 4)
    y = chunked_scan(x, decay, B, C, chunk=64)
    torch.testing.assert_close(y, x * (B * C).sum(-1)[..., None, None])
    (gradient,) = torch.autograd.grad(y.sum(), decay)
    assert gradient.isfinite().all()


def slow_layer(module, x, directions):
    """The layer told again, one direction and one step after the other, on an odd map that is not square."""
    p, component = dict(module.mixer.named_parameters()), module.mixer
    x = module.norm(x)
    batch, height, width, _ = x.shape
    K, N, H, inner = len(directions), component.state, component.heads, component.d_inner
    z, seen, delta = (x @ p["in_proj.weight"].T).split([inner, inner + 2 * K * N, K * H], -1)
    weight = p["conv2d.weight"]
    seen = F.conv2d(
        seen.permute(0, 3, 1, 2), weight, p["conv2d.bias"], padding=weight.shape[-1] // 2, groups=len(weight)
    )
    u, B, C = F.silu(seen).permute(0, 2, 3, 1).flatten(1, 2).split([inner, K * N, K * N], -1)
    u = u.view(batch, -1, H, inner // H)
    total = torch.zeros_like(u)
    for k, order in enumerate(scan_path(directions, height, width).table.tolist()):
        step = torch.log1p((delta.flatten(1, 2)[..., k * H : (k + 1) * H] + p["dt_projs_bias"][k]).exp())
        states = slice(k * N, (k + 1) * N)
        decay = -step * p["A_logs"][k].exp()
        y = recurrence((step[..., None] * u)[:, order], decay[:, order], B[:, order, states], C[:, order, states])
        total[:, order] += y
        total = total + p["Ds"][k][:, None] * u
    normed = F.layer_norm(total.flatten(2), (inner,), p["out_norm.weight"], p["out_norm.bias"])
    return (normed.view(batch, height, width, inner) * F.silu(z)) @ p["out_proj.weight"].T


@pytest.mark.parametrize("directions", [("rows",), ("rows", "columns_reverse", "diagonals"), "corner4"])
@pytest.mark.parametrize("size", [(5, 7), (9, 13)])
def test_the_layer_is_its_retelling(size, directions):
    component = design.SSD(expand=1.5, d_conv=5, scan_directions=directions, heads=3, ssd_state=4)
    module = branch(component)
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    leaves = [parameter for _, parameter in sorted(module.named_parameters())]
    ours, theirs = module(x), slow_layer(module, x, component.directions)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    dout = torch.randn_like(ours)
    for one, other in zip(torch.autograd.grad(ours, leaves, dout), torch.autograd.grad(theirs, leaves, dout)):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_the_layer_without_order_is_its_sum():
    module = branch(design.NonCausalSSD(expand=1.5, heads=3, ssd_state=4, d_conv=1))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    layer = module.mixer
    z, seen, delta = layer.in_proj(module.norm(x)).flatten(1, 2).split([9, 9 + 8, 3], -1)
    u, B, C = F.silu(seen * layer.conv2d.weight.flatten() + layer.conv2d.bias).split([9, 4, 4], -1)
    u = u.view(2, 15, 3, 3)
    weights = F.softplus(delta + layer.dt_projs_bias) * layer.A_logs.exp()
    y = torch.einsum("btn,bsn,bsh,bshp->bthp", C, B, weights, u) + layer.Ds[0, :, None] * u
    expected = layer.out_proj(layer.out_norm(y.flatten(2)) * F.silu(z)).view_as(x)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("kind", "free"), [(design.NonCausalSSD, True), (design.SSD, False)])
def test_without_order_positions_may_change_places(kind, free):
    """The convolution before it sees a single pixel here, so that nothing else knows of places."""
    module = branch(kind(d_conv=1, heads=2, ssd_state=4))
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    places = torch.randperm(35)

    def moved(y):
        return y.flatten(1, 2)[:, places].unflatten(1, (5, 7))

    same = torch.allclose(module(moved(x)), moved(module(x)), rtol=1e-10, atol=1e-12)
    assert same is free


def test_what_inference_mode_saw_first_can_be_trained_afterwards():
    component = design.SSD(heads=2, ssd_state=4, scan_directions=("antidiagonals",))
    module, x = component.builder()(6, component, 0.0), torch.randn(1, 11, 3, 6)
    with torch.inference_mode():
        before = module(x)
    after = module(x)
    after.sum().backward()
    assert torch.equal(before, after)


@pytest.mark.parametrize("word", ["ssd", "nc_ssd"])
def test_what_has_no_equal_heads_or_a_norm_of_one_is_refused(word):
    half = {"dims": [12, 24, 48, 96], "branches": [[0.5, "conv"], [0.5, word]]}
    with pytest.raises(
        ValueError, match=rf"^heads must divide the 12 channels between them, got 5 of {word} in stage 0"
    ):
        VariantConfig.from_dict(half | {"heads": 5})
    with pytest.raises(ValueError, match=rf"^{word} must have at least two .*got 6, and 1 inner ones with expand=0.25"):
        VariantConfig.from_dict(half | {"expand": 0.25})
