"""Convolutions that meet in products of any order, or in the sums of released code: told again in plain terms."""

import pytest
import torch
from moved import moved_branch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.local import products as design

X = torch.randn(2, 5, 7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def met(one, other, combine):
    return one * other if combine == "product" else one + other


def filtered(filters, x):
    y = F.conv2d(x.permute(0, 3, 1, 2), filters.weight, padding=filters.kernel_size[0] // 2, groups=filters.groups)
    return y.permute(0, 2, 3, 1) + filters.bias


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_the_first_order_is_the_gated_convolution(combine):
    module = moved_branch(design.HighOrder(5, 1, combine), 11)
    value, gate = module.entering(module.norm(X)).chunk(2, dim=-1)
    torch.testing.assert_close(module(X), module.mixing(met(value, filtered(module.filters, gate), combine)))


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize(("order", "widths"), [(2, (5, 11)), (3, (2, 5, 11)), (4, (1, 2, 5, 11))])
def test_higher_orders_multiply_wider_and_wider_factors(order, widths, combine):
    module = moved_branch(design.HighOrder(3, order, combine), 11)
    y = module.entering(module.norm(X))
    p, factors = y[..., : widths[0]], filtered(module.filters, y[..., widths[0] :])
    start = 0
    for index, width in enumerate(widths):
        if index:
            layer = module.widening[index - 1]
            p = p @ layer.weight.T + layer.bias
        p = met(p, factors[..., start : start + width], combine)
        start += width
    assert start == factors.shape[-1]
    torch.testing.assert_close(module(X), module.mixing(p))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_fresh_products_keep_the_variance(order):
    torch.manual_seed(0)
    component = design.HighOrder(interaction_order=order)
    module = component.builder()(256, component, 0.0)
    module.mixing = torch.nn.Identity()
    y = module(torch.randn(4, 30, 26, 256))[:, 4:-4, 4:-4]
    # Heavy-tailed as products are, and over few first channels for a high order.
    assert y.std().item() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_the_gated_spatial_convolution_is_its_layers(combine):
    module = moved_branch(design.GatedSpatial(combine), 11)

    def layer(sequence, x):
        convolution, norm, _ = sequence
        y = F.conv2d(x, convolution.weight, padding=convolution.kernel_size[0] // 2)
        y = (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
        return (y * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)

    x = module.norm(X).permute(0, 3, 1, 2)
    first, second = module.spatial
    y = layer(module.mixing, met(layer(second, layer(first, x)), layer(module.gate, x), combine))
    torch.testing.assert_close(module(X), (x + y).permute(0, 2, 3, 1))


def test_an_order_needs_channels_for_its_first_factor():
    deep = {"dims": [12, 24, 48, 96], "branches": [[0.5, "conv"], [0.5, "high_order"]], "interaction_order": 4}
    with pytest.raises(
        ValueError, match=r"^interaction_order must leave a channel .*1/2\^3 .*for 6 channels in stage 0"
    ):
        VariantConfig.from_dict(deep)
    assert VariantConfig.from_dict(deep | {"interaction_order": [3, 4, 5, 5]}).interaction_order == (3, 4, 5, 5)


@pytest.mark.parametrize("word", ["gsc", "high_order"])
def test_one_channel_is_refused_where_a_norm_would_hide_it(word):
    with pytest.raises(ValueError, match=rf"^{word} must have at least two channels.*got 1 in stage 0"):
        VariantConfig.from_dict({"dims": [4, 8, 16, 32], "branches": [[0.75, "conv"], [0.25, word]]})


def test_the_first_order_of_scans_is_one_gated_scan():
    module = moved_branch(design.HighOrderScan(d_state=2, interaction_order=1), 6)
    x = X[..., :6]
    value, factor = module.entering(module.norm(x)).chunk(2, dim=-1)
    gated = module.norms[0](value * filtered(module.filters, factor))
    torch.testing.assert_close(module(x), module.scans[0](gated))


def test_higher_orders_scan_wider_and_wider_products():
    module = moved_branch(design.HighOrderScan(d_state=2, interaction_order=2), 8)
    x = X[..., :8]
    first, *factors = module.entering(module.norm(x)).split([4, 4, 8], dim=-1)
    factors = filtered(module.filters, torch.cat(factors, -1)).split([4, 8], dim=-1)
    p = module.scans[0](module.norms[0](first * factors[0]))
    p = module.scans[1](module.norms[1](module.widening[0](p) * factors[1]))
    torch.testing.assert_close(module(x), p)


def test_every_factor_of_scans_has_channels_to_norm():
    assert design.HighOrderScan(interaction_order=5).widths(12) == (2, 2, 3, 6, 12)
    with pytest.raises(ValueError, match=r"^h_ss2d must have at least two channels.*got 1"):
        VariantConfig.from_dict({"dims": [4, 8, 16, 32], "branches": [[0.25, "h_ss2d"], [0.75, "conv"]]})
