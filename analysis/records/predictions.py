"""Per-image predictions of cells, and of two variants on the same images, paired seed by seed."""

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from analysis.metrics import METRICS, checked
from analysis.records.npz import read_arrays
from analysis.records.places import predictions_path

# Sums of 1e5 images in another order differ by 1e-11, while one image changes accuracy or F1 by 1e-5.
ROUNDING = 1e-9
SPLITS = ("validation", "test")
# Bytes of predictions kept in case a cell is needed again: a thousand cells of a thousand images.
KEPT_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Predictions:
    """One split's predictions of one cell: probabilities (images, classes), labels, ids and groups, (images,) each.

    Where an image may have several labels, labels are (images, labels), 0 or 1.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        arrays = (self.probabilities, self.labels, self.ids, self.groups)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class Pairing:
    """Two variants on the same images: probabilities (seeds, images, classes), one seed of each beside the other.

    labels (of several an image: (images, labels)), ids and groups (or None) are (images,) and hold for all of them.
    """

    labels: np.ndarray
    baseline: np.ndarray
    against: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None

    @property
    def n_seeds(self) -> int:
        return len(self.baseline)

    @property
    def n_images(self) -> int:
        return len(self.labels)


def load_probabilities(folder: Path | str, cell_id: str, split: str = "test") -> Predictions:
    """Per-image predictions of one cell on one split. Raises ValueError, one line starting with the file.

    folder: a ledger, a store, or artifacts (see `analysis.records.places`).
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    path = predictions_path(folder, cell_id)
    try:
        found = read_arrays(path, f"{split}_")
    except FileNotFoundError:
        raise ValueError(f"{path}: must hold the probabilities of cell {cell_id}, got no such file") from None
    except (BadZipFile, zlib.error, EOFError, OSError, ValueError) as problem:
        raise ValueError(f"{path}: must be a whole npz file without pickled objects, got {problem}") from None
    needed = [f"{split}_{name}" for name in ("probabilities", "labels", "ids")]
    absent = [name for name in needed if name not in found]
    if absent:
        raise ValueError(f"{path}: must hold {', '.join(needed)}, got no {', '.join(absent)}")
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: arrays of a split must have one length, got {lengths}")
    probabilities, labels, ids = (found[name] for name in needed)
    try:
        checked(labels, probabilities)
    except ValueError as problem:
        raise ValueError(f"{path}: {split} {problem}") from None
    return Predictions(probabilities, labels, ids, found.get(f"{split}_groups"))


class PredictionFiles:
    """The predictions of a folder's cells, each file read once as long as there is room to keep it.

    The least recently used are dropped first. Nobody may write into the arrays: they are shared by all callers.
    """

    def __init__(self, folder: Path | str, kept_bytes: int = KEPT_BYTES) -> None:
        self.folder = folder
        self._room = kept_bytes
        self._kept: OrderedDict[tuple[str, str], Predictions] = OrderedDict()

    def load(self, cell_id: str, split: str = "test") -> Predictions:
        """Predictions of one cell on one split, as `load_probabilities` reads them and with its errors."""
        key = (cell_id, split)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = load_probabilities(self.folder, cell_id, split)
        self._kept[key] = found
        self._room -= found.nbytes
        while self._room < 0:
            self._room += self._kept.popitem(last=False)[1].nbytes
        return found

    def forget(self, cell_id: str, split: str = "test") -> None:
        """Gives up what is kept of a cell, of which nobody will ask again."""
        found = self._kept.pop((cell_id, split), None)
        if found is not None:
            self._room += found.nbytes


def paired_predictions(
    folder: Path | str,
    baseline: Sequence[str],
    against: Sequence[str],
    split: str = "test",
    *,
    files: PredictionFiles | None = None,
) -> Pairing:
    """The predictions of two variants' cells on one data set, seed by seed: baseline[i] is paired with against[i].

    Images in another order are put into that of the first cell. files: keeps what has been read from this folder.
    Raises ValueError, one line naming the file, where a cell's predictions are missing, or its ids, labels, classes or
    groups are not those of the first cell.
    """
    if len(baseline) != len(against) or not baseline:
        raise ValueError(
            f"baseline and against must be as many cells, at least one each, got {len(baseline)} and {len(against)}"
        )
    files = PredictionFiles(folder) if files is None else files
    first = load_unique(files, baseline[0], split)
    others = [aligned_probabilities(files, cell_id, first, baseline[0], split) for cell_id in (*baseline[1:], *against)]
    stacked = np.stack([first.probabilities, *others])
    count = len(baseline)
    return Pairing(first.labels, stacked[:count], stacked[count:], first.ids, first.groups)


def load_unique(files: PredictionFiles, cell_id: str, split: str = "test") -> Predictions:
    """Predictions of one cell on one split, refused where two images have one id."""
    found = files.load(cell_id, split)
    _check_unique(files.folder, cell_id, split, found)
    return found


def aligned_probabilities(
    files: PredictionFiles, cell_id: str, first: Predictions, first_id: str, split: str = "test"
) -> np.ndarray:
    """A cell's probabilities, its images in the order of `first`, those of cell `first_id`.

    Raises ValueError, one line naming the file, where it has other images, labels, classes or groups.
    """
    found = files.load(cell_id, split)
    if not np.array_equal(found.ids, first.ids):
        _check_unique(files.folder, cell_id, split, found)
    try:
        return _aligned(found, first)
    except ValueError as problem:
        path = predictions_path(files.folder, cell_id)
        raise ValueError(f"{path}: {split} {problem} (those of cell {first_id})") from None


def check_recorded(
    folder: Path | str, cell_id: str, metric: str, recorded: float, labels: np.ndarray, probabilities: np.ndarray
) -> None:
    """Raises ValueError, one line naming the file, unless test predictions give the metric that a cell's record has.

    A record's metrics were measured on the very numbers that are stored, so that only the order of sums may differ.
    Probabilities that were exchanged, or stored with fewer digits, are not the predictions that the record describes.
    """
    check_value(folder, cell_id, metric, recorded, METRICS[metric](labels, probabilities))


def check_value(folder: Path | str, cell_id: str, metric: str, recorded: float, found: float) -> None:
    """Raises ValueError, one line naming the file, unless a metric found from predictions is the recorded one."""
    if not abs(found - recorded) <= ROUNDING:
        raise ValueError(
            f"{predictions_path(folder, cell_id)}: test probabilities must give the {metric} of the record of cell "
            f"{cell_id}, {recorded:.9g}, got {found:.9g}"
        )


def _aligned(found: Predictions, first: Predictions) -> np.ndarray:
    """The probabilities of `found` in the order of `first`. Raises ValueError where they are not the same images."""
    alike = np.array_equal(found.ids, first.ids)
    if found.probabilities.shape != first.probabilities.shape or not (
        alike or np.array_equal(np.sort(found.ids), np.sort(first.ids))
    ):
        # As text, so that ids of different types differ instead of failing to compare.
        ours, theirs = set(map(str, found.ids.tolist())), set(map(str, first.ids.tolist()))
        alone = sorted(ours ^ theirs)
        came = f", {alone[0]} in only one" if alone else ""
        shape, other = found.probabilities.shape, first.probabilities.shape
        raise ValueError(f"ids and classes must be those of its pair, {other[0]} × {other[1]}, got {shape}{came}")
    order: np.ndarray | slice = slice(None)
    if not alike:
        order = np.argsort(found.ids)[np.argsort(np.argsort(first.ids))]
    if not np.array_equal(found.labels[order], first.labels):
        place = int(np.nonzero(found.labels[order] != first.labels)[0][0])
        raise ValueError(
            f"labels must be those of its pair, got {found.labels[order][place]} for image {first.ids[place]} "
            f"in place of {first.labels[place]}"
        )
    groups = None if found.groups is None else found.groups[order]
    if groups is None and first.groups is None:
        return found.probabilities[order]
    if groups is None or first.groups is None or not np.array_equal(groups, first.groups):
        raise ValueError("groups must be those of its pair, got others")
    return found.probabilities[order]


def _check_unique(folder: Path | str, cell_id: str, split: str, found: Predictions) -> None:
    if len(np.unique(found.ids)) != len(found.ids):
        path = predictions_path(folder, cell_id)
        raise ValueError(f"{path}: {split} ids must differ from each other, got {_twice(found.ids)} twice")


def _twice(ids: np.ndarray) -> str:
    values, counts = np.unique(ids, return_counts=True)
    return str(values[counts > 1][0])
