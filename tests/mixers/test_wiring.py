"""Mamba's wiring: the convolution before the operator, and how the gate's half meets its output."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.gated import GatedConv

WORDS = ["ss2d", "gated_conv", "ssd", "nc_ssd"]


@pytest.mark.parametrize("conv", ["dw2d", "causal1d", "same1d", "partial", "none"])
def test_inner_convolutions_by_hand(conv):
    torch.manual_seed(0)
    component = GatedConv(inner_conv=conv)
    module = component.builder()(6, component, 0.0).double().mixer
    seen = torch.randn(2, 4, 5, 12, dtype=torch.float64)
    got = module.convolved(seen)
    expected = seen.clone()
    if conv != "none":
        weight, bias = module.conv2d.weight, module.conv2d.bias
    for b, i, j, c in itertools.product(range(2), range(4), range(5), range(12)):
        total = None
        if conv == "dw2d" or (conv == "partial" and c < 6):
            total = bias[c] + sum(
                weight[c, 0, p, q] * seen[b, i + p - 1, j + q - 1, c]
                for p, q in itertools.product(range(3), range(3))
                if 0 <= i + p - 1 < 4 and 0 <= j + q - 1 < 5
            )
        elif conv in ("causal1d", "same1d"):
            taps, before = (4, 3) if conv == "causal1d" else (3, 1)
            at = i * 5 + j - before
            total = bias[c] + sum(
                weight[c, 0, t] * seen[b].flatten(0, 1)[at + t, c] for t in range(taps) if 0 <= at + t < 20
            )
        if total is not None:
            expected[b, i, j, c] = total
    torch.testing.assert_close(got, F.silu(expected))


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("gate", ["silu", "linear", "concat", "none"])
def test_gates(word, gate):
    config = VariantConfig.from_dict({"branches": [[0.5, "conv"], [0.5, word]], "gate": gate})
    component = config.structure.stages[0].mixers[1]
    module = component.builder()(8, component, 0.0).double().mixer
    y, z = torch.randn(2, 2, 3, 5, 16, dtype=torch.float64)
    if gate == "none":
        z = z[..., :0]
    joined = module.joined(y, z)
    if gate == "concat":
        taps = module.gate_conv.weight, module.gate_conv.bias
        beside = F.silu(F.conv2d(z.permute(0, 3, 1, 2), *taps, padding=1, groups=16))
        beside = F.layer_norm(beside.permute(0, 2, 3, 1), (16,))
        expected = y @ module.out_proj.weight[:, :16].T + beside @ module.out_proj.weight[:, 16:].T
    else:
        factor = {"silu": lambda: z * z.sigmoid(), "linear": lambda: z, "none": lambda: 1}[gate]()
        expected = (y * factor) @ module.out_proj.weight.T
    torch.testing.assert_close(joined, expected, rtol=1e-9, atol=1e-12)
    assert module(torch.randn(1, 3, 1, 8, dtype=torch.float64)).shape == (1, 3, 1, 8)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"inner_conv": "none", "d_conv": 5},
            "^d_conv must be left out .*inner_conv is causal1d or none; got",
        ),
        ({"inner_conv": "causal1d", "d_conv": 1}, "^d_conv must be left out .*inner_conv is causal1d or"),
        ({"inner_conv": "same1d", "d_conv": 1}, "^inner_conv must be dw2d where d_conv is 1"),
    ],
)
@pytest.mark.parametrize("word", WORDS)
def test_choices_without_effect_are_refused(word, axes, message):
    with pytest.raises(ValueError, match=message):
        VariantConfig.from_dict({"branches": [[0.5, "conv"], [0.5, word]]} | axes)
