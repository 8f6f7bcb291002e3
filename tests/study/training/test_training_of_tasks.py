"""Cells of several labels an image and of ordered classes: losses from their definitions, records, models, pages."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import yaml

from analysis.records.ledger import load_ledger
from analysis.records.predictions import load_probabilities
from analysis.records.schema import validate_record
from analysis.tasks import CLASSIFICATION, MULTILABEL, ORDINAL
from medmamba_variants.config import VariantConfig
from study.audit.alike import find_pairs
from study.audit.findings import audit
from study.audit.pool import pool_of
from study.audit.regroup import fixed
from study.data import load_dataset
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.explain.cell import Options, explain_cell
from study.file.reading import load_study
from study.launch import main
from study.planning.inputs import read_inputs
from study.predict import main as predict
from study.training.tasks import class_weights, loss_of, probabilities_of

FINDINGS, GRADES = (
    "phantom_findings?size=16&n_train=48&n_val=20&n_test=24",
    "phantom_grades?size=16&n_train=40&n_val=20&n_test=24",
)
SMALL = {"depths": [1, 1], "dims": [8, 16], "d_state": 2}
STUDY = {
    "question": "?",
    "base": "nano",
    "axes": {**{name: [value] for name, value in SMALL.items()}, "fusion": ["shuffle", "concat"]},
    "seeds": [0, 1],
    "datasets": [FINDINGS, GRADES],
    "recipe": {"epochs": 1, "batch_size": 16, "class_weights": True, "select_on": "macro_f1"},
    "contrasts": [
        {"name": "f1", "baseline": SMALL, "against": {**SMALL, "fusion": "concat"}, "metric": "macro_f1",
         "margin": 0.01, "family": "f", "level": "these data sets"},
    ],
}  # fmt: skip


def written(folder, **changes):
    path = folder / "tasks.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def test_the_loss_of_several_labels_is_its_definition():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=rng)
    labels = torch.randint(0, 2, (7, 3), generator=rng)
    weights, smoothing = torch.tensor([1.0, 2.0, 3.0]), 0.1
    p = torch.sigmoid(logits.double())
    target = labels * 0.9 + 0.05
    each = -(weights * target * p.log() + (1 - target) * (1 - p).log()).mean(dim=1)
    loss = loss_of(MULTILABEL)
    assert float(loss(logits, labels, weights, smoothing, "mean")) == pytest.approx(float(each.mean()), rel=1e-6)
    assert float(loss(logits, labels, weights, smoothing, "sum")) == pytest.approx(float(each.sum()), rel=1e-6)
    assert torch.equal(probabilities_of(MULTILABEL, logits), logits.sigmoid())
    there = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert class_weights(MULTILABEL, there, 3).tolist() == pytest.approx([1 / 3, 3, 3])


@pytest.mark.parametrize("task", [CLASSIFICATION, ORDINAL])
def test_the_loss_of_one_class_is_torchs_to_the_last_bit(task):
    logits, labels = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 4
    weights = class_weights(task, labels, 4)
    assert weights.tolist() == pytest.approx([9 / 12, 9 / 8, 9 / 8, 9 / 8])
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weights, label_smoothing=0.05)
    assert torch.equal(loss_of(task)(logits, labels, weights, 0.05, "mean"), expected)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The store of a small study over both tasks, its models kept."""
    folder = tmp_path_factory.mktemp("tasks")
    code = main([str(written(folder)), "--executor", "inline", "--store", str(folder / "runs"), "--keep", "weights"])
    assert code == 0
    return folder / "runs"


def records(store, dataset):
    lines = (store / "ledger" / "records.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["dataset"] == dataset]


def test_records_hold_what_the_task_defines(store):
    several, ordered = records(store, FINDINGS), records(store, GRADES)
    assert len(several) == len(ordered) == 4
    for record in (*several, *ordered):
        validate_record(record)
    assert {record["task"] for record in several} == {"multilabel"}
    assert {record["task"] for record in ordered} == {"ordinal"}
    record = several[0]
    found = load_probabilities(store, record["cell_id"])
    assert found.labels.shape == found.probabilities.shape == (24, 3)
    assert not np.allclose(found.probabilities.sum(axis=1), 1)
    area = np.mean([sk.roc_auc_score(found.labels[:, k], found.probabilities[:, k]) for k in range(3)])
    assert record["test"]["macro_auc_ovr"] == pytest.approx(area, abs=1e-12)
    assert record["test"]["mcc"] is None and "quadratic_kappa" not in record["test"]
    # The epoch is chosen by the very metric that the record has.
    assert record["curves"][0]["val_macro_f1"] == record["validation"]["macro_f1"]
    found = load_probabilities(store, ordered[0]["cell_id"])
    kappa = sk.cohen_kappa_score(found.labels, found.probabilities.argmax(axis=1), weights="quadratic")
    assert ordered[0]["test"]["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    table = load_ledger(store)
    assert table["test.quadratic_kappa"].notna().sum() == 4


def test_the_page_has_both_tasks(store):
    page = (store / "reports" / "tasks" / "report.html").read_text()
    for words in ("An image may have several labels", "quadratic kappa", "probability of a label", "nodule", "several"):
        assert words in page, words
    rows = list(csv.DictReader((store / "reports" / "tasks" / "tables" / "per_class.csv").read_text().splitlines()))
    assert {row["class"] for row in rows if row["dataset"] == FINDINGS} == {"nodule", "strand", "cluster"}
    assert all(int(row["support"]) == 10 for row in rows if row["dataset"] == FINDINGS)


def test_a_kept_model_predicts_the_probabilities_of_its_record(store, tmp_path):
    record = records(store, FINDINGS)[0]
    images = load_dataset({"kind": "phantom"}, FINDINGS).splits["test"].images
    np.savez(tmp_path / "x.npz", test_images=images[..., 0])
    out = tmp_path / "out.csv"
    assert predict([str(store / "ledger" / record["weights"]), str(tmp_path / "x.npz"), "-o", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    p = np.array([[float(row[name]) for name in ("nodule", "strand", "cluster")] for row in rows])
    assert np.allclose(p, load_probabilities(store, record["cell_id"]).probabilities, atol=1e-6)
    said = [[name for name in ("nodule", "strand", "cluster") if float(row[name]) > 0.5] for row in rows]
    assert [row["predicted"] for row in rows] == ["; ".join(names) for names in said]


def test_a_metric_that_some_task_lacks_is_refused_in_one_line(tmp_path):
    for metric, name in (("mcc", FINDINGS), ("quadratic_kappa", FINDINGS)):
        study = load_study(written(tmp_path, contrasts=[{**STUDY["contrasts"][0], "metric": metric}]))
        with pytest.raises(ValueError) as caught:
            read_inputs(study)
        text = str(caught.value)
        assert "contrasts.f1.metric must be defined for the task of every data set (macro_f1, " in text
        assert text.endswith(f"got {metric}, which is not for {name} (several labels an image)") and "\n" not in text
    alone = {"datasets": [GRADES], "contrasts": [{**STUDY["contrasts"][0], "metric": "quadratic_kappa"}]}
    assert read_inputs(load_study(written(tmp_path, **alone))).infos[GRADES].task == "ordinal"


def test_an_audit_takes_combinations_of_labels_for_classes(tmp_path):
    data = load_dataset({"kind": "phantom"}, FINDINGS)
    # The first training image again in test, without one of its labels.
    train, test = data.splits["train"], data.splits["test"]
    images, labels = test.images.copy(), test.labels.copy()
    place = int(train.labels.all(axis=1).argmax()) if train.labels.all(axis=1).any() else 0
    images[3], labels[3] = train.images[place], 1 - train.labels[place]
    data = replace(data, splits={**data.splits, "test": replace(test, images=images, labels=labels)})
    found = audit(data)
    assert found["class_counts"]["train"] == dict.fromkeys(("nodule", "strand", "cluster"), 19)
    assert found["alike"]["seen"]["test"]["equal"] == 1 and found["alike"]["conflicts"]["equal"] == 1
    assert 0 < found["probe"]["value"] < 1 and found["probe"]["chance"] == 0.5
    pool = pool_of(data)
    data = replace(data, info=replace(data.info, name="findings"))
    fixed(data, pool, find_pairs(pool), tmp_path, None)
    copy = load_dataset({"kind": "npz", "root": str(tmp_path)}, "findings")
    assert copy.info.task == "multilabel" and sum(map(len, copy.splits.values())) == len(pool) - 2


def test_maps_are_of_one_class_an_image(tmp_path):
    variant = VariantConfig.from_dict({**SMALL, "patch_size": 2, "odd_maps": "pad"})
    info = load_dataset({"kind": "phantom"}, FINDINGS).info
    cell = Cell(variant, Recipe(epochs=1), DataRef(FINDINGS, info.fingerprint, {"kind": "phantom"}), 0)
    with pytest.raises(
        ValueError, match=r"must have one class an image to be explained, got phantom_find.*, with several"
    ):
        explain_cell(cell, Options(images=2))
