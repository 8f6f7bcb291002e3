"""A study of MedMamba beside networks by other people: one file, one ledger, one table, one verdict."""

import json

import pytest
import torch

from analysis.records.ledger import load_ledger, read_records
from medmamba_variants.networks import read_network
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.file.reading import load_study
from study.launch import main
from study.store.tracking import _variant_params
from study.training.loop import _batches

FILE = """\
question: Does a small MedMamba beat a small ResNet?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
variants:
  ours: {}
  resnet: {timm: resnet10t, stem: small, channels: [4, 4, 8, 8]}
seeds: [0]
datasets: [phantom_ct]
recipe: {epochs: 1, batch_size: 50}
contrasts:
  - {name: resnet, baseline: ours, against: resnet, metric: macro_auc_ovr, margin: 0.01, kind: exploratory}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    return tmp_path


def launch(*arguments):
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", *arguments])


def test_a_peer_goes_all_the_way_and_resumes(folder, capsys):
    assert launch() == 0
    out = capsys.readouterr().out
    assert "resnet: inconclusive (exploratory); macro-AUC" in out
    records = {record["variant_label"]: record for record in read_records(folder / "mlruns")[0]}
    peer = records["resnet"]
    assert peer["variant"] == {
        "timm": "resnet10t",
        "stem": "small",
        "channels": [4, 4, 8, 8],
        "timm_major": 1,
    }
    assert peer["variant_id"] == read_network(peer["variant"]).variant_id
    assert peer["cost"]["params"] == sum(p.numel() for p in _built(peer).parameters())
    table = load_ledger(folder / "mlruns", study="study")
    assert dict(zip(table["variant_label"], table["axis.timm"]))["resnet"] == "resnet10t"
    assert launch() == 0 and "2 done already" in capsys.readouterr().out


def _built(record):
    network = read_network(record["variant"])
    return network.build(num_classes=len(record["classes"]), in_channels=record["channels"], image_size=(28, 28))


def test_the_dry_run_refuses_images_that_a_peer_cannot_take(folder, capsys):
    (folder / "study.yaml").write_text(FILE.replace("resnet10t, stem: small, channels: [4, 4, 8, 8]", "convnext_atto"))
    assert launch("--dry-run") == 2
    error = capsys.readouterr().err
    assert "variant resnet on phantom_ct: timm's convnext_atto must take images of 28×28" in error
    assert "images of 32×32 will do (recipe.image_size resizes them)" in error


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        ("{timm: resnet10tt}", "study.yaml: variants.resnet.timm must be the name of a classifier of timm"),
        ("{timm: resnet10t, d_state: 3}", "study.yaml: variants.resnet.d_state must be a setting of timm's resnet10t"),
        ("{module: nowhere:Net}", "study.yaml: variants.resnet.module must be importable"),
    ],
)
def test_the_file_and_key_stand_in_the_error(folder, peer, words):
    (folder / "study.yaml").write_text(FILE.replace("{timm: resnet10t, stem: small, channels: [4, 4, 8, 8]}", peer))
    with pytest.raises(ValueError) as caught:
        load_study("study.yaml")
    assert words in str(caught.value)


def test_explaining_a_peer_is_refused_before_it_trains(folder, capsys):
    from study.explain import main as explain

    given = ["study.yaml", "--variant", "resnet", "--dataset", "phantom_ct", "--seed", "0"]
    assert explain(given) == 2
    assert "the variant must be one of MedMamba to be explained, got timm=resnet10t" in capsys.readouterr().err


def test_trackers_get_a_peers_settings_as_parameters():
    params = _variant_params({"timm": "resnet18", "stem": "small", "timm_major": 1})
    assert json.dumps(params).count("resnet18") == 1 and "stem" in json.dumps(params)


def test_a_single_image_left_over_joins_the_batch_before_it_for_peers_alone():
    peer = read_network({"timm": "resnet18"})
    ours = load_base()
    data = DataRef("x", "0" * 16, {})
    for images, sizes in ((9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (1, [1])):
        got = _batches(torch.arange(images), Cell(peer, Recipe(batch_size=4), data, 0))
        assert [len(batch) for batch in got] == sizes
        assert torch.equal(torch.cat(got), torch.arange(images))
    assert [len(b) for b in _batches(torch.arange(9), Cell(ours, Recipe(batch_size=4), data, 0))] == [4, 4, 1]


def load_base():
    return read_network({"depths": [1, 1], "dims": [8, 16]})
