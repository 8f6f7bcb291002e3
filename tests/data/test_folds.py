"""Folds of a data set: each image is tested once, groups stay whole, and all folds are one source."""

import numpy as np
import pytest
from photo_folder import read, refusal, write_folder
from test_table import write_images, write_table

from study.data import open_source
from study.file.reading import load_study
from study.planning.inputs import read_inputs


def folds_of(root, count=5, name="photos", **settings):
    return [read(root, f"{name}@fold{number}", folds=count, **settings) for number in range(1, count + 1)]


@pytest.fixture
def grouped(tmp_path):
    folder = write_folder(tmp_path, splits=("",), count=20)
    rows = [f"{title}/{n}.png,{title} {n // 2}" for title in ("calm", "ill") for n in range(20)]
    (folder / "groups.csv").write_text("\n".join(["image,group", *rows]))
    return tmp_path


def test_every_image_is_tested_once_and_groups_stay_whole(grouped):
    sets = folds_of(grouped, split={"val": 0.2})
    tested = [name for data in sets for name in data.splits["test"].ids]
    assert sorted(tested) == sorted(f"{title}/{n}.png" for title in ("calm", "ill") for n in range(20))
    for data in sets:
        assert (data.info.n_train, data.info.n_val, data.info.n_test) == (24, 8, 8)
        ids = [name for part in data.splits.values() for name in part.ids]
        assert sorted(ids) == sorted(tested)
        groups = [set(part.groups) for part in data.splits.values() if part.groups is not None]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 20
        for part in data.splits.values():
            assert np.bincount(part.labels).tolist() == [len(part) // 2] * 2
    assert len({data.info.fingerprint for data in sets}) == 5
    assert {data.info.source_key for data in sets} == {"photos"}
    assert sets[1].info.notes == (
        "fold 2 of 5, by class and group with seed 0, val 0.2 of the 40 files: folds share training images, so that "
        "they are one source and no independent data sets",
    )
    others = folds_of(grouped, split={"val": 0.2, "seed": 1})
    assert {data.info.fingerprint for data in others}.isdisjoint(data.info.fingerprint for data in sets)


def test_repeats_deal_the_images_out_anew(grouped):
    once = read(grouped, "photos@fold1", folds=2, split={"val": 0.2})
    sets = [read(grouped, f"photos@fold{n}", folds=2, repeats=3, split={"val": 0.2}) for n in range(1, 5)]
    # The first repeat is what it is without others, but for its note.
    assert sets[0].info.fingerprint == once.info.fingerprint
    assert len({data.info.fingerprint for data in sets}) == 4
    for first in (0, 2):
        tested = [name for data in sets[first : first + 2] for name in data.splits["test"].ids]
        assert len(tested) == len(set(tested)) == 40
    assert sets[3].info.notes[0].startswith("fold 2 of 2, repeat 2 of 3, by class and group with seed 0")
    assert refusal(grouped, "photos@fold7", folds=2, repeats=3).endswith("photos@fold6, got photos@fold7")
    assert "source.repeats must be left out where source.folds is not given, got 3" in refusal(
        grouped, "photos", split={"val": 0.2, "test": 0.2}, repeats=3
    )


def test_folds_pool_whatever_splits_there_are(tmp_path):
    write_folder(tmp_path, count=5)
    sets = folds_of(tmp_path, 3)
    assert sum(data.info.n_test for data in sets) == 30
    assert sorted(name for data in sets for name in data.splits["test"].ids)[0] == "test/calm/0.png"


def test_a_table_has_folds_too(tmp_path):
    write_images(tmp_path / "photos", [f"{n}.png" for n in range(24)])
    write_table(tmp_path, "\n".join(["image,label,group", *(f"{n},{n % 2},{n // 4}" for n in range(24))]))
    sets = folds_of(tmp_path, 3, kind="table")
    assert [data.info.n_test for data in sets] == [8, 8, 8]
    assert sorted(name for data in sets for name in data.splits["test"].ids) == sorted(f"{n}.png" for n in range(24))


def test_a_study_names_the_set_and_gets_its_folds_as_one_source(grouped):
    file = grouped / "asked.yaml"
    file.write_text(
        "question: q\nbase: nano\naxes: {split_ratio: [0.5]}\nseeds: [0]\ndatasets: [photos, phantom_ct]\n"
        "source: {folds: 3}\nsources: {photos: ward}\n"
    )
    study = load_study(file, data_root=grouped, settings={"source.repeats": "2"})
    assert [name for name in study.datasets if "fold" in name] == [f"photos@fold{n}" for n in range(1, 7)]
    study = load_study(file, data_root=grouped)
    study.check_source()
    assert study.datasets == ("photos@fold1", "photos@fold2", "photos@fold3", "phantom_ct")
    assert study.sources()["photos@fold2"]["folds"] == 3
    inputs = read_inputs(study)
    assert {inputs.infos[name].source_key for name in study.datasets[:3]} == {"ward"}
    keys = study.source_keys(inputs.refs)
    assert len({keys[name] for name in study.datasets}) == 2


def test_wrong_folds_are_named(grouped):
    assert refusal(grouped, "photos", folds=3) == "the data set must be photos@fold1 … photos@fold3, got photos"
    assert refusal(grouped, "photos@fold4", folds=3).endswith("got photos@fold4")
    assert refusal(grouped, "photos@fold1", split={"val": 0.1, "test": 0.1}) == (
        "the data set must be photos, without source.folds, got photos@fold1"
    )
    assert refusal(grouped, "photos@fold1", folds=3, split={"test": 0.2}) == (
        "source.split.test must be left out where source.folds is given, got 0.2"
    )
    assert refusal(grouped, "photos@fold1", folds=2, split={"val": 0.5}) == (
        "source.split.val must leave images for train beside a fold of 2, got 0.5"
    )
    np.savez(grouped / "toy.npz", train_images=np.zeros(3))
    file = grouped / "asked.yaml"
    file.write_text(
        "question: q\nbase: nano\naxes: {split_ratio: [0.5]}\nseeds: [0]\ndatasets: [toy]\nsource: {folds: 3}\n"
    )
    with pytest.raises(ValueError, match="toy: must be of the kind table or folder to be taken in folds, got npz"):
        load_study(file, data_root=grouped).sources()
    assert open_source({"kind": "folder", "root": str(grouped), "folds": 3}).names() == ["photos"]
