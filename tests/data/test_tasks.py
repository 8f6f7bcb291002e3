"""What a data set's labels mean, declared by a catalogue, a study or a phantom; the fingerprint of classes stays."""

import hashlib
import json

import numpy as np
import pytest
from photo_folder import read, refusal, write_folder
from test_table import write_images, write_table

from study.data import fingerprint, load_dataset
from study.data.files.splitting import assigned
from study.data.npz import NpzFolder
from study.data.phantoms.sets import PHANTOMS
from study.data.protocol import Digest

PHANTOM = {"kind": "phantom"}
SEVERAL = {"kind": "table", "task": "multilabel", "columns": {"label": ["cough", "fever"]}}


def write_npz(root, entry, **labels):
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (6, 4, 5), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels.get(split, np.array([[1, 0, 1], [0, 1, 0]] * 3, np.uint8))
    np.savez(root / "chest.npz", **arrays)
    (root / "datasets.json").write_text(json.dumps({"chest": entry}))


def load(root):
    return load_dataset({"kind": "npz", "root": str(root)}, "chest")


def test_a_catalogue_declares_several_labels(tmp_path):
    write_npz(tmp_path, {"task": "multi-label", "classes": ["mass", "fluid", "air"]})
    data = load(tmp_path)
    assert data.info.task == "multilabel" and data.info.classes == ("mass", "fluid", "air")
    assert data.splits["val"].labels.tolist() == [[1, 0, 1], [0, 1, 0]] * 3
    write_npz(tmp_path, {"task": "multilabel"}, test=np.array([[1, 0, 0]] * 6))
    assert load(tmp_path).info.classes == ("label 0", "label 1", "label 2")
    assert load(tmp_path).info.notes == (
        "test holds no image of label 1, label 2: means over classes there leave it out",
    )


@pytest.mark.parametrize(
    ("entry", "labels", "words"),
    [
        ({"task": "regression"}, {}, "datasets.json: chest.task must be classification, ordinal, multilabel, got 'reg"),
        ({}, {}, "image may have several, its entry in datasets.json says so (task: multilabel)"),
        ({"task": "multilabel"}, {"val": np.full((6, 3), 2)}, "val_labels must be 0 or 1 for each label, got 2"),
        ({"task": "multilabel"}, {"val": np.zeros((6, 2), int)}, "val_labels must have 3 labels (label 0, label 1, "),
        ({"task": "multilabel"}, {"val": np.zeros(6, int)}, "val_labels must be 0 or 1 for each of two labels or mor"),
        ({"task": "multilabel"}, {"val": np.zeros((6, 3))}, "val_labels must be integers, got float64"),
        ({"task": "multilabel"}, {"train": np.zeros((6, 3), int)}, "hold images with label 0 and without it, got none"),
        ({"task": "multilabel"}, {"train": np.ones((6, 3), int)}, "with label 0 and without it, got it in all"),
        ({"task": "multilabel", "classes": ["a", "b"]}, {}, "train_labels must have 2 labels (a, b), got 3"),
    ],
)
def test_wrong_labels_are_refused_in_one_line(entry, labels, words, tmp_path):
    write_npz(tmp_path, entry, **labels)
    with pytest.raises(ValueError) as caught:
        load(tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_task_is_part_of_the_content_where_it_is_not_classification(tmp_path):
    one = np.array([0, 1, 2, 0, 1, 2])[:, None]
    found = []
    for entry in ({}, {"task": "multiclass"}, {"task": "ordinal"}):
        write_npz(tmp_path, entry, train=one, val=one, test=one)
        data = NpzFolder(str(tmp_path)).read("chest")
        found.append((data.info.task, data.info.fingerprint))
    assert [task for task, _ in found] == ["classification", "classification", "ordinal"]
    assert found[0][1] == found[1][1] != found[2][1]
    assert found[0][1] == fingerprint(data.info.classes, data.splits)


def test_a_set_that_is_mapped_keeps_its_task(tmp_path, monkeypatch):
    from study.data import lying

    again = tmp_path / "again"
    again.mkdir()
    for folder in (tmp_path, again):
        write_npz(folder, {"task": "multilabel"})
    held = load(tmp_path).info
    monkeypatch.setattr(lying, "HELD", 0)
    mapped = load_dataset({"kind": "npz", "root": str(again), "cache": str(tmp_path / "cache")}, "chest")
    assert lying.mapping_of(mapped.splits["train"].images) is not None
    assert mapped.info == held and mapped.splits["test"].labels.shape == (6, 3)


def test_a_table_of_several_labels_an_image(tmp_path):
    names = [f"{n}.png" for n in range(12)]
    write_images(tmp_path / "photos", names)
    rows = [f"{name},{n % 2},{int(n % 3 == 0)},{('train', 'val', 'test')[n // 4]}" for n, name in enumerate(names)]
    write_table(tmp_path, "\n".join(["image,cough,fever,split", *rows]))
    data = read(tmp_path, **SEVERAL)
    assert data.info.task == "multilabel" and data.info.classes == ("cough", "fever")
    train = data.splits["train"]
    assert dict(zip(train.ids.tolist(), train.labels.tolist())) == {
        "0.png": [0, 1], "1.png": [1, 0], "2.png": [0, 0], "3.png": [1, 1],
    }  # fmt: skip
    assert "must have 1 in one of the columns cough, fever" in refusal(tmp_path, **{**SEVERAL, "task": "ordinal"})
    one = refusal(tmp_path, kind="table", task="multilabel", columns={"label": "cough"})
    assert "must have a column for each label where an image may have several, got the column cough" in one


def test_folders_have_one_class_an_image(tmp_path):
    write_folder(tmp_path)
    assert read(tmp_path, task="ordinal").info.task == "ordinal"
    assert "must hold one class an image, as folders do, got the task multilabel" in refusal(
        tmp_path, task="multilabel"
    )


def test_several_labels_are_dealt_out_label_by_label():
    labels = [(0,), (1,), (0, 1), ()] * 20
    parts = np.array(assigned([str(n) for n in range(80)], labels, [0.5, 0.5], 0))
    for kind in ((0,), (1,), (0, 1), ()):
        assert abs(np.mean([part for part, label in zip(parts, labels) if label == kind]) - 0.5) <= 0.2
    for label in (0, 1):
        assert sum(label in each for each, part in zip(labels, parts) if part) == 20


def test_phantoms_of_other_tasks_mark_only_findings():
    data = load_dataset(PHANTOM, "phantom_findings?size=24x32&imbalance=4")
    assert data.info.task == PHANTOMS["phantom_findings"].task.name == "multilabel"
    test = data.splits["test"]
    assert test.labels.sum(axis=0).tolist() == [48, 24, 12]
    # Findings come and go each on its own: some images have none, and some have several.
    assert {0, 1, 2} <= set(test.labels.sum(axis=1).tolist())
    assert test.masks is not None and not test.masks[test.labels.sum(axis=1) == 0].any()
    assert test.masks[test.labels.any(axis=1)].any(axis=(1, 2)).all()
    grades = load_dataset(PHANTOM, "phantom_grades?size=24x32").splits["test"]
    assert grades.masks is not None
    marked = [grades.masks[grades.labels == grade].mean() for grade in range(4)]
    assert marked[0] == 0 and sorted(marked) == marked and marked[3] > 2 * marked[1]


def test_the_digest_of_classes_is_as_it_was():
    assert Digest(["a", "b"]).hexdigest() == hashlib.sha256(b'["a", "b"]').hexdigest()[:16]
