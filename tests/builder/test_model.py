"""The network: every axis is alive, the maths is that of the paper, bad inputs say so."""

import copy
import inspect
import itertools
import pickle
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from alive import alive
from torch.nn import functional as F

from medmamba_variants.checkpoints import to_public_state_dict
from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.design import joints
from medmamba_variants.design.axes import AXES, FAMILIES
from medmamba_variants.design.joints import FUSIONS, HALVINGS
from medmamba_variants.design.kinds import Choice, OrEach
from medmamba_variants.design.mixers import MIXERS, SS2D
from medmamba_variants.design.orders import Directions
from medmamba_variants.model import build_model
from medmamba_variants.parts import downsampling, fusions
from medmamba_variants.parts.mixers.ss2d import SS2DBranch
from medmamba_variants.scan import use_backend

# The published structure in a size that trains in a blink; its maps for 72×44 images are 18×11, 9×5, 4×2 and 2×1.
SMALL = VariantConfig(depths=(1, 1, 2, 1), dims=(16, 32, 64, 96))
HEIGHT, WIDTH = 72, 44

pytestmark = pytest.mark.usefixtures("one_thread")


def images(batch=2, channels=3, height=HEIGHT, width=WIDTH, dtype=torch.float32):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def scale_of(config):
    """How many times larger images must be so that something follows something in each cell of every map."""
    mixers = [mixer for stage in config.structure.stages for mixer in stage.mixers]
    # What scans one axis alone, or a quarter of the positions.
    reduced = any(
        hasattr(mixer, "scan_axes") or getattr(mixer, "token_reduction", "none") != "none" for mixer in mixers
    )
    return max(2 if reduced else 1, *(getattr(mixer, "scan_atrous", 1) for mixer in mixers))


def train_step(config, in_channels=3, scale=1):
    """Logits in training mode and the gradients of a loss, by name; weights and drops depend on the config alone."""
    model = build_model(config, num_classes=3, in_channels=in_channels, seed=0).train()
    # Away from the initial values, where many parameters hardly matter.
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    torch.manual_seed(9)
    logits = model(images(batch=8, channels=in_channels, height=scale * HEIGHT, width=scale * WIDTH))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 1, 0, 2, 1, 0])).backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


# Three points to step from: the published form, one branch of scans alone, and three branches that a gate joins.
BASES = {
    "published": SMALL,
    "scans": VariantConfig.from_dict({"split_ratio": 1, "scan_directions": "corner4", "odd_maps": "pad"}, base=SMALL),
    "gated": VariantConfig.from_dict(
        {
            "branches": [[0.25, "ss2d"], [0.25, "conv"], [0.5, "ss2d"]],
            "fusion": "squeeze_excite",
            "downsampling": "strided_conv",
            "d_state": 4,
        },
        base=SMALL,
    ),
}


def steps_along(axis):
    """The probe of an axis, and every choice where it is a list of names."""
    kind = axis.kind.item if isinstance(axis.kind, OrEach) else axis.kind
    return dict.fromkeys((axis.probe, *(kind.names() if isinstance(kind, Choice | Directions) else ())))


def steps(base):
    """One step along every axis that lives at a point, every choice of those that are lists of names, every mixer."""
    for name, axis in AXES.items():
        if name in base.dead_axes():
            continue
        yield from ((name, value) for value in steps_along(axis) if value != getattr(base, name))
    yield from (("split_ratio", value) for value in (0, 0.25, 1, (0, 0.25, 0.75, 1)) if value != base.split_ratio)
    yield from (("branches", ((0.25, operator), (0.25, "conv"), (0.5, "ss2d"))) for operator in MIXERS)
    yield "scan_directions", ("rows", "antidiagonals_reverse", "columns_right")
    yield "d_state", (2, 4, 8, 4)
    if "fusion" not in base.dead_axes():
        yield "fusion", ("shuffle", "concat", "conv1x1", "attention")
    yield "downsampling", ("max_pool", "strided_conv", "patch_merging")
    yield "branches", ((0.5, "conv"), (0.5, {"ss2d": {"expand": 1.0, "d_conv": 5}}))


# What a step needs around it where it makes no network of a base.
ROOM = {
    "cpe": {"channel_mixer": "mlp"},
    "cascade": {"branches": ((0.5, "conv"), (0.5, "ss2d"))},
    "fusion": {"branches": ((1, "conv"), (1, "ss2d")), "fusion": "conv1x1"},
}


def room_for(base, name, value):
    """The base itself, or with what makes a step from it a network."""
    try:
        VariantConfig.from_dict({name: value}, base=base)
    except ValueError:
        base = VariantConfig.from_dict(ROOM[name], base=base)
    return base


@cache
def logits_of(base, in_channels, scale):
    torch.set_num_threads(1)
    return train_step(base, in_channels=in_channels, scale=scale)[0]


def has_nothing_to_decay(config, parameter):
    """Whether a parameter is the rates of a scan over one position: of two pixels' frequencies a single one is low."""
    if not parameter.endswith("A_logs"):
        return False
    stage, branch = (int(parameter.split(".")[place]) for place in (1, 4))
    mixer = config.structure.stages[stage].mixers[branch]
    return mixer.word == "dct_split" and mixer.low(*config.map_sizes(HEIGHT, WIDTH)[stage]) == (1, 1)


def check_alive(base, name, value):
    """Asserts that a step makes another network, all of whose parameters learn."""
    config = VariantConfig.from_dict({name: value}, base=base)
    scale = max(scale_of(config), scale_of(base))
    logits, gradients = train_step(config, scale=scale)
    for parameter, gradient in gradients.items():
        assert gradient is not None, parameter
        assert gradient.isfinite().all(), parameter
        assert gradient.count_nonzero() > 0 or has_nothing_to_decay(config, parameter), parameter
    assert logits.isfinite().all()
    plain = logits_of(base, 3, scale)
    if (name, value) == ("input_channels", 3):
        # Three-channel images already are what the stem wants: a step only for grey ones.
        assert torch.equal(logits, plain)
        logits, plain = train_step(config, in_channels=1)[0], logits_of(base, 1, scale)
    assert config.variant_id != base.variant_id
    assert logits.shape == plain.shape
    assert not torch.allclose(logits, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("start", "name", "value"),
    [
        (start, name, value)
        for start, base in BASES.items()
        for name, value in steps(base)
        if VariantConfig.from_dict({name: value}, base=room_for(base, name, value)) != base
    ],
    ids=str,
)
def test_one_step_along_every_axis_is_alive(start, name, value):
    check_alive(room_for(BASES[start], name, value), name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, axis in AXES.items()
        if all(name in base.dead_axes() for base in BASES.values())
        for value in steps_along(axis)
        if value != axis.default
    ],
    ids=str,
)
def test_one_step_along_the_axes_of_other_components_is_alive(name, value):
    check_alive(VariantConfig.from_dict(alive(name), base=SMALL), name, value)


@dataclass(frozen=True)
class Swallowed(joints.Fusion):
    """A choice with a name of its own that builds what another one builds."""

    word = "swallowed"
    builds = "medmamba_variants.parts.fusions:Concat"


def test_a_choice_that_is_swallowed_is_seen(monkeypatch):
    monkeypatch.setitem(FUSIONS, "swallowed", Swallowed)
    monkeypatch.setitem(AXES, "fusion", replace(AXES["fusion"], kind=Choice((*FUSIONS,))))
    base = VariantConfig.from_dict({"fusion": "concat"}, base=SMALL)
    check_alive(SMALL, "fusion", "swallowed")
    with pytest.raises(AssertionError, match="allclose"):
        check_alive(base, "fusion", "swallowed")


@pytest.mark.parametrize(("fusion", "down"), list(itertools.product(FUSIONS, HALVINGS)), ids=lambda pair: str(pair))
def test_fusions_and_downsamplings_combine(fusion, down):
    padding = VariantConfig.from_dict({"odd_maps": "pad"}, base=SMALL)
    config = VariantConfig.from_dict({"fusion": fusion, "downsampling": down}, base=padding)
    model = build_model(config, num_classes=2, in_channels=1, seed=0).eval()
    features = model.forward_features(images(channels=1, height=45, width=70))
    sizes = config.map_sizes(45, 70)
    assert [tuple(f.shape) for f in features] == [(2, h, w, c) for (h, w), c in zip(sizes, config.dims)]
    assert all(f.is_contiguous() for f in features)


def test_no_class_swallows_options():
    for registry in (MIXERS, *FAMILIES.values()):
        for entry in registry.values():
            kinds = {parameter.kind for parameter in inspect.signature(entry().builder()).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize(
    ("preset", "count"), [("medmamba_t", 14_457_222), ("medmamba_s", 18_625_158), ("medmamba_b", 39_864_838)]
)
def test_published_parameter_counts(preset, count):
    with torch.device("meta"):
        model = build_model(PRESETS[preset], num_classes=6)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


# An independent, slow re-telling of the published network from its maths, on published names and (batch, channels,
# height, width) maps: no index tables, no shared code.


def slow_scan(u, delta, A, B, C, D):
    """One direction: u, delta (batch, d, length), A (d, n), B, C (batch, n, length), D (d)."""
    h = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype)
    outputs = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * u[:, :, t, None] * B[:, None, :, t]
        outputs.append((h * C[:, None, :, t]).sum(-1) + D * u[:, :, t])
    return torch.stack(outputs, -1)


def slow_ss2d(p, x):
    """x (batch, channels, height, width) through the layer whose parameters are `p`."""
    inner, z = F.conv2d(x, p["in_proj.weight"][:, :, None, None]).chunk(2, 1)
    d_inner = inner.shape[1]
    inner = F.silu(F.conv2d(inner, p["conv2d.weight"], p["conv2d.bias"], padding=1, groups=d_inner))
    batch, _, height, width = inner.shape
    total = 0
    for k in range(4):
        seen = inner.transpose(2, 3) if k % 2 else inner
        u = seen.reshape(batch, d_inner, -1)
        u = u.flip(-1) if k >= 2 else u
        rank, n = p["dt_projs_weight"].shape[2], p["A_logs"].shape[1]
        low, B, C = torch.einsum("cd,bdl->bcl", p["x_proj_weight"][k], u).split([rank, n, n], 1)
        delta = torch.einsum("dr,brl->bdl", p["dt_projs_weight"][k], low) + p["dt_projs_bias"][k][:, None]
        A = -p["A_logs"].view(4, d_inner, n)[k].exp()
        y = slow_scan(u, torch.log1p(delta.exp()), A, B, C, p["Ds"].view(4, d_inner)[k])
        y = y.flip(-1) if k >= 2 else y
        total = total + (y.view(batch, d_inner, width, height).transpose(2, 3) if k % 2 else y.view_as(inner))
    y = slow_layer_norm(total, p["out_norm.weight"], p["out_norm.bias"]) * F.silu(z)
    return F.conv2d(y, p["out_proj.weight"][:, :, None, None])


def slow_layer_norm(x, weight, bias):
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]


def slow_batch_norm(p, x, index):
    mean, variance = p[f"{index}.running_mean"][:, None, None], p[f"{index}.running_var"][:, None, None]
    normalised = (x - mean) / (variance + 1e-5).sqrt()
    return normalised * p[f"{index}.weight"][:, None, None] + p[f"{index}.bias"][:, None, None]


def slow_medmamba(state, x, depths):
    def under(prefix):
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    stem = under("patch_embed.")
    x = F.conv2d(x, stem["proj.weight"], stem["proj.bias"], stride=4)
    x = slow_layer_norm(x, stem["norm.weight"], stem["norm.bias"])
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block = under(f"layers.{stage}.blocks.{index}.")
            left, right = x.chunk(2, 1)
            conv = under(f"layers.{stage}.blocks.{index}.conv33conv33conv11.")
            left = slow_batch_norm(conv, left, 0)
            left = slow_batch_norm(conv, F.conv2d(left, conv["1.weight"], conv["1.bias"], padding=1), 2).relu()
            left = slow_batch_norm(conv, F.conv2d(left, conv["4.weight"], conv["4.bias"], padding=1), 5).relu()
            left = F.conv2d(left, conv["7.weight"], conv["7.bias"]).relu()
            right = slow_layer_norm(right, block["ln_1.weight"], block["ln_1.bias"])
            right = slow_ss2d(under(f"layers.{stage}.blocks.{index}.self_attention."), right)
            # Shuffle in two groups: channels of the two branches alternate.
            shuffled = torch.empty_like(x)
            shuffled[:, 0::2], shuffled[:, 1::2] = left, right
            x = x + shuffled
        if stage < len(depths) - 1:
            down = under(f"layers.{stage}.downsample.")
            x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
            corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = slow_layer_norm(torch.cat(corners, 1), down["norm.weight"], down["norm.bias"])
            x = F.conv2d(x, down["reduction.weight"][:, :, None, None])
    return x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 45, 70), (3, 37, 52)])
def test_equals_a_slow_retelling_on_odd_maps(channels, height, width):
    # SMALL empties no stage here: 45×70 has maps 11×17, 5×8, 2×4, 1×2.
    config = VariantConfig(depths=(1, 2, 1), dims=(8, 16, 40), d_state=3, drop_path_rate=0.0)
    model = build_model(config, num_classes=3, in_channels=channels, seed=3).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        # Away from the initial values, where many parameters do not matter.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
    names = dict(zip(to_public_state_dict(model), model.state_dict()))
    state = {public: value.detach().clone() for public, value in to_public_state_dict(model).items()}
    for public, name in names.items():
        state[public].requires_grad_(name in dict(model.named_parameters()))
    x = images(channels=channels, height=height, width=width, dtype=torch.float64)

    ours, theirs = model(x), slow_medmamba(state, x, config.depths)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for public, name in names.items():
        if state[public].requires_grad:
            gradient = dict(model.named_parameters())[name].grad
            torch.testing.assert_close(gradient, state[public].grad, rtol=1e-8, atol=1e-10, msg=f"gradient of {name}")


def test_fusion_none_keeps_the_streams_apart():
    """A change in the channels of one stream reaches the head's input in that stream alone; with concat it spreads."""
    reached = {}
    for fusion in ("none", "concat"):
        config = VariantConfig.from_dict({"fusion": fusion, "split_ratio": [0.25, 0.5, 0.5, 0.25]}, base=SMALL)
        model = build_model(config, num_classes=2, seed=0).eval()
        stem = model.stem(images()).detach().requires_grad_()
        x = stem
        for halve, stage in zip((torch.nn.Identity(), *model.downsamplings), model.stages):
            x = stage(halve(x))
        conv_in, conv_out = config.structure.stages[0].widths[0], config.structure.stages[3].widths[0]
        gradient = torch.autograd.grad(x[..., :conv_out].square().sum(), stem)[0]
        assert gradient[..., :conv_in].abs().max() > 0
        reached[fusion] = gradient[..., conv_in:].abs().max().item()
    assert reached["none"] == 0 < reached["concat"]


def test_shuffle_of_unequal_branches_is_the_published_permutation():
    fusion = fusions.Shuffle((12, 4), 16, joints.Shuffle(4))
    x, left, right = (
        torch.zeros(1, 1, 1, 16),
        torch.arange(12.0).view(1, 1, 1, 12),
        torch.arange(12.0, 16).view(1, 1, 1, 4),
    )
    # Four groups of four, read across the groups.
    assert fusion(x, [left, right]).flatten().tolist() == [g * 4 + i for i in range(4) for g in range(4)]
    equal = fusions.Shuffle((3, 3), 6, joints.Shuffle())
    assert equal.interleaves
    pieces = [torch.tensor([0.0, 1, 2]).view(1, 1, 1, 3), torch.tensor([3.0, 4, 5]).view(1, 1, 1, 3)]
    assert equal(torch.zeros(1, 1, 1, 6), pieces).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_fresh_gates_are_about_one():
    """Squeeze-excite and attention start near plain concatenation, so a comparison is not one of scale."""
    outputs = [torch.rand(2, 3, 4, 24), torch.rand(2, 3, 4, 8)]
    x = torch.randn(2, 3, 4, 32)
    plain = fusions.Concat((24, 8), 32, joints.Concat())(x, outputs)
    for component in (joints.SqueezeExcite(), joints.Attention()):
        torch.manual_seed(0)
        gated = component.builder()((24, 8), 32, component)(x, outputs)
        ratio = (gated - x) / (plain - x)
        assert 0.5 < ratio.min().item() < ratio.max().item() < 1.5
        assert not torch.allclose(gated, plain)


@pytest.mark.parametrize("down", ["max_pool", "average_pool"])
def test_padding_leaves_border_patches_what_they_are(down):
    x = torch.randn(2, 5, 7, 6)
    pool = F.max_pool2d if down == "max_pool" else F.avg_pool2d
    expected = pool(x.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1)
    padded = pool(downsampling.even(x, pads=True).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(padded, expected)
    assert downsampling.even(x, pads=False).shape == (2, 4, 6, 6)


def test_an_empty_stage_is_named_with_what_mends_it():
    model = build_model(VariantConfig(dims=(8, 16, 24, 32)), num_classes=2)
    with pytest.raises(
        ValueError, match=r"stage 3 is empty for images of 28×28 .*odd_maps=pad or a smaller patch_size"
    ):
        model(images(height=28, width=28))
    with pytest.raises(ValueError, match=r"images must be \(batch, 3 channels, height, width\), got \(2, 1, 72, 44\)"):
        model(images(channels=1))
    for mend in ({"odd_maps": "pad"}, {"patch_size": 2}):
        mended = build_model(VariantConfig.from_dict({"dims": [8, 16, 24, 32], **mend}), num_classes=2)
        assert mended(images(height=28, width=36)).shape == (2, 2)


def test_input_channels_adapt_the_images():
    grey, colour = images(channels=1), images(channels=3)
    to_rgb = build_model(VariantConfig.from_dict({"input_channels": 3}, SMALL), num_classes=2, in_channels=1, seed=0)
    plain = build_model(SMALL, num_classes=2, in_channels=3, seed=0)
    torch.testing.assert_close(to_rgb.eval()(grey), plain.eval()(grey.repeat(1, 3, 1, 1)))
    to_grey = build_model(VariantConfig.from_dict({"input_channels": 1}, SMALL), num_classes=2, in_channels=3, seed=0)
    assert to_grey.stem.projection.in_channels == 1
    luma = 0.299 * colour[:, :1] + 0.587 * colour[:, 1:2] + 0.114 * colour[:, 2:]
    torch.testing.assert_close(to_grey.colour(colour), luma)
    with pytest.raises(ValueError, match="input_channels=3 must get images of 1 or 3 channels, got in_channels=4"):
        build_model(VariantConfig(input_channels=3), num_classes=2, in_channels=4)
    with pytest.raises(ValueError, match="must be at least 1, got num_classes=0"):
        build_model(SMALL, num_classes=0)


def test_drop_path_rises_linearly_and_keeps_the_mean():
    config = VariantConfig.from_dict({"depths": [2, 2, 4, 2], "dims": [8, 8, 8, 8], "drop_path_rate": 0.9})
    stages = build_model(config, num_classes=2).stages
    rates = [[block.branches[1].drop_path.drop_prob for block in stage] for stage in stages]
    assert [len(stage) for stage in rates] == [2, 2, 4, 2]
    # To the last bit: a mask drawn against another rate could drop another branch.
    assert [rate for stage in rates for rate in stage] == torch.linspace(0, 0.9, 10).tolist()
    torch.manual_seed(0)
    branch = SS2DBranch(4, SS2D(d_state=2), 0.25)
    x = torch.randn(4, 4).repeat_interleave(1000, 0).view(4000, 1, 1, 4)
    kept = branch.eval()(x)
    scale = (branch.train()(x) / kept)[:, 0, 0, 0]
    assert scale.round(decimals=4).unique().tolist() == pytest.approx([0, 1 / 0.75], abs=1e-3)
    assert scale.mean().item() == pytest.approx(1, abs=0.03)


def test_seed_alone_decides_the_weights():
    torch.manual_seed(0)
    first = build_model(SMALL, num_classes=2, seed=5).state_dict()
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)
    second = build_model(SMALL, num_classes=2, seed=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_model(SMALL, num_classes=2, seed=6).state_dict()
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_seeded_weights_are_drawn_on_the_cpu_wherever_they_go(monkeypatch):
    """Devices draw differently, so that a seed alone would not decide."""
    drawn, draw = set(), torch.nn.init.kaiming_normal_

    def watched(weight, **options):
        drawn.add(weight.device.type)
        return draw(weight, **options)

    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", watched)
    with torch.device("meta"):
        model = build_model(SMALL, num_classes=2, seed=5)
    assert drawn == {"cpu"}
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_initial_values_are_the_published_ones():
    mixer = build_model(SMALL, num_classes=2, seed=0).stages[3][0].branches[1].mixer
    step = F.softplus(mixer.dt_projs_bias)
    assert step.min() >= 0.001 * 0.999 and step.max() <= 0.1 * 1.001
    assert step.log().mean().item() == pytest.approx(-4.6, abs=0.3)
    torch.testing.assert_close(mixer.A_logs.exp(), torch.arange(1.0, 17).expand(4 * 96, 16))
    assert (mixer.Ds == 1).all()
    assert mixer.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert mixer.dt_projs_weight.abs().max().item() <= 3**-0.5
    assert mixer.conv2d.weight.std().item() == pytest.approx((2 / (9 * 96)) ** 0.5, rel=0.15)


def test_weight_decay_spares_scan_parameters():
    model = build_model(PRESETS["nano"], num_classes=2)
    spared = model.no_weight_decay()
    assert spared <= set(dict(model.named_parameters()))
    assert {name.rpartition(".")[2] for name in spared} == {"A_logs", "Ds", "dt_projs_bias"}


@pytest.mark.parametrize("preset", ["nano", "micro"])
def test_small_presets_are_small(preset):
    config, size, most = {"nano": (PRESETS["nano"], 28, 0.35e6), "micro": (PRESETS["micro"], 64, 1.1e6)}[preset]
    model = build_model(config, num_classes=2, in_channels=1)
    assert sum(parameter.numel() for parameter in model.parameters()) <= most
    assert model(images(channels=1, height=size, width=size + 4)).shape == (2, 2)


def test_one_image_trains_where_the_last_map_is_one_pixel():
    """As the last batch of an epoch may be: what has no variance is normalised as in evaluation."""
    config = VariantConfig.from_dict({"drop_path_rate": 0}, base="micro")
    model = build_model(config, num_classes=2, seed=0).train()
    model(images(batch=4, height=32, width=48)).sum().backward()
    x = images(batch=1, height=32, width=28)
    assert config.map_sizes(32, 28)[-1] == (1, 1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.zero_grad()
    model(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    changed = {name.split(".")[1] for name, value in model.state_dict().items() if not torch.equal(value, state[name])}
    assert changed == {"0", "1", "2"}
    branch, y = model.stages[3][0].branches[0], torch.randn(1, 1, 1, 128)
    assert torch.equal(branch.train()(y), branch.eval()(y))


def test_batch_of_zero_and_channels_last_input():
    model = build_model(PRESETS["nano"], num_classes=2, in_channels=3, seed=0).eval()
    x = images(height=28, width=36)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x))
    assert model(x[:0]).shape == (0, 2)


def test_traces_as_one_graph():
    config = VariantConfig(depths=(1, 1), dims=(16, 24), fusion="attention", odd_maps="pad")
    model = build_model(config, num_classes=2, seed=0).eval()
    x = images(height=28, width=36)
    with use_backend("portable"):
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), model(x))


def test_survives_copies_and_autocast():
    model = build_model(PRESETS["nano"], num_classes=2, in_channels=1, seed=0).eval()
    x = images(channels=1, height=28, width=36)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), expected)
        assert twin.config == model.config
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x)
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, rtol=0.05, atol=0.02)
    rounded.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_network_without_values_has_the_shapes_and_layouts_of_one_with_them():
    with torch.device("meta"):
        shapes = build_model(SMALL, num_classes=2)
    model = build_model(SMALL, num_classes=2)
    found = {name: (value.shape, value.stride(), value.dtype) for name, value in model.state_dict().items()}
    assert {name: (value.shape, value.stride(), value.dtype) for name, value in shapes.state_dict().items()} == found
    assert all(value.is_meta for value in shapes.state_dict().values())
