"""Image folders and MedMNIST files: right ones are read, wrong ones named in one line. No test leaves loopback."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.data import load_dataset, open_source
from study.data.pictures.kinds import ENDINGS

HEIGHT, WIDTH = 6, 9
COUNTS = {"train": 4, "val": 2, "test": 3}
FLAGS = (
    "bloodmnist", "breastmnist", "chestmnist", "dermamnist", "octmnist", "organamnist", "organcmnist", "organsmnist",
    "pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist",
)  # fmt: skip


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with one data set `photos`, two classes, png files."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for title in ("calm", "ill"):
            folder = tmp_path / "photos" / split / title
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def load(root: Path, image_size: int | None = None):
    return load_dataset({"kind": "folder", "root": str(root), "image_size": image_size}, "photos")


def refusal(root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_is_read_as_it_is(photos):
    data = load(photos)
    assert open_source({"kind": "folder", "root": str(photos)}).names() == ["photos"]
    assert data.info.classes == ("calm", "ill")
    assert (data.info.channels, data.info.image_size) == (1, (HEIGHT, WIDTH))
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (8, 4, 6)
    split = data.splits["test"]
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert split.ids[4] == "test/ill/1.png" and split.groups is None
    with Image.open(photos / "photos" / "test" / "ill" / "1.png") as image:
        assert np.array_equal(split.images[4, ..., 0], np.asarray(image))


def test_one_colour_image_makes_all_of_them_colour(photos):
    path = photos / "photos" / "train" / "ill" / "3.png"
    Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 30)).save(path)
    data = load(photos)
    assert data.info.channels == 3
    assert data.splits["train"].images[-1, 2, 5].tolist() == [10, 200, 30]
    grey = data.splits["val"].images[0]
    assert (grey[..., 0] == grey[..., 2]).all()


def test_a_jpeg_is_turned_as_the_camera_says(photos):
    path = photos / "photos" / "val" / "calm" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (HEIGHT, WIDTH), 77).save(path, exif=exif)
    assert load(photos).info.n_val == 5


def test_image_size_resizes(photos):
    Image.new("L", (20, 30), 90).save(photos / "photos" / "train" / "ill" / "3.png")
    data = load(photos, image_size=8)
    assert data.info.image_size == 8
    assert (data.splits["train"].images[-1] == 90).all()


def test_an_image_written_anew_is_read_anew(photos):
    first = load(photos).info.fingerprint
    Image.new("L", (WIDTH, HEIGHT), 90).save(photos / "photos" / "train" / "ill" / "new.png")
    assert load(photos).info.fingerprint != first


def test_groups_come_from_a_table(photos):
    table = photos / "photos" / "groups.csv"
    rows = [path.relative_to(photos / "photos") for path in sorted((photos / "photos").rglob("*.png"))]
    table.write_text("image,group\n" + "".join(f"{row.as_posix()},{row.parts[0]}-{row.stem}\n" for row in rows))
    groups = load(photos).splits["train"].groups
    assert groups is not None
    assert groups.dtype == np.int64
    assert (groups[:4] == groups[4:]).all() and len(set(groups)) == 4
    table.write_text("image,group\n" + "".join(f"{row.as_posix()},{row.stem}\n" for row in rows))
    assert refusal(photos) == (
        f"{table}: a group must stand in one split only, got 0 for train/calm/0.png and val/calm/0.png"
    )
    table.write_text("image,patient\n")
    assert refusal(photos) == f"{table}: must have the columns image and group, got image, patient"
    table.write_text("image,group\ntrain/calm/0.png,7\n")
    assert refusal(photos) == f"{table}: must name the group of every image, got none for train/calm/1.png"


def test_a_table_of_groups_as_spreadsheets_write_it(photos):
    table = photos / "photos" / "groups.csv"
    rows = [path.relative_to(photos / "photos").as_posix() for path in sorted((photos / "photos").rglob("*.png"))]
    text = "group,image\r\n" + "".join(f"{number},{row}\r\n" for number, row in enumerate(rows))
    table.write_text(text, encoding="utf-8-sig", newline="")
    assert load(photos).splits["train"].groups is not None
    # A row that ends early names no image.
    table.write_text(text + "7\n", encoding="utf-8")
    assert load(photos).splits["train"].groups is not None
    table.write_text(text + f"99,{rows[0]}\n", encoding="utf-8")
    assert refusal(photos) == f"{table}: must name one group an image, got 0 and 99 for {rows[0]}"
    table.write_text(text + "é,x\n", encoding="latin-1")
    assert refusal(photos).startswith(f"{table}: must be a table of text in UTF-8, got 'utf-8' codec can't decode")
    table.write_text(text + '"' + "x" * 200_000, encoding="utf-8")
    assert refusal(photos).startswith(f"{table}: must be a table of text in UTF-8, got field larger")


def test_images_that_would_be_left_out_are_named(photos):
    train = photos / "photos" / "train"
    other = train / "calm" / "7.gif"
    Image.new("L", (WIDTH, HEIGHT)).save(other)
    assert refusal(photos) == f"{other}: must be an image of the kind {', '.join(ENDINGS)}, got .gif"
    other.unlink()
    for name in ("slice.mha", "volume.NRRD", "slice.npy"):
        other = train / "calm" / name
        other.write_bytes(b"what nothing here reads")
        ending = other.suffix.lower()
        assert refusal(photos) == f"{other}: must be an image of the kind {', '.join(ENDINGS)}, got {ending}"
        other.unlink()
    other = train / "calm" / "photo"
    Image.new("L", (WIDTH, HEIGHT)).save(other, format="PNG")
    assert refusal(photos) == f"{other}: must be an image of the kind {', '.join(ENDINGS)}, got no ending"
    other.unlink()
    inner = train / "calm" / "patient"
    inner.mkdir()
    Image.new("L", (WIDTH, HEIGHT)).save(inner / "8.png")
    assert refusal(photos) == f"{inner}: must be an image, which lie in the folder of their class itself, got a folder"


def test_a_hidden_folder_is_no_class(photos):
    first = load(photos).info
    for split in ("train", "test"):
        copies = photos / "photos" / split / ".ipynb_checkpoints"
        copies.mkdir()
        Image.new("L", (WIDTH, HEIGHT)).save(copies / "0-checkpoint.png")
    assert load(photos).info == first


def test_a_class_named_in_another_encoding_is_named(photos):
    for split in ("train", "val", "test"):
        folder = os.fsencode(photos / "photos" / split)
        os.rename(folder + b"/ill", folder + b"/sch\xf6n")
    assert refusal(photos) == (f"{photos / 'photos' / 'train'}: must hold folders named in UTF-8, got 'sch\\udcf6n'")


def test_another_size_is_named_with_both_paths(photos):
    first, path = photos / "photos" / "train" / "calm" / "0.png", photos / "photos" / "val" / "ill" / "1.png"
    Image.new("L", (20, 30), 90).save(path)
    assert refusal(photos) == f"{path}: must be 6×9 like {first}, got 30×20 (source.image_size resizes all)"


def test_wrong_files_are_named(photos):
    path = photos / "photos" / "val" / "ill" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(b"text")
    assert refusal(photos) == f"{path}: must be a readable image, got cannot identify image file"
    path.write_bytes(whole[:-30])
    assert refusal(photos).startswith(f"{path}: must be a readable image, got ")
    Image.fromarray(np.full((HEIGHT, WIDTH), 40_000, dtype=np.uint16)).save(path)
    assert refusal(photos).startswith(f"{path}: must be an image of eight bits a channel, got 16 bits (source.window")
    # Also where an earlier file has settled that the images are coloured.
    Image.new("RGB", (WIDTH, HEIGHT)).save(photos / "photos" / "train" / "calm" / "0.png")
    assert refusal(photos).startswith(f"{path}: must be an image of eight bits a channel, got 16 bits (source.window")


def test_wrong_folders_are_named(photos):
    base = photos / "photos"
    stray = base / "val" / "stray.png"
    Image.new("L", (WIDTH, HEIGHT)).save(stray)
    assert refusal(photos) == f"{stray}: must lie in the folder of its class, got it beside the classes"
    stray.unlink()
    (base / "val" / "other").mkdir()
    assert refusal(photos) == f"{base / 'val' / 'other'}: must be a class that train has, calm, ill, got other"
    (base / "val" / "other").rmdir()
    (base / "train" / "empty").mkdir()
    assert refusal(photos) == f"{base / 'train' / 'empty'}: must hold images ({', '.join(ENDINGS)}), got none"
    (base / "train" / "empty").rmdir()
    for path in (base / "test").rglob("*.png"):
        path.unlink()
    assert (
        refusal(photos) == f"{base / 'test'}: must hold at least one image ({', '.join(ENDINGS)}), got an empty split"
    )
    (base / "test").rename(base / "tset")
    assert refusal(photos) == (
        f"{base}: must hold the folder test, got train, tset, val (source.split cuts it out of train: {{test: 0.2}})"
    )
    base.rename(photos / "pictures")
    assert refusal(photos) == f"{photos}: must hold the data set 'photos', and does not; it holds pictures"


def test_a_folder_that_is_none():
    with pytest.raises(ValueError, match=r"/nowhere: must be a folder of data sets, got nothing there"):
        open_source({"kind": "folder", "root": "/nowhere"})


@pytest.fixture
def official(tmp_path, monkeypatch) -> Iterator[Path]:
    """A small file in the place of the package's breastmnist_64.npz, served on loopback under its own checksum."""
    from medmnist.info import INFO

    served = tmp_path / "served"
    served.mkdir()
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, HEIGHT, WIDTH), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1)
    path = served / "breastmnist_64.npz"
    np.savez(path, **arrays)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, request, address, server) -> None:
            super().__init__(request, address, server, directory=str(served))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(INFO["breastmnist"], "url_64", f"http://127.0.0.1:{server.server_port}/{path.name}")
    monkeypatch.setitem(INFO["breastmnist"], "MD5_64", hashlib.md5(path.read_bytes()).hexdigest())
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


def medmnist(root: Path, size: int = 64, download: bool = False) -> dict[str, object]:
    return {"kind": "medmnist", "root": str(root), "size": size, "download": download}


def test_the_package_downloads_only_when_asked(official, tmp_path):
    root = tmp_path / "new" / "folder"
    with pytest.raises(ValueError) as caught:
        load_dataset(medmnist(root), "breastmnist")
    text = str(caught.value)
    assert text.startswith(
        f"{root / 'breastmnist_64.npz'}: must be there, and is not; set source.download to true, or fetch"
    )
    assert not root.exists()
    data = load_dataset(medmnist(root, download=True), "breastmnist")
    assert (data.info.name, data.info.modality) == ("breastmnist", "breast ultrasound")
    assert data.info.classes == ("malignant", "normal, benign")
    assert (data.info.n_train, data.info.image_size) == (4, (HEIGHT, WIDTH))
    assert (root / "breastmnist_64.npz").read_bytes() == official.read_bytes()
    official.unlink()
    assert load_dataset(medmnist(root), "breastmnist").info == data.info


def test_a_failed_download_says_why(official, tmp_path):
    official.unlink()
    with pytest.raises(ValueError) as caught:
        load_dataset(medmnist(tmp_path, download=True), "breastmnist")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'breastmnist_64.npz'}: must be downloaded from http://127.0.0.1:")
    assert text.endswith("and could not be: HTTP Error 404: File not found") and "\n" not in text


def test_a_file_with_another_checksum_is_refused(official, tmp_path):
    path = tmp_path / "breastmnist_64.npz"
    path.write_bytes(official.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"breastmnist_64\.npz: must have the MD5 [0-9a-f]{32}, got [0-9a-f]{32}"):
        load_dataset(medmnist(tmp_path), "breastmnist")
    official.write_bytes(b"other")
    path.unlink()
    with pytest.raises(ValueError, match="and could not be: File not found or corrupted"):
        load_dataset(medmnist(tmp_path, download=True), "breastmnist")


def test_an_interrupt_stays_an_interrupt(official, tmp_path, monkeypatch):
    import torchvision.datasets.utils

    def interrupted(url: str, root: str, filename: str, md5: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(medmnist(tmp_path, download=True), "breastmnist")


def test_sets_that_do_not_fit_are_refused(tmp_path):
    from medmnist.info import INFO

    names = open_source(medmnist(tmp_path)).names()
    assert len(names) == 12 and set(names) < set(INFO)
    assert "nodulemnist3d" not in names
    with pytest.raises(ValueError, match=r"nodulemnist3d_64\.npz: must hold .*: 3-D sets are not supported"):
        load_dataset(medmnist(tmp_path), "nodulemnist3d")
    with pytest.raises(
        ValueError, match="medmnist: must hold the data set 'brestmnist', and does not; did you mean breastmnist"
    ):
        load_dataset(medmnist(tmp_path), "brestmnist")
    with pytest.raises(ValueError, match=r"source\.size must be 28, 64, 128, 224, got 32"):
        open_source(medmnist(tmp_path, size=32))


@pytest.mark.parametrize("size", [28, 64, 128, 224])
@pytest.mark.parametrize("flag", FLAGS)
def test_all_twelve_sets_are_read_at_every_size(flag, size, tmp_path, monkeypatch):
    """Files in MedMNIST's layout, under the package's own names of files, addresses and checksums."""
    from medmnist.info import INFO

    facts, suffix = INFO[flag], "" if size == 28 else f"_{size}"
    assert facts[f"url{suffix}"].split("?")[0].endswith(f"/{flag}{suffix}.npz")
    classes = len(facts["label"])
    several = facts["task"].startswith("multi-label")
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        shape = (2 * classes, 4, 4, 3)[: 4 if facts["n_channels"] == 3 else 3]
        arrays[f"{split}_images"] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        own = np.arange(2 * classes) % classes
        arrays[f"{split}_labels"] = np.eye(classes, dtype=np.uint8)[own] if several else own.astype(np.uint8)[:, None]
    path = tmp_path / f"{flag}{suffix}.npz"
    np.savez(path, **arrays)
    monkeypatch.setitem(facts, f"MD5{suffix}", hashlib.md5(path.read_bytes()).hexdigest())
    data = load_dataset(medmnist(tmp_path, size), flag)
    tasks = {"chestmnist": "multilabel", "retinamnist": "ordinal"}
    assert data.info.task == tasks.get(flag, "classification")
    assert data.info.classes == tuple(facts["label"][str(k)] for k in range(classes))
    labels = data.splits["test"].labels
    assert labels.shape == ((2 * classes, classes) if several else (2 * classes,)) and labels.dtype == np.int64


def test_every_set_has_a_modality():
    from study.data.medmnist import MODALITIES, flags

    assert sorted(MODALITIES) == flags()
