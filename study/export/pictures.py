"""Images to predict, from files, folders and npz files, as the readers of data sets would hand them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from study.data.pictures.decoding import Decoder

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def batches(paths: Sequence[Path], channels: int, split: str, most: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and images as `_found` yields them, neighbours of one size together, pictures at most `most` at a time."""
    names: list[str] = []
    images: list[np.ndarray] = []
    for more, found in _found(paths, channels, split):
        if images and (found.shape[1:] != images[0].shape[1:] or len(names) + len(more) > most):
            yield names, np.concatenate(images)
            names, images = [], []
        names, images = [*names, *more], [*images, found]
    if images:
        yield names, np.concatenate(images)


def _found(paths: Sequence[Path], channels: int, split: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and images uint8 (n, height, width, channels), in order; images of one batch have one size.

    Of an npz file in MedMNIST's layout it is the split; of a folder every image below it, named from there. Raises
    ValueError, one line, for what is no image, has other channels than the model's, or holds none.
    """
    for path in paths:
        if path.suffix == ".npz":
            yield _of_npz(path, channels, split)
        elif path.is_dir():
            found = sorted(
                each for each in path.rglob("*") if each.suffix.lower() in ENDINGS and not _is_hidden(each, path)
            )
            if not found:
                raise ValueError(f"{path}: must hold images ({', '.join(ENDINGS)}), got none")
            for each in found:
                yield [each.relative_to(path).as_posix()], _picture(each, channels)
        else:
            yield [path.as_posix()], _picture(path, channels)


def left_out(paths: Sequence[Path]) -> int:
    """The number of files in the folders that are not read as images, hidden ones not counted."""
    folders = [path for path in paths if path.is_dir()]
    return sum(
        each.is_file() and each.suffix.lower() not in ENDINGS and not _is_hidden(each, folder)
        for folder in folders
        for each in folder.rglob("*")
    )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _picture(path: Path, channels: int) -> np.ndarray:
    """One image (1, height, width, channels), upright."""
    if channels not in (1, 3):
        raise ValueError(f"{path}: must be an npz file for a model of {channels} channels, got an image")
    decoder = Decoder()
    pages = decoder.header(path).frames
    if pages != 1:
        raise ValueError(f"{path}: must hold one picture, got {pages} pages")
    pixels = decoder.frames(path, colour=channels == 3)
    return pixels.reshape(*pixels.shape[:3], channels)


def _of_npz(path: Path, channels: int, split: str) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            name = f"{split}_images" if f"{split}_images" in arrays.files else "images"
            if name not in arrays.files:
                raise ValueError(f"must hold {split}_images or images, got {', '.join(arrays.files) or 'nothing'}")
            images = arrays[name]
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        text = reason if reason.startswith("must") else f"must be an npz file of images, got {reason}"
        raise ValueError(f"{path}: {text}") from None
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels or not len(images):
        raise ValueError(
            f"{path}: {name} must be uint8 (n, height, width, {channels}), got {images.dtype} {images.shape}"
        )
    return [f"{split}/{i}" if name != "images" else str(i) for i in range(len(images))], images
