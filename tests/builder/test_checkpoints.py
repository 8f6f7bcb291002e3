"""Published checkpoints: the golden network's features, logits and gradients; what is refused."""

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medmamba_variants import checkpoints
from medmamba_variants.checkpoints import (
    load_public_state_dict,
    load_weights,
    public_name,
    read_checkpoint,
    to_public_state_dict,
)
from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.model import build_model

GOLDEN = os.environ.get("MEDMAMBA_GOLDEN")
SMALL = VariantConfig(depths=(1, 1, 2, 1), dims=(16, 32, 64, 128), drop_path_rate=0.0)


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN:
        pytest.skip("MEDMAMBA_GOLDEN names no folder of golden values")
    with np.load(Path(GOLDEN) / "medmamba_reference_small.npz", allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def under(golden, prefix):
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def relative_error(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


def published_state_dict(seed=0):
    model = build_model(SMALL, num_classes=5, seed=seed)
    return {name: value.clone() for name, value in to_public_state_dict(model).items()}


def test_golden_features_logits_and_gradients(golden):
    model = build_model(SMALL, num_classes=5).eval()
    load_public_state_dict(model, under(golden, "param/"))
    images = golden["input"]
    assert relative_error(model.stem(images).detach(), golden["feature/patch_embed"]) < 1e-5
    for stage, feature in enumerate(model.forward_features(images)):
        assert relative_error(feature.detach(), golden[f"feature/stage{stage}_before_downsample"]) < 1e-5
    logits = model(images)
    assert relative_error(logits.detach(), golden["logits"]) < 1e-5
    logits.square().sum().backward()
    gradients = {public_name(name): parameter.grad for name, parameter in model.named_parameters()}
    expected = under(golden, "grad_of_sum_squared_logits/")
    assert set(gradients) == set(expected)
    for name, value in expected.items():
        assert relative_error(gradients[name], value) < 1e-5, name


def test_golden_names_and_shapes_are_ours(golden):
    ours = to_public_state_dict(build_model(SMALL, num_classes=5))
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in under(golden, "param/").items()
    }


def test_round_trip_and_what_is_ignored():
    state = published_state_dict(seed=1)
    target = build_model(SMALL, num_classes=5, seed=2)
    thop = {"total_ops": torch.zeros(1), "layers.0.total_params": torch.zeros(1)}
    load_public_state_dict(target, {f"module.{name}": value for name, value in (state | thop).items()})
    for name, value in to_public_state_dict(target).items():
        assert torch.equal(value, state[name]), name


def test_a_published_checkpoint_may_pad_and_drop_differently():
    config = VariantConfig.from_dict({"odd_maps": "pad", "drop_path_rate": 0.3}, base=SMALL)
    load_public_state_dict(build_model(config, num_classes=5), published_state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": None}, "must hold every published parameter, missing head.bias$"),
        ({"head.scale": torch.zeros(1)}, "must hold published parameters only, unexpected head.scale$"),
        ({"head.bias": torch.zeros(6)}, r"head.bias must have shape \(5,\), got \(6,\)"),
        ({"head.bias": 3.0}, "head.bias must be a tensor, got float"),
        ({"head.bias": torch.zeros(5).to_sparse()}, "head.bias must be a dense tensor of real numbers, got .*sparse"),
        ({"head.bias": torch.zeros(5, device="meta")}, "head.bias must be a dense tensor .*got torch.float32, meta"),
        ({"head.bias": torch.zeros(5, dtype=torch.complex64)}, "head.bias must be .*of real numbers, got .*complex64"),
        ({"module.head.bias": torch.zeros(5)}, "must hold every parameter once, .*twice there is head.bias$"),
        ({"layers.0.extra_total_ops": torch.zeros(1)}, "unexpected layers.0.extra_total_ops"),
    ],
)
def test_bad_state_dicts_are_refused_whole(change, message):
    state = {name: value for name, value in (published_state_dict() | change).items() if value is not None}
    model = build_model(SMALL, num_classes=5, seed=9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_public_state_dict(model, state)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def wrapped_forms(state):
    """Checkpoints as trainers write them: torch alone, compiled, in parallel, timm, Lightning, ema_pytorch, swa."""

    def under(prefix, values=state):
        return {f"{prefix}{name}": value for name, value in values.items()}

    options = argparse.Namespace(lr=0.1)
    return {
        "as it is": state,
        "model": {"model": state, "epoch": 3, "args": options},
        "state_dict": {"state_dict": under("module."), "best_acc": 0.5},
        "model_state_dict": {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        "compiled": under("_orig_mod."),
        "compiled in parallel": under("module._orig_mod."),
        "a compiled stage": {name.replace("layers.0.", "layers.0._orig_mod."): value for name, value in state.items()},
        "Lightning": {"state_dict": under("model."), "pytorch-lightning_version": "2"},
        "Lightning, compiled": {"state_dict": under("model._orig_mod.")},
        "a backbone": under("backbone."),
        "three deep": {"ckpt": 1, "state_dict": {"model": under("module.")}},
        "averaged alone": {"model_ema": state},
        "timm's average": {"state_dict_ema": under("module.")},
        "ema_pytorch": {"initted": torch.tensor(True), "step": torch.tensor(3), **under("ema_model.")},
        "swa": {"n_averaged": torch.tensor(4), **under("module.")},
    }


@pytest.mark.parametrize("form", wrapped_forms({}))
def test_wrapped_checkpoints_are_read(form):
    state = published_state_dict(seed=1)
    target = build_model(SMALL, num_classes=5, seed=2)
    assert load_public_state_dict(target, wrapped_forms(state)[form]) == []
    for name, value in to_public_state_dict(target).items():
        assert torch.equal(value, state[name]), name


def test_weights_or_their_average_are_taken_as_asked():
    plain, average = published_state_dict(seed=1), published_state_dict(seed=2)
    for wrapped in (
        {"model": plain, "model_ema": average},
        {"state_dict": plain, "state_dict_ema": average},
        {**{f"online_model.{n}": v for n, v in plain.items()}, **{f"ema_model.{n}": v for n, v in average.items()}},
    ):
        for ema, expected in ((False, plain), (True, average)):
            target = build_model(SMALL, num_classes=5, seed=3)
            load_public_state_dict(target, wrapped, ema=ema)
            assert torch.equal(target.head.weight, expected["head.weight"])


def test_a_network_for_other_classes_is_read_without_its_head():
    state = published_state_dict(seed=1)
    target = build_model(SMALL, num_classes=3, seed=2)
    before = target.head.weight.detach().clone()
    with pytest.raises(
        ValueError, match=r"^unless head=False leaves the head out, head.weight .under model. must have shape \(3, 128"
    ):
        load_public_state_dict(target, {"model": state})
    assert load_public_state_dict(target, {"model": state}, head=False) == ["head.weight", "head.bias"]
    assert torch.equal(target.head.weight, before)
    assert torch.equal(target.stem.projection.weight, state["patch_embed.proj.weight"])
    # What is wrong elsewhere is not the head's, and is refused with or without it.
    short = {name: value for name, value in state.items() if name != "patch_embed.proj.bias"}
    for head in (True, False):
        with pytest.raises(ValueError, match=r"^the state dict must hold .* missing patch_embed.proj.bias"):
            load_public_state_dict(target, short, head=head)


@pytest.mark.parametrize(
    ("given", "came"),
    [
        ({"epoch": 3, "config": {"a": 1}, "foo": 1, "bar": 2}, "got the keys epoch, config, foo and 1 more"),
        ({"model": 3}, "got the keys model"),
        (3, "got an object of int"),
        (torch.zeros(3), "got an object of Tensor"),
        (torch.nn.Linear(2, 2), "got a module without them"),
    ],
)
def test_what_holds_no_weights_is_named(given, came):
    with pytest.raises(ValueError, match=rf"must hold every published parameter .*, by itself or under .*{came}$"):
        load_public_state_dict(build_model(SMALL, num_classes=5), given)


def test_any_variant_reads_its_own_names_and_a_published_one_both():
    other = VariantConfig.from_dict({"split_ratio": 0.25}, base=SMALL)
    for config, state in (
        (other, build_model(other, num_classes=5, seed=1).state_dict()),
        (SMALL, build_model(SMALL, num_classes=5, seed=1).state_dict()),
        (SMALL, published_state_dict(seed=1)),
        (SMALL, build_model(SMALL, num_classes=5, seed=1)),
    ):
        target = build_model(config, num_classes=5, seed=2)
        assert load_weights(target, {"model": state}) == []
        expected = build_model(config, num_classes=5, seed=1).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())
    with pytest.raises(ValueError, match=r"network parameter"):
        load_weights(build_model(other, num_classes=5), published_state_dict())


def test_a_network_whose_own_names_begin_like_a_wrapper_is_read():
    network = torch.nn.Module()
    network.module = torch.nn.Linear(2, 3)
    state = {name: value + 1 for name, value in network.state_dict().items()}
    for given in (state, {"state_dict": state}):
        assert load_weights(network, given, classifier="none") == []
        assert torch.equal(network.module.weight, state["module.weight"])


class Unknown:
    """A class of a repository that nobody has installed."""


def test_files_are_read_without_running_code(tmp_path):
    state = published_state_dict(seed=1)
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5)}, tmp_path / "a.pth")
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert load_public_state_dict(build_model(SMALL, num_classes=5), read_checkpoint(tmp_path / name)) == []
    torch.save({"model": state, "trainer": Unknown()}, tmp_path / "pickled.pth")
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    for name, came in (
        ("pickled.pth", "got an object of the class .*Unknown"),
        ("text.pth", "must be a checkpoint"),
        ("text.safetensors", "must be a safetensors file"),
        ("missing.pth", "No such file"),
        ("missing.safetensors", "No such file"),
    ):
        with pytest.raises(ValueError, match=f"{name}.*{came}") as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_model_without_memory_is_refused():
    with torch.device("meta"):
        model = build_model(SMALL, num_classes=5)
    with pytest.raises(ValueError, match="the model must have memory to copy a state dict into"):
        load_public_state_dict(model, published_state_dict())


def test_many_missing_keys_stay_one_line():
    with pytest.raises(ValueError, match=r"missing patch_embed.proj.weight, .* and \d+ more$"):
        load_public_state_dict(build_model(SMALL, num_classes=5), {})


@pytest.mark.parametrize(
    "step",
    [
        {"scan_directions": "corner4"},
        {"scan_window": 7},
        {"merge": "mean"},
        {"direction_weights": "shared"},
        {"split_ratio": 0.25},
        {"fusion": "concat"},
        {"shuffle_groups": 4},
        {"downsampling": "max_pool"},
    ],
    ids=str,
)
def test_another_architecture_is_refused_even_where_the_shapes_fit(step):
    model = build_model(VariantConfig.from_dict(step, base=SMALL), num_classes=5)
    axis = "branches" if "split_ratio" in step else next(iter(step))
    with pytest.raises(ValueError, match=rf"must meet the published architecture, {axis}=.*; got {axis}="):
        load_public_state_dict(model, published_state_dict())
    with pytest.raises(ValueError, match="must meet the published architecture"):
        to_public_state_dict(model)


def test_an_axis_is_refused_until_it_is_listed(monkeypatch):
    """Whoever adds an axis need not think of checkpoints: its step is refused, not read as if it were nothing."""
    monkeypatch.setattr(checkpoints, "_MAY_DIFFER", ("depths", "dims", "drop_path_rate"))
    model = build_model(VariantConfig.from_dict({"d_state": 8}, base=SMALL), num_classes=5)
    with pytest.raises(ValueError, match="must meet the published architecture, d_state=16; got d_state=8"):
        to_public_state_dict(model)


def test_every_preset_of_the_published_family_has_public_names():
    for preset in ("medmamba_t", "medmamba_s", "medmamba_b"):
        with torch.device("meta"):
            names = to_public_state_dict(build_model(PRESETS[preset], num_classes=6))
        assert {name.split(".")[0] for name in names} == {"patch_embed", "layers", "head"}
