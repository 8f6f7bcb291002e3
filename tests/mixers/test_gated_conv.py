"""The gated convolution is the scan layer without its scan, to the last bits."""

import pytest
import torch

from medmamba_variants.config import VariantConfig
from medmamba_variants.design import gated, mixers
from medmamba_variants.parts.mixers import ss2d


@pytest.mark.parametrize(("expand", "d_conv"), [(2.0, 3), (1.5, 5), (1.0, 1)])
def test_it_is_the_scan_layer_whose_scan_is_the_identity(monkeypatch, expand, d_conv):
    torch.manual_seed(0)
    scanning = ss2d.SS2DBranch(6, mixers.SS2D(d_state=2, expand=expand, d_conv=d_conv), 0.0).double()
    component = gated.GatedConv(expand, d_conv)
    without = component.builder()(6, component, 0.0).double()
    with torch.no_grad():
        for parameter in scanning.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    of_scan = {"mixer.x_proj_weight", "mixer.dt_projs_weight", "mixer.dt_projs_bias", "mixer.A_logs", "mixer.Ds"}
    weights = {name: value for name, value in scanning.state_dict().items() if name not in of_scan}
    without.load_state_dict(weights)

    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    assert not torch.allclose(scanning(x), without(x), rtol=1e-3)
    monkeypatch.setattr(ss2d, "ss2d_scan", lambda tokens, *rest, **more: tokens)
    ours, theirs = without(x), scanning(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    expected = dict(scanning.named_parameters())
    for name, parameter in without.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-11, atol=1e-13)


def test_it_shares_the_axes_of_the_scan_layer():
    config = VariantConfig.from_dict({"branches": [[0.5, "conv"], [0.5, "gated_conv"]], "expand": 1, "d_conv": 5})
    given = {"expand": 1.0, "d_conv": 5, "inner_conv": "dw2d", "gate": "silu"}
    assert [mixer.own() for mixer in config.structure.stages[0].mixers] == [{}, given]
    assert set(config.dead_axes()) >= {"d_state", "scan_directions"}
    with pytest.raises(
        ValueError, match=r"gated_conv must have .*got 6, and 1 inner ones with expand=0.25, in stage 0"
    ):
        VariantConfig.from_dict({"dims": [12] * 4, "branches": [[0.5, "conv"], [0.5, "gated_conv"]], "expand": 0.25})
