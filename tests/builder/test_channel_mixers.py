"""Channel mixers are their equations, written plainly in double precision."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.nn import functional as F

from medmamba_variants.design.wraps.channel_mixers import CHANNEL_MIXERS
from medmamba_variants.parts.rational import IDENTITY, SILU, Rational, cubic_spline

pytestmark = pytest.mark.usefixtures("one_thread")


def built(word, channels=6, **axes):
    torch.manual_seed(0)
    component = CHANNEL_MIXERS[word](**axes)
    mixer = component.builder()(channels, component).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def maps(channels=6):
    return torch.randn(2, 3, 4, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def filtered(layer, x):
    return F.conv2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=1, groups=x.shape[-1]).permute(0, 2, 3, 1)


def test_swiglu():
    mixer, x = built("swiglu", mlp_ratio=2.0), maps()
    gate = x @ mixer.gate.weight.T + mixer.gate.bias
    value = x @ mixer.value.weight.T + mixer.value.bias
    torch.testing.assert_close(mixer(x), mixer.narrow(gate * gate.sigmoid() * value))


def test_convglu():
    mixer, x = built("convglu", mlp_ratio=0.5), maps()
    torch.testing.assert_close(mixer(x), mixer.narrow(F.gelu(filtered(mixer.filters, mixer.gate(x))) * mixer.value(x)))


def test_conv_ffn():
    mixer, x = built("conv_ffn"), maps()
    torch.testing.assert_close(mixer(x), mixer.narrow(F.gelu(filtered(mixer.filters, mixer.widen(x)))))


def test_the_spline_is_that_of_scipy():
    knots = np.arange(-2.0, 3.0)
    x = np.linspace(-1.99, 1.99, 41)
    expected = BSpline.basis_element(knots)(x)
    np.testing.assert_allclose(cubic_spline(torch.from_numpy(x)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("grid", [1, 3, 5])
def test_a_kan_layer_sums_a_function_for_every_pair_of_channels(grid):
    layer, x = built("kan", spline_grid=grid, mlp_ratio=1.0).widen, maps().clamp(-1.9, 1.9)
    knots = -2 + 4 / grid * np.arange(-3, grid + 4)
    weights = layer.mixing.weight.detach().view(6, 6, -1)
    expected = torch.zeros_like(x)
    for out in range(6):
        for channel in range(6):
            value = x[..., channel]
            spline = BSpline(knots, weights[out, channel, 1:].numpy(), 3)
            expected[..., out] += weights[out, channel, 0] * F.silu(value) + torch.from_numpy(spline(value.numpy()))
    torch.testing.assert_close(layer(x), expected)


def test_rational_functions_start_as_identity_and_silu():
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None].expand(-1, 12)
    torch.testing.assert_close(Rational(12, IDENTITY).double()(x), x)
    torch.testing.assert_close(Rational(12, SILU).double()(x), F.silu(x), atol=1e-4, rtol=0)


def test_a_rational_function_is_its_quotient_by_group():
    rational = Rational(12, SILU).double()
    # Six groups of two: eight do not divide twelve.
    assert rational.groups == 6
    with torch.no_grad():
        for parameter in rational.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = maps(12)
    for channel in range(12):
        a, b = rational.numerator[channel // 2], rational.denominator[channel // 2]
        value = x[..., channel]
        above = sum(a[power] * value**power for power in range(6))
        below = 1 + sum(b[power] * value ** (power + 1) for power in range(4)).abs()
        torch.testing.assert_close(rational(x)[..., channel], above / below)


def test_soft_mixture_of_experts():
    mixer, x = built("soft_moe", experts=3, slots=2, mlp_ratio=2.0), maps()
    tokens, phi = x.flatten(1, 2), mixer.phi / mixer.phi.norm(dim=0) * mixer.scale
    scores = (tokens / tokens.norm(dim=-1, keepdim=True)) @ phi
    dispatch, combine = scores.softmax(1), scores.softmax(2)
    made = []
    for slot in range(6):
        expert = slot // 2
        held = (dispatch[:, :, slot, None] * tokens).sum(1)
        hidden = F.gelu(held @ mixer.widen[expert] + mixer.widen_bias[expert])
        made.append(hidden @ mixer.narrow[expert] + mixer.narrow_bias[expert])
    expected = combine @ torch.stack(made, 1)
    torch.testing.assert_close(mixer(x), expected.view(x.shape))


def test_one_expert_of_one_slot_is_an_mlp_of_a_mean():
    """With a single slot every position gets what the expert makes of the weighted mean."""
    mixer, x = built("soft_moe", experts=1, slots=1), maps()
    assert (mixer(x) - mixer(x)[:, :1, :1]).abs().max() < 1e-12
