"""Scans over other planes of a map: each is the scan layer on the turned map, in double precision."""

import pytest
import torch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design.scan_mixer import SCANNED
from medmamba_variants.design.scan_mixer import TensorScan as Component
from medmamba_variants.macs import closed_form_macs
from medmamba_variants.parts.mixers.ss2d import SS2D
from medmamba_variants.parts.mixers.tensor_scan import TensorScan, averaged, spread

SIZES = [(1, 1), (1, 5), (5, 7), (6, 4)]


def layer(**axes):
    torch.manual_seed(0)
    module = TensorScan(6, Component(d_state=3, **axes)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def a_map(*size):
    return torch.randn(2, *size, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pooled(x, *size):
    return F.adaptive_avg_pool2d(x, size)


def nearest(x, *size):
    return F.interpolate(x, size=size, mode="nearest")


def by_hand(axes, scan, x, bins):
    """A plane or line of x (batch, height, width, channels), scanned by `scan` as a map, one axis after another."""
    batch, height, width, channels = x.shape
    first = x.permute(0, 3, 1, 2)
    if axes == "hw":
        return scan(x)
    if axes == "h":
        return torch.stack([scan(x[:, :, column : column + 1])[:, :, 0] for column in range(width)], 2)
    if axes == "w":
        return torch.stack([scan(x[:, row, :, None])[:, :, 0] for row in range(height)], 1)
    if axes == "ch":
        return nearest(scan(pooled(first, height, bins)), height, width).permute(0, 2, 3, 1)
    if axes == "cw":
        y = scan(pooled(first, bins, width).transpose(2, 3)).transpose(2, 3)
        return nearest(y, height, width).permute(0, 2, 3, 1)
    features = pooled(first, bins, bins).transpose(2, 3).reshape(batch, channels, 1, bins * bins)
    y = scan(features).reshape(batch, channels, bins, bins).transpose(2, 3)
    return nearest(y, height, width).permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("choice", SCANNED)
def test_each_plane_is_the_scan_of_the_turned_map(choice, size):
    module, x = layer(scan_axes=choice, axis_bins=3), a_map(*size)
    outputs = [by_hand(axes, scan, x, 3) for axes, scan in zip(SCANNED[choice], module.layers, strict=True)]
    torch.testing.assert_close(module(x), sum(outputs) / len(outputs))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("bins", [2, 3, 5])
def test_bins_are_those_of_adaptive_pooling(size, bins):
    x = torch.randn(2, 3, 4, size, dtype=torch.float64)
    torch.testing.assert_close(averaged(x, bins), pooled(x, 4, bins))
    torch.testing.assert_close(spread(averaged(x, bins), size), nearest(pooled(x, 4, bins), 4, size))


def test_parameters_do_not_depend_on_the_size_of_the_image():
    module = layer()
    assert module(a_map(5, 7)).shape == (2, 5, 7, 6) and module(a_map(9, 4)).shape == (2, 9, 4, 6)


@pytest.mark.parametrize("choice", SCANNED)
@pytest.mark.parametrize(
    "more", [{}, {"scan_directions": "rows"}, {"routing": "top_k"}, {"token_reduction": "quarter"}]
)
def test_closed_form(choice, more):
    branches = [[0.5, "conv"], [0.5, "tensor_scan"]]
    config = VariantConfig.from_dict({"branches": branches, "scan_axes": choice, **more}, base="nano")
    asked = {"image_size": (28, 44), "num_classes": 3, "in_channels": 3}
    assert closed_form_macs(config, **asked) == count_cost(config, **asked).macs


def test_too_narrow_lines_are_refused():
    branches = [[0.5, "conv"], [0.5, "tensor_scan"]]
    with pytest.raises(
        ValueError, match=r"tensor_scan must have at least two channels and two inner ones.*got 4, and 1"
    ):
        VariantConfig.from_dict({"branches": branches, "expand": 0.25})


@pytest.mark.parametrize("choice", SCANNED)
def test_fresh_scans_speak_about_as_loudly_as_that_of_rows_and_columns(choice):
    torch.manual_seed(0)
    # Neighbours are alike, as in a map: averages of noise alone would be small.
    x = torch.randn(8, 1, 1, 48) + 0.5 * torch.randn(8, 7, 9, 48)
    loud = SS2D(48, Component())(x).std()
    module = TensorScan(48, Component(scan_axes=choice))
    for axes, scan in zip(SCANNED[choice], module.layers, strict=True):
        assert 0.25 < by_hand(axes, scan, x, 4).std() / loud < 4, axes
