"""Tables of images as published collections and hospitals ship them: read as they are, wrong rows named in one line."""

import numpy as np
import pytest
from photo_folder import picture, read, refusal, write_folder
from PIL import Image

from study.data import open_source, source_for
from study.file.reading import load_study

SPLIT = {"val": 0.2, "test": 0.2}


def write_images(folder, names):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rng)).save(folder / name)


def write_table(root, text, name="photos"):
    (root / f"{name}.csv").write_text(text)
    return root / f"{name}.csv"


@pytest.fixture
def plain(tmp_path):
    """Twelve images, named in the table in another order, with splits and groups."""
    rows = []
    for n in range(12):
        split = ("train", "Training", "valid", "TEST")[n % 4]
        rows.append(f"{n}.png,{'ill' if n // 4 % 2 else 'calm'},{split},p{n % 4}{n // 8},ward {n % 2}")
    write_images(tmp_path / "photos", [f"{n}.png" for n in range(12)])
    write_table(tmp_path, "\n".join(["image,label,split,group,source", *rows[::-1]]))
    return tmp_path


def test_a_table_is_read_as_it_is(plain):
    assert open_source({"kind": "table", "root": str(plain)}).names() == ["photos"]
    assert source_for(["photos"], str(plain))["photos"]["kind"] == "table"
    data = read(plain, kind="table")
    assert data.info.classes == ("calm", "ill")
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (6, 3, 3)
    train = data.splits["train"]
    assert train.ids.tolist() == ["0.png", "1.png", "8.png", "9.png", "4.png", "5.png"]
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert train.groups is not None and train.groups.tolist() == [0, 2, 1, 3, 0, 2]
    with Image.open(plain / "photos" / "9.png") as image:
        assert np.array_equal(train.images[3, ..., 0], np.asarray(image))
    assert data.info.notes == ("images of 2 sources: ward 1 6, ward 0 6",)


def test_the_same_data_as_a_folder_has_the_same_content(tmp_path):
    folder = write_folder(tmp_path / "one")
    as_folder = read(tmp_path / "one").info
    rows = [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]
    folder.rename(tmp_path / "photos")
    text = "\n".join(["image,label,split", *(f"{row.as_posix()},{row.parts[1]},{row.parts[0]}" for row in rows)])
    write_table(tmp_path, text)
    assert read(tmp_path, kind="table").info == as_folder
    # A folder with splits of its own is a folder, whatever lies beside it.
    assert source_for(["photos"], str(tmp_path))["photos"]["kind"] == "folder"


def test_ham10000_as_it_ships(tmp_path):
    """Names without ending, images in two folders, lesions of several images, no splits."""
    write_images(tmp_path / "part_1", [f"ISIC_{n:03}.jpg" for n in range(15)])
    write_images(tmp_path / "part_2", [f"ISIC_{n:03}.jpg" for n in range(15, 30)])
    rows = [f"HAM_{n // 2:03},ISIC_{n:03},{'nv' if n % 6 < 4 else 'mel'},histo,{n}.0" for n in range(30)]
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join(["lesion_id,image_id,dx,dx_type,age", *rows]))
    file = tmp_path / "asked.yaml"
    file.write_text(
        "question: q\nbase: nano\naxes: {split_ratio: [0.5]}\nseeds: [0]\ndatasets: [ham]\nsource:\n"
        "  kind: table\n  table: HAM10000_metadata.csv\n  images: .\n"
        "  columns: {image: image_id, label: dx, group: lesion_id}\n  split: {val: 0.2, test: 0.2}\n"
    )
    study = load_study(file, data_root=tmp_path)
    study.check_source()
    data = open_source(study.sources()["ham"]).load("ham")
    assert data.info.classes == ("mel", "nv")
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (18, 6, 6)
    for split in data.splits.values():
        assert split.groups is not None
        assert np.unique(split.groups, return_counts=True)[1].tolist() == [2] * (len(split) // 2)
        assert split.ids[0].startswith("part_")
    assert data.info.notes[0] == "split here by class and group with seed 0: val 0.2, test 0.2 of 30 files"


def test_isic_as_it_ships(tmp_path):
    """A column for each class, and masks beside the images."""
    write_images(tmp_path / "isic", [f"ISIC_{n}{end}.png" for n in range(12) for end in ("", "_segmentation")])
    rows = [f"ISIC_{n},{float(n % 3 == 0)},{float(n % 3 == 1)},{float(n % 3 == 2)}" for n in range(12)]
    (tmp_path / "isic.csv").write_text("\n".join(["image,MEL,NV,BCC", *rows]))
    columns = {"label": ["MEL", "NV", "BCC"]}
    data = read(tmp_path, "isic", "table", columns=columns, split={"val": 0.25, "test": 0.25})
    assert data.info.classes == ("MEL", "NV", "BCC")
    labels = {name: label for part in data.splits.values() for name, label in zip(part.ids, part.labels)}
    assert labels == {f"ISIC_{n}.png": n % 3 for n in range(12)}
    assert data.info.notes[1].startswith("12 companion files of images (masks, outlines and the like) are left out")
    (tmp_path / "isic.csv").write_text("image,MEL,NV,BCC\nISIC_0,1,1,0\n")
    assert refusal(tmp_path, "isic", "table", columns=columns).endswith(
        "must have 1 in one of the columns MEL, NV, BCC and 0 in the others, got MEL: 1, NV: 1, BCC: 0 for ISIC_0"
    )


def test_numbers_as_labels_are_ordered_as_numbers(tmp_path):
    write_images(tmp_path / "photos", [f"{n}.png" for n in range(36)])
    write_table(tmp_path, "\n".join(["image;label", *(f"{n};{(2, 10, 1)[n % 3]}" for n in range(36))]))
    assert read(tmp_path, kind="table", split=SPLIT).info.classes == ("1", "2", "10")


def test_files_that_no_row_names_are_counted_and_repeats_too(plain):
    write_images(plain / "photos", ["more/a.png", "more/b.png"])
    (plain / "photos" / "Thumbs.db").write_text("")
    table = plain / "photos.csv"
    table.write_text(f"{table.read_text()}\n0.png,calm,train,p00,ward 0\n")
    notes = read(plain, kind="table").info.notes
    assert "2 files that photos.csv does not name are left out: more/a.png, more/b.png" in notes
    assert "1 row of photos.csv that say the same again are counted once" in notes


WRONG = {
    "another label": ("0.png,ill,train,p00,w", "must say one thing of an image, got two of 0.png"),
    "no image": (",ill,train,p00,w", "must name an image in every row, got an empty name"),
    "absent image": ("77.png,ill,train,p00,w", "must name images that lie in {folder}, got 77.png"),
    "capitals": ("0.PNG,ill,train,p,w", "must name images that lie in {folder}, got 0.PNG, which differs from 0.png"),
    "no label": ("more/a.png,,train,p00,w", "must give the label of every image, got none for more/a.png"),
    "no group": ("more/a.png,ill,train,,w", "must give the group of every image, got none for more/a.png"),
    "split": (
        "more/a.png,ill,fold 1,p0,w",
        "must name the split of an image train, val or test, got 'fold 1' for more/a.png",
    ),
    "two files": ("a,ill,train,p0,w", "must name one file a row, got a, which is more/a.bmp and more/a.png"),
    "divided": (
        "more/a.png,ill,test,p00,w",
        "a group must stand in one split only, got p00 for 0.png and more/a.png",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_named_in_one_line(plain, case):
    row, expected = WRONG[case]
    write_images(plain / "photos", ["more/a.png", "more/a.bmp"])
    table = plain / "photos.csv"
    table.write_text(f"{table.read_text()}\n{row}\n")
    text = refusal(plain, kind="table")
    assert text.startswith(f"{table}: {expected.format(folder=plain / 'photos')}")


def test_wrong_tables_and_declarations_are_named(plain):
    table = plain / "photos.csv"
    whole = table.read_text()
    assert refusal(plain, kind="table", columns={"label": "dx"}) == (
        f"{table}: must have the columns image and dx, got image, label, split, group, source"
    )
    assert refusal(plain, kind="table", columns={"group": "patient"}).startswith(
        f"{table}: must have the columns image, label and patient, got"
    )
    with pytest.raises(ValueError, match=r"source\.columns\.lable must be one of .*did you mean label"):
        read(plain, kind="table", columns={"lable": "dx"})
    assert refusal(plain, kind="table", split={"test": 0.2}) == (
        f"source.split.test must be left out where the data have a test split, got {table}"
    )
    table.write_text("image,label\n0.png,calm\n1.png,ill\n")
    assert refusal(plain, kind="table") == (
        f"{table}: must name images of val, got no column split (source.split cuts it out of train: "
        "{val: 0.1, test: 0.2})"
    )
    table.write_text("image,label\n")
    assert refusal(plain, kind="table") == f"{table}: must hold a row an image, got none below the head"
    table.write_text(whole.replace("train", "test").replace("Training", "val"))
    assert refusal(plain, kind="table") == f"{table}: must name images of train in split, got test, val"
    (plain / "photos").rename(plain / "images")
    assert refusal(plain, kind="table") == (
        f"{plain / 'photos'}: must be the folder of the images that photos.csv names, got nothing there "
        "(source.images names another)"
    )
    assert refusal(plain, "foto", kind="table").startswith(f"{plain}: must hold the data set 'foto', and does not")


def test_a_table_written_anew_is_read_anew(plain):
    first = read(plain, kind="table").info
    table = plain / "photos.csv"
    table.write_text(table.read_text().replace("8.png,calm", "8.png,ill"))
    assert read(plain, kind="table").info.fingerprint != first.fingerprint
