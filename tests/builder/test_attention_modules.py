"""Attention modules are their equations, start near one, and weigh what they say."""

import pytest
import torch
from scipy.fft import dctn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.wraps.attentions import ATTENTIONS, WAVES, EfficientChannels
from medmamba_variants.parts.attention import waves

pytestmark = pytest.mark.usefixtures("one_thread")


def built(word, channels=8, moved=0.3, **axes):
    torch.manual_seed(0)
    component = ATTENTIONS[word](**axes)
    module = component.builder()(channels, component).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    return module


def maps(channels=8, height=5, width=4):
    return torch.randn(2, height, width, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("word", ATTENTIONS)
def test_a_fresh_gate_is_about_one(word):
    x = maps()
    gate = built(word, moved=0.0)(x) / x
    assert 0.3 < gate.min() <= gate.max() < 1.9


@pytest.mark.parametrize("word", ["squeeze_excite", "eca", "dual_pooling", "gct", "spectral"])
def test_gates_on_channels_are_alike_at_every_place(word):
    x = maps()
    gate = built(word)(x) / x
    torch.testing.assert_close(gate, gate[:, :1, :1].expand_as(gate))
    assert gate.std(-1).min() > 0


def test_gates_on_places_are_alike_in_every_channel():
    x = maps()
    gate = built("spatial")(x) / x
    torch.testing.assert_close(gate, gate[..., :1].expand_as(gate))


def test_eca_is_a_filter_over_the_means():
    module, x = built("eca"), maps()
    padded = F.pad(x.mean((1, 2)), (1, 1))
    taps = module.filter.weight.flatten()
    gate = 2 * torch.sigmoid(sum(taps[index] * padded[:, index : index + 8] for index in range(3)))
    torch.testing.assert_close(module(x), x * gate[:, None, None])
    # As in the paper: 3 taps of 64 channels, 5 of 128 to 512, odd.
    assert [EfficientChannels().taps(channels) for channels in (8, 64, 128, 512, 2048)] == [3, 3, 5, 5, 7]


def test_cbam_weighs_channels_then_places():
    module, x = built("cbam"), maps()
    torch.testing.assert_close(module(x), module.places(module.channels(x)))
    shared = module.channels

    def bottleneck(value):
        return F.silu(value @ shared.squeeze.weight.T) @ shared.excite.weight.T

    gate = 2 * torch.sigmoid(bottleneck(x.mean((1, 2))) + bottleneck(x.amax((1, 2))))
    torch.testing.assert_close(shared(x), x * gate[:, None, None])


def test_gct_is_its_equation():
    module, x = built("gct"), maps()
    energy = module.alpha * (x.pow(2).sum((1, 2)) + 1e-5) ** 0.5
    common = energy / (energy.pow(2).mean(-1, keepdim=True) + 1e-5) ** 0.5
    torch.testing.assert_close(module(x), x * (1 + torch.tanh(module.gamma * common + module.beta))[:, None, None])
    fresh = built("gct", moved=0.0)
    torch.testing.assert_close(fresh(x), x)


def test_ema_group_by_group():
    module, x = built("ema", attention_groups=2), maps()
    for group, part in enumerate(x.split(4, -1)):
        rows, columns = module.strips(part.mean(2)), module.strips(part.mean(1))
        wide = module.norm(part * 2 * rows.sigmoid()[:, :, None] * 2 * columns.sigmoid()[:, None])
        near = F.conv2d(part.permute(0, 3, 1, 2), module.local.weight, module.local.bias, padding=1).permute(0, 2, 3, 1)
        seen = (near * wide.mean((1, 2), keepdim=True).softmax(-1)).sum(-1, keepdim=True)
        seen = seen + (wide * near.mean((1, 2), keepdim=True).softmax(-1)).sum(-1, keepdim=True)
        expected = part * 2 * seen.sigmoid()
        torch.testing.assert_close(module(x)[..., 4 * group : 4 * group + 4], expected)


def test_waves_are_those_of_the_cosine_transform():
    x = maps(16, 6, 5)
    table = waves(6, 5, 16, torch.device("cpu")).double()
    for channel in (0, 3, 9, 15):
        down, across = WAVES[channel // 2]
        expected = dctn(x[0, :, :, channel].numpy(), type=2)[down, across] / 4
        assert (x[0, :, :, channel] * table[:, :, channel]).sum().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"attention": "ema", "attention_groups": 5},
            "attention_groups must divide the 16 channels that ema weighs, got",
        ),
        (
            {"attention": "squeeze_excite", "fusion": "concat"},
            "attention must be none where fusion=squeeze_excite is the same as it after concat",
        ),
        ({"attention": "ema", "attention_groups": 16}, "attention_groups must leave ema two channels a group, got 16"),
    ],
)
def test_impossible_groups_are_refused(axes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        VariantConfig.from_dict({"depths": [1], "dims": [16], **axes})
