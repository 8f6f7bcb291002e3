"""Filters that adapt: each choice told again position by position, and what is left where nothing adapts."""

import itertools
import math

import pytest
import torch
from moved import moved, moved_branch
from timm.layers.selective_kernel import SelectiveKernelAttn
from torch import nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.local import adaptive as design
from medmamba_variants.parts.mixers.adaptive import dilate
from medmamba_variants.parts.selection import Selection

X = torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_selection_is_timms():
    """With the same weights, no offsets and no norm in the bottleneck."""
    selection = moved(Selection(3, 6))
    theirs = SelectiveKernelAttn(6, 3, 4, act_layer=nn.SiLU, norm_layer=nn.Identity).double()
    with torch.no_grad():
        for ours, layer in ((selection.squeeze, theirs.fc_reduce), (selection.choose, theirs.fc_select)):
            layer.weight.copy_(ours.weight[:, :, None, None])
            ours.bias.zero_()
    maps = [X, X.flip(1), X.square()]
    stacked = torch.stack(maps, 1).permute(0, 1, 4, 2, 3)
    expected = (theirs(stacked) * stacked).sum(1).permute(0, 2, 3, 1)
    torch.testing.assert_close(selection(maps), expected)


def test_a_selection_of_one_is_that_one():
    torch.testing.assert_close(moved(Selection(1, 6))([X]), X, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dilations", [2, 3])
def test_selective_kernel_is_a_mixture_of_dilations(dilations):
    module = moved_branch(design.SelectiveKernel(dilations), 6)
    x = module.norm(X).permute(0, 3, 1, 2)
    maps = []
    for apart, filters in enumerate(module.filters, start=1):
        seen = F.conv2d(x, filters.weight, filters.bias, padding=apart, dilation=apart, groups=6)
        maps.append((seen / (1 + (-seen).exp())).permute(0, 2, 3, 1))
    held = sum(each.mean((1, 2)) for each in maps)
    logits = module.selection.choose(F.silu(module.selection.squeeze(held))).unflatten(1, (dilations, 6)).exp()
    chosen = sum(each * (logits[:, i] / logits.sum(1))[:, None, None] for i, each in enumerate(maps))
    torch.testing.assert_close(module(X), module.mixing(chosen))


def sampled(image, row, column):
    """The bilinear value of an image (height, width, channels) at a place, nothing lying outside it."""
    total = torch.zeros_like(image[0, 0])
    for i, j in itertools.product((math.floor(row), math.floor(row) + 1), (math.floor(column), math.floor(column) + 1)):
        if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
            total = total + (1 - abs(row - i)) * (1 - abs(column - j)) * image[i, j]
    return total


@torch.no_grad()
def test_deformable_taps_lie_where_the_offsets_put_them():
    module = moved_branch(design.Deformable(), 6, by=0.2)
    x = module.norm(X)
    offsets = F.conv2d(x.permute(0, 3, 1, 2), module.offsets.weight, module.offsets.bias, padding=1)
    assert offsets.abs().max() > 1
    expected = module.bias.expand_as(X).clone()
    for image, row, column, tap in itertools.product(range(2), range(5), range(7), range(9)):
        down, right = offsets[image, 2 * tap : 2 * tap + 2, row, column].tolist()
        place = (row + tap // 3 - 1 + down, column + tap % 3 - 1 + right)
        expected[image, row, column] += module.weight[:, :, tap // 3, tap % 3] @ sampled(x[image], *place)
    torch.testing.assert_close(module(X), expected)


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (1, 1)])
def test_deformable_without_offsets_is_its_convolution(size):
    """So it is when fresh, and offsets learn from there."""
    torch.manual_seed(0)
    module = design.Deformable().builder()(6, design.Deformable(), 0.0).double()
    x = X[:, : size[0], : size[1]]
    plain = F.conv2d(module.norm(x).permute(0, 3, 1, 2), module.weight, module.bias, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(module(x), plain)
    module(x).square().sum().backward()
    assert module.offsets.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("kernel_size", "kernels"), [(3, 1), (5, 4)])
def test_dynamic_kernels_are_mixed_for_each_image(kernel_size, kernels):
    module = moved_branch(design.Dynamic(kernel_size, kernels), 6)
    x = module.norm(X)
    shares = torch.sigmoid(module.routing(x.mean((1, 2))))
    assert not torch.allclose(shares[0], shares[1])
    expected = []
    for image, own in zip(x, shares):
        weight = sum(share * each for share, each in zip(own, module.filters.weight)).view(6, 1, *[kernel_size] * 2)
        bias = sum(share * each for share, each in zip(own, module.filters.bias))
        seen = F.conv2d(image.permute(2, 0, 1)[None], weight, bias, padding=kernel_size // 2, groups=6)
        expected.append(module.mixing(seen[0].permute(1, 2, 0)))
    torch.testing.assert_close(module(X), torch.stack(expected))


@torch.no_grad()
@pytest.mark.parametrize("size", [(5, 7), (1, 6), (1, 1)])
def test_morphology_is_the_largest_sum_and_the_smallest_difference(size):
    module = moved_branch(design.Morphology(), 6)
    x = module.norm(X[:, : size[0], : size[1]])
    largest, smallest = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
    for row, column, i, j in itertools.product(range(size[0]), range(size[1]), range(3), range(3)):
        from_row, from_column = row + i - 1, column + j - 1
        if 0 <= from_row < size[0] and 0 <= from_column < size[1]:
            pixel = x[:, from_row, from_column]
            largest[:, row, column] = torch.maximum(largest[:, row, column], pixel + module.dilation[:, i, j])
            smallest[:, row, column] = torch.minimum(smallest[:, row, column], pixel - module.erosion[:, i, j])
    expected = module.mixing(torch.cat([largest, smallest], -1))
    torch.testing.assert_close(module(X[:, : size[0], : size[1]]), expected)


def test_a_flat_element_dilates_as_pooling_does():
    flat = dilate(X, torch.zeros(6, 3, 3, dtype=X.dtype))
    assert torch.equal(flat, F.max_pool2d(X.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1))


@pytest.mark.parametrize("word", ["selective_kernel", "deformable", "dynamic", "morphology"])
def test_one_channel_is_refused_where_a_norm_would_hide_it(word):
    with pytest.raises(ValueError, match=rf"^{word} must have at least two channels.*got 1 in stage 0"):
        VariantConfig.from_dict({"dims": [4, 8, 16, 32], "branches": [[0.75, "conv"], [0.25, word]]})
