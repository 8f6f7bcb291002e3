"""What lies beside images: masks are not trained on, nothing is left out without a word, look-alike names are told."""

import unicodedata

import numpy as np
import pytest
from photo_folder import HEIGHT, WIDTH, picture, read, refusal, write_folder
from PIL import Image

from study.data import open_source, source_for

COMPANIONS = (
    "0_mask.png", "0_mask_1.png", "0-seg.png", "0_Segmentation.PNG", "0_gt.bmp", "0_GT (2).png", "0.label.png",
    "mask_0.png", "0 ground truth.tif", "0_superpixels.png", "0_annotated.jpg",
)  # fmt: skip
SAMPLES = ("mask.png", "7_mask.png", "0_masked.png", "0_1.png", "lesion_7.png")


@pytest.mark.parametrize("name", COMPANIONS)
def test_a_companion_of_an_image_is_left_out_and_counted(tmp_path, name):
    folder = write_folder(tmp_path)
    first = read(tmp_path).info
    Image.new("L", (WIDTH, HEIGHT), 255).save(folder / "train" / "ill" / name)
    info = read(tmp_path).info
    assert (info.fingerprint, info.n_train) == (first.fingerprint, 6)
    assert info.notes == (f"1 companion file of images (masks, outlines and the like) is left out: train/ill/{name}",)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_that_only_sounds_like_a_companion_is_one(tmp_path, name):
    folder = write_folder(tmp_path)
    Image.new("L", (WIDTH, HEIGHT), 255).save(folder / "train" / "ill" / name)
    info = read(tmp_path).info
    assert (info.n_train, info.notes) == (7, ())


def test_a_folder_of_masks_is_no_class(tmp_path):
    folder = write_folder(tmp_path, classes=("calm", "ill", "Masks"))
    assert refusal(tmp_path) == (
        f"{folder / 'train' / 'Masks'}: must be a class, got a folder named Masks whose files bear the names of images "
        "in other classes (move it elsewhere)"
    )


def test_files_of_systems_are_passed_over_and_others_are_counted_by_name(tmp_path):
    folder = write_folder(tmp_path)
    first = read(tmp_path).info
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", ".ipynb_checkpoints/0-checkpoint.png"):
        for place in (folder, folder / "train", folder / "train" / "ill"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(b"no image")
    assert read(tmp_path).info == first
    for name in ("notes.txt", "train/read me", "train/ill/scores.csv", "test/calm/.0.png", "extra/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    info = read(tmp_path).info
    assert info.fingerprint == first.fingerprint
    assert info.notes == ("5 entries that no image lies in are left out: extra, notes.txt, train/read me, …",)


def test_notes_come_with_the_dry_run_and_the_record(tmp_path):
    from study.declaration.cells import Cell, DataRef
    from study.file.reading import load_study
    from study.planning.inputs import read_inputs
    from study.training.cell import run_cell

    folder = write_folder(tmp_path)
    (folder / "train" / "ill" / "notes.txt").write_text("no image")
    file = tmp_path / "asked.yaml"
    file.write_text("question: q\nbase: nano\naxes: {split_ratio: [0.5]}\nseeds: [0]\ndatasets: [photos]\n")
    study = load_study(file, data_root=tmp_path, settings={"recipe.epochs": "1"})
    inputs = read_inputs(study)
    note = "1 entry that no image lies in is left out: train/ill/notes.txt"
    assert inputs.infos["photos"].notes == (note,)
    record, _ = run_cell(Cell(study.base, study.recipe, inputs.refs["photos"], 0), device="cpu")
    assert record["data_notes"] == [note]
    assert isinstance(inputs.refs["photos"], DataRef)


def test_a_split_without_a_class_is_noted(tmp_path):
    folder = write_folder(tmp_path, classes=("calm", "ill", "worse"))
    for path in (folder / "val" / "worse").iterdir():
        path.unlink()
    assert read(tmp_path).info.notes == ("val holds no image of worse: means over classes there leave it out",)


def test_names_in_two_unicode_forms_are_one(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Bösartig") for form in ("NFC", "NFD"))
    folder = write_folder(tmp_path, unicodedata.normalize("NFD", "médico"), classes=("Gutartig", composed))
    (folder / "test" / composed).rename(folder / "test" / decomposed)
    name = unicodedata.normalize("NFC", "médico")
    rows = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    table = "image,group\n" + "".join(f"{unicodedata.normalize('NFC', row)},{row[:9]}\n" for row in rows)
    (folder / "groups.csv").write_text(table)
    assert source_for([name], str(tmp_path))[name]["kind"] == "folder"
    data = read(tmp_path, name)
    assert data.info.classes == (composed, "Gutartig") and data.info.n_test == 6
    assert data.splits["train"].groups is not None


def test_names_that_look_alike_and_differ_are_told_apart(tmp_path):
    folder = write_folder(tmp_path, classes=("calm", "ill"))
    (folder / "test" / "ill").rename(folder / "test" / "ill ")
    assert refusal(tmp_path) == f"{folder / 'test'}: must hold names without blanks at their ends, got 'ill '"
    (folder / "test" / "ill ").rename(folder / "test" / "Ill")
    assert refusal(tmp_path) == (
        f"{folder / 'test' / 'Ill'}: must be a class that train has, calm, ill, got Ill, which differs from ill in "
        "capitals alone"
    )


@pytest.mark.parametrize(
    ("separator", "slash", "encoding", "start"),
    [(",", "\\", "utf-8", ""), (";", "/", "utf-8-sig", ""), ("\t", "/", "utf-16", ""), (",", "/", "utf-8", "photos/")],
)
def test_a_table_of_groups_from_any_system_is_understood(tmp_path, separator, slash, encoding, start):
    folder = write_folder(tmp_path)
    rows = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    lines = [f"image{separator}group{separator} note "]
    lines += [f"{start}{row} {separator}{row[:5]}{separator}".replace("/", slash) for row in rows]
    (folder / "groups.csv").write_text("\r\n".join(lines), encoding=encoding, newline="")
    groups = read(tmp_path).splits["train"].groups
    assert groups is not None and np.unique(groups).tolist() == [1]


def test_a_table_of_other_names_shows_one(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "groups.csv").write_text("image,group\n/data/train/calm/0.png,1\n")
    assert refusal(tmp_path) == (
        f"{folder / 'groups.csv'}: must name the group of every image, got none for train/calm/0.png; the first row "
        "names /data/train/calm/0.png"
    )
    (folder / "groups.csv").write_text("image,group\nTrain/calm/0.png,1\n")
    assert refusal(tmp_path).endswith("for train/calm/0.png, which differs from Train/calm/0.png in capitals alone")
    (folder / "groups.csv").write_text("image,group,group\n")
    assert refusal(tmp_path).endswith("groups.csv: must name each column once, got group twice")


def test_an_unknown_set_shows_the_names_there(tmp_path):
    write_folder(tmp_path)
    assert open_source({"kind": "folder", "root": str(tmp_path)}).names() == ["photos"]
    assert refusal(tmp_path, "photo").endswith("must hold the data set 'photo', and does not; did you mean photos?")
    rng = np.random.default_rng(0)
    assert picture(rng).shape == (HEIGHT, WIDTH)
