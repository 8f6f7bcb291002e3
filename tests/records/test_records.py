import copy
import json

import numpy as np
import pandas as pd
import pytest

from analysis.metrics import METRICS, all_metrics
from analysis.records.ledger import absent_cells, load_ledger, load_manifest, read_records
from analysis.records.predictions import load_probabilities
from analysis.records.schema import FIRST_METRICS, validate_record
from analysis.records.table import measured

CLASSES = ["benign", "malignant", "normal"]


def predictions(seed, images=20):
    rng = np.random.default_rng(seed)
    return rng.integers(0, len(CLASSES), images), rng.dirichlet(np.ones(len(CLASSES)), images)


def make_record(variant="v0", dataset="busi", seed=0, status="done", **changes):
    record = {
        "schema": 1,
        "cell_id": f"{variant}{dataset}{seed}",
        "variant_id": variant,
        "recipe_id": "r0",
        "study": "split_ratio",
        "study_hash": "s0",
        "contrasts_hash": "c0",
        "variant": {"d_state": 8, "branches": [[0.25, "conv"], [0.75, "ss2d"]]} if variant == "v1" else {"d_state": 8},
        "variant_label": "baseline" if variant == "v0" else "split_ratio=0.75",
        "recipe": {"epochs": 3},
        "dataset": dataset,
        "data_fingerprint": f"f-{dataset}",
        "seed": seed,
        "numerics_version": 1,
        "status": status,
        "error": {"type": "RuntimeError", "message": "loss is NaN", "traceback": "…"} if status == "failed" else None,
    }
    if status == "done":
        record |= {
            "modality": "ultrasound",
            "classes": CLASSES,
            "channels": 1,
            "image_size": 28,
            "n_train": 100,
            "n_val": 20,
            "n_test": 20,
            "best_epoch": 2,
            "curves": [{"epoch": 1, "train_loss": 1.0}],
            "validation": all_metrics(*predictions(seed), CLASSES),
            "test": all_metrics(*predictions(seed + 100), CLASSES),
            "cost": {"params": 1000, "macs": 2000, "flops": 4000},
            "seconds": 2.5,
            "images_per_second": 120.0,
            "probabilities": f"probabilities/{variant}{dataset}{seed}.npz",
        }
    return record | changes


def write(folder, records, tail=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + tail, encoding="utf-8")
    return folder


def test_a_row_a_cell_with_flat_columns(tmp_path):
    records = [make_record(v, d, s) for v in ("v0", "v1") for d in ("busi", "cxr") for s in (0, 1)]
    table = load_ledger(write(tmp_path, records))
    assert table["cell_id"].tolist() == [r["cell_id"] for r in records]
    first = table.iloc[0]
    for split in ("validation", "test"):
        for name in measured(table, split):
            assert first[f"{split}.{name}"] == records[0][split][name]
            assert table[f"{split}.{name}"].dtype == np.float64
    assert first[["dataset", "modality", "seed", "status"]].tolist() == ["busi", "ultrasound", 0, "done"]
    assert first[["fingerprint", "numerics_version", "study_hash"]].tolist() == ["f-busi", 1, "s0"]
    assert first[["cost.params", "cost.macs", "cost.flops", "seconds"]].tolist() == [1000, 2000, 4000, 2.5]
    assert first[["images_per_second", "image_size", "classes", "best_epoch"]].tolist() == [120.0, 28, 3, 2]
    assert first["variant_label"] == "baseline"
    assert table.attrs == {
        "done": 8,
        "failed": 0,
        "stopped": 0,
        "torn": 0,
        "errors": {},
        "missing": [],
        "folder": str(tmp_path),
    }


def test_axes_are_columns_and_structured_choices_are_json_text(tmp_path):
    table = load_ledger(write(tmp_path, [make_record("v0"), make_record("v1")]))
    assert table["axis.d_state"].tolist() == [8, 8]
    assert pd.isna(table["axis.branches"][0])
    assert json.loads(table["axis.branches"][1]) == [[0.25, "conv"], [0.75, "ss2d"]]


def test_a_store_and_its_ledger_read_the_same(tmp_path):
    write(tmp_path / "ledger", [make_record()])
    pd.testing.assert_frame_equal(load_ledger(tmp_path), load_ledger(str(tmp_path / "ledger")))


def test_the_last_record_counts_but_a_finished_cell_never_becomes_failed(tmp_path):
    again = make_record("v0", seconds=9.0)
    table = load_ledger(
        write(
            tmp_path,
            [
                make_record("v0", status="failed"),
                make_record("v1"),
                again,
                make_record("v1", status="failed"),
            ],
        )
    )
    assert table["cell_id"].tolist() == ["v0busi0", "v1busi0"]
    assert table["status"].tolist() == ["done", "done"]
    assert table["seconds"].tolist() == [9.0, 2.5]


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_last_line_is_counted_and_left_out(tmp_path, cut):
    folder = write(tmp_path, [make_record("v0")], tail=json.dumps(make_record("v1"))[:cut])
    table = load_ledger(folder)
    assert len(table) == 1 and table.attrs["torn"] == 1


def test_a_whole_last_line_without_its_newline_counts(tmp_path):
    folder = write(tmp_path, [make_record("v0")], tail=json.dumps(make_record("v1")))
    assert len(load_ledger(folder)) == 2 and load_ledger(folder).attrs["torn"] == 0


def test_failed_and_stopped_cells_keep_their_row_without_metrics(tmp_path):
    records = [make_record("v0"), make_record("v1", status="failed"), make_record("v1", seed=1, status="stopped")]
    table = load_ledger(write(tmp_path, records))
    assert table["status"].tolist() == ["done", "failed", "stopped"]
    assert table["test.macro_f1"].isna().tolist() == [False, True, True]
    assert table["error"][1] == "RuntimeError: loss is NaN" and pd.isna(table["error"][0])
    assert {k: table.attrs[k] for k in ("done", "failed", "stopped")} == {"done": 1, "failed": 1, "stopped": 1}
    assert table.attrs["errors"] == {"v1busi0": "RuntimeError: loss is NaN"}


def test_nothing_but_failures_is_still_a_table(tmp_path):
    table = load_ledger(write(tmp_path, [make_record(status="failed")]))
    assert table["test.macro_f1"].dtype == np.float64 and table["test.macro_f1"].isna().all()


def test_undefined_metrics_and_missing_classes_survive(tmp_path):
    record = make_record()
    record["test"] = all_metrics(np.array([1, 1]), np.full((2, 3), 1 / 3), CLASSES)
    table = load_ledger(write(tmp_path, [record]))
    assert np.isnan(table["test.macro_auc_ovr"][0])
    assert json.loads(table["test.missing_classes"][0]) == ["benign", "normal"]
    assert pd.isna(table["validation.missing_classes"][0])


def test_a_record_older_than_a_metric_is_read_without_it(tmp_path, monkeypatch):
    older = make_record("v0")
    monkeypatch.setitem(METRICS, "later", METRICS["accuracy"])
    newer = make_record("v1")
    for split in ("validation", "test"):
        assert "later" not in older[split]
        newer[split]["later"] = 0.25
    table = load_ledger(write(tmp_path, [older, newer]))
    for column in ("validation.later", "test.later"):
        assert table[column].dtype == np.float64
        assert np.isnan(table[column][0]) and table[column][1] == 0.25
    newer["test"]["later"] = "high"
    with pytest.raises(ValueError, match=r"record\.test\.later must be a finite number, got 'high'"):
        validate_record(newer)


def test_the_first_metrics_are_metrics_still():
    assert set(FIRST_METRICS) <= set(METRICS)


def test_mixed_numerics_versions_are_refused_until_one_is_selected(tmp_path):
    old = make_record("v1", cell_id="old", numerics_version=0)
    write(tmp_path, [make_record("v0"), make_record("v1"), old])
    with pytest.raises(ValueError, match=r"share a numerics version, got 0 \(1 cells\), 1 \(2 cells\)"):
        load_ledger(tmp_path)
    assert load_ledger(tmp_path, numerics_version=1)["cell_id"].tolist() == ["v0busi0", "v1busi0"]
    assert load_ledger(tmp_path, numerics_version=0)["cell_id"].tolist() == ["old"]


def test_mixed_fingerprints_are_refused_until_one_is_selected(tmp_path):
    other = make_record("v0", cell_id="other", data_fingerprint="f-new")
    write(tmp_path, [make_record("v0"), other, make_record("v0", "cxr")])
    with pytest.raises(ValueError, match=r"busi must share one fingerprint, got f-busi \(1 cells\), f-new"):
        load_ledger(tmp_path)
    table = load_ledger(tmp_path, fingerprints={"busi": "f-new"})
    assert table["cell_id"].tolist() == ["other", "v0cxr0"]


def test_a_failed_cell_of_older_content_does_not_block(tmp_path):
    stale = make_record("v0", cell_id="stale", data_fingerprint="f-old", numerics_version=0, status="failed")
    assert len(load_ledger(write(tmp_path, [stale, make_record("v0")]))) == 2


def test_two_cells_that_are_the_same_are_refused(tmp_path):
    write(tmp_path, [make_record(), make_record(cell_id="twin")])
    with pytest.raises(ValueError, match=r"must name one cell, got v0busi0 and twin \(variant v0, busi, seed 0\)"):
        load_ledger(tmp_path)
    assert load_ledger(tmp_path, cell_ids=["twin"])["cell_id"].tolist() == ["twin"]


def test_another_recipe_is_another_cell(tmp_path):
    write(tmp_path, [make_record(), make_record(cell_id="twin", recipe_id="r1")])
    assert load_ledger(tmp_path)["recipe_id"].tolist() == ["r0", "r1"]


def manifest(folder, study_hash, content):
    (folder / "studies").mkdir(exist_ok=True)
    (folder / "studies" / f"{study_hash}.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_study_keeps_the_cells_its_manifest_lists(tmp_path):
    # v1busi0 was run by another study and is shared; v0busi9 has no record yet.
    write(tmp_path, [make_record("v0"), make_record("v1", study_hash="other"), make_record("v0", "cxr")])
    content = {"name": "split_ratio", "cell_ids": ["v0busi0", "v1busi0", "v0busi9"], "variants": {"v1": "own label"}}
    manifest(tmp_path, "s0", content)
    for study in ("s0", "split_ratio"):
        table = load_ledger(tmp_path, study=study)
        assert table["cell_id"].tolist() == ["v0busi0", "v1busi0"]
        assert table.attrs["missing"] == ["v0busi9"]
        assert table["variant_label"].tolist() == ["baseline", "own label"]
    assert load_manifest(tmp_path, "split_ratio")["study_hash"] == "s0"


def test_failed_stopped_and_missing_cells_are_named(tmp_path):
    records = [
        make_record("v0"),
        make_record("v0", seed=1, status="stopped"),
        make_record("v1", status="failed"),
        make_record("v1", "cxr"),
    ]
    write(tmp_path, records)
    content = {"name": "split_ratio", "variants": {"v0": "baseline", "v1": "all scan", "v2": "never run"}}
    content |= {"datasets": ["busi", "cxr"], "seeds": [0, 1], "cell_ids": [r["cell_id"] for r in records] + ["v2busi0"]}
    manifest(tmp_path, "s0", content)
    table = load_ledger(tmp_path, study="s0")
    assert (table.attrs["failed"], table.attrs["stopped"], table.attrs["missing"]) == (1, 1, ["v2busi0"])
    absent = absent_cells(table, content)
    assert list(absent.columns) == ["variant_id", "variant", "dataset", "seed", "status", "reason"]
    known = [list(row) for row in absent.itertuples(index=False) if row.status != "missing"]
    assert known == [
        ["v0", "baseline", "busi", 1, "stopped", "stopped before it ended"],
        ["v1", "all scan", "busi", 0, "failed", "RuntimeError: loss is NaN"],
    ]
    missing = absent[absent["status"] == "missing"]
    assert len(missing) == 12 - len(records)
    assert set(missing["reason"]) == {"no record in the ledger: not run yet"}
    assert missing.loc[missing["variant"] == "never run", ["dataset", "seed"]].to_numpy().tolist() == [
        ["busi", 0],
        ["busi", 1],
        ["cxr", 0],
        ["cxr", 1],
    ]
    # A search declares no variants: those that have a record are all there are.
    assert set(absent_cells(table, content | {"variants": {}})["variant_id"]) == {"v0", "v1"}
    assert len(absent_cells(load_ledger(tmp_path, cell_ids=["v0busi0"]), {})) == 0


def test_a_search_keeps_the_cells_that_carry_its_hash(tmp_path):
    write(tmp_path, [make_record("v0"), make_record("v1", study_hash="s1")])
    manifest(tmp_path, "s1", {"name": "joint_search"})
    assert load_ledger(tmp_path, study="joint_search")["cell_id"].tolist() == ["v1busi0"]


def test_an_unknown_or_ambiguous_study_is_one_line(tmp_path):
    write(tmp_path, [make_record("v0")])
    with pytest.raises(ValueError, match=r"got 'fusion' \(stored: no study\)"):
        load_ledger(tmp_path, study="fusion")
    manifest(tmp_path, "s0", {"name": "split_ratio", "datasets": ["busi"], "seeds": [0, 1]})
    manifest(tmp_path, "s1", {"name": "split_ratio"})
    with pytest.raises(ValueError, match=r"of split_ratio, got its name \(s0: busi, seeds 0, 1, 0 cells; s1: "):
        load_ledger(tmp_path, study="split_ratio")
    with pytest.raises(ValueError, match=r"stored: split_ratio \(s0\), split_ratio \(s1\)"):
        load_ledger(tmp_path, study="fusion")
    with pytest.raises(ValueError, match="a record of what was selected, got none"):
        load_ledger(tmp_path, study="s1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "must be a ledger .* got nothing there"),
        (lambda folder: folder.mkdir(), "got a folder without one"),
        (lambda folder: folder.write_text("x"), "got a file"),
        (lambda folder: write(folder, []), "at least one record, got none"),
        (lambda folder: write(folder, [], tail='{"cell_id"'), "at least one record, got a half-written one"),
        (lambda folder: write(folder, [{"x": 1}, make_record()]), "records.jsonl: line 1 must be a record, got"),
        (
            lambda folder: write(folder, [make_record(), make_record("v1") | {"seed": "0"}]),
            "line 2: record.seed must be int",
        ),
    ],
)
def test_a_bad_ledger_is_one_line_naming_the_file(tmp_path, make, message):
    folder = tmp_path / "store"
    make(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_ledger(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_valid_records_pass():
    for status in ("done", "failed", "stopped"):
        validate_record(make_record(status=status))
    validate_record({k: v for k, v in make_record().items() if k not in ("study", "study_hash", "variant_label")})


def without(key):
    def change(record):
        del record[key]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("cell_id"), "record.cell_id must be str, got no such key"),
        (without("cost"), "record.cost must be dict, got no such key"),
        (lambda r: r.update(schema=2), "record.schema must be 1, got 2"),
        (lambda r: r.update(status="ok"), "record.status must be one of done, failed, stopped, got 'ok'"),
        (lambda r: r.update(status="failed"), "record.error must have type and message in a failed record, got None"),
        (lambda r: r.update(seed=True), "record.seed must be int, got True"),
        (lambda r: r.update(seconds="3"), "record.seconds must be int or float, got '3'"),
        (lambda r: r["cost"].update(macs=None), "record.cost.macs must be a finite number, got None"),
        (lambda r: r["test"].pop("ece"), "record.test.ece must be there, got macro_f1, "),
        (lambda r: r["test"].update(mcc=float("nan")), "record.test.mcc must be a finite number, got nan"),
        (lambda r: r["validation"]["per_class"].pop(), "record.validation.per_class must have 3 rows, one per class"),
    ],
)
def test_a_departure_from_the_schema_is_one_line(change, message):
    record = copy.deepcopy(make_record())
    change(record)
    with pytest.raises(ValueError) as caught:
        validate_record(record)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def arrays(images=7, groups=False):
    labels, probabilities = predictions(0, images)
    found = {}
    for split in ("validation", "test"):
        found |= {f"{split}_probabilities": probabilities, f"{split}_labels": labels}
        found |= {f"{split}_ids": np.array([f"{split}/{i}" for i in range(images)])}
    if groups:
        found["test_groups"] = np.arange(images) // 2
    return found


def save(folder, found):
    write(folder, [make_record()])
    (folder / "probabilities").mkdir()
    np.savez(folder / "probabilities" / "v0busi0.npz", **found)


def test_probabilities_of_a_split(tmp_path):
    found = arrays(groups=True)
    save(tmp_path / "ledger", found)
    test = load_probabilities(tmp_path, "v0busi0", "test")
    assert np.array_equal(test.probabilities, found["test_probabilities"])
    assert np.array_equal(test.labels, found["test_labels"])
    assert test.ids.tolist() == found["test_ids"].tolist()
    assert test.groups is not None and test.groups.tolist() == [0, 0, 1, 1, 2, 2, 3]
    validation = load_probabilities(tmp_path, "v0busi0", "validation")
    assert validation.ids[0] == "validation/0" and validation.groups is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("test_ids"), "got no test_ids"),
        (lambda found: found.update(test_labels=np.arange(3)), "must have one length"),
        (lambda found: found.update(test_labels=np.array([None] * 7)), "without pickled objects"),
        (
            lambda found: found["test_probabilities"].__setitem__((2, 1), np.nan),
            "npz: test probabilities must be finite",
        ),
        (lambda found: found.update(test_labels=np.full(7, 3)), "npz: test labels must be 0 … 2, got 3 … 3"),
    ],
)
def test_bad_probabilities_are_one_line(tmp_path, change, message):
    found = arrays()
    change(found)
    save(tmp_path, found)
    with pytest.raises(ValueError, match=message) as caught:
        load_probabilities(tmp_path, "v0busi0", "test")
    assert "\n" not in str(caught.value) and "v0busi0.npz" in str(caught.value)


def test_missing_or_torn_probabilities_and_unknown_splits(tmp_path):
    save(tmp_path, arrays())
    with pytest.raises(ValueError, match="probabilities of cell nope, got no such file"):
        load_probabilities(tmp_path, "nope", "test")
    with pytest.raises(ValueError, match="split must be one of validation, test, got 'train'"):
        load_probabilities(tmp_path, "v0busi0", "train")
    path = tmp_path / "probabilities" / "v0busi0.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="must be a whole npz file"):
        load_probabilities(tmp_path, "v0busi0", "test")


def test_reads_what_the_driver_writes(tmp_path):
    ledger_module = pytest.importorskip("study.store.ledger")
    ledger = ledger_module.Ledger(tmp_path / "ledger")
    labels, probabilities = predictions(0, 7)
    ledger.append(make_record("v0", status="failed"))
    ledger.append(make_record("v0"), {"test_probabilities": probabilities, "test_labels": labels, "test_ids": labels})
    ledger.append(make_record("v1", "cxr"))
    ledger.write_manifest("s0", {"name": "split_ratio", "cell_ids": ["v0busi0"]})
    records, torn = read_records(tmp_path)
    assert torn == 0 and {r["cell_id"]: r for r in records} == ledger.records()
    assert load_ledger(tmp_path, study="split_ratio")["cell_id"].tolist() == ["v0busi0"]
    assert np.array_equal(load_probabilities(tmp_path, "v0busi0").probabilities, probabilities)
