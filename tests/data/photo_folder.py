"""A folder of images for the tests of its readers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.data import Dataset, load_dataset, open_source

HEIGHT, WIDTH = 6, 9


def picture(rng: np.random.Generator, channels: int = 1, high: int = 256, dtype: str = "uint8") -> np.ndarray:
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    return rng.integers(0, high, shape).astype(dtype)


def write_folder(
    root: Path,
    name: str = "photos",
    splits: tuple[str, ...] = ("train", "val", "test"),
    classes: tuple[str, ...] = ("calm", "ill"),
    count: int = 3,
) -> Path:
    """A data set of `count` small grey PNG files a class and split; `splits` ("",): classes without splits."""
    rng = np.random.default_rng(0)
    for split in splits:
        for title in classes:
            folder = root / name / split / title
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.fromarray(picture(rng)).save(folder / f"{number}.png")
    return root / name


def read(root: Path, name: str = "photos", kind: str = "folder", **settings: object) -> Dataset:
    return load_dataset({"kind": kind, "root": str(root), **settings}, name)


def refusal(root: Path, name: str = "photos", kind: str = "folder", **settings: object) -> str:
    """The one line with which a reader refuses a data set."""
    with pytest.raises(ValueError) as caught:
        open_source({"kind": kind, "root": str(root), **settings}).load(name)
    text = str(caught.value)
    assert "\n" not in text
    return text
