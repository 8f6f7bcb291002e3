"""The convolutional mixers: what each adds by hand, what passes through untouched, what is refused."""

import pytest
import torch
from moved import moved, moved_branch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design import convolutions as design
from medmamba_variants.model import build_model
from medmamba_variants.scan import use_backend

X = torch.randn(2, 5, 7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def branch(component):
    return moved_branch(component, 11)


def slow_filter(x, weight, bias, dilation=1):
    """Tap by tap: x (batch, height, width, channels), weight (channels, 1, rows, columns)."""
    rows, columns = weight.shape[2:]
    up, left = rows // 2 * dilation, columns // 2 * dilation
    padded = F.pad(x, (0, 0, left, left, up, up))
    total = torch.zeros_like(x) + bias
    for row in range(rows):
        for column in range(columns):
            i, j = row * dilation, column * dilation
            total = total + padded[:, i : i + x.shape[1], j : j + x.shape[2]] * weight[:, 0, row, column]
    return total


def filtered(module, x, dilation=1):
    return slow_filter(x, module.weight, module.bias, dilation)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (5, 2), (3, 4), (11, 3)])
def test_depthwise_and_axial_are_what_their_taps_say(kernel_size, dilation):
    module = branch(design.Depthwise(kernel_size, dilation))
    torch.testing.assert_close(module(X), module.mixing(filtered(module.filters, module.norm(X), dilation)))
    module = branch(design.Axial(kernel_size, dilation))
    x = module.norm(X)
    assert module.column.kernel_size == (kernel_size, 1) and module.row.kernel_size == (1, kernel_size)
    torch.testing.assert_close(module(X), x + filtered(module.column, x, dilation) + filtered(module.row, x, dilation))


def test_inception_is_four_quarters():
    module = branch(design.Inception(5))
    x, y = module.norm(X), module(X)
    for index, taps in enumerate([(3, 3), (1, 5), (5, 1)]):
        part = slice(2 * index, 2 * index + 2)
        assert module.filters[index].kernel_size == taps
        torch.testing.assert_close(y[..., part], filtered(module.filters[index], x[..., part]))
    # Eleven channels have quarters of two; five stay.
    assert torch.equal(y[..., 6:], x[..., 6:])


def test_convnext_is_its_layers_in_a_row():
    module = branch(design.ConvNeXt(7, 0.1))
    hidden = module.widen(module.norm(filtered(module.filters, X)))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(module(X), module.scale * module.narrow(gelu))
    fresh = design.ConvNeXt(layer_scale=0.1).builder()(8, design.ConvNeXt(layer_scale=0.1), 0.0)
    assert (fresh.scale == 0.1).all()


def test_multi_scale_adds_up_three_sides():
    module = branch(design.MultiScale())
    assert [filters.kernel_size for filters in module.filters] == [(3, 3), (5, 5), (7, 7)]
    x = module.norm(X)
    torch.testing.assert_close(module(X), module.mixing(sum(filtered(filters, x) for filters in module.filters)))


def test_strips_are_crosses_over_what_is_near():
    module = branch(design.Strips())
    x = module.norm(X)
    near = slow_filter(x, module.near.weight, 0)
    seen = near
    for length, (row, column) in zip((7, 11, 21), module.crosses, strict=True):
        assert row.kernel_size == (1, length) and column.kernel_size == (length, 1)
        seen = seen + slow_filter(slow_filter(near, row.weight, 0), column.weight, 0)
    u = x + normed(module.batch_norm, seen @ module.mixing.weight.T)
    torch.testing.assert_close(module(X), u / (1 + (-u).exp()))


def normed(norm, x):
    """Batch norm by its running statistics, on channels that stand last."""
    scaled = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight
    return scaled if norm.bias is None else scaled + norm.bias


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (1, 1)])
def test_one_filter_does_what_three_were_trained_to(size):
    filters = branch(design.Reparametrised()).filters
    x = X[:, : size[0], : size[1]].clone().requires_grad_()
    apart = normed(filters.inner_norm, slow_filter(x, filters.filters.weight, 0)) + filters.weight * x + x
    expected = normed(filters.outer_norm, apart)
    torch.testing.assert_close(filters(x), expected, rtol=1e-12, atol=1e-12)
    # In training, as soon as the statistics no longer follow the batch, with the same gradients.
    training = filters.train()
    for norm in (training.inner_norm, training.outer_norm):
        norm.eval()
    torch.testing.assert_close(training(x), expected, rtol=1e-12, atol=1e-12)
    dout = torch.randn_like(expected)
    leaves = [x, *filters.parameters()]
    one = torch.autograd.grad(filters.eval()(x), leaves, dout)
    for ours, theirs in zip(one, torch.autograd.grad(expected, leaves, dout)):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_a_trained_reparametrised_branch_evaluates_as_one_filter():
    """Statistics followed real batches here, and the layer before and behind it are those of the branch."""
    torch.manual_seed(0)
    module = design.Reparametrised().builder()(6, design.Reparametrised(), 0.0).double().train()
    for _ in range(200):
        module(torch.randn(4, 5, 7, 6, dtype=torch.float64) + 1)
    x = torch.randn(64, 5, 7, 6, dtype=torch.float64) + 1
    trained, evaluated = module(x), module.eval()(x)
    assert (trained - evaluated).abs().mean() < 0.1 * evaluated.std()
    weight, bias = module.filters.fuse()
    seen = slow_filter(module.norm(x), weight, bias)
    gate = torch.sigmoid(module.gate.excite(F.silu(module.gate.squeeze(seen.mean((1, 2))))))
    torch.testing.assert_close(evaluated, module.mixing(seen * 2 * gate[:, None, None]))


def test_a_block_of_a_filter_each_beside_a_scan_is_that_of_h_vmunet():
    """Two halves, a depth-wise 3×3 filter and a scan, interleaved channel by channel, without the residual."""
    config = VariantConfig.from_dict(
        {"branches": [[0.5, {"depthwise": {"kernel_size": 3}}], [0.5, "ss2d"]], "dims": [12] * 4}
    )
    block = moved(build_model(config, num_classes=2).stages[0][0])
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    local, scanning = block.branches
    with torch.no_grad():
        local.mixing.weight.copy_(torch.eye(6))
        local.mixing.bias.zero_()
    interleaved = torch.empty_like(x)
    interleaved[..., 0::2] = filtered(local.filters, local.norm(x[..., :6]))
    with use_backend("portable"):
        interleaved[..., 1::2] = scanning(x[..., 6:])
        torch.testing.assert_close(block(x) - x, interleaved)


def test_an_inception_of_halves_is_the_published_block_without_its_shuffle():
    """InceptionMamba with a half through convolution and a half through the scan: side by side, and the residual."""
    config = VariantConfig.from_dict({"fusion": "concat", "dims": [12] * 4})
    block = moved(build_model(config, num_classes=2).stages[0][0])
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    local, scanning = block.branches
    with use_backend("portable"):
        torch.testing.assert_close(block(x), x + torch.cat([local(x[..., :6]), scanning(x[..., 6:])], -1))


@pytest.mark.parametrize("component", [design.Depthwise(9), design.Axial(9), design.Inception(9)])
def test_fresh_filters_keep_the_variance_of_noise(component):
    torch.manual_seed(0)
    module = component.builder()(256, component, 0.0)
    x = torch.randn(1, 40, 36, 256)
    if isinstance(component, design.Inception):
        filters, x = list(module.filters), x[..., :64]
    else:
        filters = [module.column, module.row] if isinstance(component, design.Axial) else [module.filters]
    for each in filters:
        inside = each(x)[:, 5:-5, 5:-5]
        assert inside.var().item() == pytest.approx(1, abs=0.25)


def test_identity_alone_has_no_weight_and_does_not_grow():
    """A network of nothing else is harmless: a stem, halvings and a head, the map growing by its norm a block."""
    config = VariantConfig.from_dict({"branches": [[1, "identity"]], "dims": [8, 16, 24, 32]})
    model = build_model(config, num_classes=2, seed=0)
    assert list(model.stages.parameters()) == []
    assert "drop_path_rate" in config.dead_axes()
    y = torch.randn(2, 5, 7, 8)
    ten = y
    for _ in range(10):
        ten = model.stages[0](ten)
    assert ten.std() < y.std() + 10 * 2 + 1
    module = model.stages[0][0].branches[0]
    normed = module(3 * y + 2)
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 5, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.square().mean(-1), torch.ones(2, 5, 7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("word", ["identity", "depthwise", "axial", "convnext", "multi_scale", "strips", "reparam"])
def test_one_channel_is_refused_where_a_norm_would_hide_it(word):
    with pytest.raises(ValueError, match=rf"^{word} must have at least two channels.*got 1 in stage 0"):
        VariantConfig.from_dict({"dims": [4, 8, 16, 32], "branches": [[0.75, "conv"], [0.25, word]]})


def test_inception_needs_a_channel_for_each_quarter():
    with pytest.raises(ValueError, match=r"inception must have at least four channels.*got 3 in stage 0"):
        VariantConfig.from_dict({"dims": [6, 12, 24, 48], "branches": [[0.5, "conv"], [0.5, "inception"]]})
