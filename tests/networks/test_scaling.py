"""Networks scaled in width to the cost of another one."""

import pytest

from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.networks import read_network
from medmamba_variants.scaling import cost_at, factor_of, scaled_to, widths_of

NANO = PRESETS["nano"]


def to_nano(network, measure="macs", side=32, tolerance=0.02):
    return scaled_to(network, cost_at(NANO, measure, side), lambda n: cost_at(n, measure, side), tolerance)


@pytest.mark.parametrize("measure", ["macs", "params"])
@pytest.mark.parametrize(
    "values",
    [
        {"split_ratio": 0},
        {"split_ratio": 1},
        {"timm": "resnet18", "stem": "small"},
        {"timm": "mambaout_femto", "depths": [1, 1, 1, 1]},
    ],
)
def test_costs_meet_within_the_tolerance(values, measure):
    network = read_network(values) if "timm" in values else VariantConfig.from_dict(values, base=NANO)
    found = to_nano(network, measure)
    assert abs(cost_at(found, measure, 32) / cost_at(NANO, measure, 32) - 1) <= 0.02
    name, widths = widths_of(found)
    # Only widths move, and their proportions stay but for rounding.
    assert {k: v for k, v in found.diff().items() if k != name} == {
        k: v for k, v in network.diff().items() if k != name
    }
    before = widths_of(network)[1]
    ratios = [after / width for after, width in zip(widths, before)]
    assert factor_of(network, found) == pytest.approx(sum(ratios) / len(ratios))
    # Within a step of the coarsest rounding on the narrowest stage.
    assert max(ratios) - min(ratios) <= 8 / min(before)


def test_a_network_that_is_near_enough_stays():
    assert to_nano(NANO) is NANO
    wider = VariantConfig.from_dict({"dims": [32, 64, 132]}, base=NANO)
    assert to_nano(wider, tolerance=0.1) is wider


def test_widths_that_are_refused_give_way_to_the_next():
    # Three heads: an embedding must be a multiple of three.
    vit = read_network({"timm": "vit_tiny_patch16_224", "patch_size": 4, "depth": 2})
    found = to_nano(vit, tolerance=0.05)
    assert widths_of(found)[1] % 3 == 0
    assert abs(cost_at(found, "macs", 32) / cost_at(NANO, "macs", 32) - 1) <= 0.05


@pytest.mark.parametrize(
    ("values", "tolerance", "words"),
    [
        ({"timm": "efficientnet_b0"}, 0.02, "must have a setting of its widths to be scaled, one of dims"),
        ({"timm": "poolformer_s12"}, 0.02, "got no width that makes a network (must be settings that timm's"),
        ({"timm": "resnet18", "stem": "small"}, 1e-6, "must come within 1e-06 of the cost to match, got"),
    ],
)
def test_what_cannot_be_scaled_is_said_in_one_line(values, tolerance, words):
    with pytest.raises(ValueError) as caught:
        to_nano(read_network(values), tolerance=tolerance)
    assert words in str(caught.value) and "\n" not in str(caught.value)
