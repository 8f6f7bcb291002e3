"""Sets too large to be held: mapped from files written once, the same content, the same training, little memory."""

import json
import multiprocessing
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from photo_folder import read, refusal, write_folder
from PIL import Image

from study.data import fingerprint, lying, open_source
from study.data.lying import blocks, mapping_of, released
from study.data.shelf import Shelf
from study.data.sources import _kept, image_bytes


@pytest.fixture
def tiny(monkeypatch):
    """Whatever is larger than a kilobyte is too large to be held."""
    monkeypatch.setattr(lying, "HELD", 1 << 10)
    _kept.clear()
    yield
    _kept.clear()


def write_npz(root: Path, name="toy", compressed=True, channels=3, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 12), ("test", 18)):
        shape = (count, 9, 14) if channels == 1 else (count, 9, 14, channels)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8).reshape(-1, 1)
        arrays[f"{split}_groups"] = np.arange(count) // 2 + {"train": 0, "val": 100, "test": 200}[split]
    arrays |= changes
    (np.savez_compressed if compressed else np.savez)(root / f"{name}.npz", **arrays)
    return arrays


def shelves(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir()) if cache.is_dir() else []


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mapped_npz_is_the_same_data(tmp_path, monkeypatch, compressed, channels):
    arrays = write_npz(tmp_path, compressed=compressed, channels=channels)
    spec = {"kind": "npz", "root": str(tmp_path), "cache": str(tmp_path / "cache")}
    held = open_source(spec).load("toy")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(lying, "HELD", 1 << 10)
    _kept.clear()
    found = open_source(spec).load("toy")
    assert found.info == held.info
    for name, split in found.splits.items():
        assert mapping_of(split.images) is not None and split.images.dtype == np.uint8
        assert np.array_equal(split.images, arrays[f"{name}_images"].reshape(split.images.shape))
        assert np.array_equal(split.labels, held.splits[name].labels)
        assert np.array_equal(split.groups, held.splits[name].groups)
        assert split.ids.tolist() == held.splits[name].ids.tolist()
        with pytest.raises(ValueError, match="read-only"):
            split.images[0] = 0
    assert fingerprint(found.info.classes, found.splits) == held.info.fingerprint
    size = sum(split.images.nbytes for split in held.splits.values())
    assert image_bytes(held) == (size, 0) and image_bytes(found) == (0, size)
    (shelf,) = shelves(tmp_path / "cache")
    # What lies uncompressed is not written again.
    written = sum(path.stat().st_size for path in shelf.glob("*_images"))
    assert written == (size if compressed else 0)
    _kept.clear()


def test_a_mapped_folder_is_the_same_data_and_is_decoded_once(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, count=9)
    (folder / "notes.txt").write_text("")
    cache = tmp_path / "cache"
    held = read(tmp_path, cache=str(cache))
    monkeypatch.setattr(lying, "HELD", 1 << 10)
    _kept.clear()
    assert read(tmp_path, cache=str(cache)).info == held.info and held.info.notes
    decodings = []
    from study.data.pictures import eight_bit

    once = eight_bit.frames
    monkeypatch.setattr(eight_bit, "frames", lambda path, colour: decodings.append(path) or once(path, colour))
    _kept.clear()
    again = read(tmp_path, cache=str(cache))
    assert again.info == held.info and decodings == []
    assert np.array_equal(again.splits["test"].images, held.splits["test"].images)
    assert again.splits["test"].ids.tolist() == held.splits["test"].ids.tolist()
    # A changed file is decoded, and the earlier shelf goes.
    Image.new("L", (9, 6), 7).save(folder / "val" / "ill" / "more.png")
    changed = read(tmp_path, cache=str(cache))
    assert len(decodings) == 55 and changed.info.fingerprint != held.info.fingerprint
    assert len(shelves(cache)) == 1
    # Another way of reading has a shelf of its own.
    read(tmp_path, cache=str(cache), image_size=8)
    assert len(shelves(cache)) == 2 and not list(cache.glob("*.lock")) + list(cache.glob("*.part"))
    _kept.clear()


def test_a_fault_on_the_way_leaves_no_shelf(tmp_path, tiny):
    folder = write_folder(tmp_path, count=9)
    Image.new("L", (4, 4)).save(folder / "test" / "ill" / "9.png")
    assert "must be 6×9 like" in refusal(tmp_path, cache=str(tmp_path / "cache"))
    assert shelves(tmp_path / "cache") == []
    arrays = write_npz(tmp_path)
    path = tmp_path / "toy.npz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    path.write_bytes(damaged)
    assert refusal(tmp_path, "toy", "npz", cache=str(tmp_path / "cache")).startswith(
        f"{path}: must be a readable zip of arrays (.npz), got "
    )
    for changes, text in (
        ({"val_images": arrays["val_images"].astype(np.float32)}, "val_images must be uint8, got float32"),
        ({"val_labels": np.zeros(3, int)}, "val_labels must be as many as the images, 12, got 3"),
        ({"val_labels": np.arange(12)}, "val_labels must lie in 0..2"),
        ({"test_images": np.asfortranarray(arrays["test_images"])}, "test_images.npy must lie by rows (order C)"),
        ({"test_images": arrays["test_images"][:, :8]}, "test_images must have the size of train_images"),
    ):
        write_npz(tmp_path, **changes)
        assert refusal(tmp_path, "toy", "npz", cache=str(tmp_path / "cache")).startswith(f"{path}: {text}")
    with zipfile.ZipFile(path, "a") as archive:
        assert archive.testzip() is None
    assert shelves(tmp_path / "cache") == []


def test_a_stored_file_that_is_damaged_is_seen(tmp_path, tiny):
    write_npz(tmp_path, compressed=False)
    path = tmp_path / "toy.npz"
    damaged = bytearray(path.read_bytes())
    damaged[1000] ^= 0xFF
    path.write_bytes(damaged)
    assert "Bad CRC-32" in refusal(tmp_path, "toy", "npz", cache=str(tmp_path / "cache"))


def test_a_folder_that_takes_nothing_is_named(tmp_path, tiny, monkeypatch):
    write_npz(tmp_path)
    (tmp_path / "cache").write_text("")
    text = refusal(tmp_path, "toy", "npz", cache=str(tmp_path / "cache"))
    assert text == (
        f"{tmp_path / 'cache'}: must be a folder to write 2.65e-05 GB of decoded images to, got File exists "
        "(source.cache or MEDMAMBA_CACHE names another, source.image_size makes them smaller)"
    )
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))
    text = refusal(tmp_path, "toy", "npz", cache=str(tmp_path / "other"))
    assert text.startswith(f"{tmp_path / 'other'}: must have room for 2.65e-05 GB of decoded images, got 1e-09 GB")


def _write_slowly(folder: Path, number: int, results) -> None:
    shelf = Shelf(folder, "origin", "stamp")
    with shelf.writing(1) as writing:
        results.put((number, writing is not None))
        if writing is not None:
            time.sleep(0.3)
            (writing.folder / "about.json").write_text("{}")


def test_only_one_process_writes_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_write_slowly, args=(tmp_path, number, results)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert sorted(results.get(timeout=5)[1] for _ in workers) == [False, False, True]


def test_the_default_folder_follows_the_environment(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("MEDMAMBA_CACHE", str(tmp_path / "named"))
    write_npz(tmp_path)
    source = open_source.__wrapped__ if hasattr(open_source, "__wrapped__") else open_source
    source({"kind": "npz", "root": str(tmp_path)}).load("toy")
    (shelf,) = shelves(tmp_path / "named")
    about = json.loads((shelf / "about.json").read_text())
    assert about["info"]["name"] == "toy" and about["images"]["train"]["shape"] == [40, 9, 14, 3]


def test_blocks_cover_an_array_and_release_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lying, "LOOKED_AT", 100)
    path = tmp_path / "a"
    path.write_bytes(bytes(range(250)))
    array = lying.mapped(path, 10, (24, 10))
    assert mapping_of(array) is not None and mapping_of(np.ascontiguousarray(array[3:, 1:])) is None
    assert mapping_of(array[3:, 1:]) is not None
    assert np.array_equal(np.concatenate([block.copy() for block in blocks(array, 7)]), array)
    released(np.zeros(3))
    done = threading.Thread(target=released, args=(array,))
    done.start()
    done.join()
    assert array[0, 0] == 10


def test_rows_are_read_from_where_they_lie(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(250)))
    array = lying.mapped(path, 10, (24, 2, 5))
    numbers = np.array([7, 3, 3, 0])
    for view in (array, array[5:], np.ascontiguousarray(array)[5:]):
        with lying.Rows(view) as rows:
            assert np.array_equal(rows.read(numbers), view[numbers])
    path.write_bytes(b"short")
    with lying.Rows(array) as rows, pytest.raises(OSError, match="must hold row 3 of the images, and ends before it"):
        rows.read(np.array([3]))
