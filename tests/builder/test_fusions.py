"""Fusions told again in plain sums, for branches that divide the channels and for parallel ones."""

import copy

import pytest
import torch
from moved import moved
from timm.layers import EcaModule
from timm.layers.cbam import ChannelAttn
from torch import nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.fusions import gates, sums
from medmamba_variants.design.joints import FUSIONS
from medmamba_variants.model import build_model
from medmamba_variants.scan import use_backend

pytestmark = pytest.mark.usefixtures("one_thread")

# Two equal parts of the channels, three unequal ones of which one is a single channel, all channels for each of three.
WIDTHS = {"halves": ((6, 6), 12), "parts": ((3, 8, 1), 12), "parallel": ((6, 6, 6), 6)}


def maps(widths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 7, width, generator=generator, dtype=torch.float64) for width in widths]


def joined(component, widths, channels, by=0.3):
    """A fusion away from its first values, its branches' maps, and what `join` makes of them."""
    torch.manual_seed(0)
    fusion = moved(component.builder()(widths, channels, component), by)
    outputs = maps(widths)
    y, x = fusion.join(outputs), torch.randn(2, 5, 7, channels, dtype=torch.float64)
    assert y.shape == x.shape
    torch.testing.assert_close(fusion(x, outputs), x + y)
    return fusion, outputs, y


def padded(outputs):
    """Maps as wide as the widest, with zeros behind."""
    widest = max(each.shape[-1] for each in outputs)
    return [torch.cat([each, torch.zeros(2, 5, 7, widest - each.shape[-1])], -1) for each in outputs]


def spread(fusion, y, channels):
    layer = fusion.spread
    if y.shape[-1] == channels:
        assert list(layer.parameters()) == []
        return y
    return torch.einsum("oi,bhwi->bhwo", layer.weight, y) + layer.bias


def sigmoid(x):
    return 1 / (1 + (-x).exp())


@pytest.mark.parametrize("branches", WIDTHS)
def test_add_is_the_sum(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(sums.Add(), widths, channels)
    torch.testing.assert_close(y, spread(fusion, sum(padded(outputs)), channels))


@pytest.mark.parametrize("branches", WIDTHS)
def test_select_is_a_softmax_over_the_branches(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(sums.Select(), widths, channels)
    even = padded(outputs)
    held = sum(even).mean((1, 2))
    logits = fusion.selection.choose(F.silu(fusion.selection.squeeze(held))).unflatten(1, (len(widths), -1)).exp()
    weights = logits / logits.sum(1, keepdim=True)
    mixture = sum(each * weights[:, i, None, None] for i, each in enumerate(even))
    torch.testing.assert_close(y, spread(fusion, mixture, channels))


@pytest.mark.parametrize("branches", WIDTHS)
def test_se_select_gates_every_branch_by_all(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(sums.SqueezeSelect(), widths, channels)
    held = torch.cat(outputs, -1).mean((1, 2))
    gated = torch.cat(outputs, -1) * 2 * sigmoid(fusion.excite(F.silu(fusion.squeeze(held))))[:, None, None]
    torch.testing.assert_close(y, spread(fusion, sum(padded(gated.split(widths, -1))), channels))


@pytest.mark.parametrize("branches", WIDTHS)
def test_gated_is_the_first_by_the_others(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(sums.Gated(), widths, channels)
    first, *others = padded(outputs)
    torch.testing.assert_close(y, spread(fusion, first * 2 * sigmoid(sum(others)), channels))


@pytest.mark.parametrize("branches", WIDTHS)
def test_max_gate_is_two_gated_maps(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(sums.MaxGate(), widths, channels)
    first, *_ = even = padded(outputs)
    largest = torch.stack(even).max(0).values
    expected = sum(sigmoid(each.mean((1, 2), keepdim=True)) * each for each in (first, largest))
    torch.testing.assert_close(y, spread(fusion, expected, channels))


@pytest.mark.parametrize(("widths", "taps"), [((6, 6), 3), ((3, 8, 1), 3), ((100, 28), 5), ((500, 524), 5)])
def test_eca_is_timms_twice(widths, taps):
    channels = sum(widths)
    fusion, outputs, y = joined(gates.EfficientChannels(), widths, channels)
    assert fusion.weigh.filter.kernel_size == (taps,)
    theirs = EcaModule(channels).double()
    theirs.load_state_dict({"conv.weight": fusion.weigh.filter.weight})
    torch.testing.assert_close(y, 2 * theirs(torch.cat(outputs, -1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("branches", ["halves", "parts"])
def test_cbam_is_timms_channels_then_places(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(gates.ChannelsAndPlaces(), widths, channels)
    theirs = ChannelAttn(channels, rd_channels=4, act_layer=nn.SiLU).double()
    theirs.load_state_dict(
        {
            "fc1.weight": fusion.weigh.channels.squeeze.weight[..., None, None],
            "fc2.weight": fusion.weigh.channels.excite.weight[..., None, None],
        }
    )
    x = 2 * theirs(torch.cat(outputs, -1).permute(0, 3, 1, 2))
    seen = torch.stack([x.mean(1), x.max(1).values], 1)
    gate = 2 * sigmoid(F.conv2d(seen, fusion.weigh.places.places.weight, padding=3))
    torch.testing.assert_close(y, (x * gate).permute(0, 2, 3, 1))


def narrowed(fusion, y, channels):
    if y.shape[-1] == channels:
        assert list(fusion.narrow.parameters()) == []
        return y
    return torch.einsum("oi,bhwi->bhwo", fusion.narrow.weight, y) + fusion.narrow.bias


@pytest.mark.parametrize("branches", WIDTHS)
def test_co_attention_gates_places_both_ways_then_channels(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(gates.CoAttention(), widths, channels)
    gated = []
    for index, (own, each) in enumerate(zip(outputs, fusion.gates, strict=True)):
        others = torch.cat([other for i, other in enumerate(outputs) if i != index], -1)
        met = own @ each.own.weight.T + each.own.bias + others @ each.others.weight.T
        gated.append(own * 2 * sigmoid((met * sigmoid(met)) @ each.gate.weight.T + each.gate.bias))
    x = torch.cat(gated, -1)
    held = fusion.channel_gate.squeeze(x.mean((1, 2)))
    x = x * 2 * sigmoid(fusion.channel_gate.excite(held * sigmoid(held)))[:, None, None]
    torch.testing.assert_close(y, narrowed(fusion, x, channels))


@pytest.mark.parametrize("branches", WIDTHS)
def test_cross_attention_gathers_position_by_position(branches):
    widths, channels = WIDTHS[branches]
    fusion, outputs, y = joined(gates.CrossAttention(), widths, channels)
    normed = fusion.norm(torch.cat(outputs, -1)).split(widths, -1)
    total = []
    for index, own in enumerate(outputs):
        others = torch.cat([other for i, other in enumerate(normed) if i != index], -1).flatten(1, 2)
        key, value = (others @ fusion.key_value[index].weight.T).chunk(2, -1)
        gathered = torch.empty_like(own)
        for row in range(5):
            for column in range(7):
                query = normed[index][:, row, column] @ fusion.query[index].weight.T
                weights = torch.softmax(torch.einsum("bi,bsi->bs", query, key) / key.shape[-1] ** 0.5, -1)
                read = torch.einsum("bs,bsi->bi", weights, value)
                gathered[:, row, column] = read @ fusion.mixing[index].weight.T + fusion.mixing[index].bias
        total.append(own + gathered)
    torch.testing.assert_close(y, narrowed(fusion, torch.cat(total, -1), channels))


@pytest.mark.parametrize("component", [gates.EfficientChannels(), gates.ChannelsAndPlaces(), gates.CoAttention()])
def test_fresh_gates_are_about_one(component):
    torch.manual_seed(0)
    outputs = [each.float() for each in maps((24, 8))]
    ratio = component.builder()((24, 8), 32, component).join(outputs) / torch.cat(outputs, -1)
    assert ratio.median().item() == pytest.approx(1, abs=0.3)


EVERY = [
    (word, parallel) for word, fusion in FUSIONS.items() for parallel in ([False] + [True] * fusion.joins_parallel)
]


@pytest.mark.parametrize(("word", "parallel"), EVERY)
def test_a_fresh_fusion_is_of_the_scale_of_its_branches(word, parallel):
    """A comparison is not one of scale."""
    widths, channels = ((64, 64, 64), 64) if parallel else ((64, 64), 128)
    component = FUSIONS[word]()
    torch.manual_seed(0)
    y = component.builder()(widths, channels, component).double().join(maps(widths))
    assert 0.4 < y.std().item() < 2.5


def built(word, parallel):
    """A small network joined so, and images whose maps are 7×9 and 3×4."""
    branches = [[1, "identity"], [1, "axial"]] if parallel else [[0.25, "identity"], [0.75, "axial"]]
    config = VariantConfig.from_dict({"branches": branches, "fusion": word, "depths": [1, 1], "dims": [8, 16]})
    images = torch.randn(2, 3, 28, 36, generator=torch.Generator().manual_seed(0))
    return build_model(config, num_classes=2, seed=0), images


@pytest.mark.parametrize(("word", "parallel"), EVERY)
def test_it_stands_no_image_half_precision_and_copies(word, parallel):
    model, x = built(word, parallel)
    expected = model.eval()(x)
    assert model(x[:0]).shape == (0, 2)
    torch.testing.assert_close(copy.deepcopy(model).double()(x.double()).float(), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x)
    torch.testing.assert_close(rounded.float(), expected, rtol=0.05, atol=0.05)
    rounded.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("word", FUSIONS)
def test_it_traces_as_one_graph(word):
    torch._dynamo.reset()
    model, x = built(word, FUSIONS[word].joins_parallel)
    torch.testing.assert_close(torch.compile(model.eval(), fullgraph=True, backend="eager")(x), model(x))


@pytest.mark.parametrize("word", [word for word, fusion in FUSIONS.items() if fusion.joins_parallel])
def test_every_parameter_of_parallel_branches_learns(word):
    model, x = built(word, parallel=True)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    F.cross_entropy(model.train()(x), torch.tensor([0, 1])).backward()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in model.parameters())


def test_one_pixel_and_one_image_train_in_every_fusion():
    for word, fusion in FUSIONS.items():
        component = fusion()
        module = component.builder()((4, 8), 12, component).train()
        x, outputs = torch.randn(1, 1, 1, 12), [torch.randn(1, 1, 1, width) for width in (4, 8)]
        assert module(x, outputs).isfinite().all(), word


def test_se_select_of_a_scan_and_its_input_is_smm_unets():
    """Two streams in parallel, a scan and what it scanned, squeezed together into a gate on every channel of each."""
    config = VariantConfig.from_dict(
        {"branches": [[1, "ss2d"], [1, "identity"]], "fusion": "se_select", "depths": [1], "dims": [8]}
    )
    block = moved(build_model(config, num_classes=2).stages[0][0])
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    with use_backend("portable"):
        scanned, y = block.branches[0](x), block(x)
    streams = [
        scanned,
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt(),
    ]
    held = block.fusion.squeeze(torch.cat([each.mean((1, 2)) for each in streams], -1))
    gates_of = 2 * sigmoid(block.fusion.excite(held * sigmoid(held))).view(2, 2, 1, 1, 8)
    torch.testing.assert_close(y, x + gates_of[:, 0] * streams[0] + gates_of[:, 1] * streams[1])
