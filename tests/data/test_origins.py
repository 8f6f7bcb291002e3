"""Where data sets come from: the catalogue, MedMNIST's collections, else their own name."""

import json

import pytest
from test_data import write

from analysis.records.origins import MEDMNIST, source_key
from study.data import open_source


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("organamnist", "lits"),
        ("organcmnist_64", "lits"),
        ("organsmnist_224", "lits"),
        ("breastmnist", "busi"),
        ("pneumoniamnist", "kermany_cxr"),
        ("octmnist", "kermany_oct"),
        ("dermamnist", "ham10000"),
        ("busi", "busi"),
        ("my_64", "my_64"),
        ("phantom_ct?size=64", "phantom_ct?size=64"),
    ],
)
def test_known_collections_have_a_key_and_all_others_their_name(name, key):
    assert source_key(name) == key and source_key(name, "mine") == "mine"


def test_every_set_of_medmnist_has_its_collection():
    from medmnist.info import INFO

    assert set(MEDMNIST) == {name for name in INFO if not name.endswith("3d")}
    for name, word in {"organamnist": "LiTS", "breastmnist": "breast ultrasound", "dermamnist": "HAM10000"}.items():
        assert word in INFO[name]["description"]


def test_a_description_carries_the_source_whose_key_the_catalogue_gives(tmp_path):
    write(tmp_path, "breastmnist")
    write(tmp_path, "toy")
    source = open_source({"kind": "npz", "root": str(tmp_path)})
    assert [source.describe(name).source_key for name in ("breastmnist", "toy")] == ["busi", "toy"]
    before = source.describe("toy").fingerprint
    (tmp_path / "datasets.json").write_text(json.dumps({"toy": {"source_key": "busi"}}))
    assert source.describe("toy").source_key == "busi" and source.describe("toy").fingerprint == before
    (tmp_path / "datasets.json").write_text(json.dumps({"toy": {"source_key": 3}}))
    with pytest.raises(ValueError, match=r"toy.source_key must be text, got 3"):
        source.describe("toy")


def test_real_files_of_one_collection_share_a_key(data_root):
    source = open_source({"kind": "npz", "root": str(data_root)})
    keys = [source.describe(name).source_key for name in ("busi", "breastmnist", "bloodcells")]
    assert keys == ["busi", "busi", "bccd"]
