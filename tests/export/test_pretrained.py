"""Variants that start from weights: what is copied, what trains, what the record and the launch say, and ids."""

import dataclasses

import pytest
import torch
from torch import nn

from analysis.records.ledger import load_ledger, read_records
from medmamba_variants.checkpoints import to_public_state_dict
from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.model import build_model
from medmamba_variants.networks import build_network, network_cost, read_network, without_weights
from medmamba_variants.peers import hub
from medmamba_variants.peers.starting import classifier_of, frozen_parts, start_from_weights
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.export.trained import load_trained
from study.file.reading import load_study
from study.launch import main
from study.training.loop import _batches

SMALL = {"depths": [1, 1], "dims": [8, 16], "d_state": 2}
STUDY = """\
question: Do weights help?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
variants:
  scratch: {}
  tuned: {weights: start.pth}
  probe: {weights: start.pth, features: frozen}
seeds: [0]
datasets: ["phantom_position?size=14x22&n_train=40&n_val=16&n_test=24"]
recipe: {epochs: 2, batch_size: 16, ema_span: 0}
contrasts:
  - {name: start, baseline: scratch, against: tuned, metric: macro_auc_ovr, margin: 0.01, kind: exploratory}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a study and a checkpoint for five classes in a trainer's wrapper."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    torch.save({"model": donor().state_dict(), "epoch": 3}, tmp_path / "start.pth")
    return tmp_path


def donor():
    return build_model(VariantConfig.from_dict(SMALL, base=PRESETS["nano"]), num_classes=5, in_channels=1, seed=7)


def launch(*arguments):
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", *arguments])


def test_a_study_of_three_starts(folder, capsys):
    assert launch("--keep", "weights") == 0
    out = capsys.readouterr().out
    assert "note: tuned starts from start.pth (all of it trains); fresh: head.weight, head.bias" in out
    assert "note: probe starts from start.pth (frozen features); fresh: head.weight, head.bias" in out
    records = {record["variant_label"]: record for record in read_records(folder / "mlruns")[0]}
    assert "pretrained" not in records["scratch"]
    for label, features in (("tuned", "finetune"), ("probe", "frozen")):
        record = records[label]
        start = record["pretrained"]
        assert start["fresh"] == ["head.weight", "head.bias"] and start["features"] == features
        assert record["variant"]["weights"] == start["hash"] and record["variant"]["weights_file"] == "start.pth"
        # A record is read where the file is not.
        assert read_network(record["variant"]).variant_id == record["variant_id"]
        assert record["cost"] == records["scratch"]["cost"]
    assert len({record["test"]["brier"] for record in records.values()}) == 3
    table = load_ledger(folder / "mlruns", study="study")
    assert len(table) == 3
    # Frozen features are the donor's to the last bit, running statistics included; the tuned ones have moved.
    before = donor().state_dict()
    for label, same in (("probe", True), ("tuned", False)):
        after = load_trained(folder / "mlruns/ledger" / records[label]["weights"]).predictor.network.state_dict()
        body = [name for name in before if not name.startswith("head.")]
        assert all(torch.equal(before[name], after[name]) for name in body) is same
        assert after["head.weight"].shape != before["head.weight"].shape
    assert launch() == 0 and "3 done already" in capsys.readouterr().out


def test_ids_follow_the_content_and_what_trains_and_no_other_id_moves(folder):
    def ids():
        return {label: variant.variant_id for label, variant in load_study("study.yaml").variants()}

    first = ids()
    assert len(set(first.values())) == 3
    assert first["scratch"] == VariantConfig.from_dict(SMALL, base=PRESETS["nano"]).variant_id
    (folder / "moved").mkdir()
    (folder / "start.pth").rename(folder / "moved/other.pth")
    (folder / "study.yaml").write_text(STUDY.replace("start.pth", "moved/other.pth"))
    assert ids() == first
    torch.save({"model": donor().state_dict(), "epoch": 4}, folder / "moved/other.pth")
    second = ids()
    assert second["scratch"] == first["scratch"] and not {second["tuned"], second["probe"]} & set(first.values())


def test_weights_that_changed_since_the_study_was_read_fail_the_cell(folder):
    network = dict(load_study("study.yaml").variants())["tuned"]
    model = build_network(network, num_classes=3, in_channels=1, image_size=(14, 22))
    torch.save({"model": donor().state_dict(), "epoch": 5}, folder / "start.pth")
    with pytest.raises(ValueError, match=r"start.pth: weights must have the hash .* they changed since the study was"):
        start_from_weights(model, network)
    (folder / "start.pth").unlink()
    with pytest.raises(ValueError, match=r"start.pth: must be a file of weights, got No such file"):
        start_from_weights(model, network)
    with pytest.raises(ValueError, match="weights must come from a study file, which has their path, got a record's"):
        start_from_weights(model, read_network(network.diff()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("start.pth}", "none.pth}"), "study.yaml: variants.tuned.weights must be a file of weights, got none.pth: No"),
        (
            ("start.pth}", "3}"),
            "study.yaml: variants.tuned.weights must be a file of weights (or timm, for timm's own)",
        ),
        (("frozen", "frosen"), "study.yaml: variants.probe.features must be one of finetune, frozen; got 'frosen'"),
        (("start.pth}", "timm}"), "variants.tuned.weights must be a file for a network that is not timm's, got timm"),
        (("start.pth}", "start.pth, d_stat: 3}"), "variants.tuned.d_stat"),
        (
            ("start.pth}", "start.pth, dims: [8, 24]}"),
            "variant tuned on phantom_position?size=14x22&n_train=40&n_val=16&n_test=24: ",
        ),
        (("start.pth}", "start.pth, depths: [2, 1]}"), "must hold every network parameter, missing stages.0.1"),
    ],
)
def test_what_does_not_fit_stops_before_anything_runs(folder, capsys, change, message):
    (folder / "study.yaml").write_text(STUDY.replace(*change, 1))
    assert launch() == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (folder / "mlruns").exists()


def test_a_published_checkpoint_starts_the_published_network(tmp_path):
    small = {"depths": [1, 1], "dims": [16, 32]}
    config = VariantConfig.from_dict(small)
    weights = {name: value.clone() for name, value in to_public_state_dict(build_model(config, num_classes=6)).items()}
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "t.pth")
    network = read_network({**small, "weights": str(tmp_path / "t.pth")})
    model = build_network(network, num_classes=3, in_channels=3, image_size=(32, 32))
    start = start_from_weights(model, network)["pretrained"]
    assert start["fresh"] == ["head.weight", "head.bias"]
    assert torch.equal(model.stem.projection.weight, weights["patch_embed.proj.weight"])
    grey = build_network(network, num_classes=3, in_channels=1, image_size=(32, 32))
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight .* the axis input_channels \(1 or 3\) converts"):
        start_from_weights(grey, network)
    converted = read_network({**small, "input_channels": 3, "weights": str(tmp_path / "t.pth")})
    start_from_weights(build_network(converted, num_classes=3, in_channels=1, image_size=(32, 32)), converted)


def test_what_is_kept_starts_another_study(folder):
    assert launch("--keep", "weights", "--set", "variants={scratch: {}}", "--set", "contrasts=[]") == 0
    (record,) = read_records(folder / "mlruns")[0]
    kept = folder / "mlruns/ledger" / record["weights"]
    network = read_network({**record["variant"], "weights": str(kept)})
    model = build_network(network, num_classes=2, in_channels=1, image_size=(14, 22))
    start_from_weights(model, network)
    old = load_trained(kept).predictor.network.state_dict()
    assert all(torch.equal(old[name], value) for name, value in model.state_dict().items() if "head" not in name)


def test_timm_s_own_weights(monkeypatch):
    """timm's hub is out of reach in tests: what it would hand on are weights for colour and 1,000 classes."""
    import timm

    asked = []

    def own(network, origin):
        asked.append(origin)
        torch.manual_seed(3)
        return timm.create_model(network.name, **dict(network.settings)).state_dict()

    monkeypatch.setattr(hub, "timm_weights", own)
    network = read_network({"timm": "resnet10t", "weights": "timm:c3_in1k", "features": "frozen"})
    model = build_network(network, num_classes=3, in_channels=1, image_size=(32, 32))
    start = start_from_weights(model, network)["pretrained"]
    assert asked == ["timm:c3_in1k"] * 2
    assert start["fresh"] == ["fc.weight", "fc.bias"] and start["adapted"] == ["conv1.0.weight"]
    weights = own(without_weights(network), "timm")
    # Grey is equal parts of colour: the filters of the three are added up.
    torch.testing.assert_close(model.conv1[0].weight, weights["conv1.0.weight"].sum(1, keepdim=True))
    assert torch.equal(model.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert network_cost(network, image_size=(32, 32), num_classes=3, in_channels=1).params > 0


def test_timm_without_a_network_is_one_line():
    network = read_network({"timm": "test_resnet"})
    with pytest.raises(
        ValueError, match=r"timm's weights of test_resnet.nothing_like_it must be in its cache or within"
    ):
        hub.timm_weights(network, "timm:nothing_like_it")


def test_the_last_layer_is_found_and_only_what_is_frozen_stays_in_evaluation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
            self.flat = nn.Flatten()
            self.last = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3))

    net = Net()
    assert classifier_of(net) == "last.1" and frozen_parts(net) == []
    net.body.requires_grad_(False)
    assert frozen_parts(net) == [net.body]
    with pytest.raises(ValueError, match="must have a linear layer to start from weights, got none"):
        classifier_of(nn.Conv2d(1, 1, 1))


def test_a_variant_with_weights_sees_the_batches_of_the_one_without(folder):
    variants = dict(load_study("study.yaml").variants())
    cells = [Cell(variants[name], Recipe(batch_size=4), DataRef("x", "0" * 16, {}), 0) for name in ("scratch", "tuned")]
    assert [[len(batch) for batch in _batches(torch.arange(9), cell)] for cell in cells] == [[4, 4, 1]] * 2
    moved = dataclasses.replace(variants["tuned"], name="elsewhere.pth", origin="/elsewhere.pth")
    assert moved == variants["tuned"]
