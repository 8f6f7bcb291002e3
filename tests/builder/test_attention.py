"""Attention: told again position by position, its windows as maps of their own, its weights written out."""

import itertools

import pytest
import torch
from moved import moved_branch
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.sequences import attention as design

X = torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def branch(component):
    return moved_branch(component, 6, by=0.5)


def slow_attention(module, x, weigh, least=0.0):
    """Every query of every head by itself; `weigh` makes positive weights of one query and all keys (length, size).

    `least` is added to the mean weight, by which is divided.
    """
    batch, height, width, channels = x.shape
    q, k, v = module.qkv(module.norm(x)).flatten(1, 2).split(channels, -1)
    y = torch.zeros_like(v)
    size = channels // module.heads
    for image in range(batch):
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(height * width):
                weights = weigh(q[image, t, part], k[image, :, part])
                y[image, t, part] = (weights / (weights.sum() + least * height * width)) @ v[image, :, part]
    return y.view_as(x), v.view_as(x)


def softmax_weights(query, keys):
    return (keys @ query / len(query) ** 0.5).exp()


def feature_weights(query, keys):
    def positive(z):
        return torch.where(z > 0, z + 1, z.exp())

    return positive(keys) @ positive(query)


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_it_is_the_softmax_of_products(heads):
    module = branch(design.Attention(heads))
    torch.testing.assert_close(module(X), module.mixing(slow_attention(module, X, softmax_weights)[0]))


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_linear_attention_is_its_weights_written_out(heads):
    module = branch(design.LinearAttention(heads))
    y, v = slow_attention(module, X, feature_weights, least=1e-6)
    near = F.conv2d(v.permute(0, 3, 1, 2), module.lepe.weight, module.lepe.bias, padding=1, groups=6)
    torch.testing.assert_close(module(X), module.mixing(y + near.permute(0, 2, 3, 1)))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6])
def test_windows_are_maps_of_their_own_cut_by_the_edge(side):
    module = branch(design.Attention(2, side))
    whole = branch(design.Attention(2))
    whole.load_state_dict(module.state_dict())
    expected = torch.zeros_like(X)
    for top in range(0, 5, side):
        for left in range(0, 7, side):
            tile = (slice(None), slice(top, top + side), slice(left, left + side))
            expected[tile] = whole(X[tile])
    x = X.clone().requires_grad_()
    torch.testing.assert_close(module(x), expected)
    (gradient,) = torch.autograd.grad(module(x).square().sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("side", "rows", "columns"), [(2, [0, 1, 3, 5], [0, 1, 3, 5, 7]), (6, [0, 5], [0, 3, 7])])
def test_shifted_windows_are_cut_at_both_ends(side, rows, columns):
    """By half a window; a side of the map that is a single window stays whole."""
    module, whole = branch(design.Attention(2, side, "half")), branch(design.Attention(2))
    whole.load_state_dict(module.state_dict())
    expected = torch.zeros_like(X)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            tile = (slice(None), slice(top, bottom), slice(left, right))
            expected[tile] = whole(X[tile])
    torch.testing.assert_close(module(X), expected)


@pytest.mark.parametrize("side", [7, 8, 256])
def test_a_window_that_holds_the_map_is_none(side):
    module, whole = branch(design.Attention(2, side, "half")), branch(design.Attention(2))
    assert torch.equal(module(X), whole(X))
    assert module.component.macs(6, 5, 7) == whole.component.macs(6, 5, 7)


@pytest.mark.parametrize("word", ["attention", "linear_attention"])
def test_what_has_no_equal_heads_or_a_norm_of_one_is_refused(word):
    half = {"dims": [12, 24, 48, 96], "branches": [[0.5, "conv"], [0.5, word]]}
    with pytest.raises(
        ValueError, match=rf"^heads must divide the 6 channels between them, got 4 of {word} in stage 0"
    ):
        VariantConfig.from_dict(half)
    assert VariantConfig.from_dict(half | {"heads": 3}).heads == 3
    with pytest.raises(ValueError, match=rf"^{word} must have at least two channels.*got 1 in stage 0"):
        VariantConfig.from_dict(half | {"dims": [2, 4, 8, 16], "heads": 1})


def test_heads_are_one_axis_of_all_that_have_them():
    mixed = {"branches": [[0.5, "attention"], [0.5, {"linear_attention": {"heads": 2}}]]}
    config = VariantConfig.from_dict(mixed)
    assert [mixer.heads for mixer in config.structure.stages[0].mixers] == [4, 2]
    assert "heads" not in config.dead_axes() and "ssd_state" in config.dead_axes()


def turn(vectors, row, column, heads):
    """Vectors (…, channels) at a place, each pair of channels turned as a complex number; MLLA's angles."""
    channels = vectors.shape[-1]
    size = channels // heads
    pairs = heads * (size // 2)
    along_rows = -(-pairs // 2)
    out, pair = vectors.clone(), 0
    for head in range(heads):
        for first in range(head * size, head * size + size // 2 * 2, 2):
            place, number = (row, pair) if pair < along_rows else (column, pair - along_rows)
            angle = torch.tensor(place * 10000.0 ** (-number / along_rows), dtype=torch.float64)
            turned = torch.complex(vectors[..., first], vectors[..., first + 1]) * torch.polar(
                torch.ones_like(angle), angle
            )
            out[..., first], out[..., first + 1] = turned.real, turned.imag
            pair += 1
    return out


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_linear_attention_with_rope_and_gate_is_written_out(heads):
    module = branch(design.LinearAttention(heads, rope=True, attention_gate="silu"))
    normed = module.norm(X)
    q, k, v = module.qkv(normed).flatten(1, 2).split(6, -1)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    places = [(i, j) for i in range(5) for j in range(7)]
    turned = [torch.stack([turn(each[:, t], *place, heads) for t, place in enumerate(places)], 1) for each in (q, k)]
    y = torch.zeros_like(v)
    for head in range(heads):
        part = slice(head * (6 // heads), (head + 1) * (6 // heads))
        weights = turned[0][..., part] @ turned[1][..., part].transpose(1, 2) / 35
        total = (q[..., part] @ k[..., part].transpose(1, 2)).mean(2, keepdim=True) + 1e-6
        y[..., part] = weights / total @ v[..., part]
    near = module.lepe(v.view_as(X).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(module(X), module.mixing((y.view_as(X) + near) * F.silu(module.gate(normed))))


@pytest.mark.parametrize("window", [0, 3])
def test_rope_knows_how_far_apart_places_are_and_nothing_else(window):
    module = branch(design.Attention(2, window, rope=True))
    plain = branch(design.Attention(2, window))
    plain.load_state_dict(module.state_dict())
    assert not torch.allclose(module(X), plain(X))
    # Queries and keys whose places both move on by as much have the products that they had.
    q, k = torch.randn(2, 8, dtype=torch.float64)
    products = [
        (turn(q, row, column, 2) * turn(k, row + 2, column - 1, 2)).sum() for row, column in ((0, 1), (3, 2), (5, 9))
    ]
    torch.testing.assert_close(products[0].expand(2), torch.stack(products[1:]))
    if window == 0:
        y = torch.zeros_like(X)
        q, k, v = module.qkv(module.norm(X)).flatten(1, 2).split(6, -1)
        places = [(i, j) for i in range(5) for j in range(7)]
        q, k = (torch.stack([turn(each[:, t], *place, 2) for t, place in enumerate(places)], 1) for each in (q, k))
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 3**0.5, -1)
            y.flatten(1, 2)[..., part] = weights @ v[..., part]
        torch.testing.assert_close(module(X), module.mixing(y))


@pytest.mark.parametrize(("window", "reach"), [(0, 15), (2, 1), (4, 3), (32, 15)])
def test_the_bias_depends_on_rows_and_columns_between(window, reach):
    component = design.Attention(2, window, relative_bias=True)
    assert component.reach() == reach
    module = branch(component)
    table = module.bias_table.view(2, 2 * reach + 1, 2 * reach + 1)
    y = torch.zeros_like(X)
    q, k, v = module.qkv(module.norm(X)).split(6, -1)
    side = window or 7
    for i in range(5):
        for j in range(7):
            rows = slice(i // side * side, min(5, (i // side + 1) * side))
            columns = slice(j // side * side, min(7, (j // side + 1) * side))
            down = (i - torch.arange(5)[rows]).clamp(-reach, reach) + reach
            across = (j - torch.arange(7)[columns]).clamp(-reach, reach) + reach
            for head in range(2):
                part = slice(3 * head, 3 * head + 3)
                keys, values = (each[:, rows, columns, part].flatten(1, 2) for each in (k, v))
                products = (keys @ q[:, i, j, part, None])[..., 0] / 3**0.5
                weights = torch.softmax(products + table[head, down][:, across].flatten(), -1)
                y[:, i, j, part] = (weights[..., None] * values).sum(1)
    torch.testing.assert_close(module(X), module.mixing(y))


def test_rope_needs_a_pair_in_every_head():
    mapping = {"dims": [8, 16, 32, 64], "branches": [[0.5, "conv"], [0.5, "attention"]], "rope": True}
    with pytest.raises(
        ValueError, match=r"^rope needs two channels in every head, got 4 in 4 heads of attention in sta"
    ):
        VariantConfig.from_dict(mapping)
