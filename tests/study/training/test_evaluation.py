"""Metrics by which an epoch is chosen are those of the record, also where a class has no validation image."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc, multiclass_f1_score

from analysis.metrics import all_metrics
from study.data.protocol import Dataset, DatasetInfo, Split
from study.declaration.recipe import Recipe
from study.training import cell
from study.training.evaluation import RUNNING, validate
from study.training.images import Images

CLASSES = 4


class Told(nn.Module):
    """A network that gives the logits it was told, in order."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.rows = iter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([next(self.rows) for _ in images])


def evaluated(labels: np.ndarray, seed: int = 0) -> tuple[dict[str, float], np.ndarray]:
    """Running metrics of random logits, and the probabilities."""
    logits = torch.randn(len(labels), CLASSES, generator=torch.Generator().manual_seed(seed))
    images = Images(torch.zeros(len(labels), 2, 3, 1, dtype=torch.uint8), torch.from_numpy(labels))
    _, values = validate(Told(logits), images, lambda pixels: pixels, CLASSES, contextlib.nullcontext)
    return values, logits.softmax(dim=1).numpy()


@pytest.mark.parametrize("present", [(0, 1, 2), (1, 3)])
def test_a_class_without_an_image_counts_as_in_the_record(present):
    labels = np.resize(np.array(present), 300)
    values, scores = evaluated(labels)
    record = all_metrics(labels, scores)
    assert values == {name: record[name] for name in RUNNING}
    assert record["missing_classes"]
    # By hand, for one of them: recall of each class present.
    hits = scores.argmax(1) == labels
    assert values["balanced_accuracy"] == pytest.approx(np.mean([hits[labels == label].mean() for label in present]))


def test_with_every_class_the_last_bits_stay_those_of_torchmetrics():
    labels = np.resize(np.arange(CLASSES), 301)
    values, scores = evaluated(labels)
    record = all_metrics(labels, scores)
    for name, function in (
        ("macro_f1", multiclass_f1_score), ("macro_auc_ovr", multiclass_auroc),
        ("balanced_accuracy", multiclass_accuracy),
    ):  # fmt: skip
        assert values[name] == float(function(torch.from_numpy(scores), torch.from_numpy(labels), CLASSES))
        assert values[name] == pytest.approx(record[name], abs=1e-6)


def test_the_epoch_is_chosen_by_the_metric_that_the_record_tells(monkeypatch):
    rng = np.random.default_rng(0)
    splits = {}
    for name, classes in (("train", 3), ("val", 2), ("test", 3)):
        labels = np.arange(24) % classes
        images = rng.integers(0, 200, (24, 12, 20, 1)) + 20 * labels[:, None, None, None]
        splits[name] = Split(images.astype(np.uint8), labels, np.arange(24), None)
    info = DatasetInfo("toy", "none", ("a", "b", "c"), 1, (12, 20), 24, 24, 24, "f" * 16)
    monkeypatch.setattr(cell, "load_dataset", lambda spec, name: Dataset(info, splits))
    from medmamba_variants.config import VariantConfig
    from study.declaration.cells import Cell, DataRef

    tiny = VariantConfig.from_dict(
        {"depths": [1, 1], "dims": [8, 16], "d_state": 2, "patch_size": 4, "odd_maps": "pad"}
    )
    for metric in RUNNING:
        recipe = dataclasses.replace(Recipe(epochs=4, batch_size=8, warmup_epochs=0.5), select_on=metric)
        record, _ = cell.run_cell(Cell(tiny, recipe, DataRef("toy", "f" * 16, {}), 0), device="cpu")
        curve = [row[f"val_{metric}"] for row in record["curves"]]
        assert record["validation"]["missing_classes"] == ["c"]
        assert curve[record["best_epoch"]] == max(curve) == record["validation"][metric]
