"""The fused CPU kernels against torch's operations: values, first and second derivatives, where they step aside."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.fused import fitting
from medmamba_variants.fused.filters import filtered_silu
from medmamba_variants.fused.fitting import fits, row_stride
from medmamba_variants.fused.joins import parted, shuffled_sum
from medmamba_variants.fused.norms import LayerNorm, batch_norm, gated_norm, patch_norm
from medmamba_variants.model import build_model

DOUBLE = {"dtype": torch.float64}


def drawn(*shape, seed=0, **options):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, **(DOUBLE | options)).requires_grad_()


def with_values(module, seed=3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.double()


def check(fused, plain, inputs, parameters=()):
    """Both give the same values and the same first and second derivatives in every input and parameter."""
    wanted = [*inputs, *parameters]
    results = []
    for function in (fused, plain):
        y = function(*inputs)
        weights = drawn(*y.shape, seed=7)
        first = torch.autograd.grad((y * weights).sum(), wanted, retain_graph=True)
        again = torch.autograd.grad((y * weights).sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum((each**2).sum() for each in again), [*wanted, weights], allow_unused=True)
        results.append([y, *first, *again, *(each for each in second if each is not None)])
    assert len(results[0]) == len(results[1])
    for mine, other in zip(*results):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [5, 8, 19])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (2, 1, 3)])
def test_layer_norm_and_its_gate(shape, channels):
    norm = with_values(LayerNorm(channels))
    x, z = drawn(*shape, channels), drawn(*shape, channels, seed=1)
    plain = with_values(nn.LayerNorm(channels))
    plain.load_state_dict(norm.state_dict())
    parameters = list(norm.parameters())

    def by_torch(x):
        return F.layer_norm(x, (channels,), *parameters)

    check(norm, by_torch, [x], parameters)
    check(lambda x, z: gated_norm(x, z, norm), lambda x, z: by_torch(x) * F.silu(z), [x, z], parameters)
    # A slice of a wider map, as a branch sees it.
    wide = drawn(*shape, channels + 3)
    check(lambda x: norm(x[..., 2:-1]), lambda x: by_torch(x[..., 2:-1]), [wide], parameters)


def test_layer_norm_of_patches_takes_pixels_down_the_columns():
    norm = with_values(LayerNorm(4 * 5))
    x = drawn(2, 4, 6, 5)

    def by_torch(x):
        pixels = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return F.layer_norm(torch.cat(pixels, -1), (20,), norm.weight, norm.bias)

    check(lambda x: patch_norm(x, norm), by_torch, [x], list(norm.parameters()))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 2), (40, 2, 3)])
def test_batch_norm_with_and_without_relu(shape, relu):
    mine, other = (with_values(nn.BatchNorm2d(5)) for _ in range(2))
    x = drawn(*shape, 8)[..., 1:6]

    def by_torch(x):
        y = F.batch_norm(x.permute(0, 3, 1, 2), None, None, mine.weight, mine.bias, training=True).permute(0, 2, 3, 1)
        return F.relu(y) if relu else y

    check(lambda x: batch_norm(x, mine, relu), by_torch, [x], list(mine.parameters()))
    other(x.permute(0, 3, 1, 2))
    for name, value in other.named_buffers():
        torch.testing.assert_close(mine.get_buffer(name), value)
    mine.eval()
    other.eval()
    y = other(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(batch_norm(x, mine, relu), F.relu(y) if relu else y)


def test_batch_norm_far_from_zero_keeps_its_digits():
    x = drawn(4, 5, 6, 16, dtype=torch.float32).detach() + 1000
    norm = nn.BatchNorm2d(16)
    expected = F.batch_norm(x.double().permute(0, 3, 1, 2), None, None, training=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(batch_norm(x, norm, relu=False).double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (2, 6, 1)])
def test_depthwise_convolution_with_silu(shape, side):
    filters = with_values(nn.Conv2d(5, 5, side, padding=side // 2, groups=5))

    def by_torch(x):
        return F.silu(filters(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)

    check(lambda x: filtered_silu(x, filters), by_torch, [drawn(*shape, 5)], list(filters.parameters()))


@pytest.mark.parametrize("channels", [1, 5, 8])
def test_parting_and_shuffling(channels):
    x, first, second = drawn(2, 3, 5, 2 * channels), drawn(2, 3, 5, channels), drawn(2, 3, 5, channels, seed=1)

    def by_torch(x, first, second):
        return x + torch.stack((first, second), -1).flatten(-2)

    check(shuffled_sum, by_torch, [x, first, second])
    widths = (channels, 2 * channels - channels)

    def through_parts(x):
        same, one, two = parted(x, widths)
        return same**2 + torch.cat((one.sin(), two.exp()), -1)

    check(through_parts, lambda x: x**2 + torch.cat((x[..., :channels].sin(), x[..., channels:].exp()), -1), [x])


@pytest.mark.parametrize("axes", [{}, {"odd_maps": "pad", "patch_size": 2}, {"split_ratio": 0.3, "d_conv": 5}])
def test_a_network_is_the_same_without_the_kernels(axes, monkeypatch):
    config = VariantConfig.from_dict(axes | {"depths": [1, 2], "dims": [12, 20], "drop_path_rate": 0.0})
    model = build_model(config, num_classes=3, seed=0).double()
    images = drawn(3, 3, 20, 28).detach()
    results = []
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setattr(fitting, "_is_available", lambda: False)
        model.zero_grad()
        logits = model(images)
        F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for mine, other in zip(*results):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_threads_change_no_bit():
    before = torch.get_num_threads()
    x, z = (drawn(33, 14, 14, 24, seed=seed, dtype=torch.float32) for seed in range(2))
    norm, filters, batch = LayerNorm(24), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24)
    parameters = [*norm.parameters(), *filters.parameters(), *batch.parameters()]
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            gated = gated_norm(filtered_silu(x, filters), z, norm)
            y = shuffled_sum(torch.cat((x, z), -1), gated, batch_norm(x, batch, relu=True))
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, z, *parameters])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(mine, other) for result in results[1:] for mine, other in zip(results[0], result))


def test_kernels_step_aside():
    x = torch.randn(2, 3, 4, 5)
    assert fits(x) and fits(x, None, x[0])
    assert not fits(x.half()) and not fits(x, x.double()) and not fits(x.to("meta")) and not fits(x[:0])
    assert not fits(torch._neg_view(x))
    assert not torch.vmap(lambda one: torch.tensor(fits(one)))(x).any()
    with torch.autograd.forward_ad.dual_level():
        assert not fits(x)
    # Forward mode and transforms go through torch's operations.
    norm = LayerNorm(5)
    jacobian = torch.func.jacrev(lambda x: norm(x).sum(0))(x[0, 0])
    assert jacobian.shape == (5, 4, 5) and jacobian.abs().sum() > 0


def test_rows_one_stride_apart():
    x = torch.zeros(2, 3, 4, 10)
    assert row_stride(x) == 10 and row_stride(x[..., 2:5]) == 10 and row_stride(x[:, :, ::2]) == 20
    assert row_stride(x[:, :2]) == 0 and row_stride(x[..., ::2]) == 0 and row_stride(x.transpose(1, 2)) == 0
    assert row_stride(x[:1, :2]) == 10 and row_stride(x[:1, :1, :1, :4]) in (4, 0)
    assert row_stride(x[:1, :1, :1].expand(2, 3, 4, 10)) == 0
