"""The training loop: what a record says, what changes a result and what does not."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from analysis.metrics import all_metrics
from medmamba_variants.config import VariantConfig
from medmamba_variants.hints import BOOLEAN_HINT
from study.data.protocol import Dataset, DatasetInfo, Split
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import RECIPE, Recipe
from study.training import cell, loop
from study.training.augment import augment
from study.training.cell import failed_record, run_cell

TINY = VariantConfig.from_dict({"depths": [1, 1], "dims": [8, 16], "d_state": 2, "patch_size": 4, "odd_maps": "pad"})
QUICK = Recipe(epochs=2, batch_size=16, warmup_epochs=0.5)


def make_dataset(height=12, width=20, channels=1, classes=3, n=(40, 18, 24)):
    """A small set whose classes differ by the brightness of one half of the image."""
    rng = np.random.default_rng(0)
    splits = {}
    for name, count in zip(("train", "val", "test"), n):
        labels = np.arange(count) % classes
        images = rng.integers(0, 120, (count, height, width, channels))
        images[:, :, : width // 2] += (labels * 60)[:, None, None, None]
        splits[name] = Split(
            images=images.astype(np.uint8), labels=labels, ids=np.arange(count), groups=np.arange(count) // 2
        )
    info = DatasetInfo(
        name="toy",
        modality="none",
        classes=tuple("abc"[:classes]),
        channels=channels,
        image_size=height,
        n_train=n[0],
        n_val=n[1],
        n_test=n[2],
        fingerprint="f" * 16,
    )
    return Dataset(info=info, splits=splits)


@pytest.fixture
def dataset(monkeypatch):
    data = make_dataset()
    monkeypatch.setattr(cell, "load_dataset", lambda spec, name: data)
    return data


def make_cell(recipe=QUICK, variant=TINY, seed=0, fingerprint="f" * 16):
    return Cell(variant, recipe, DataRef("toy", fingerprint, {"kind": "phantom"}), seed)


def test_a_record_holds_what_a_reader_needs_and_is_json(dataset):
    record, probabilities = run_cell(make_cell())
    assert record["error"] is None
    assert record["status"] == "done"
    json.dumps(record, allow_nan=False)
    assert [row["epoch"] for row in record["curves"]] == [0, 1]
    assert record["cost"]["flops"] == 2 * record["cost"]["macs"] > 0
    assert record["images_per_second"] > 0
    assert record["peak_bytes"] > 0
    test = dataset.splits["test"]
    scores = probabilities["test_probabilities"]
    assert scores.shape == (24, 3)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(probabilities["test_ids"], test.ids)
    np.testing.assert_array_equal(probabilities["test_groups"], test.groups)
    assert record["test"] == all_metrics(test.labels, scores, classes=("a", "b", "c"))


def test_same_seed_gives_the_same_bits_whatever_the_global_state(dataset):
    torch.manual_seed(1)
    _, first = run_cell(make_cell())
    torch.manual_seed(2)
    np.random.seed(3)
    state = torch.get_rng_state()
    _, second = run_cell(make_cell())
    np.testing.assert_array_equal(first["test_probabilities"], second["test_probabilities"])
    assert torch.equal(state, torch.get_rng_state()), "a cell must leave the global generator alone"
    _, other = run_cell(make_cell(seed=1))
    assert not np.array_equal(first["test_probabilities"], other["test_probabilities"])


# One step along every setting of the recipe: a setting that changes nothing would be a swallowed one.
STEPS = {
    "epochs": 3,
    "image_budget": 40,
    "batch_size": 8,
    "optimizer": "lamb",
    "learning_rate": 5e-3,
    "weight_decay": 1.0,
    "warmup_epochs": 0.0,
    "label_smoothing": 0.3,
    "class_weights": True,
    "ema_span": 0.9,
    "clip_grad_norm": 0.01,
    "flip": "both",
    "shift": 0.3,
    "rotate": 60.0,
    "intensity": 0.9,
    "image_size": 16,
    "max_image_size": 16,
    "select_on": "last",
    "precision": "bfloat16",
}


def test_every_recipe_setting_has_a_step():
    assert set(STEPS) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("setting", STEPS)
def test_one_step_along_every_recipe_setting_changes_the_result(setting, monkeypatch):
    # Unequal classes, so that class weights matter.
    data = make_dataset()
    keep = np.flatnonzero((data.splits["train"].labels > 0) | (np.arange(40) < 12))
    train = data.splits["train"]
    thinned = Split(
        images=train.images[keep], labels=train.labels[keep], ids=train.ids[keep], groups=train.groups[keep]
    )
    data = dataclasses.replace(data, splits={**data.splits, "train": thinned})
    monkeypatch.setattr(cell, "load_dataset", lambda spec, name: data)
    base, changed = QUICK, dataclasses.replace(QUICK, **{setting: STEPS[setting]})
    if setting == "select_on":
        # A validation metric that falls epoch by epoch parts "best" from "last".
        values = iter([0.9, 0.1] * 2)
        monkeypatch.setattr(loop, "validate", lambda *_: (1.0, {"macro_auc_ovr": next(values)}))
    _, before = run_cell(make_cell(base))
    record, after = run_cell(make_cell(changed))
    assert record["error"] is None
    assert not np.array_equal(before["test_probabilities"], after["test_probabilities"])
    assert make_cell(base).cell_id != make_cell(changed).cell_id


def test_the_best_epoch_is_chosen_on_validation_and_the_test_split_is_used_once(dataset, monkeypatch):
    values = iter([0.2, 0.9, 0.9, 0.4])
    losses = iter([1.0, 0.9, 0.8, 0.1])
    monkeypatch.setattr(loop, "validate", lambda *_: (next(losses), {"macro_auc_ovr": next(values)}))
    seen = []
    plain = loop.predict
    monkeypatch.setattr(
        loop,
        "predict",
        lambda model, images, *rest: seen.append(len(images)) or plain(model, images, *rest),
    )
    record, _ = run_cell(make_cell(dataclasses.replace(QUICK, epochs=4)))
    assert record["best_epoch"] == 2, "of equal metrics the lower loss decides"
    assert seen == [18, 24], "validation once, test once, after the last epoch"


def test_a_loss_that_is_not_finite_is_a_failed_record(dataset):
    record, probabilities = run_cell(
        make_cell(
            dataclasses.replace(
                QUICK, learning_rate=10.0, optimizer="sgd", clip_grad_norm=0.0, weight_decay=10.0, epochs=40
            )
        )
    )
    assert record["status"] == "failed"
    assert record["error"]["type"] == "NotFiniteError"
    assert "the training loss must stay finite, got nan" in record["error"]["message"]
    assert "Traceback" in record["error"]["traceback"]
    assert probabilities == {}
    json.dumps(record, allow_nan=False)


def test_an_exception_is_a_failed_record_with_its_message(dataset):
    record, _ = run_cell(make_cell(fingerprint="0" * 16))
    assert record["status"] == "failed"
    assert record["error"]["message"].startswith("toy: the data must have the fingerprint 0000000000000000, got ffff")
    lost = failed_record(make_cell(), RuntimeError("the worker died"))
    assert lost["status"] == "failed"
    assert lost["error"]["message"] == "the worker died"
    assert lost["cell_id"] == make_cell().cell_id


def test_a_keyboard_interrupt_passes(dataset, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "validate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_cell(make_cell())


def test_a_stopped_cell_never_sees_the_test_split(dataset):
    asked = []
    record, probabilities = run_cell(
        make_cell(dataclasses.replace(QUICK, epochs=4)),
        should_stop=lambda epoch, value: asked.append(value) or epoch == 1,
    )
    assert record["status"] == "stopped"
    assert len(record["curves"]) == len(asked) == 2
    assert "test" not in record
    assert probabilities == {}


def test_an_image_budget_shortens_large_sets_only():
    recipe = Recipe(epochs=30, image_budget=4000)
    assert [recipe.epochs_for(n) for n in (100, 200, 1000, 9000)] == [30, 20, 4, 1]
    assert Recipe(epochs=30).epochs_for(10**6) == 30


def test_a_largest_size_leaves_small_images_alone_and_keeps_proportions():
    recipe = Recipe(max_image_size=32)
    assert [recipe.size_for(size) for size in ((28, 28), (64, 64), (40, 64))] == [(28, 28), (32, 32), (20, 32)]
    assert Recipe(image_size=32).size_for((28, 20)) == (32, 32)
    assert Recipe().size_for((40, 64)) == (40, 64)


NOTHING = {"flip": "none", "shift": 0.0, "rotate": 0.0, "intensity": 0.0}


def generator():
    return torch.Generator().manual_seed(0)


def test_augmentation_without_settings_is_the_identity():
    images = torch.randn(5, 3, 12, 20)
    assert torch.equal(augment(images, Recipe(**NOTHING), generator()), images)


def test_flips_are_exact_and_cover_both_sides():
    images = torch.randn(64, 1, 12, 20)
    out = augment(images, Recipe(**NOTHING | {"flip": "both"}), generator())
    views = [images, images.flip(3), images.flip(2), images.flip(2, 3)]
    matches = torch.stack([torch.isclose(out, view, atol=1e-4).flatten(1).all(1) for view in views])
    assert matches.any(0).all()
    assert matches.sum(1).min() > 5


def test_rotation_keeps_shape_on_a_map_that_is_not_square():
    # A disc in the middle is unchanged by any rotation when pixels stay square.
    height, width = 24, 40
    y, x = torch.meshgrid(torch.arange(height) - 11.5, torch.arange(width) - 19.5, indexing="ij")
    disc = torch.sigmoid(6 - (x**2 + y**2).sqrt()).expand(16, 1, -1, -1).contiguous()
    out = augment(disc, Recipe(**NOTHING | {"rotate": 180.0}), generator())
    assert (out - disc).abs().max() < 0.06
    bar = torch.zeros(16, 1, height, width)
    bar[:, :, 11:13] = 1
    assert (augment(bar, Recipe(**NOTHING | {"rotate": 180.0}), generator()) - bar).abs().max() > 0.5


def test_shift_moves_by_no_more_than_asked():
    images = torch.zeros(64, 1, 20, 40)
    images[:, :, 10, 20] = 1
    out = augment(images, Recipe(**NOTHING | {"shift": 0.1}), generator())
    rows, columns = out.sum((1, 3)).argmax(1), out.sum((1, 2)).argmax(1)
    assert (rows - 10).abs().max() <= math.ceil(0.1 * 20)
    assert (columns - 20).abs().max() <= math.ceil(0.1 * 40)
    assert rows.unique().numel() > 2
    assert columns.unique().numel() > 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, f"recipe.epoch must be one of {', '.join(RECIPE)}; got 'epoch' (did you mean epochs?)"),
        (
            {"learning_rate": "1e-4"},
            "recipe.learning_rate must be a number from 1e-08 to 10, got the string '1e-4' (write 1.0e-4)",
        ),
        (
            {"image_size": 32, "max_image_size": 64},
            "recipe.max_image_size must be left out where image_size fixes the size, got 64 beside 32",
        ),
        ({"epochs": 0}, "recipe.epochs must be a whole number from 1 to 100000, got 0"),
        ({"epochs": 2.5}, "recipe.epochs must be a whole number from 1 to 100000, got 2.5"),
        (
            {"epochs": True},
            f"recipe.epochs must be a whole number from 1 to 100000, got the boolean true{BOOLEAN_HINT}",
        ),
        ({"class_weights": "yes"}, "recipe.class_weights must be true or false, got the string 'yes'"),
        ({"flip": False}, f"recipe.flip must be one of none, horizontal, both; got the boolean false{BOOLEAN_HINT}"),
        ({"learning_rate": math.nan}, "recipe.learning_rate must be a number from 1e-08 to 10, got nan"),
    ],
)
def test_a_bad_recipe_gets_one_line(values, message):
    with pytest.raises(ValueError) as caught:
        Recipe.from_dict(values)
    assert str(caught.value) == message


def test_ids_follow_content_alone():
    assert Recipe.from_dict({"epochs": 30, "learning_rate": 0.002}).recipe_id == Recipe().recipe_id
    here, there = make_cell(), make_cell()
    there = dataclasses.replace(there, data=DataRef("toy", "f" * 16, {"kind": "npz", "root": "/elsewhere"}))
    assert here.cell_id == there.cell_id
    assert make_cell(seed=1).cell_id != here.cell_id
