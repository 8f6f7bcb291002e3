"""Kept weights: the file of a cell, its description, who writes it, and the network that comes back from it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from analysis.records.ledger import read_records
from medmamba_variants.config import VariantConfig
from medmamba_variants.model import build_model
from study.data.sources import load_dataset
from study.launch import main
from study.store.ledger import Ledger
from study.store.weights import as_bytes, read_kept
from study.training.evaluation import predict
from study.training.images import Normaliser, on_device

DATA = "phantom_position?size=14x22&n_train=40&n_val=16&n_test=24"
STUDY = f"""\
question: Do the weights stay?
base: nano
variant: {{depths: [1, 1], dims: [8, 16], d_state: 2}}
axes: {{split_ratio: [0.5, 1]}}
seeds: [0]
datasets: ["{DATA}"]
recipe: {{epochs: 2, batch_size: 16}}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def launch(*arguments):
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", *arguments])


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory):
    """The folder of a study that ran with --keep weights."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "study.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert launch("--keep", "weights") == 0
    return folder / "mlruns"


def test_every_record_names_a_file_and_the_network_in_it_gives_the_record_s_probabilities(kept_store):
    ledger = Ledger(kept_store / "ledger")
    records = ledger.finished()
    assert len(records) == 2
    data = load_dataset({"kind": "phantom"}, DATA)
    for cell_id, record in records.items():
        assert record["weights"] == f"weights/{cell_id}.safetensors"
        kept = read_kept(ledger.folder / record["weights"])
        about = kept.about
        assert about["cell_id"] == cell_id and about["classes"] == record["classes"] == list(data.info.classes)
        assert about["channels"] == 1 and about["image_size"] == [14, 22]
        assert about["data_fingerprint"] == record["data_fingerprint"] and about["seed"] == 0
        model = build_model(VariantConfig.from_dict(about["variant"]), num_classes=len(about["classes"]), in_channels=1)
        model.load_state_dict(kept.weights)
        seen = on_device(data.splits["test"].images, data.splits["test"].labels, recipe_of(record), torch.device("cpu"))
        scale, offset = (torch.tensor(about["normalisation"][name]) for name in ("scale", "offset"))

        def normalise(pixels, scale=scale, offset=offset):
            return (pixels.float() * scale + offset).permute(0, 3, 1, 2)

        found = predict(model, seen, normalise, lambda: torch.autocast("cpu", enabled=False)).numpy()
        expected = ledger.probabilities(cell_id)["test_probabilities"]
        assert np.abs(found - expected).max() < 1e-6
        # The numbers are those of the training images, kept exactly.
        train = on_device(
            data.splits["train"].images, data.splits["train"].labels, recipe_of(record), torch.device("cpu")
        )
        assert torch.equal(scale, Normaliser(train).scale)
        assert torch.equal(offset, Normaliser(train).offset)


def recipe_of(record):
    from study.declaration.recipe import Recipe

    return Recipe.from_dict(record["recipe"])


def test_only_what_runs_is_kept_and_a_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    short = ("--set", "recipe.epochs=1")
    assert launch(*short, "--set", "axes.split_ratio=[1]") == 0
    assert not any("weights" in record for record in read_records(tmp_path / "mlruns")[0])
    assert not (tmp_path / "mlruns/ledger/weights").exists()
    capsys.readouterr()
    assert launch(*short, "--keep", "weights") == 0
    assert "note: 1 finished cell without weights: --keep weights keeps those of cells that run now" in (
        capsys.readouterr().out
    )
    kept = [record for record in read_records(tmp_path / "mlruns")[0] if "weights" in record]
    assert len(kept) == 1 and (tmp_path / "mlruns/ledger" / kept[0]["weights"]).exists()
    # The numbers are the same with and without.
    assert launch(*short, "--store", "other", "--set", "axes.split_ratio=[1]", "--keep", "weights") == 0
    first, second = (
        next(r for r in read_records(tmp_path / store)[0] if r["variant"] != kept[0]["variant"])
        for store in ("mlruns", "other")
    )
    assert first["test"] == second["test"] and first["cell_id"] == second["cell_id"]


def test_the_ledger_writes_weights_before_the_line_that_names_them(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger")
    file = as_bytes({"a": torch.arange(6.0).view(2, 3).T}, about())
    written = ledger.append({"cell_id": "a1", "status": "done", "weights": file}, None)
    assert written["weights"] == "weights/a1.safetensors"
    assert json.loads(ledger.records_path.read_text())["weights"] == written["weights"]
    assert torch.equal(read_kept(ledger.folder / written["weights"]).weights["a"], torch.arange(6.0).view(2, 3).T)
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"b2.safetensors|No space"):
        ledger.append({"cell_id": "b2", "status": "done", "weights": file}, None)
    assert "b2" not in ledger.records_path.read_text()
    assert [path.name for path in (ledger.folder / "weights").iterdir()] == ["a1.safetensors"]


def about(**more):
    needed = {"variant": {}, "classes": ["a"], "channels": 1, "image_size": [4, 4], "normalisation": {}, "cell_id": "x"}
    return needed | more


def test_other_files_are_refused_in_one_line(tmp_path):
    weights = {"a": torch.zeros(2)}
    (tmp_path / "old.safetensors").write_bytes(as_bytes(weights, about(version=0)))
    (tmp_path / "part.safetensors").write_bytes(as_bytes(weights, {"classes": ["a"]}))
    save_file(weights, tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for name, came in (
        ("old", "must be kept weights of version 1, got version 0"),
        ("part", "got no variant, channels, image_size, normalisation, cell_id"),
        ("plain", "got safetensors whose header has no medmamba"),
        ("text", "must be a file of kept weights, got"),
        ("none", "must be a file of kept weights, got"),
    ):
        with pytest.raises(ValueError, match=f"{name}.safetensors: .*{came}") as caught:
            read_kept(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_workers_of_ray_hand_their_weights_to_the_driver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    options = ("--tracking-uri", "none", "--no-report", "--executor", "ray", "--workers", "1", "--keep", "weights")
    assert main(["study.yaml", *options, "--set", "axes.split_ratio=[1]"]) == 0
    (record,) = read_records(tmp_path / "mlruns")[0]
    assert read_kept(tmp_path / "mlruns/ledger" / record["weights"]).about["cell_id"] == record["cell_id"]
