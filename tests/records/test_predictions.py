"""Predictions of cells: pairing them, and reading them where MLflow and MedMNIST keep them."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, write_ledger

from analysis.metrics import accuracy, macro_auc_ovr
from analysis.records.ledger import load_ledger, read_records
from analysis.records.medmnist import load_predictions, medmnist_labels, read_predictions, write_predictions
from analysis.records.predictions import PredictionFiles, Predictions, load_probabilities, paired_predictions
from analysis.records.table import as_matrix

DESIGN = Design(datasets=("alpha", "beta"), seeds=(0, 1), images=20)


@pytest.fixture
def store(tmp_path):
    return write_ledger(tmp_path / "store", DESIGN)


def cells(label, dataset="alpha"):
    return [DESIGN.cell_id(label, dataset, seed) for seed in DESIGN.seeds]


def npz(store, cell_id):
    return store / "ledger" / "probabilities" / f"{cell_id}.npz"


def rewrite(store, cell_id, change):
    with np.load(npz(store, cell_id)) as found:
        arrays = dict(found)
    change(arrays)
    np.savez(npz(store, cell_id), **arrays)


def test_seeds_are_paired_on_the_same_images(store):
    pairing = paired_predictions(store, cells("baseline"), cells("split_ratio=1"))
    assert pairing.baseline.shape == pairing.against.shape == (2, 20, 3)
    assert (pairing.n_seeds, pairing.n_images) == (2, 20) and pairing.groups is None
    for side, label in ((pairing.baseline, "baseline"), (pairing.against, "split_ratio=1")):
        for found, cell_id in zip(side, cells(label)):
            assert np.array_equal(found, load_probabilities(store, cell_id).probabilities)


def test_files_are_read_once_while_there_is_room(store):
    one, two, three = (cells("baseline")[0], *cells("split_ratio=1"))
    size = load_probabilities(store, one).nbytes
    with np.load(npz(store, one)) as arrays:
        assert size == sum(array.nbytes for name, array in arrays.items() if name.startswith("test_"))
    kept = PredictionFiles(store, kept_bytes=2 * size)
    first, second = kept.load(one), kept.load(two)
    assert kept.load(one) is first
    # The third takes the place of what was asked for longest ago, which is the second.
    third = kept.load(three)
    assert kept.load(one) is first and kept.load(three) is third and kept.load(two) is not second
    for cell_id, found in ((one, first), (two, second), (three, third)):
        assert np.array_equal(found.probabilities, load_probabilities(store, cell_id).probabilities)
    both = PredictionFiles(store)
    assert both.load(one, "validation") is both.load(one, "validation") is not both.load(one)
    none = PredictionFiles(store, kept_bytes=0)
    assert none.load(one) is not none.load(one)


def test_what_is_forgotten_leaves_its_room_to_others(store):
    one, two, three = (cells("baseline")[0], *cells("split_ratio=1"))
    kept = PredictionFiles(store, kept_bytes=2 * load_probabilities(store, one).nbytes)
    first, second = kept.load(one), kept.load(two)
    kept.forget(one)
    kept.forget(one)
    third = kept.load(three)
    assert kept.load(two) is second and kept.load(three) is third and kept.load(one) is not first


def test_a_pair_takes_what_has_been_read(store):
    sides = cells("baseline"), cells("split_ratio=1")
    expected = paired_predictions(store, *sides)
    files = PredictionFiles(store)
    for cell_id in (*sides[0], *sides[1]):
        files.load(cell_id)
        npz(store, cell_id).unlink()
    found = paired_predictions(store, *sides, files=files)
    for name in ("labels", "baseline", "against", "ids"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_images_in_another_order_are_put_right(store):
    expected = paired_predictions(store, cells("baseline"), cells("split_ratio=1"))
    order = np.random.default_rng(0).permutation(20)

    def shuffle(arrays):
        for name in arrays:
            if name.startswith("test_"):
                arrays[name] = arrays[name][order]

    for label in ("baseline", "split_ratio=1"):
        rewrite(store, cells(label)[1], shuffle)
    found = paired_predictions(store, cells("baseline"), cells("split_ratio=1"))
    for name in ("baseline", "against", "labels", "ids"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["test_ids"].__setitem__(3, "elsewhere"), "20 × 3, got (20, 3), alpha-test-3 in only one"),
        (lambda a: a.update({k: v[:-1] for k, v in a.items() if k.startswith("test_")}), "alpha-test-19 in only one"),
        (lambda a: a["test_ids"].__setitem__(3, "alpha-test-4"), "must differ from each other, got alpha-test-4 twice"),
        (lambda a: a.update(test_ids=np.arange(20)), "20 × 3, got (20, 3), 0 in only one"),
        (lambda a: a["test_labels"].__setitem__(0, a["test_labels"][0] + 1), "for image alpha-test-0 in place of"),
        (lambda a: a.update(test_groups=np.arange(20) // 2), "groups must be those of its pair"),
        (lambda a: a.update(test_probabilities=np.full((20, 4), 0.25)), "ids and classes must be those of its pair, "),
    ],
)
def test_other_images_are_refused_in_one_line(store, change, message):
    cell_id = cells("split_ratio=1")[1]
    rewrite(store, cell_id, change)
    with pytest.raises(ValueError) as caught:
        paired_predictions(store, cells("baseline"), cells("split_ratio=1"))
    text = str(caught.value)
    assert text.startswith(str(npz(store, cell_id))) and message in text and "\n" not in text


def test_missing_predictions_and_uneven_seeds_are_one_line(store):
    npz(store, cells("split_ratio=1")[0]).unlink()
    with pytest.raises(ValueError, match=r"must hold the probabilities of cell .* got no such file"):
        paired_predictions(store, cells("baseline"), cells("split_ratio=1"))
    with pytest.raises(ValueError, match="as many cells, at least one each, got 2 and 1"):
        paired_predictions(store, cells("baseline"), cells("split_ratio=0")[:1])


def as_artifacts(store, folder, keep=lambda record: True):
    """What tracking logs: a folder a run, with the record and the predictions of its cell."""
    for number, record in enumerate(read_records(store)[0]):
        run = folder / f"{number:032x}" / "artifacts"
        if keep(record):
            run.mkdir(parents=True)
            (run / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
            if record["probabilities"]:
                shutil.copy(store / "ledger" / record["probabilities"], run)
    return folder


def test_artifacts_of_mlflow_read_like_the_ledger(store, tmp_path):
    artifacts = as_artifacts(store, tmp_path / "artifacts" / "split_ratio")
    pd.testing.assert_frame_equal(load_ledger(artifacts), load_ledger(store))
    assert load_ledger(artifacts).attrs["folder"] == str(artifacts)
    for study in ("split_ratio", DESIGN.study_hash):
        assert len(load_ledger(artifacts, study=study)) == 12
    found = paired_predictions(artifacts, cells("baseline"), cells("split_ratio=1"))
    assert np.array_equal(found.against, paired_predictions(store, cells("baseline"), cells("split_ratio=1")).against)
    with pytest.raises(ValueError, match="got no such file"):
        load_probabilities(artifacts, "0123")


def test_of_artifacts_of_one_cell_the_finished_one_counts(store, tmp_path):
    artifacts = as_artifacts(store, tmp_path / "artifacts", keep=lambda record: record["seed"] == 0)
    first = next(artifacts.rglob("record.json"))
    record = json.loads(first.read_text())
    failed = record | {"status": "failed", "finished": "2030-01-01", "error": {"type": "E", "message": "m"}}
    again = artifacts / "again"
    again.mkdir()
    (again / "record.json").write_text(json.dumps(failed))
    table = load_ledger(artifacts)
    assert len(table) == 6 and table.attrs["failed"] == 0


def test_bad_artifacts_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"artifacts of one \(record.json of every cell\), got a folder without one"):
        load_ledger(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text('{"cell_id": "0a", "st')
    with pytest.raises(ValueError, match=r"run/record.json: must be a record, got") as caught:
        load_ledger(tmp_path)
    assert "\n" not in str(caught.value)


# ---- MedMNIST's files


def binary(images=30, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 2)
    positive = (0.3 * labels + 0.7 * rng.random(images)).astype(np.float32)
    return Predictions(np.stack([1 - positive, positive], axis=1), labels, np.arange(images), None)


def multiclass(images=30, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 4)
    probabilities = rng.dirichlet(np.ones(4), images).astype(np.float32)
    ids = np.array([f"test/{i}" for i in range(images)])
    return Predictions(probabilities, labels, ids, None)


def save_labels(root, flag, labels):
    root.mkdir(exist_ok=True)
    shape = (len(labels), 1)
    arrays = {f"{split}_labels": labels.reshape(shape).astype(np.uint8) for split in ("train", "val", "test")}
    np.savez(root / f"{flag}.npz", **arrays)


def test_a_file_is_named_and_laid_out_as_medmnist_does(tmp_path):
    predictions = multiclass()
    path = write_predictions(tmp_path, "dermamnist", predictions, run=3, size=64)
    auc = macro_auc_ovr(predictions.labels, predictions.probabilities)
    hits = accuracy(predictions.labels, predictions.probabilities)
    assert path.name == f"dermamnist_64_test_[AUC]{auc:.3f}_[ACC]{hits:.3f}@3.csv"
    lines = path.read_text().splitlines()
    assert len(lines) == 30 and lines[0].startswith("0,") and lines[0].count(",") == 4
    found = read_predictions(path)
    assert (found.flag, found.size, found.split, found.run) == ("dermamnist", 64, "test", "3")
    assert (found.auc, found.accuracy) == (round(auc, 3), round(hits, 3))
    assert np.array_equal(found.probabilities.astype(np.float32), predictions.probabilities)


@pytest.mark.parametrize(("flag", "make"), [("breastmnist", binary), ("bloodmnist", multiclass)])
def test_medmnists_own_evaluator_reads_what_is_written_and_the_other_way_round(tmp_path, flag, make, capsys):
    pytest.importorskip("medmnist")
    from medmnist.evaluator import Evaluator

    predictions = make()
    labels = predictions.labels
    save_labels(tmp_path / "root", flag, labels)
    path = write_predictions(tmp_path / "ours", flag, predictions, run=7)

    evaluator = Evaluator(flag, "test", root=str(tmp_path / "root"))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    metrics = evaluator.evaluate(predictions.probabilities, save_folder=str(theirs), run=7)
    (their_path,) = theirs.iterdir()
    assert their_path.name == path.name
    # MedMNIST parses a file by reading it, sorting by index, and evaluating anew.
    parsed = pd.read_csv(path, index_col=0, header=None).sort_index().to_numpy()
    assert evaluator.evaluate(parsed) == pytest.approx(metrics, abs=1e-6)
    found = read_predictions(their_path)
    assert found.probabilities == pytest.approx(predictions.probabilities, abs=1e-7)
    assert np.array_equal(medmnist_labels(tmp_path / "root", flag), labels)


def test_one_column_is_the_probability_of_class_1(tmp_path):
    path = tmp_path / "breastmnist_test@1.csv"
    path.write_text("1,0.25\n0,0.75\n")
    found = read_predictions(path)
    assert found.probabilities.tolist() == [[0.25, 0.75], [0.75, 0.25]]
    assert (found.auc, found.accuracy, found.run) == (None, None, "1")


def test_ids_give_the_index_and_rows_are_in_its_order(tmp_path):
    predictions = multiclass(8)
    order = np.array([3, 1, 0, 7, 6, 2, 4, 5])
    mixed = dataclasses.replace(
        predictions,
        probabilities=predictions.probabilities[order],
        labels=predictions.labels[order],
        ids=predictions.ids[order],
    )
    straight = write_predictions(tmp_path / "a", "bloodmnist", predictions, run=0)
    turned = write_predictions(tmp_path / "b", "bloodmnist", mixed, run=0)
    assert straight.read_text() == turned.read_text()


def test_models_of_others_become_a_table(tmp_path):
    for seed, (flag, make) in enumerate([("breastmnist", binary), ("bloodmnist", multiclass)]):
        save_labels(tmp_path / "root", flag, make(seed=seed).labels)
        for model in ("ours", "theirs"):
            for run in (1, 2):
                predictions = make(seed=seed)
                rng = np.random.default_rng(run)
                noisy = predictions.probabilities + 0.1 * rng.random(predictions.probabilities.shape)
                noisy /= noisy.sum(axis=1, keepdims=True)
                changed = dataclasses.replace(predictions, probabilities=noisy)
                write_predictions(tmp_path / model, flag, changed, run=run)
    table = load_predictions({"A": tmp_path / "ours", "B": tmp_path / "theirs"}, tmp_path / "root")
    assert len(table) == 8 and set(table["seed"]) == {1, 2} and set(table["variant_id"]) == {"A", "B"}
    row = table[(table["dataset"] == "bloodmnist") & (table["seed"] == 2)].iloc[0]
    assert row["test.macro_auc_ovr"] == pytest.approx(float(row["cell_id"].partition("[AUC]")[2][:5]), abs=5e-4)


def test_views_of_one_collection_and_sizes_of_one_set_count_once(tmp_path):
    for flag in ("organamnist", "organcmnist", "organsmnist", "bloodmnist"):
        save_labels(tmp_path / "root", flag, multiclass().labels)
        for model in ("ours", "theirs"):
            write_predictions(tmp_path / model, flag, multiclass(), run=1)
    table = load_predictions({"A": tmp_path / "ours", "B": tmp_path / "theirs"}, tmp_path / "root")
    values, _ = as_matrix(table, "macro_f1")
    assert list(values.index) == ["bloodmnist", "organamnist + organcmnist + organsmnist"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("breastmnist.csv", "0,1\n", "name must be FLAG_SPLIT_"),
        ("breastmnist_test@1.csv", "0,0.5\n2,0.5\n", "indices 0 … 1, each once"),
        ("breastmnist_test@1.csv", "0,a\n1,b\n", "finite probability for each class"),
        ("breastmnist_test@1.csv", "0,0.5\n1,nan\n", "finite probability for each class"),
        ("breastmnist_test@1.csv", "0,0.5,0.5\n1,0.5,0.3,0.2\n", "numbers separated by commas"),
        ("breastmnist_test@1.csv", "", "numbers separated by commas"),
        ("breastmnist_test@1.csv", "0\n1\n", "finite probability for each class, got 0 columns"),
    ],
)
def test_a_bad_prediction_file_is_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_do_not_fit_their_labels_or_their_name_are_one_line(tmp_path):
    predictions = binary()
    write_predictions(tmp_path / "model", "breastmnist", predictions, run=1)
    with pytest.raises(ValueError, match=r"breastmnist.npz: must be MedMNIST's file with the labels, got no such file"):
        load_predictions({"A": tmp_path / "model"}, tmp_path / "root")
    save_labels(tmp_path / "root", "breastmnist", predictions.labels[:-1])
    with pytest.raises(ValueError, match=r"@1.csv: labels and probabilities must have the same length, got 29 and 30"):
        load_predictions({"A": tmp_path / "model"}, tmp_path / "root")
    save_labels(tmp_path / "root", "breastmnist", 1 - predictions.labels)
    with pytest.raises(ValueError, match=r"macro_auc_ovr must be that of its name"):
        load_predictions({"A": tmp_path / "model"}, tmp_path / "root")
    save_labels(tmp_path / "root", "breastmnist", predictions.labels)
    first = next((tmp_path / "model").iterdir())
    again = first.with_name("breastmnist_test@1.csv")
    again.write_text(first.read_text())
    with pytest.raises(ValueError, match=r"run must be one of its own, got seed 1 of breastmnist_test@1.csv again"):
        load_predictions({"A": tmp_path / "model"}, tmp_path / "root")
    again.unlink()
    with pytest.raises(ValueError, match="prediction files of test splits, got none"):
        load_predictions({"A": tmp_path / "root"}, tmp_path / "root")
    for bad in ({"flag": "phantom_ct"}, {"split": "all"}, {"run": "a.b"}):
        arguments = {"flag": "breastmnist", "split": "test", "run": 1} | bad
        flag = arguments.pop("flag")
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            write_predictions(tmp_path, flag, predictions, **arguments)
