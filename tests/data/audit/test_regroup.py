"""Regrouped copies: look-alikes share a group and a split, conflicts are left out, and the copy is clean."""

import csv
import json

import numpy as np
import pytest
from made_images import clean, made

from study.audit.alike import find_pairs
from study.audit.command_line import main
from study.audit.findings import audit
from study.audit.pool import pool_of
from study.audit.regroup import regroup
from study.data import load_dataset


def leaky(groups=False):
    """A set with a chain of look-alikes through three splits, a mirrored copy, and a picture with two labels."""
    images, labels = clean((90, 24, 36))
    images["val"][3] = images["train"][11] // 2 + 50
    images["test"][1] = images["val"][3]
    images["test"][5] = images["train"][13][:, ::-1]
    images["test"][8] = images["train"][21]
    numbers = {name: 1000 * place + np.arange(len(part)) // 2 for place, (name, part) in enumerate(images.items())}
    return images, labels, numbers if groups else None


def regrouped(data):
    pool = pool_of(data)
    return pool, regroup(pool, find_pairs(pool))


def test_look_alikes_come_together_and_conflicts_go():
    images, labels, _ = leaky()
    pool, found = regrouped(made(images, labels))
    row = {str(name): place for place, name in enumerate(pool.ids)}
    assert [str(pool.ids[place]) for place in found.left_out] == ["train/21", "test/8"]
    chain = [row[name] for name in ("train/11", "val/3", "test/1")]
    mirrored = [row[name] for name in ("train/13", "test/5")]
    for together in (chain, mirrored):
        assert len(set(found.group[together])) == len(set(found.split[together])) == 1
    # All others are groups of their own.
    assert len(set(found.group)) == 150 - 2 - 1 - 1


def test_splits_keep_their_shares_in_every_class():
    images, labels, _ = leaky()
    pool, found = regrouped(made(images, labels))
    for place, (name, part) in enumerate(images.items()):
        inside = found.split == place
        assert abs(inside.sum() - len(part)) <= 2
        assert abs((pool.labels[inside] == 0).sum() - (labels[name] == 0).sum()) <= 2


def test_old_groups_stay_together():
    images, labels, groups = leaky(groups=True)
    pool, found = regrouped(made(images, labels, groups))
    for old in np.unique(pool.groups):
        rows = pool.groups == old
        assert len(set(found.group[rows])) == 1 and len(set(found.split[rows & (found.split >= 0)])) <= 1
    # A chain goes through the groups of its images: train/10 shares one with train/11.
    row = {str(name): place for place, name in enumerate(pool.ids)}
    joined = [row[name] for name in ("train/10", "train/11", "val/2", "val/3", "test/0", "test/1")]
    assert len(set(found.group[joined])) == 1


def test_the_same_images_are_split_the_same_way():
    first, second = (regrouped(made(*leaky()[:2]))[1] for _ in range(2))
    assert (first.split == second.split).all() and (first.group == second.group).all()


def test_images_that_all_look_alike_are_refused():
    images, labels, _ = leaky()
    pool = pool_of(made(images, labels))
    with pytest.raises(ValueError, match="look-alikes must be few enough to be listed, got images that hardly differ"):
        regroup(pool, find_pairs(pool, most=1))


@pytest.fixture
def root(tmp_path):
    """A folder with the set `leaky` and its catalogue."""
    images, labels, _ = leaky()
    arrays = {f"{name}_images": part for name, part in images.items()}
    np.savez(tmp_path / "leaky.npz", **arrays, **{f"{name}_labels": part for name, part in labels.items()})
    entry = {"modality": "made", "classes": ["calm", "ill"], "source_key": "there", "licence": "CC0", "old_score": 0.9}
    (tmp_path / "datasets.json").write_text(json.dumps({"leaky": entry}))
    return tmp_path


def test_a_copy_is_written_that_is_clean(root, capsys):
    place = ["--data-root", str(root), "--out", str(root / "out")]
    assert main(["leaky", *place, "--fix", str(root / "new")]) == 1
    out = capsys.readouterr().out
    assert "left out, since a look-alike bears another label: 2 images, train/21 and test/8" in out
    copy = load_dataset({"kind": "npz", "root": str(root / "new")}, "leaky")
    assert copy.info.modality == "made" and copy.info.classes == ("calm", "ill") and copy.info.source_key == "there"
    assert copy.info.n_train + copy.info.n_val + copy.info.n_test == 148
    pairs = audit(copy)["alike"]["pairs"]
    assert not any(pairs.values())
    assert main(["leaky", "--data-root", str(root / "new"), "--out", str(root / "out")]) == 0
    entry = json.loads((root / "new" / "datasets.json").read_text())["leaky"]
    original = load_dataset({"kind": "npz", "root": str(root)}, "leaky")
    assert entry["licence"] == "CC0" and "old_score" not in entry and original.info.fingerprint in entry["note"]
    assert entry["n"] == {"train": copy.info.n_train, "val": copy.info.n_val, "test": copy.info.n_test}


def test_the_table_says_what_went_where(root):
    main(["leaky", "--data-root", str(root), "--out", str(root / "out"), "--fix", str(root / "new")])
    spec, old = {"kind": "npz", "root": str(root / "new")}, {"kind": "npz", "root": str(root)}
    copy, original = load_dataset(spec, "leaky"), load_dataset(old, "leaky")
    with (root / "new" / "audit" / "leaky.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["was"] for row in rows if not row["image"]] == ["train/21", "test/8"]
    assert len(rows) == 150
    for row in rows:
        if row["image"]:
            (split, place), (was, before) = row["image"].split("/"), row["was"].split("/")
            image = copy.splits[split].images[int(place)]
            assert (image == original.splits[was].images[int(before)]).all()
            assert copy.splits[split].groups[int(place)] == int(row["group"])
            assert copy.info.classes[copy.splits[split].labels[int(place)]] == row["class"]


def test_nothing_is_written_over(root, capsys):
    options = ["leaky", "--data-root", str(root), "--out", str(root / "out"), "--fix"]
    before = (root / "leaky.npz").read_bytes()
    assert main([*options, str(root)]) == 2
    assert f"error: {root / 'leaky.npz'}: must not be there yet" in capsys.readouterr().err
    assert (root / "leaky.npz").read_bytes() == before
    assert main([*options, str(root / "one")]) == main([*options, str(root / "two")]) == 1
    # The same set gives the same bytes.
    assert (root / "one" / "leaky.npz").read_bytes() == (root / "two" / "leaky.npz").read_bytes()
