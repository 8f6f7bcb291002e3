"""Mixers on the frequencies of a map: transforms against SciPy and by hand, filters against plain convolutions."""

import math

import numpy as np
import pytest
import torch
from scipy import fft
from torch import nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.design.spectral import mixers as design
from medmamba_variants.design.spectral import scans as spectral_scans
from medmamba_variants.design.spectral.transforms import fft_macs, fft_pair_macs, half
from medmamba_variants.parts import patches
from medmamba_variants.parts.mixers.spectral import transforms, wavelets
from medmamba_variants.parts.mixers.spectral.heat import conduct

WORDS = ["heat", "fourier_filter", "fft_block", "haar", "wavelet_conv", "pooled_low_high", "spectral_scan", "dct_split"]
SIZES = [(1, 1), (1, 7), (2, 1), (5, 4), (6, 9), (8, 8)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def branch(component, channels=6):
    """A branch in double precision and evaluation, its parameters away from their first values."""
    torch.manual_seed(0)
    module = component.builder()(channels, component, 0.0).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def square(x):
    return x.abs().square().sum()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cosine_transforms_are_scipys_keep_squares_and_come_back(height, width):
    x = noise(2, height, width, 3)
    rows, columns = transforms.cosines(height, x), transforms.cosines(width, x)
    y = transforms.cosine_transform(x, rows, columns)
    torch.testing.assert_close(y, torch.from_numpy(fft.dctn(x.numpy(), axes=(1, 2), norm="ortho")))
    torch.testing.assert_close(square(y), square(x))
    torch.testing.assert_close(transforms.cosine_transform(y, rows.T, columns.T), x, rtol=0, atol=1e-13)
    low = transforms.cosine_transform(x, rows[:2], columns[:1])
    torch.testing.assert_close(low, y[:, :2, :1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_fourier_transforms_are_scipys_keep_squares_and_come_back(height, width):
    x = noise(2, height, width, 3)
    y = transforms.spectrum(x)
    assert y.shape == (2, height, half(width), 3)
    torch.testing.assert_close(y, torch.from_numpy(fft.rfft2(x.numpy(), axes=(1, 2), norm="ortho")))
    # Frequencies that stand for their conjugates, too, count twice.
    twice = torch.full((half(width), 1), 2.0, dtype=torch.float64)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    torch.testing.assert_close(square(y * twice.sqrt()), square(x))
    torch.testing.assert_close(transforms.from_spectrum(y, width), x, rtol=0, atol=1e-13)
    torch.testing.assert_close(transforms.from_parts(transforms.parts_of(y, x.dtype)), y, rtol=0, atol=0)


@pytest.mark.parametrize("width", [4, 5])
def test_frequencies_of_no_real_map_lose_what_it_cannot_have(width):
    """Of the whole spectrum, its missing half filled in as conjugates, the real part comes back."""
    y = torch.complex(noise(1, 6, half(width), 2), noise(1, 6, half(width), 2, seed=1))
    whole = torch.zeros(1, 6, width, 2, dtype=y.dtype)
    for row in range(6):
        for column in range(width):
            own = column < half(width)
            opposite = y[:, -row % 6, -column % width].conj() if -column % width < half(width) else None
            if own and opposite is not None:
                whole[:, row, column] = (y[:, row, column] + opposite) / 2
            else:
                whole[:, row, column] = y[:, row, column] if own else opposite
    expected = torch.fft.ifft2(whole, dim=(1, 2), norm="ortho")
    torch.testing.assert_close(transforms.from_spectrum(y, width), expected.real)
    assert expected.imag.abs().max() < 1e-14


def test_costs_of_transforms_by_hand():
    assert fft_macs(3, 8) == 3 * 5 * 8 * 3 // 2
    assert fft_macs(1, 64, real=True) == 5 * 64 * 6 // 4
    assert fft_macs(5, 1) == fft_macs(0, 8) == 0
    assert fft_macs(1, 7) == math.ceil(2.5 * 7 * math.log2(7))
    # There: 64 real points; back: five of eight columns as complex numbers, then eight real rows.
    assert fft_pair_macs(2, 8, 8) == 2 * (480 + 5 * 60 + 8 * 30)


def test_tables_are_read_as_they_stand_and_between_their_points():
    table = noise(4, 3)
    assert torch.equal(transforms.read_table(table, 4, 4, 4), table)
    assert torch.equal(transforms.read_table(table, 4, 2, 2), table[::2])
    finer = transforms.read_table(table, 4, 8, 8, wraps=True)
    assert torch.equal(finer[::2], table)
    torch.testing.assert_close(finer[1::2], (table + table.roll(-1, 0)) / 2)
    clamped = transforms.read_table(table, 4, 8, 8)
    assert torch.equal(clamped[7], table[3]) and torch.equal(clamped[:7], finer[:7])
    for size in range(1, 12):
        below = [divmod(4 * i, size) for i in range(size)]
        expected = [table[p] + rest / size * (table[(p + 1) % 4] - table[p]) for p, rest in below]
        torch.testing.assert_close(transforms.read_table(table, 4, size, size, wraps=True), torch.stack(expected))
        torch.testing.assert_close(transforms.read_table(torch.ones(4, 3), 4, size, size), torch.ones(size, 3))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_without_a_rate_heat_leaves_the_map_alone(height, width):
    x, rates = noise(2, height, width, 3), noise(height, width, 3, seed=1).abs()
    torch.testing.assert_close(conduct(x, 0 * rates), x, rtol=0, atol=1e-13)
    flowed = conduct(x, rates)
    # Heat flows, it is neither made nor lost, and one hour and then another are two.
    torch.testing.assert_close(flowed.mean((1, 2)), x.mean((1, 2)))
    assert square(flowed) <= square(x) * (1 + 1e-12)
    torch.testing.assert_close(conduct(flowed, 2 * rates), conduct(x, 3 * rates))


@pytest.mark.parametrize(("height", "width"), [(1, 7), (5, 4), (8, 8)])
def test_heat_is_its_layers_in_a_row(height, width):
    module = branch(design.Heat(frequency_table=4))
    x = noise(2, height, width, 6)
    taps = F.conv2d(module.norm(x).permute(0, 3, 1, 2), module.filters.weight, module.filters.bias, padding=1, groups=6)
    inner, z = (taps.permute(0, 2, 3, 1) @ module.in_proj.weight.T).chunk(2, -1)
    frequencies = torch.from_numpy(fft.dctn(inner.detach().numpy(), axes=(1, 2), norm="ortho"))
    for n in range(height):
        for m in range(width):
            # The learned vector at this frequency, between the four nearest of the table.
            u, v = 4 * n / height, 4 * m / width
            near = [(int(u), 1 - u % 1), (min(int(u) + 1, 3), u % 1)]
            far = [(int(v), 1 - v % 1), (min(int(v) + 1, 3), v % 1)]
            embedded = sum(a * b * module.embedding[i, j] for i, a in near for j, b in far)
            rate = torch.log1p(torch.exp(module.to_rate(embedded)))
            frequencies[:, n, m] *= torch.exp(
                -rate * ((math.pi * n / height) ** 2 + (math.pi * m / width) ** 2)
            ).detach()
    warm = torch.from_numpy(fft.idctn(frequencies.numpy(), axes=(1, 2), norm="ortho"))
    expected = (module.out_norm(warm) * z * torch.sigmoid(z)) @ module.out_proj.weight.T
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_filter_of_ones_leaves_the_map_alone(height, width):
    module = branch(design.FourierFilter(frequency_table=4))
    with torch.no_grad():
        module.table.zero_()[0] = 1
    x = noise(2, height, width, 6)
    torch.testing.assert_close(module(x), module.mixing(module.norm(x)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 4), (6, 9)])
def test_a_global_filter_is_a_circular_convolution(height, width):
    module = branch(design.FourierFilter(frequency_table=4))
    x = noise(2, height, width, 6)
    taps = torch.from_numpy(fft.irfft2(module.filters(height, width).detach().numpy(), s=(height, width), axes=(0, 1)))
    normed = module.norm(x)
    total = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            total = total + taps[row, column] * normed.roll((row, column), (1, 2))
    torch.testing.assert_close(module(x), module.mixing(total))


def test_a_map_of_the_tables_size_has_the_table_as_its_filter():
    module = branch(design.FourierFilter(frequency_table=4))
    assert torch.equal(module.filters(4, 4), torch.complex(*module.table))
    assert torch.equal(module.filters(8, 8)[::2, ::2], torch.complex(*module.table))
    # Rows between the last frequency and the first, which is the next.
    torch.testing.assert_close(module.filters(8, 4)[7], torch.complex(*(module.table[:, 3] + module.table[:, 0]) / 2))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (6, 9)])
def test_the_fft_block_is_its_layers_in_a_row(height, width):
    module = branch(design.FFTBlock(spectral_groups=4))
    with torch.no_grad():
        module.spectral_norm.running_mean.copy_(noise(12))
        module.spectral_norm.running_var.copy_(noise(12).square())
    x = noise(2, height, width, 6)
    y = torch.from_numpy(fft.rfft2(module.norm(x).detach().numpy(), axes=(1, 2), norm="ortho"))
    # Channel-first, real and imaginary parts side by side.
    y = torch.stack([y.real, y.imag], -1).flatten(-2).permute(0, 3, 1, 2)
    norm = module.spectral_norm
    each = (slice(None), None, None)
    y = (y - norm.running_mean[each]) / (norm.running_var[each] + norm.eps).sqrt() * norm.weight[each] + norm.bias[each]
    y = y + F.conv2d(y, module.position.weight, module.position.bias, padding=1, groups=12)
    gates = torch.softmax(torch.einsum("gc,bchw->bghw", module.gate.weight, y) + module.gate.bias[each], 1)
    total = 0
    for group in range(4):
        weight = module.answers.weight[12 * group : 12 * (group + 1), :, 0, 0]
        answer = torch.einsum("dc,bchw->bdhw", weight, y[:, 3 * group : 3 * (group + 1)])
        total = total + gates[:, group, None] * answer
    total = total.detach().permute(0, 2, 3, 1)
    back = fft.irfft2(torch.complex(total[..., ::2], total[..., 1::2]), s=(height, width), axes=(1, 2), norm="ortho")
    torch.testing.assert_close(module(x), torch.from_numpy(back))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (8, 2)])
def test_the_haar_transform_is_its_matrix_keeps_squares_and_comes_back(height, width):
    x = noise(2, height, width, 3)
    bands = patches.haar(x)
    torch.testing.assert_close(square(bands), square(x))
    torch.testing.assert_close(patches.inverse_haar(bands), x, rtol=0, atol=1e-14)
    matrix = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    pixels = torch.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], 3)
    torch.testing.assert_close(bands.unflatten(-1, (4, 3)), matrix @ pixels)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("levels", [1, 3])
def test_bands_left_alone_come_back_as_the_map(height, width, levels):
    cascade = wavelets.Cascade(3, 5, levels).double()
    with torch.no_grad():
        for index, filters in enumerate(cascade.filters):
            filters.weight.zero_()[:, :, 2, 2] = 1
            # The low band of each level but the last is what comes back from the next.
            if index < levels - 1:
                filters.weight[:3] = 0
    x = noise(2, height, width, 3)
    torch.testing.assert_close(cascade(x), x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", [design.Haar, design.WaveletConv])
def test_wavelet_branches_are_their_levels_added(kind):
    """The transform is linear: what each level's filters make goes back to the map on its own."""
    component = kind(kernel_size=3, wavelet_levels=2)
    module = branch(component)
    x = noise(2, 5, 7, 6)
    normed = module.norm(x)
    total = 0

    def seen(filters, bands):
        padded = bands.permute(0, 3, 1, 2)
        return F.conv2d(padded, filters.weight, filters.bias, padding=1, groups=len(filters.weight)).permute(0, 2, 3, 1)

    if kind is design.WaveletConv:
        total = module.scale * seen(module.filters, normed)
    scales = [1, 1] if module.cascade.scales is None else module.cascade.scales
    # 5×7 is 6×8 with the last row and column twice; its low band is 3×4, which is 4×4 with the last row twice.
    once = torch.cat([normed, normed[:, -1:]], 1)
    bands = patches.haar(torch.cat([once, once[:, :, -1:]], 2))
    total = total + patches.inverse_haar(scales[0] * seen(module.cascade.filters[0], bands))[:, :5, :7]
    low = bands[..., :6]
    deep = patches.haar(torch.cat([low, low[:, -1:]], 1))
    low = patches.inverse_haar(scales[1] * seen(module.cascade.filters[1], deep))[:, :3]
    total = total + patches.inverse_haar(F.pad(low, (0, 18)))[:, :5, :7]
    torch.testing.assert_close(module(x), module.mixing(total))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (6, 9)])
def test_coarse_and_fine_cues_by_hand(height, width):
    module = branch(design.PooledLowHigh(pool_stride=4))
    x = noise(2, height, width, 6)
    normed = module.norm(x)
    coarse = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            top, left = row // 4 * 4, column // 4 * 4
            patch = normed[:, top : top + 4, left : left + 4]
            taps = module.pool.weight[:, 0, : patch.shape[1], : patch.shape[2]].permute(1, 2, 0)
            coarse[:, row, column] = (patch * taps).sum((1, 2)) + module.pool.bias
    cues = [normed * coarse, normed - coarse]
    low, high = (filters(cue * torch.sigmoid(cue)) for filters, cue in zip((module.low, module.high), cues))
    torch.testing.assert_close(module(x), module.mixing(low + high))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_without_its_scan_a_spectral_scan_is_the_transform_there_and_back(height, width):
    module = branch(spectral_scans.SpectralScan())
    module.spectral_norm = module.mixer = nn.Identity()
    x = noise(2, height, width, 6)
    torch.testing.assert_close(module(x), module.norm(x))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (6, 9)])
def test_the_scan_sees_frequencies_from_negative_to_positive(height, width):
    module = branch(spectral_scans.SpectralScan(d_state=4))
    x = noise(2, height, width, 6)
    y = torch.from_numpy(fft.rfft2(module.norm(x).detach().numpy(), axes=(1, 2), norm="ortho"))
    rows = sorted(range(height), key=lambda row: row if row < height / 2 else row - height)
    ordered = torch.stack([y.real, y.imag], -1).flatten(-2)[:, rows]
    scanned = module.mixer(module.spectral_norm(ordered)).detach()
    back = torch.empty_like(scanned)
    back[:, rows] = scanned
    back = fft.irfft2(torch.complex(back[..., ::2], back[..., 1::2]), s=(height, width), axes=(1, 2), norm="ortho")
    torch.testing.assert_close(module(x), torch.from_numpy(back))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (6, 9)])
@pytest.mark.parametrize("share", [0.25, 2 / 3])
def test_low_frequencies_are_scanned_and_the_rest_is_convolved(height, width, share):
    module = branch(spectral_scans.DCTSplit(d_state=4, low_band=share))
    x = noise(2, height, width, 6)
    normed = module.norm(x).detach()
    rows, columns = module.component.low(height, width)
    frequencies = fft.dctn(normed.numpy(), axes=(1, 2), norm="ortho")
    low = frequencies[:, :rows, :columns].copy()
    frequencies[:, :rows, :columns] = 0
    high = torch.from_numpy(fft.idctn(frequencies, axes=(1, 2), norm="ortho"))
    scanned = np.zeros_like(frequencies)
    scanned[:, :rows, :columns] = module.mixer(module.low_norm(torch.from_numpy(low))).detach().numpy()
    taps = F.conv2d(high.permute(0, 3, 1, 2), module.filters.weight, module.filters.bias, padding=1, groups=6)
    expected = torch.from_numpy(fft.idctn(scanned, axes=(1, 2), norm="ortho")) + module.mixing(taps.permute(0, 2, 3, 1))
    torch.testing.assert_close(module(x), expected)


def test_a_share_of_the_frequencies_is_rounded_up_but_not_for_its_last_digits():
    assert spectral_scans.DCTSplit(low_band=0.1).low(30, 31) == (3, 4)
    assert spectral_scans.DCTSplit(low_band=0.25).low(9, 8) == (3, 2)
    # Two where there are more, so that there are steps to scan; one is left to the convolution.
    assert [spectral_scans.DCTSplit(low_band=0.05).low(size, 1) for size in (1, 2, 3, 9)] == [
        (1, 1),
        (1, 1),
        (2, 1),
        (2, 1),
    ]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_maps_of_any_size_train(word, height, width):
    component = design.FFTBlock(spectral_groups=2) if word == "fft_block" else MIXERS[word]()
    module = branch(component).float().train()
    x = noise(3, height, width, 6).float().requires_grad_()
    y = module(x)
    assert y.shape == x.shape and y.dtype is torch.float32
    y.square().sum().backward()
    for parameter in (x, *module.parameters()):
        assert parameter.grad is not None and parameter.grad.isfinite().all()


@pytest.mark.parametrize("word", WORDS)
def test_fresh_branches_speak_as_loudly_as_their_peers(word):
    """Between the scan's branch, which starts soft, and a depth-wise convolution."""
    x = noise(2, 14, 15, 48).float()
    torch.manual_seed(0)
    loudness = {
        each: MIXERS[each]().builder()(48, MIXERS[each](), 0.0).train()(x).std().item()
        for each in ("ss2d", "depthwise", word)
    }
    assert loudness["ss2d"] / 2 < loudness[word] < 2 * loudness["depthwise"]


@pytest.mark.parametrize("word", WORDS)
def test_one_channel_is_refused_where_a_norm_would_hide_it(word):
    with pytest.raises(ValueError, match=rf"^{word} must have at least two channels.*got 1.* in stage 0"):
        VariantConfig.from_dict({"dims": [4, 8, 16, 32], "branches": [[0.75, "conv"], [0.25, word]]})


def test_groups_must_share_the_channels():
    with pytest.raises(
        ValueError, match=r"spectral_groups must divide the 6 channels between them, got 4 of fft_block"
    ):
        VariantConfig.from_dict({"dims": [12, 24, 48, 96], "branches": [[0.5, "conv"], [0.5, "fft_block"]]})
