"""Declared splits: deterministic, every class by its share, no group divided, told and part of what is trained on."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photo_folder import read, refusal, write_folder

from study.data import open_source
from study.data.files.splitting import assigned
from study.file.reading import load_study

BOTH = {"val": 0.1, "test": 0.2}

PINNED = [f"{n}.png" for n in (2, 5, 12, 13, 16, 18, 22, 26, 27, 28, 30, 32, 36, 40, 44)]


def of_classes(root, count=20, classes=("calm", "ill")):
    return write_folder(root, splits=("",), classes=classes, count=count)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.lists(st.floats(0.05, 1), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_without_groups_every_class_has_its_share_within_one_image(sizes, weights, seed):
    shares = np.array(weights) / sum(weights)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = np.array(assigned([f"{n}" for n in range(len(labels))], list(labels), list(shares), seed))
    for label, size in enumerate(sizes):
        counts = np.bincount(parts[labels == label], minlength=len(shares))
        assert np.abs(counts - shares * size).max() < 1.0 + 1e-9


@given(st.integers(0, 99), st.integers(12, 40), st.integers(1, 6))
def test_a_group_is_never_divided_and_large_ones_find_their_place(seed, groups, largest):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, groups)
    names = np.repeat(np.arange(groups), sizes)
    labels = np.repeat(np.arange(groups) % 2, sizes)
    parts = np.array(assigned([f"p{name}" for name in names], list(labels), [0.6, 0.2, 0.2], seed))
    for name in range(groups):
        assert len(set(parts[names == name])) == 1
    for label in (0, 1):
        counts = np.bincount(parts[labels == label], minlength=3)
        assert np.abs(counts - np.array([0.6, 0.2, 0.2]) * counts.sum()).max() <= largest


def test_the_order_of_files_does_not_matter_and_the_seed_does():
    units, labels = [f"{n}.png" for n in range(50)], [n % 3 for n in range(50)]
    there = dict(zip(units, assigned(units, labels, [0.7, 0.3], 0)))
    back = dict(zip(units[::-1], assigned(units[::-1], labels[::-1], [0.7, 0.3], 0)))
    assert there == back != dict(zip(units, assigned(units, labels, [0.7, 0.3], 1)))
    # A split is part of a data set's identity: this one must never change.
    assert [unit for unit, part in there.items() if part == 1] == PINNED


def test_a_folder_of_classes_is_split_as_declared(tmp_path):
    of_classes(tmp_path)
    data = read(tmp_path, split=BOTH)
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (28, 4, 8)
    assert data.info.notes == ("split here by class with seed 0: val 0.1, test 0.2 of 40 files",)
    for part in data.splits.values():
        assert np.bincount(part.labels).tolist() == [len(part) // 2] * 2
    ids = [name for part in data.splits.values() for name in part.ids]
    assert sorted(ids) == sorted(f"{title}/{n}.png" for title in ("calm", "ill") for n in range(20))
    assert read(tmp_path, split={"test": 0.2, "val": 0.1}).info == data.info
    prints = {read(tmp_path, split={**BOTH, "seed": seed}).info.fingerprint for seed in (0, 1, 2)}
    assert len(prints) == 3 and data.info.fingerprint in prints
    assert open_source({"kind": "folder", "root": str(tmp_path), "split": BOTH}).names() == ["photos"]


def test_a_copy_elsewhere_is_split_alike(tmp_path):
    of_classes(tmp_path / "one")
    shutil.copytree(tmp_path / "one" / "photos", tmp_path / "two" / "other")
    assert read(tmp_path / "one", split=BOTH).info.fingerprint == (
        read(tmp_path / "two", "other", split=BOTH).info.fingerprint
    )


def test_groups_are_kept_together(tmp_path):
    folder = of_classes(tmp_path)
    rows = [f"{title}/{n}.png,patient {title} {n // 4}" for title in ("calm", "ill") for n in range(20)]
    (folder / "groups.csv").write_text("\n".join(["image,group", *rows]))
    data = read(tmp_path, split={"val": 0.2, "test": 0.2})
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (24, 8, 8)
    assert data.info.notes[0].startswith("split here by class and group with seed 0")
    groups = [set(part.groups) for part in data.splits.values() if part.groups is not None]
    assert len(groups) == 3 and sum(map(len, groups)) == len(set.union(*groups)) == 10


def test_only_the_absent_split_is_cut_out_of_train(tmp_path):
    folder = write_folder(tmp_path, splits=("train", "val"), count=10)
    whole = read(tmp_path, split={"test": 0.2})
    assert (whole.info.n_train, whole.info.n_val, whole.info.n_test) == (16, 20, 4)
    assert all(name.startswith("val/") for name in whole.splits["val"].ids)
    assert all(name.startswith("train/") for name in whole.splits["test"].ids)
    assert refusal(tmp_path, split=BOTH) == (
        f"source.split.val must be left out where the data have a val split, got {folder}"
    )
    assert refusal(tmp_path).endswith("got train, val (source.split cuts it out of train: {test: 0.2})")
    (folder / "train").rename(folder / "test")
    assert refusal(tmp_path, split={"test": 0.2}) == f"{folder}: must hold the folder train, got test, val"


def test_a_declaration_that_leaves_nothing_is_refused(tmp_path):
    folder = of_classes(tmp_path)
    assert refusal(tmp_path, split={"val": 0.5, "test": 0.5}) == (
        "source.split must leave images for train, got shares of 1 together"
    )
    assert refusal(tmp_path, split={"val": 0.5}) == (
        f"{folder}: must hold the folder test, got calm, ill (source.split cuts it out of train: "
        "{val: 0.1, test: 0.2})"
    )
    assert refusal(tmp_path) == (
        f"{folder}: must hold the folder train, got calm, ill (classes without splits take source.split: "
        "{val: 0.1, test: 0.2})"
    )
    with pytest.raises(ValueError, match=r"source\.split\.val must be a number between 0 and 1, got 1\.5"):
        read(tmp_path, split={"val": 1.5, "test": 0.1})
    with pytest.raises(ValueError, match=r"source\.split\.tset must be one of"):
        read(tmp_path, split={"tset": 0.1})


def test_a_study_declares_it(tmp_path):
    of_classes(tmp_path)
    file = tmp_path / "asked.yaml"
    text = "question: q\nbase: nano\naxes: {split_ratio: [0.5]}\nseeds: [0]\ndatasets: [photos]\n"
    file.write_text(f"{text}source: {{split: {{val: 0.1, test: 0.2, seed: 3}}}}\n")
    study = load_study(file, data_root=tmp_path)
    study.check_source()
    spec = study.sources()["photos"]
    assert spec["split"] == {"val": 0.1, "test": 0.2, "seed": 3} and spec["kind"] == "folder"
    assert open_source(spec).describe("photos").n_val == 4
    file.write_text(f"{text}source: {{split: {{val: 2}}}}\n")
    with pytest.raises(ValueError, match=r"source\.split\.val must be a number between 0 and 1, got 2"):
        load_study(file, data_root=tmp_path)
