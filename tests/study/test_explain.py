"""Attribution against what can be computed by hand, and the command that explains a cell from study to file."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from analysis.explanations.pointing import PLACES, places
from analysis.explanations.stored import load_explanations
from medmamba_variants.config import VariantConfig
from medmamba_variants.model import build_model
from study.data.sources import load_dataset
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.explain import cell as explained
from study.explain import main
from study.explain.attribution import deletion_and_insertion, look, receptive_fields
from study.explain.cell import Options, explain_cell, resized
from study.store.ledger import Ledger
from study.training import loop
from study.training.cell import run_cell

TINY = {"depths": [1, 1], "dims": [8, 16], "d_state": 2, "patch_size": 2, "odd_maps": "pad", "drop_path_rate": 0.0}
HEIGHT, WIDTH = 14, 22
NAME = f"phantom_position?size={HEIGHT}x{WIDTH}&n_train=40&n_val=16&n_test=24"
STUDY = f"""\
question: Does the file come out?
base: nano
variant: {{depths: [1, 1], dims: [8, 16], d_state: 2}}
axes:
  split_ratio: [0.5, 1]
seeds: [0]
datasets: ["{NAME}"]
recipe: {{epochs: 1, batch_size: 16}}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def make_model(seed=0, **axes):
    config = VariantConfig.from_dict(axes, base=VariantConfig.from_dict(TINY))
    model = build_model(config, num_classes=3, in_channels=1, seed=seed)
    # At the start norms have no offset and logits hardly differ; a trained network is nothing so regular.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def make_images(count=5, height=HEIGHT, width=WIDTH, seed=1):
    return torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_last_stage_gives_the_class_activation_map():
    """Behind it are a mean and a linear head: the gradient is the class's weights over the number of cells."""
    model, images = make_model(), make_images()
    targets = torch.tensor([0, 2, 1, 1, 0])
    seen = look(model, images, targets)
    with torch.no_grad():
        output = model.eval().forward_features(images)[-1]
    cells = output.shape[1] * output.shape[2]
    expected = torch.einsum("nhwc,nc->nhw", output, model.head.weight[targets]).clamp_min(0) / cells
    torch.testing.assert_close(seen.maps[-1], expected)
    assert seen.maps[-1].shape == (5, 4, 6)
    torch.testing.assert_close(seen.features, output.mean((1, 2)))
    torch.testing.assert_close(seen.probabilities, model(images).softmax(1))


def test_an_earlier_stage_gives_the_map_of_the_rest_of_the_network():
    model, images = make_model(), make_images()
    targets = torch.tensor([1, 1, 0, 2, 2])
    seen = look(model, images, targets)
    model.eval()
    output = model.forward_features(images)[0].detach().requires_grad_()
    logits = model.head(model.stages[1](model.downsamplings[0](output)).mean((1, 2)))
    (gradient,) = torch.autograd.grad(logits[torch.arange(5), targets].sum(), output)
    expected = (gradient.mean((1, 2), keepdim=True) * output).sum(-1).clamp_min(0)
    torch.testing.assert_close(seen.maps[0], expected.detach())
    assert seen.maps[0].shape == (5, 7, 11)
    assert (seen.maps[0] > 0).any()


def test_without_targets_the_predicted_class_is_explained():
    model, images = make_model(), make_images()
    seen = look(model, images)
    assert torch.equal(seen.targets, seen.probabilities.argmax(1))
    torch.testing.assert_close(seen.maps, look(model, images, seen.targets).maps)
    other = look(model, images, (seen.targets + 1) % 3)
    assert not torch.allclose(seen.maps[-1], other.maps[-1])


def test_an_image_is_explained_alone_and_the_network_is_left_as_it_was(monkeypatch):
    model, images = make_model(), make_images()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr("study.explain.attribution.BATCH", 2)
    targets = torch.tensor([0, 1, 2, 0, 1])
    together, alone = look(model, images, targets), look(model, images[3:4], targets[3:4])
    torch.testing.assert_close(together.maps[0][3:4], alone.maps[0])
    receptive_fields(model, images, torch.Generator().manual_seed(0))
    deletion_and_insertion(model, images, together.maps[0].new_ones(5, HEIGHT, WIDTH), targets, 2, torch.Generator())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_field_is_the_energy_of_the_jacobian():
    model, images = make_model(), make_images(1, 8, 12)
    model.eval()
    drawn = receptive_fields(model, images.expand(400, -1, -1, -1), torch.Generator().manual_seed(0))
    for stage in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda x, s=stage: model.forward_features(x)[s][0], images)
        rows, columns = jacobian.shape[:2]
        for place, (row, column) in enumerate(places(rows, columns)):
            exact = jacobian[row, column].square().sum((0, 1, 2))
            assert drawn[stage, place].sum() == pytest.approx(float(exact.sum()), rel=0.1)
            assert np.corrcoef(drawn[stage, place].ravel(), exact.ravel())[0, 1] > 0.98


def test_a_field_follows_the_scan():
    """Rows only: an output depends on nothing that the scan reaches later, but for a convolution's few pixels."""
    axes = {"split_ratio": 1, "scan_directions": ["rows"], "depths": [1], "dims": [8]}
    fields = receptive_fields(make_model(**axes), make_images(3), torch.Generator().manual_seed(0))[0]
    by_place = dict(zip(PLACES, fields))
    # The depth-wise convolution of 3 looks a cell of 2 pixels ahead, down and to the right.
    assert by_place["top_left"][4:].eq(0).all()
    assert by_place["top_left"][:4].gt(0).any()
    assert by_place["bottom_right"].gt(0).all()
    everywhere = receptive_fields(make_model(**axes | {"scan_directions": "cross4"}), make_images(3), torch.Generator())
    assert everywhere[0].gt(0).all()


def test_a_field_of_convolutions_ends():
    axes = {"split_ratio": 0, "depths": [1], "dims": [8]}
    fields = receptive_fields(make_model(**axes), make_images(3), torch.Generator().manual_seed(0))[0]
    centre = fields[PLACES.index("centre")]
    # Two convolutions of 3 on cells of 2 pixels: cells 1 … 5 down and 3 … 7 across.
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[2:12, 6:16] = True
    assert centre[~inside].eq(0).all()
    assert centre[inside].gt(0).all()


def test_no_image_has_no_field():
    with pytest.raises(ValueError, match="at least one, got none"):
        receptive_fields(make_model(), make_images(0), torch.Generator())


class Counted(nn.Module):
    """Two classes; the odds of class 1 are e to the weighted sum of the pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        logit = (x[:, 0] * self.weights).sum((1, 2))
        return torch.stack([torch.zeros_like(logit), logit], 1)


def test_curves_take_away_and_put_back_the_most_important_first():
    weights = torch.zeros(3, 4)
    weights[1, 2], weights[0, 0] = 4.0, 2.0
    image = torch.ones(1, 1, 3, 4)
    importance = weights[None]
    generator = torch.Generator().manual_seed(0)
    deletion, insertion = deletion_and_insertion(Counted(weights), image, importance, torch.tensor([1]), 12, generator)
    assert deletion.shape == insertion.shape == (1, 13)
    expected = torch.sigmoid(torch.tensor([6.0, 2.0] + [0.0] * 11))
    torch.testing.assert_close(deletion[0], expected)
    # A blurred image of ones is one of ones: insertion changes nothing.
    torch.testing.assert_close(insertion[0], torch.sigmoid(torch.full((13,), 6.0)))


def test_insertion_starts_blurred_and_ends_whole():
    weights = torch.zeros(9, 12)
    weights[4, 6] = 1.0
    image = torch.zeros(1, 1, 9, 12)
    image[0, 0, 4, 6] = 5.0
    _, insertion = deletion_and_insertion(
        Counted(weights), image, weights[None], torch.tensor([1]), 108, torch.Generator()
    )
    assert 0.5 < float(insertion[0, 0]) < 0.7
    torch.testing.assert_close(insertion[0, 1:], torch.sigmoid(torch.full((108,), 5.0)))
    # The other class's probability is what is left.
    _, other = deletion_and_insertion(Counted(weights), image, weights[None], torch.tensor([0]), 108, torch.Generator())
    torch.testing.assert_close(insertion + other, torch.ones(1, 109))


def test_equal_pixels_go_in_random_order_that_follows_the_generator():
    weights = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    images = torch.ones(2, 1, 6, 8)

    def curves(seed):
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(2, 6, 8)
        return deletion_and_insertion(Counted(weights), images, flat, torch.tensor([1, 1]), 8, generator)[0]

    assert torch.equal(curves(0), curves(0))
    assert not torch.equal(curves(0), curves(1))
    assert not torch.equal(curves(0)[0], curves(0)[1])


def test_masks_follow_the_images_to_another_size():
    masks = np.zeros((3, 12, 20), dtype=np.uint8)
    masks[0, 4:8, 10:20] = 1
    masks[1, 5, 7] = 1
    small = resized(masks, (6, 10))
    assert small.dtype == bool
    expected = np.zeros((6, 10), dtype=bool)
    expected[2:4, 5:10] = True
    np.testing.assert_array_equal(small[0], expected)
    assert small[1].any() and small[1].sum() <= 2
    assert not small[2].any()
    np.testing.assert_array_equal(resized(masks, (12, 20)), masks.astype(bool))


def make_cell(recipe=None, seed=0):
    variant = VariantConfig.from_dict(TINY)
    info = load_dataset({"kind": "phantom"}, NAME).info
    return Cell(
        variant, recipe or Recipe(epochs=2, batch_size=16), DataRef(NAME, info.fingerprint, {"kind": "phantom"}), seed
    )


def test_the_network_that_is_handed_out_is_the_one_of_the_record():
    kept = []
    _, probabilities = run_cell(make_cell(), keep_model=lambda model, normalise: kept.append((model, normalise)))
    ((model, normalise),) = kept
    test = load_dataset({"kind": "phantom"}, NAME).splits["test"]
    scores = look(model, normalise(torch.from_numpy(test.images))).probabilities
    np.testing.assert_allclose(scores.numpy(), probabilities["test_probabilities"], atol=1e-6)


def test_an_explanation_follows_the_seed_and_the_recipe_s_size():
    options = Options(images=7, steps=4)
    cell = make_cell(Recipe(epochs=1, batch_size=16, image_size=12))
    torch.manual_seed(1)
    first = explain_cell(cell, options)
    torch.manual_seed(2)
    again = explain_cell(cell, options)
    assert first.arrays.keys() == again.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)
    assert first.arrays["images"].shape == (7, 12, 12, 1)
    assert first.arrays["masks"].shape == (7, 12, 12)
    # Evenly over the split, both ends included.
    ids = load_dataset({"kind": "phantom"}, NAME).splits["test"].ids
    np.testing.assert_array_equal(first.arrays["ids"][[0, -1]], ids[[0, -1]])
    np.testing.assert_array_equal(first.arrays["targets"], first.arrays["labels"])
    assert first.arrays["maps_0"].shape == (7, 6, 6)
    predicted = explain_cell(cell, dataclasses.replace(options, predicted=True, split="val"))
    np.testing.assert_array_equal(predicted.arrays["targets"], predicted.arrays["predicted"])
    assert predicted.arrays["ids"][0].startswith("val/")


def test_a_training_that_fails_is_one_line(monkeypatch):
    def explode(images, recipe, generator):
        raise RuntimeError("no room")

    monkeypatch.setattr(loop, "augment", explode)
    with pytest.raises(ValueError, match="must end well, got RuntimeError: no room"):
        explain_cell(make_cell(), Options())


def test_from_study_to_file(tmp_path, capsys, monkeypatch):
    file, store = tmp_path / "small.yaml", tmp_path / "store"
    file.write_text(STUDY)
    command = [str(file), "--variant", "split_ratio=1", "--dataset", NAME, "--seed", "3", "--store", str(store)]
    command += ["--images", "9", "--steps", "3"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "nothing to compare with" in out
    assert "pointing game, stage 0" in out
    (path,) = (store / "explanations").iterdir()
    one = load_explanations(path)
    assert (one.about["study"], one.about["variant_label"], one.about["seed"]) == ("small", "split_ratio=1", 3)
    assert one.about["cell_id"] == path.stem
    assert one.about["cells"] == [2, 4]
    assert len(one.arrays["ids"]) == 9

    cells = []
    original = explained.run_cell

    def record_too(cell, **options):
        record, probabilities = original(cell, **options)
        cells.append((record, probabilities))
        return record, probabilities

    monkeypatch.setattr(explained, "run_cell", record_too)
    assert main(command) == 0
    record, probabilities = cells[0]
    ledger = Ledger(store / "ledger")
    ledger.append(record, probabilities)
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert (tmp_path / "out" / path.name).is_file()
    changed = probabilities | {"test_probabilities": probabilities["test_probabilities"] * 0.5}
    ledger.append(record | {"machine": record["machine"] | {"threads": 3}}, changed)
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "the maps are of a like network" in out
    assert "(threads 3 there, 1 here)" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["--variant", "split_ratio=2"],
            "must be a variant of the study, got 'split_ratio=2'; did you mean split_ratio=1?",
        ),
        (["--dataset", "phantom_positions"], "phantom_position"),
        (["--dataset", "phantom_ct,phantom_mri"], "--dataset must name one data set, got 'phantom_ct,phantom_mri'"),
        (["--dataset", ","], "datasets"),
        (["--out", "small.yaml"], "small.yaml (File exists)"),
        (["--out", "small.yaml/folder"], "--out must be a folder to write to, got "),
        (["--set", "recipe.epoch=3"], "recipe.epoch"),
        (["--set", "recipe.epochs=3", "--set", "recipe.epochs=4"], "--set must name a key once, got recipe.epochs"),
    ],
)
def test_a_wrong_option_is_one_line_before_any_training(tmp_path, capsys, monkeypatch, change, message):
    def train(cell, options):
        raise AssertionError("no time is to be spent")

    monkeypatch.setattr(explained, "explain_cell", train)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "small.yaml"
    file.write_text(STUDY)
    command = [str(file), "--variant", "baseline", "--dataset", NAME, "--seed", "0", "--store", str(tmp_path), *change]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_help_is_light():
    code = "import sys, study.explain; print([m for m in ['torch', 'pandas', 'mlflow'] if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
