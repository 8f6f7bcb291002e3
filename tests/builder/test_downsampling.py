"""Ways of halving a map: each by hand, what separates them from patch merging, and parameters that match it."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design import joints
from medmamba_variants.design.joints import HALVINGS
from medmamba_variants.model import build_model

X = torch.randn(2, 6, 10, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def halving(component, before=5, after=7):
    """A halving in double precision, its parameters away from their first values."""
    torch.manual_seed(0)
    module = component.builder()(before, after, component).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def parameters(component, before, after):
    return sum(parameter.numel() for parameter in component.builder()(before, after, component).parameters())


@pytest.mark.parametrize("word", [word for word, kind in HALVINGS.items() if kind.halves])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 8), (6, 4)])
def test_every_halving_halves_and_trains(word, height, width):
    module = halving(HALVINGS[word]())
    x = X[:, :height, :width].clone().requires_grad_()
    y = module(x)
    assert y.shape == (2, height // 2, width // 2, 7)
    y.square().sum().backward()
    assert all(each.grad.isfinite().all() for each in (x, *module.parameters()))
    assert x.grad.abs().amin((0, 3)).gt(0).all() or word == "max_pool"


def test_haar_is_patch_merging_in_an_orthogonal_basis():
    """Without their norms, the product of one with an orthogonal matrix is that of the other."""
    merging, bands = halving(joints.PatchMerging()), halving(joints.HaarBands())
    merging.norm = bands.norm = nn.Identity()
    # Pixels go down the columns of a patch; bands are LL, LH (left less right), HL (upper less lower), HH.
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    basis = torch.kron(signs, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(basis @ basis.T, torch.eye(20, dtype=torch.float64))
    with torch.no_grad():
        bands.reduction.weight.copy_(merging.reduction.weight @ basis.T)
    torch.testing.assert_close(bands(X), merging(X))


def test_conv2_is_patch_merging_with_its_norm_before_the_patches():
    merging, conv = halving(joints.PatchMerging()), halving(joints.PatchConv())
    merging.norm = nn.Identity()
    with torch.no_grad():
        merging.reduction.weight.copy_(conv.reduction.weight.permute(0, 3, 2, 1).flatten(1))
    torch.testing.assert_close(conv(X), merging(conv.norm(X)))


def test_blur_pool_blurs_before_it_leaves_out():
    module = halving(joints.BlurPool())
    # Mirrored at the edge: the row before the first is the second.
    mirrored = torch.cat([X[:, 1:2], X, X[:, -2:-1]], 1)
    mirrored = torch.cat([mirrored[:, :, 1:2], mirrored, mirrored[:, :, -2:-1]], 2)
    down = (mirrored[:, :-2:2] + 2 * mirrored[:, 1:-1:2] + mirrored[:, 2::2]) / 4
    blurred = (down[:, :, :-2:2] + 2 * down[:, :, 1:-1:2] + down[:, :, 2::2]) / 4
    torch.testing.assert_close(module(X), module.reduction(module.norm(blurred)))
    # A pattern that changes from pixel to pixel is gone, where every second pixel of it is all of one sign.
    pattern = torch.ones(1, 6, 10, 5, dtype=torch.float64)
    pattern[:, ::2] = -1
    assert module.blur(pattern.permute(0, 3, 1, 2)).abs().max() < 1e-12


def test_inverted_is_its_layers_in_a_row():
    module = halving(joints.Inverted(inverted_ratio=2))
    wide = F.relu(module.norm(X) @ module.widen.weight.T + module.widen.bias)
    assert wide.shape[-1] == 14
    padded = F.pad(wide, (0, 0, 1, 1, 1, 1))
    taps = module.filters.weight[:, 0]
    seen = sum(padded[:, i : i + 6 : 2, j : j + 10 : 2] * taps[:, i, j] for i in range(3) for j in range(3))
    torch.testing.assert_close(module(X), F.relu(seen + module.filters.bias) @ module.reduction.weight.T)


@pytest.mark.parametrize("kind", [joints.MaxPool, joints.AveragePool, joints.BlurPool])
def test_a_matched_pool_has_the_parameters_of_patch_merging(kind):
    matched = kind(pool_product="matched")
    for before, after in itertools.product((2, 5, 24, 96, 384), (8, 48, 192, 768)):
        missing = parameters(joints.PatchMerging(), before, after) - parameters(matched, before, after)
        # To the nearest channel between its products.
        assert abs(missing) <= (before + after) / 2
    # To a thousandth, and with the multiply-adds of patch merging to a hundredth, where sizes are the published ones.
    assert parameters(matched, 96, 192) == pytest.approx(parameters(joints.PatchMerging(), 96, 192), rel=1e-3)
    assert matched.macs(96, 192, 7, 7) == pytest.approx(joints.PatchMerging().macs(96, 192, 7, 7), rel=0.02)
    module = halving(matched)
    pooled = module.norm(module.pool(X.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))
    hidden = pooled @ module.widen.weight.T
    torch.testing.assert_close(module(X), (hidden * torch.sigmoid(hidden)) @ module.reduction.weight.T)


def test_published_networks_with_matched_pools_are_as_large():
    sizes = {
        word: count_cost(VariantConfig.from_dict(difference), image_size=64, num_classes=2).params
        for word, difference in {
            "merging": {},
            "single": {"downsampling": "average_pool"},
            "matched": {"downsampling": "average_pool", "pool_product": "matched"},
        }.items()
    }
    assert sizes["matched"] == pytest.approx(sizes["merging"], rel=1e-4)
    assert sizes["merging"] - sizes["single"] > 1_000_000


def test_fresh_halvings_speak_about_as_loudly_as_the_pools():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 12, 48)
    loudness = {word: HALVINGS[word]().builder()(48, 96, HALVINGS[word]())(x).std().item() for word in HALVINGS}
    matched = joints.AveragePool(pool_product="matched")
    loudness["matched"] = matched.builder()(48, 96, matched)(x).std().item()
    low, high = loudness["average_pool"] / 1.5, loudness["strided_conv"] * 1.5
    assert all(low < each < high for each in loudness.values()), loudness


def test_axes_of_halvings_may_differ_from_one_to_the_next_and_have_one_id():
    base = {"downsampling": ["average_pool", "inverted", "max_pool"]}
    each = VariantConfig.from_dict(base | {"pool_product": ["matched", "single", "matched"], "inverted_ratio": 2})
    assert each.pool_product == "matched" and each.inverted_ratio == 2
    one = VariantConfig.from_dict(base | {"pool_product": ["matched", "matched", "single"]})
    assert [halving.own() for halving in one.structure.halvings] == [
        {"pool_product": "matched"},
        {"inverted_ratio": 4.0},
        {"pool_product": "single"},
    ]
    assert VariantConfig.from_dict(one.diff()) == one
    model = build_model(one, num_classes=2)
    assert hasattr(model.downsamplings[0].reduce, "widen") and not hasattr(model.downsamplings[2].reduce, "widen")


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"pool_product": "matched"}, "pool_product must be left out .*downsampling is not max_pool, average_pool or"),
        ({"downsampling": "inverted", "pool_product": "matched"}, "pool_product must be left out"),
        ({"depths": [1], "dims": [8], "inverted_ratio": 2}, "inverted_ratio must be left out .*a single stage"),
        (
            {"downsampling": "max_pool", "pool_product": ["matched", "single", "matched", "single"]},
            "pool_product must have one entry for each of 3 halvings, got 4",
        ),
    ],
)
def test_axes_of_other_halvings_are_refused(difference, message):
    with pytest.raises(ValueError, match=message):
        VariantConfig.from_dict(difference)


def test_stages_without_a_halving_between_them_are_one_stage():
    """So blocks of different kinds may follow each other on one map (VMAXL-UNet, MambaVision)."""
    whole = {"depths": [2], "dims": [16], "patch_size": 2, "drop_path_rate": 0.0}
    parts = whole | {"depths": [1, 1], "dims": [16, 16], "downsampling": "none"}
    one, two = (build_model(VariantConfig.from_dict(axes), num_classes=3, seed=0).eval() for axes in (whole, parts))
    two.stem.load_state_dict(one.stem.state_dict())
    two.head.load_state_dict(one.head.state_dict())
    for stage, block in zip(two.stages, one.stages[0]):
        stage[0].load_state_dict(block.state_dict())
    images = torch.randn(2, 3, 18, 26)
    torch.testing.assert_close(two(images), one(images))
    # Odd maps of 9×13 stay odd.
    assert two.config.map_sizes(18, 26) == [(9, 13), (9, 13)]
    with pytest.raises(ValueError, match=r"^odd_maps must be left out where it has no effect: downsampling is none"):
        VariantConfig.from_dict(parts | {"odd_maps": "pad"})


def test_channels_change_without_a_halving_by_a_linear_map():
    module = halving(joints.Stay())
    torch.testing.assert_close(module(X), X @ module.reduction.weight.T)
