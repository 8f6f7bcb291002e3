"""Costs: equal to counts by hand, the same on every device and backend, summing up over modules."""

import itertools

import pytest
import torch
from alive import needed

from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.cost import count_cost, count_model, measure_latency
from medmamba_variants.design.axes import FAMILIES
from medmamba_variants.design.joints import FUSIONS, HALVINGS
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.design.wraps.attentions import ATTENTIONS
from medmamba_variants.macs import closed_form_macs
from medmamba_variants.model import build_model
from medmamba_variants.scan import use_backend

ONE_BLOCK = VariantConfig(depths=(1,), dims=(48,), drop_path_rate=0.1)


def test_one_block_by_hand():
    """Every product of a one-block network at 24×36 pixels, written out."""
    cost = count_cost(ONE_BLOCK, image_size=(24, 36), num_classes=5, in_channels=1)
    length, conv, width, inner, rank, n, directions = 6 * 9, 24, 24, 48, 2, 16, 4
    stem = length * 48 * 16
    local = length * (2 * 9 * conv * conv + conv * conv)
    projections = length * (width * 2 * inner + inner * width)
    depthwise = length * 9 * inner
    selective = length * directions * (inner * (rank + 2 * n) + rank * inner)
    scan = 9 * length * directions * inner * n
    head = 48 * 5
    assert cost.macs == stem + local + projections + depthwise + selective + scan + head
    assert cost.flops == 2 * cost.macs
    assert cost.by_module["stem"].macs == stem
    assert cost.by_module["stages.0.0.branches.0"].macs == local
    mixer = cost.by_module["stages.0.0.branches.1.mixer"]
    assert mixer.macs == projections + depthwise + selective + scan
    assert cost.by_module["head"].params == 48 * 5 + 5


def test_step_size_projections_of_rank_one_count():
    """torch likes to run them as element-wise products, which a plain counter misses."""
    costs = {
        rank: count_cost(VariantConfig.from_dict({"dt_rank": rank}, ONE_BLOCK), image_size=(24, 36), num_classes=5).macs
        for rank in (1, 2, 3)
    }
    assert costs[3] - costs[2] == costs[2] - costs[1] > 0


def test_totals_are_sums_over_modules():
    cost = count_cost(PRESETS["nano"], image_size=(28, 36), num_classes=3)
    tops = [module for name, module in cost.by_module.items() if "." not in name]
    assert cost.params == sum(module.params for module in tops)
    assert cost.macs == sum(module.macs for module in tops)
    assert cost.flops == sum(module.flops for module in tops)
    model = build_model(PRESETS["nano"], num_classes=3)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())


def test_published_size():
    cost = count_cost(PRESETS["medmamba_t"], image_size=224, num_classes=6)
    assert cost.params == 14_457_222
    # Products and convolutions alone make 2.0 G; the scan is 9 · d_state for each of 3.3 M channel steps more.
    assert 2.0e9 < cost.macs < 3.0e9


@pytest.mark.parametrize("backend", ["portable", "reference", None])
def test_unchanged_by_device_and_backend(backend):
    counted = count_cost(PRESETS["nano"], image_size=(28, 36), num_classes=3, in_channels=1)
    model = build_model(PRESETS["nano"], num_classes=3, in_channels=1).train()
    if backend is None:
        on_cpu = count_model(model, image_size=(28, 36), in_channels=1)
    else:
        with use_backend(backend):
            on_cpu = count_model(model, image_size=(28, 36), in_channels=1)
    assert on_cpu == counted
    assert model.training


def test_costs_follow_the_axes():
    def macs(**axes):
        config = VariantConfig.from_dict(axes, base="nano")
        return count_cost(config, image_size=28, num_classes=2).macs

    assert macs(scan_directions="eight") > macs() > macs(scan_directions=["rows"])
    assert macs(scan_window=3) == macs(merge="softmax") == macs() > macs(direction_weights="shared")
    assert macs(d_state=16) > macs()
    assert macs(scan_directions="corner4") == macs()
    assert macs(fusion="concat") == macs() < macs(fusion="conv1x1")


def test_impossible_images_are_refused():
    with pytest.raises(ValueError, match="stage 3 is empty"):
        count_cost(VariantConfig(), image_size=28, num_classes=2)


@pytest.mark.parametrize("backward", [False, True])
def test_measured_latency_and_memory(backward):
    model = build_model(ONE_BLOCK, num_classes=2, in_channels=1).train()
    small, large = (
        measure_latency(model, image_size=(28, 36), in_channels=1, batch_size=batch, backward=backward, repeats=2)
        for batch in (2, 16)
    )
    assert 0 < small.seconds < 60
    assert small.images_per_second == pytest.approx(2 / small.seconds)
    assert large.peak_bytes > 3 * small.peak_bytes > 0
    assert small.device == "cpu"
    assert small.threads == torch.get_num_threads()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_backward_needs_more_memory_than_inference():
    model = build_model(ONE_BLOCK, num_classes=2)
    inference, training = (
        measure_latency(model, image_size=28, batch_size=8, backward=backward, repeats=1).peak_bytes
        for backward in (False, True)
    )
    assert training > 1.5 * inference


def test_counting_and_measuring_leave_a_model_as_they_found_it():
    model = build_model(PRESETS["nano"], num_classes=2, in_channels=1).train()
    model.stages[0].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    count_model(model, image_size=28, in_channels=1)
    for backward in (False, True):
        measure_latency(model, image_size=28, in_channels=1, batch_size=2, backward=backward, repeats=1)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_any_precision_are_counted_and_measured(dtype):
    model = build_model(PRESETS["nano"], num_classes=2).to(dtype)
    assert count_model(model, image_size=28) == count_cost(PRESETS["nano"], image_size=28, num_classes=2)
    assert measure_latency(model, image_size=28, repeats=1).seconds > 0


def test_nonsense_measurements_are_refused():
    model = build_model(PRESETS["nano"], num_classes=2)
    with pytest.raises(ValueError, match="batch_size and repeats must be at least 1, got batch_size=0, repeats=10"):
        measure_latency(model, image_size=28, batch_size=0)


SIZED = {"depths": [1, 1, 1], "dims": [12, 24, 36], "patch_size": 2, "odd_maps": "pad"}


def components():
    """Every component once, with the probes of its axes one by one, as differences from a small network."""
    for word, mixer in MIXERS.items():
        # Odd widths where they need not be shared out to heads or groups.
        one = {
            "branches": [[0.25, "conv"], [0.75, word]],
            **({"dims": [16, 32, 48]} if {"heads", "spectral_groups"} & set(mixer.declared()) else {}),
        }
        yield one
        for name, declared in mixer.declared().items():
            yield one | needed(mixer.declared(), name) | {name: declared.probe}
    for word, fusion in FUSIONS.items():
        yield {"fusion": word, "split_ratio": 0.25}
        for name, declared in fusion.declared().items():
            yield {"fusion": word, **needed(fusion.declared(), name), name: declared.probe}
        if fusion.joins_parallel:
            yield {"branches": [[1, "identity"], [1, "axial"], [1, "ss2d"]], "fusion": word}
    for family in ("channel_mixer", "attention", "residual", "stem", "position"):
        for word, member in FAMILIES[family].items():
            yield {family: word}
            for name, declared in member.declared().items():
                yield {family: word, **needed(member.declared(), name), name: declared.probe}
    for word in ATTENTIONS:
        yield {"attention": word, "attention_place": "branches", "dims": [16, 24, 40]}
    yield {"channel_mixer": ["none", "mlp", "none"], "cpe": ["mixer", "both", "none"], "final_norm": "map"}
    yield {"block_norm": "rms_norm", "cascade": True, "residual": "learned_skip", "channel_mixer": "mlp"}
    yield {"block_norm": "dynamic_tanh", "branches": [[0.25, "ss2d"]] * 4, "branch_weights": "shared"}
    yield {"shift_round": True, "final_norm": "pooled"}
    for word, fusion in itertools.product(HALVINGS, ("concat", "none")):
        yield {"downsampling": word, "fusion": fusion, "split_ratio": 0.5}
        for name, declared in HALVINGS[word].declared().items():
            yield {"downsampling": word, "fusion": fusion, "split_ratio": 0.5, name: declared.probe}
    yield {"direction_weights": "shared", "merge": "softmax", "scan_directions": "eight", "scan_window": 3}
    yield {"branches": [[1, "conv"], [1, "ss2d"], [1, "identity"]], "fusion": "conv1x1"}
    yield {"downsampling": ["max_pool", "strided_conv"], "d_state": [2, 3, 4]}
    yield {"fusion": ["concat", "shuffle", "conv1x1"]}
    yield {"branches": [[0.5, {"ss2d": {"expand": 1.0}}], [0.5, "ss2d"]], "input_channels": 1}


@pytest.mark.parametrize("word", MIXERS)
def test_every_component_has_its_closed_form(word):
    try:
        assert MIXERS[word]().macs(8, 6, 5) >= 0
    except NotImplementedError:
        pytest.fail(f"{word} must say its multiply-adds in macs, which it does not")


SIZES = ((28, 44), (37, 50))


def at_sizes():
    """Every component at both sizes, the steps along its axes at one of them in turn: a trace takes a while."""
    component: dict[str, object] = {}
    for place, difference in enumerate(components()):
        is_step = component and all(difference.get(key) == value for key, value in component.items())
        if not is_step:
            component = difference
        for size in SIZES[place % 2 : place % 2 + 1] if is_step else SIZES:
            yield pytest.param(difference, size, id=f"{difference}-{size[0]}x{size[1]}")


@pytest.mark.parametrize(("difference", "size"), list(at_sizes()))
def test_closed_form_is_the_traced_count(difference, size):
    config = VariantConfig.from_dict(difference, base=VariantConfig.from_dict(SIZED))
    asked = {"image_size": size, "num_classes": 5, "in_channels": 3}
    assert closed_form_macs(config, **asked) == count_cost(config, **asked).macs


def test_the_presets_have_their_closed_form():
    for name, size in (("medmamba_t", 224), ("medmamba_b", 64), ("nano", 28)):
        asked = {"image_size": size, "num_classes": 6, "in_channels": 3}
        assert closed_form_macs(PRESETS[name], **asked) == count_cost(PRESETS[name], **asked).macs


def test_an_operation_without_a_formula_is_an_error_that_names_it():
    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, x):
            return torch.fft.rfft2(x * self.weight[:, None, None]).angle().erfinv().cumprod(-1)

    with pytest.raises(ValueError, match=r"must have a formula .* got aten\.angle, aten\.cumprod, aten\.erfinv"):
        count_model(Hidden(), image_size=8)
