import io
import zipfile
import zlib

import numpy as np
import pytest

from analysis.records.npz import read_arrays

ARRAYS = {
    "test_probabilities": np.random.default_rng(0).random((50, 3)).astype(np.float32),
    "test_labels": np.arange(50),
    "test_ids": np.array([f"image {i}" for i in range(50)]),
    "test_empty": np.zeros((0, 3)),
    "test_number": np.float64(0.5),
    "validation_labels": np.arange(7),
}


def read_by_numpy(path, prefix):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith(prefix)}


def check(path, prefix="test_"):
    expected, found = read_by_numpy(path, prefix), read_arrays(path, prefix)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.aligned and found[name].flags.writeable


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("prefix", ["test_", "validation_", "", "none_"])
def test_arrays_are_those_that_numpy_reads(tmp_path, save, prefix):
    save(tmp_path / "a.npz", **ARRAYS)
    check(tmp_path / "a.npz", prefix)


def test_other_archives_are_left_to_numpy(tmp_path):
    # With a comment, with columns first, and with a directory longer than what is read of a file's end.
    np.savez(tmp_path / "a.npz", **ARRAYS)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.comment = b"a comment"
    check(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", test_columns=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    check(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **{f"test_{i:040d}": np.arange(i) for i in range(60)})
    check(tmp_path / "c.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_never_read(tmp_path, save):
    text = io.BytesIO()
    save(text, **ARRAYS)
    path, whole = tmp_path / "a.npz", text.getvalue()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises((zipfile.BadZipFile, EOFError, OSError, ValueError)):
            read_arrays(path, "test_")
    # One bit of an array: its checksum tells.
    damaged = bytearray(whole)
    damaged[whole.index(b"test_probabilities.npy") + 300] ^= 1
    path.write_bytes(damaged)
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        read_arrays(path, "test_")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", test_ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        read_arrays(tmp_path / "a.npz", "test_")
