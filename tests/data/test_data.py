"""Files from outside: each source reads what is right, and says in one line what is wrong."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from effort import calls_of

from study.data import fingerprint, load_dataset, open_source, source_for
from study.data.readers import FILE_KINDS, READERS, file_settings

HEIGHT, WIDTH = 6, 9


def arrays(
    rng_seed: int = 0, counts: tuple[int, int, int] = (8, 4, 6), classes: int = 2, channels: int = 1
) -> dict[str, np.ndarray]:
    """A right data set in MedMNIST layout, groups included; no group in two splits."""
    rng = np.random.default_rng(rng_seed)
    made: dict[str, np.ndarray] = {}
    for index, (split, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        shape = (count, HEIGHT, WIDTH) if channels == 1 else (count, HEIGHT, WIDTH, channels)
        made[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8).reshape(-1, 1)
        made[f"{split}_groups"] = (100 * index + np.arange(count) // 2).astype(np.int32)
    return made


def write(folder: Path, name: str = "toy", **changes: np.ndarray | None) -> Path:
    made = arrays() | changes
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **{key: value for key, value in made.items() if value is not None})
    return path


def load(folder: Path, name: str = "toy"):
    return load_dataset({"kind": "npz", "root": str(folder)}, name)


def refusal(folder: Path, name: str = "toy") -> str:
    with pytest.raises(ValueError) as caught:
        load(folder, name)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("channels", [1, 3])
def test_an_npz_file_is_read_as_it_is(tmp_path, channels):
    made = arrays(channels=channels)
    np.savez(tmp_path / "toy.npz", **made)
    data = load(tmp_path)
    assert (data.info.name, data.info.modality, data.info.classes) == ("toy", "unknown", ("class 0", "class 1"))
    assert (data.info.channels, data.info.image_size) == (channels, (HEIGHT, WIDTH))
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (8, 4, 6)
    for split, part in data.splits.items():
        assert np.array_equal(part.images, made[f"{split}_images"].reshape(-1, HEIGHT, WIDTH, channels))
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int64
        assert part.labels.tolist() == made[f"{split}_labels"].ravel().tolist()
        assert part.groups is not None and part.groups.dtype == np.int64
        assert part.groups.tolist() == made[f"{split}_groups"].tolist()
        assert len(set(part.ids)) == len(part) and part.ids[1] == f"{split}/1"
        assert part.masks is None


def test_groups_may_be_absent_and_labels_flat(tmp_path):
    made = arrays()
    write(
        tmp_path,
        **{f"{split}_groups": None for split in ("train", "val", "test")},
        **{f"{split}_labels": made[f"{split}_labels"].ravel() for split in ("train", "val", "test")},
    )
    data = load(tmp_path)
    assert data.splits["test"].groups is None
    assert data.splits["test"].labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_the_catalogue_names_modality_and_classes(tmp_path):
    write(tmp_path)
    (tmp_path / "datasets.json").write_text(json.dumps({"toy": {"modality": "toy scan", "classes": ["calm", "ill"]}}))
    info = open_source({"kind": "npz", "root": str(tmp_path)}).describe("toy")
    assert (info.modality, info.classes) == ("toy scan", ("calm", "ill"))


def test_the_fingerprint_is_of_content(tmp_path):
    write(tmp_path, "one")
    write(tmp_path, "copy")
    made = arrays()
    pixel = made["val_images"].copy()
    pixel[0, 0, 0] ^= 1
    label = made["test_labels"][::-1].copy()
    write(tmp_path, "pixel", val_images=pixel)
    write(tmp_path, "label", test_labels=label)
    write(tmp_path, "group", test_groups=made["test_groups"] + 1)
    write(tmp_path, "bare", **{f"{split}_groups": None for split in ("train", "val", "test")})
    write(
        tmp_path,
        "turned",
        **{f"{split}_images": np.swapaxes(made[f"{split}_images"], 1, 2) for split in ("train", "val", "test")},
    )
    found = {
        name: load(tmp_path, name).info.fingerprint
        for name in open_source({"kind": "npz", "root": str(tmp_path)}).names()
    }
    assert found.pop("copy") == found["one"]
    assert len(set(found.values())) == 6
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in found.values())
    data = load(tmp_path, "one")
    assert fingerprint(("a", "b"), data.splits) != data.info.fingerprint


def test_a_set_is_read_once_until_its_file_changes(tmp_path):
    path = write(tmp_path)
    first = load(tmp_path)
    assert load(tmp_path) is first
    made = arrays(rng_seed=1)
    np.savez(path, **made)
    os.utime(path, ns=(0, 0))
    assert load(tmp_path).info.fingerprint != first.info.fingerprint


def _labels(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


WRONG: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "missing key": ({"val_labels": None}, "must hold val_labels, got train_images, train_labels"),
    "misspelt key": (
        {"train_group": _labels([0] * 8)},
        "train_group must be one of images, labels and groups of a split",
    ),
    "float images": (
        {"train_images": np.zeros((8, HEIGHT, WIDTH), np.float32)},
        "train_images must be uint8, got float32",
    ),
    "volumes": (
        {"val_images": np.zeros((4, HEIGHT, WIDTH, 5), np.uint8)},
        "val_images must have the shape (n, height, width) or (n, height, width, 3), got (4, 6, 9, 5)",
    ),
    "flat images": (
        {"val_images": np.zeros((4, 54), np.uint8)},
        "val_images must have the shape (n, height, width) or (n, height, width, 3), got (4, 54)",
    ),
    "no pixels": (
        {"val_images": np.zeros((4, 0, 9), np.uint8)},
        "val_images must hold images with pixels, got the shape (4, 0, 9, 1)",
    ),
    "another size": (
        {"test_images": np.zeros((6, WIDTH, HEIGHT), np.uint8)},
        "test_images must have the size of train_images, 6×9, 1 channel, got 9×6, 1 channel",
    ),
    "another colour": (
        {"test_images": np.zeros((6, HEIGHT, WIDTH, 3), np.uint8)},
        "test_images must have the size of train_images, 6×9, 1 channel, got 6×9, 3 channels",
    ),
    "float labels": ({"val_labels": np.zeros(4)}, "val_labels must be integers, got float64"),
    "multi-label": (
        {"train_labels": np.zeros((8, 14), np.uint8)},
        "train_labels must hold one label an image, shape (n,) or (n, 1), got (8, 14); where an image may have "
        "several, its entry in datasets.json says so (task: multilabel)",
    ),
    "deep labels": (
        {"train_labels": np.zeros((8, 1, 1), np.uint8)},
        "train_labels must have the shape (n,) or (n, 1), got (8, 1, 1)",
    ),
    "scalar labels": ({"train_labels": np.array(3)}, "train_labels must have the shape (n,) or (n, 1), got ()"),
    "unequal lengths": ({"train_labels": _labels([0, 1, 0])}, "train_labels must be as many as the images, 8, got 3"),
    "unequal groups": ({"val_groups": _labels([0])}, "val_groups must be as many as the images, 4, got 1"),
    "text groups": ({"val_groups": np.array(["a", "b", "c", "d"])}, "val_groups must be integers, got <U1"),
    "empty split": (
        {"test_images": np.zeros((0, HEIGHT, WIDTH), np.uint8), "test_labels": _labels([]), "test_groups": _labels([])},
        "test_images must hold at least one image, got an empty split",
    ),
    "label beyond train": (
        {"val_labels": _labels([0, 1, 0, 2])},
        "val_labels must lie in 0..1 (2 classes in train), got 2",
    ),
    "negative label": (
        {"val_labels": _labels([0, -1, 0, 1])},
        "val_labels must lie in 0..1 (2 classes in train), got -1",
    ),
    "labels from one": ({"train_labels": _labels([1, 2] * 4)}, "train_labels must start at 0, got labels from 1 to 2"),
    "a gap": ({"train_labels": _labels([0, 2] * 4)}, "train_labels must hold every class, got no image of class 1"),
    "huge label": (
        {"train_labels": _labels([0, 10**12] * 4)},
        "train_labels must hold every class, got no image of class 1",
    ),
    "one class": (
        {f"{split}_labels": _labels([0] * count) for split, count in (("train", 8), ("val", 4), ("test", 6))},
        "train_labels must hold at least two classes, got 1",
    ),
    "one class in test": (
        {"test_labels": _labels([1] * 6)},
        "test_labels must hold at least two classes, got only class 1",
    ),
    "groups in part": ({"val_groups": None}, "groups must be given for every split or for none, got no val_groups"),
    "a shared group": (
        {"test_groups": _labels([200, 200, 3, 3, 2, 202])},
        "a group must stand in one split only, got group 2 in train and in test (2 such)",
    ),
    "pickled labels": (
        {"val_labels": np.array([0, 1, None, 1], dtype=object)},
        "val_labels must be a plain array, got pickled objects, which are never loaded",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_array_is_named_in_one_line(tmp_path, case):
    changes, expected = WRONG[case]
    path = write(tmp_path, **changes)
    assert refusal(tmp_path).startswith(f"{path}: {expected}")


CATALOGUES: dict[str, tuple[object, str, str]] = {
    "missing class": (
        {"toy": {"classes": ["a", "b", "c"]}},
        "toy.npz",
        "train_labels must hold every class, got no image of class 2 (c)",
    ),
    "too few classes": (
        {"toy": {"classes": ["a"]}},
        "toy.npz",
        "train_labels must lie in 0..0 (1 classes named a), got 1",
    ),
    "checksum": ({"toy": {"md5": "0" * 32}}, "toy.npz", "must have the MD5 00000000000000000000000000000000, got "),
    "classes as text": ({"toy": {"classes": "ab"}}, "datasets.json", "toy.classes must be a list of names, got 'ab'"),
    "classes twice": (
        {"toy": {"classes": ["a", "a"]}},
        "datasets.json",
        "toy.classes must differ from each other, got a, a",
    ),
    "modality": ({"toy": {"modality": 3}}, "datasets.json", "toy.modality must be text, got 3"),
    "entry": ({"toy": 3}, "datasets.json", "toy must be a mapping, got a int"),
    "list": ([], "datasets.json", "must be a catalogue of data sets, a JSON object, got list"),
}


@pytest.mark.parametrize("case", CATALOGUES)
def test_a_wrong_catalogue_is_named_in_one_line(tmp_path, case):
    content, file, expected = CATALOGUES[case]
    write(tmp_path)
    (tmp_path / "datasets.json").write_text(json.dumps(content))
    assert refusal(tmp_path).startswith(f"{tmp_path / file}: {expected}")


def test_a_catalogue_that_is_no_json(tmp_path):
    write(tmp_path)
    (tmp_path / "datasets.json").write_text("{")
    assert refusal(tmp_path).startswith(
        f"{tmp_path / 'datasets.json'}: must be a catalogue of data sets, whole JSON, got Expecting property name"
    )


def test_the_right_checksum_passes_in_either_case(tmp_path):
    import hashlib

    path = write(tmp_path)
    digest = hashlib.md5(path.read_bytes()).hexdigest().upper()
    (tmp_path / "datasets.json").write_text(json.dumps({"toy": {"md5": digest}}))
    assert load(tmp_path).info.n_train == 8


def test_broken_files_are_named_in_one_line(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()

    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path).startswith(
        f"{path}: must be a readable zip of arrays (.npz), got BadZipFile: File is not a zip file"
    )
    damaged = bytearray(whole)
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive:
        for key, value in arrays().items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, value)
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 0xFF
    path.write_bytes(damaged)
    assert refusal(tmp_path).startswith(f"{path}: must be a readable zip of arrays (.npz), got BadZipFile: Bad CRC-32")
    path.write_bytes(b"")
    assert refusal(tmp_path) == f"{path}: must be a zip of arrays (.npz), got no zip file"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert refusal(tmp_path) == f"{path}: must be a zip of arrays (.npz), got no zip file"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert refusal(tmp_path) == f"{path}: must be a zip of arrays (.npz), got a single .npy array"
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(key, b"text")
    assert refusal(tmp_path) == f"{path}: train_images must be an array in .npy format, got other bytes"
    with zipfile.ZipFile(path, "w"):
        pass
    assert refusal(tmp_path) == f"{path}: must hold train_images, got an empty archive"


def test_a_name_that_is_not_there_gets_close_ones(tmp_path):
    write(tmp_path, "breast")
    write(tmp_path, "chest")
    assert (
        refusal(tmp_path, "breest")
        == f"{tmp_path}: must hold the data set 'breest', and does not; did you mean breast?"
    )
    assert refusal(tmp_path, "qq") == f"{tmp_path}: must hold the data set 'qq', and does not; it holds breast, chest"
    assert refusal(tmp_path, "../breast").startswith(f"{tmp_path}: must hold the data set '../breast', and does not")
    assert open_source({"kind": "npz", "root": str(tmp_path)}).names() == ["breast", "chest"]


SPECS: dict[str, tuple[dict[str, object], str]] = {
    "kind": ({"kind": "nzp"}, f"source.kind must be {', '.join(READERS)}, got 'nzp'"),
    "key": ({"kind": "npz", "rot": "x"}, "source.rot must be a setting of kind npz, and is not; did you mean root?"),
    "root": ({"kind": "folder"}, "source.root must be a folder for kind folder, got none"),
    "root type": ({"kind": "npz", "root": 3}, "source.root must be the name of a folder, got 3"),
    "root absent": ({"kind": "npz", "root": "/nowhere"}, "/nowhere: must be a folder of .npz files, got nothing there"),
    "download": ({"kind": "medmnist", "download": "yes"}, "source.download must be true or false, got 'yes'"),
    "image_size": (
        {"kind": "folder", "root": "x", "image_size": 0},
        "source.image_size must be a positive number of pixels, got 0",
    ),
}


@pytest.mark.parametrize("case", SPECS)
def test_a_wrong_spec_is_named_in_one_line(case):
    spec, expected = SPECS[case]
    with pytest.raises(ValueError) as caught:
        open_source(spec)
    assert str(caught.value) == expected


def test_a_mixed_list_gives_each_name_its_own_spec(tmp_path, monkeypatch):
    write(tmp_path, "toy")
    (tmp_path / "photos" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    specs = source_for(["phantom_ultrasound?size=24x32", "toy", "photos"], ".", image_size=32)
    root = str(tmp_path)
    assert specs == {
        "phantom_ultrasound?size=24x32": {"kind": "phantom"},
        "toy": {"kind": "npz", "root": root},
        "photos": {"kind": "folder", "root": root, "image_size": 32},
    }
    assert load_dataset(specs["toy"], "toy").info.n_train == 8
    assert json.loads(json.dumps(specs)) == specs
    assert source_for(["breastmnist"], None, "medmnist", size=64) == {
        "breastmnist": {"kind": "medmnist", "root": None, "size": 64, "download": False}
    }


def test_source_for_refuses_what_it_cannot_place(tmp_path):
    write(tmp_path, "toy")
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="must hold the data set 'toi', and does not; did you mean toy"):
        source_for(["toi"], str(tmp_path))
    with pytest.raises(ValueError, match="did you mean photos"):
        source_for(["photo"], str(tmp_path))
    with pytest.raises(ValueError, match="the data root must be a folder, got nothing there"):
        source_for(["toy"], str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"toy: a data set of kind npz must come with a data root"):
        source_for(["toy"], None, "npz")
    with pytest.raises(ValueError, match=rf"source\.kind must be {', '.join(READERS)}, got 'zip'"):
        source_for(["toy"], None, "zip")
    with pytest.raises(ValueError, match=r"phantm_ultrasound: without a data root .* did you mean phantom_ultrasound"):
        source_for(["phantm_ultrasound"])
    with pytest.raises(ValueError, match=r"source\.image_sise must be a setting, and is not; did you mean image_size"):
        source_for(["toy"], str(tmp_path), image_sise=32)


def test_kinds_that_share_a_setting_declare_it_alike():
    for kind in FILE_KINDS:
        for name, setting in READERS[kind].settings.items():
            assert (setting.kind, setting.meaning) == (file_settings()[name].kind, file_settings()[name].meaning), name


def test_loading_needs_no_torch():
    code = (
        "import sys, study.data as d; d.load_dataset({'kind': 'phantom'}, 'phantom_ultrasound'); "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_thousands_of_images_are_fingerprinted_at_once(tmp_path):
    rng = np.random.default_rng(0)
    made = {}
    efforts = []
    for times in (1, 100):
        for split, count in (("train", 35), ("val", 4), ("test", 8)):
            made[f"{split}_images"] = rng.integers(0, 256, (times * count, 32, 64), dtype=np.uint8)
            made[f"{split}_labels"] = np.arange(times * count) % 3
        np.savez(tmp_path / f"times {times}.npz", **made)
        data = load(tmp_path, f"times {times}")
        assert fingerprint(data.info.classes, data.splits) == data.info.fingerprint
        efforts.append(calls_of(lambda data=data: fingerprint(data.info.classes, data.splits)))
    # Not one by one.
    assert efforts[0] == efforts[1] > 0


SHARED = os.environ.get("MEDMAMBA_DATA")


@pytest.mark.skipif(not SHARED, reason="MEDMAMBA_DATA names no folder of real data")
@pytest.mark.parametrize("name", ["busi", "breastmnist", "pneumoniamnist"])
def test_real_files_load_with_their_checksums(name):
    source = open_source({"kind": "npz", "root": SHARED})
    stated = json.loads((Path(str(SHARED)) / "datasets.json").read_text())[name]
    info = source.describe(name)
    assert info.classes == tuple(stated["classes"])
    assert {"train": info.n_train, "val": info.n_val, "test": info.n_test} == stated["n"]
    assert (info.image_size, info.channels) == (stated["image_size"], stated["channels"])
