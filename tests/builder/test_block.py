"""Blocks: what stands around the branches does what its axis says, and nothing where it is at rest."""

import pytest
import torch

from medmamba_variants.config import VariantConfig
from medmamba_variants.model import build_model
from medmamba_variants.parts.block import Block
from medmamba_variants.parts.position import waves
from medmamba_variants.scan.loops import as_loops

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"depths": [2], "dims": [16], "drop_path_rate": 0.0, "patch_size": 2}


def block(index=0, **axes):
    """A block of a small network in double precision and evaluation, and its stage."""
    torch.manual_seed(0)
    stage = VariantConfig.from_dict(SMALL | axes).structure.blocks[0][index]
    return Block(stage, 0.0).double().eval(), stage


def maps(channels=16, batch=2, height=5, width=6):
    return torch.randn(batch, height, width, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def copied(source, target):
    """The weights of one block in another, where it has any of that name."""
    target.load_state_dict(source.state_dict(), strict=False)


def test_parallel_branches_all_read_every_channel():
    built, _ = block(branches=[[1, "conv"], [1, "ss2d"]], fusion="conv1x1")
    x = maps()
    outputs = [branch(x) for branch in built.branches]
    torch.testing.assert_close(built(x), x + built.fusion.mixing(torch.cat(outputs, -1)))


def test_a_cascade_hands_each_output_to_the_next_branch():
    built, _ = block(branches=[[0.25, "ss2d"]] * 4, cascade=True, fusion="concat")
    x = maps()
    expected, last = [], 0
    for branch, part in zip(built.branches, x.split(4, -1)):
        last = branch(part + last)
        expected.append(last)
    torch.testing.assert_close(built(x), x + torch.cat(expected, -1))


@pytest.mark.parametrize("cascade", [False, True])
def test_branches_that_share_weights_are_one_module(cascade):
    axes = {"branches": [[0.25, "ss2d"]] * 2 + [[0.5, "conv"]], "fusion": "concat"} | (
        {"branches": [[0.25, "ss2d"]] * 4, "cascade": True} if cascade else {}
    )
    shared, own = block(branch_weights="shared", **axes)[0], block(**axes)[0]
    count = [sum(parameter.numel() for parameter in each.branches.parameters()) for each in (shared, own)]
    assert count[0] < count[1]
    for used, branch in zip(shared.used, own.branches):
        branch.load_state_dict(shared.branches[used].state_dict())
    torch.testing.assert_close(shared(maps()), own(maps()))


def test_one_module_for_all_branches_runs_once():
    """The parallel vision Mamba of UltraLight VM-UNet: chunks of the channels as images of one batch."""
    built, _ = block(branches=[[0.25, "ss2d"]] * 4, branch_weights="shared", fusion="concat")
    x, calls = maps(), []
    built.branches[0].register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    mixed = built(x) - x
    assert calls == [8]
    torch.testing.assert_close(mixed, torch.cat([built.branches[0](part) for part in x.split(4, -1)], -1))


def test_shift_round_rolls_the_channels_of_every_second_block_by_half_a_branch():
    axes = {"branches": [[0.25, "ss2d"]] * 4, "fusion": "concat"}
    plain, even, odd = block(**axes)[0], block(shift_round=True, **axes)[0], block(1, shift_round=True, **axes)[0]
    x = maps()
    torch.testing.assert_close(even(x), plain(x))
    torch.testing.assert_close(odd(x), plain(x.roll(-2, -1)).roll(2, -1))
    assert not torch.allclose(odd(x), plain(x))


@pytest.mark.parametrize("fusion", ["shuffle", "concat", "conv1x1", "squeeze_excite", "attention"])
def test_a_fusion_adds_what_it_joins(fusion):
    """A scale of one on what a block adds, and on what it adds to, changes nothing."""
    plain = block(fusion=fusion)[0]
    for residual, value in (("layer_scale", {"residual_scale": 1.0}), ("learned_skip", {})):
        wrapped = block(fusion=fusion, residual=residual, **value)[0]
        copied(plain, wrapped)
        torch.testing.assert_close(wrapped(maps()), plain(maps()))


def test_residuals_weigh_what_they_name():
    plain, x = block(fusion="concat")[0], maps()
    mixed = plain(x) - x
    scaled, skipping = (
        block(fusion="concat", residual="layer_scale")[0],
        block(fusion="concat", residual="learned_skip")[0],
    )
    copied(plain, scaled)
    copied(plain, skipping)
    torch.testing.assert_close(scaled(x), x + 0.1 * mixed)
    with torch.no_grad():
        skipping.residual.skip.fill_(0.5)
    torch.testing.assert_close(skipping(x), 0.5 * x + mixed)


def test_a_channel_mixer_is_a_second_residual_half():
    plain, x = block()[0], maps()
    mixing = block(channel_mixer="mlp", mlp_ratio=2.0)[0]
    copied(plain, mixing)
    after = plain(x)
    hidden = torch.nn.functional.gelu(mixing.channel_mixer.widen(mixing.channel_norm(after)))
    assert hidden.shape[-1] == 32
    torch.testing.assert_close(mixing(x), after + mixing.channel_mixer.narrow(hidden))


def test_conditional_positions_stand_before_each_half():
    both = block(channel_mixer="mlp", cpe="both")[0]
    plain = block(channel_mixer="mlp")[0]
    copied(both, plain)
    x = maps()
    with torch.no_grad():
        both.channel_cpe.weight.zero_()
        both.channel_cpe.bias.zero_()
    torch.testing.assert_close(both(x), plain(x + both.cpe(x)))


@pytest.mark.parametrize("place", ["fusion", "branches", "stage"])
def test_attention_weighs_what_its_place_names(place):
    plain = block(fusion="concat")[0]
    weighing = block(fusion="concat", attention="dual_pooling", attention_place=place)[0]
    copied(plain, weighing)
    x = maps()
    if place == "stage":
        expected = weighing.attention[0](plain(x))
    elif place == "fusion":
        expected = x + weighing.attention[0](plain(x) - x)
    else:
        parts = (plain(x) - x).split(8, -1)
        expected = x + torch.cat([gate(part) for gate, part in zip(weighing.attention, parts)], -1)
    torch.testing.assert_close(weighing(x), expected)


@pytest.mark.parametrize("norm", ["rms_norm", "dynamic_tanh"])
def test_every_norm_of_a_block_is_exchanged(norm):
    built, _ = block(block_norm=norm, channel_mixer="mlp")
    kinds = {type(module).__name__ for module in built.modules()}
    assert "LayerNorm" not in kinds
    assert {"rms_norm": "RMSNorm", "dynamic_tanh": "DynamicTanh"}[norm] in kinds


def test_dynamic_tanh_is_its_equation():
    built, _ = block(block_norm="dynamic_tanh")
    norm, x = built.branches[1].norm, maps(8)
    torch.testing.assert_close(norm(x), norm.weight * torch.tanh(norm.slope * x) + norm.bias)


@pytest.mark.parametrize("stem", ["patches", "overlapping", "convolutions"])
@pytest.mark.parametrize(("height", "width"), [(32, 40), (31, 45), (4, 4)])
def test_every_stem_makes_the_same_map_sizes(stem, height, width):
    model = build_model(VariantConfig.from_dict({**SMALL, "patch_size": 4, "stem": stem}), num_classes=2).eval()
    features = model.forward_features(torch.randn(2, 3, height, width))
    assert features[0].shape == (2, height // 4, width // 4, 16)
    # What fills no patch is not seen.
    cut = torch.randn(2, 3, height, width)
    beyond = cut.clone()
    beyond[..., height // 4 * 4 :, :] = 9
    torch.testing.assert_close(model(cut), model(beyond))


def test_sinusoids_are_those_of_the_transformer():
    table = waves(3, 5, 8, torch.device("cpu"))
    for row, column, wave in ((0, 0, 0), (2, 3, 0), (1, 4, 1)):
        rate = 10_000 ** -(wave / 2)
        for first, place in ((0, row), (4, column)):
            pair = table[row, column, first + 2 * wave : first + 2 * wave + 2]
            torch.testing.assert_close(
                pair,
                torch.tensor([place * rate, place * rate])
                .sin()
                .where(torch.tensor([True, False]), torch.tensor([place * rate, place * rate]).cos()),
            )


@pytest.mark.parametrize("axes", [{"position": "sinusoidal"}, {"attention": "spectral"}], ids=str)
def test_constants_asked_for_first_in_inference_serve_training(axes):
    """Sizes of its own, so that nothing has been kept before."""
    model = build_model(VariantConfig.from_dict({**SMALL, **axes}), num_classes=2, seed=0)
    images = torch.randn(2, 3, 34, 38)
    with torch.inference_mode():
        expected = model.eval()(images)
    trained = model(images)
    trained.sum().backward()
    torch.testing.assert_close(trained, expected.clone())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_learned_positions_are_the_grid_where_the_map_has_its_size():
    config = VariantConfig.from_dict({**SMALL, "position": "learned"})
    model = build_model(config, num_classes=2, seed=0).eval()
    x = torch.randn(1, 14, 14, 16)
    torch.testing.assert_close(model.position(x), x + model.position.grid.permute(0, 2, 3, 1))


@pytest.mark.parametrize("final", ["map", "pooled"])
def test_the_final_norm_stands_before_or_after_the_mean(final):
    model = build_model(VariantConfig.from_dict({**SMALL, "final_norm": final}), num_classes=2, seed=0).eval()
    x = torch.randn(2, 3, 12, 14)
    last = model.forward_features(x)[-1]
    pooled = model.norm(last).mean((1, 2)) if final == "map" else model.norm(last.mean((1, 2)))
    torch.testing.assert_close(model(x), model.head(pooled))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"cpe": "both"}, "cpe must be mixer or none where there is no channel_mixer, got both in stage 0"),
        ({"cascade": True, "split_ratio": 0.25}, r"cascade must have branches of one width, got \[12, 4\] in stage 0"),
        ({"stem": "convolutions", "patch_size": 3}, "patch_size must be a power of two from 2 for stem=conv.*, got 3"),
        ({"stem": "overlapping", "patch_size": 1}, "stem must be patches for patch_size=1.* got overlapping"),
        (
            {"split_ratio": 1, "attention": "squeeze_excite", "attention_place": "branches"},
            "attention_place must be fus",
        ),
        ({"shift_round": True, "split_ratio": 1}, "shift_round must be left out where it has no effect"),
        ({"branch_weights": "shared"}, "branch_weights must be left out where it has no effect: no two branches have"),
        (
            {"shift_round": True, "branches": [[1, "conv"], [1, "ss2d"]], "fusion": "conv1x1"},
            "shift_round must be false where branches do not divide the channels",
        ),
        *(
            (
                {"depths": [1, 1], "dims": [16, 32], "fusion": "none", **axes},
                f"fusion none keeps streams apart, so {what}",
            )
            for axes, what in (
                ({"channel_mixer": "mlp"}, "channel_mixer must be none"),
                ({"attention": "squeeze_excite"}, "attention_place must be branches"),
                ({"cascade": True}, "cascade must be false"),
                ({"shift_round": True}, "shift_round must be false"),
            )
        ),
    ],
    ids=str,
)
def test_what_is_not_a_network_says_so(axes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        VariantConfig.from_dict(SMALL | axes)


def test_a_stage_without_room_repeats_its_neighbour():
    """Values where they have no effect make no other network."""
    axes = {"depths": [1, 1], "dims": [16, 32], "branches": [[[1, "ss2d"]], [[0.5, "ss2d"], [0.5, "ss2d"]]]}
    given = VariantConfig.from_dict(axes | {"cascade": [False, True], "branch_weights": ["own", "shared"]})
    assert given == VariantConfig.from_dict(axes | {"cascade": True, "branch_weights": "shared"})
    assert given.cascade is True


@pytest.mark.parametrize(
    "axes",
    [{"position": "sinusoidal"}, {"token_reduction": "merge_similar"}, {"token_reduction": "random_drop"}],
    ids=str,
)
def test_what_an_export_saw_first_computes_afterwards(axes):
    """Constants are kept as tensors, never as an export's shapes; the size is one that no other test has."""
    network = build_model(VariantConfig.from_dict(axes, base="nano"), num_classes=2, in_channels=1, seed=0).eval()
    images = torch.ones(2, 1, 26, 22)
    with torch.no_grad(), as_loops():
        program = torch.export.export(network, (images,))
        torch.testing.assert_close(program.module()(images), network(images))
