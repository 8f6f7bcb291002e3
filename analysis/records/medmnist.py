"""Prediction files in the form that MedMNIST's own evaluator writes and reads, as in entries to its benchmark.

    {flag}{size}_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv     size: nothing for 28 pixels, else _64, _128, _224

One line per image, without a header: its index in the split, then the probability of each class (for a binary set,
one column, that of class 1, will do). Multi-label sets (chestmnist) are not read.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from analysis.metrics import METRICS, accuracy, checked, macro_auc_ovr
from analysis.records.origins import source_key
from analysis.records.predictions import Predictions
from analysis.tasks import task_of

SPLITS = ("train", "val", "test")
NATIVE_SIZE = 28

# MedMNIST allows anything between split and run.
NAME = re.compile(r"(?P<flag>[^_]+)(?:_(?P<size>\d+))?_(?P<split>train|val|test)(?P<rest>[^@]*)(?:@(?P<run>.*))?\.csv")
CLAIMED = {"auc": re.compile(r"\[AUC\](\d+\.\d+)"), "accuracy": re.compile(r"\[ACC\](\d+\.\d+)")}


@dataclass(frozen=True)
class PredictionFile:
    """A prediction file: what its name says, and its probabilities (images, classes) in the order of the split.

    auc and accuracy are those of the name, of three digits, None where it has none; run is "" where it has none.
    """

    flag: str
    size: int
    split: str
    run: str
    auc: float | None
    accuracy: float | None
    probabilities: np.ndarray


def write_predictions(
    folder: Path | str, flag: str, predictions: Predictions, *, run: int | str, split: str = "test", size: int = 28
) -> Path:
    """Writes the file that MedMNIST's evaluator would write for these predictions; `read_predictions` reads it.

    The index is that of the image in its split: the number in ids such as 17 or "test/17", else the place.
    Raises ValueError for a flag, split or run that the name cannot carry.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", flag):
        raise ValueError(f"flag must be letters, digits and hyphens (MedMNIST splits names at _), got {flag!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(run)):
        raise ValueError(f"run must be letters, digits, _ and hyphens, got {run!r}")
    labels, probabilities = checked(predictions.labels, predictions.probabilities)
    values = f"[AUC]{macro_auc_ovr(labels, probabilities):.3f}_[ACC]{accuracy(labels, probabilities):.3f}"
    suffix = "" if size == NATIVE_SIZE else f"_{size}"
    path = Path(folder) / f"{flag}{suffix}_{split}_{values}@{run}.csv"
    # In their stored precision: float32 numbers would grow meaningless digits.
    table = pd.DataFrame(predictions.probabilities, index=_places(predictions.ids))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.sort_index().to_csv(path, header=False)
    return path


def read_predictions(path: Path | str) -> PredictionFile:
    """Reads a prediction file. Raises ValueError, one line starting with the file, unless it is in MedMNIST's form."""
    path = Path(path)
    name = NAME.fullmatch(path.name)
    if name is None:
        raise ValueError(f"{path}: name must be FLAG_SPLIT_[AUC]x_[ACC]x@RUN.csv, got {path.name!r}")
    try:
        table = pd.read_csv(path, header=None, index_col=0)
    except (OSError, ValueError) as problem:
        came = " ".join(str(problem).split())
        raise ValueError(f"{path}: must be a file of numbers separated by commas, got {came}") from None
    table = table.sort_index()
    if not (len(table) and np.array_equal(table.index, np.arange(len(table)))):
        raise ValueError(f"{path}: first column must be the indices 0 … {len(table) - 1}, each once, got others")
    kinds = {dtype.kind for dtype in table.dtypes}
    if not kinds <= set("fi") or table.shape[1] == 0 or not np.isfinite(table.to_numpy()).all():
        raise ValueError(f"{path}: must hold a finite probability for each class, got {table.shape[1]} columns")
    probabilities = table.to_numpy(dtype=np.float64)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1.0 - probabilities, probabilities])
    claims = {key: pattern.search(name["rest"]) for key, pattern in CLAIMED.items()}
    return PredictionFile(
        flag=name["flag"],
        size=int(name["size"] or NATIVE_SIZE),
        split=name["split"],
        run=name["run"] or "",
        auc=float(claims["auc"][1]) if claims["auc"] else None,
        accuracy=float(claims["accuracy"][1]) if claims["accuracy"] else None,
        probabilities=probabilities,
    )


def medmnist_labels(root: Path | str, flag: str, split: str = "test", size: int = NATIVE_SIZE) -> np.ndarray:
    """The labels of a split of MedMNIST's file in `root`: (images,), or (images, labels) where there are several.

    Raises ValueError, one line starting with the file.
    """
    path = Path(root) / f"{flag}{'' if size == NATIVE_SIZE else f'_{size}'}.npz"
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            labels = arrays[f"{split}_labels"]
    except FileNotFoundError:
        raise ValueError(f"{path}: must be MedMNIST's file with the labels, got no such file") from None
    except (BadZipFile, KeyError, OSError, ValueError) as problem:
        raise ValueError(f"{path}: must hold {split}_labels, got {problem}") from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2):
        raise ValueError(f"{path}: {split}_labels must be (images,) or (images, labels), got shape {labels.shape}")
    return labels.astype(np.int64)


def load_predictions(folders: Mapping[str, Path | str], root: Path | str) -> pd.DataFrame:
    """Several models' MedMNIST prediction files on test as a tidy table like that of `load_ledger`, one row per file.

    folders: the folder of each model's files; its name becomes the variant. root: where MedMNIST's npz files lie, for
    the labels. A run that is a number is the seed; others count from 0 in the order of their names. Metrics are
    computed from the probabilities. There is no cost and no validation. Sets of one collection, and sizes of one set,
    share a `source_key`: they count once across data sets (`analysis.records.origins`). Raises ValueError, one line
    starting with the file, where a file does not fit its labels, its metrics differ from those in its name, or two
    files are one run.
    """
    rows = []
    taken: dict[tuple[str, str, int], str] = {}
    for model, folder in folders.items():
        paths = sorted(path for path in Path(folder).glob("*.csv") if NAME.fullmatch(path.name))
        found = [(path, read_predictions(path)) for path in paths]
        found = [(path, file) for path, file in found if file.split == "test"]
        if not found:
            raise ValueError(f"{folder}: must hold prediction files of test splits, got none")
        seeds: dict[str, int] = {}
        for path, file in found:
            dataset = file.flag if file.size == NATIVE_SIZE else f"{file.flag}_{file.size}"
            seed = int(file.run) if file.run.isdecimal() else seeds.get(dataset, 0)
            seeds[dataset] = seed + 1
            if (model, dataset, seed) in taken:
                raise ValueError(
                    f"{path}: run must be one of its own, got seed {seed} of {taken[model, dataset, seed]} again"
                )
            taken[model, dataset, seed] = path.name
            labels = medmnist_labels(root, file.flag, file.split, file.size)
            try:
                names = [name for name in METRICS if task_of(labels).defines(name)]
                values = {name: METRICS[name](labels, file.probabilities) for name in names}
            except ValueError as problem:
                raise ValueError(f"{path}: {problem}") from None
            _check_claims(path, file, values)
            row: dict[str, Any] = {
                "cell_id": path.stem,
                "variant_id": model,
                "variant_label": model,
                "recipe_id": "medmnist",
            }
            key = source_key(dataset)
            row |= {"source_key": None if key == dataset else key}
            row |= {"contrasts_hash": None, "dataset": dataset, "seed": seed, "status": "done", "n_test": len(labels)}
            row |= {f"test.{name}": value for name, value in values.items()}
            rows.append(row | {"cost.params": math.nan, "cost.macs": math.nan, "probabilities": str(path)})
    return pd.DataFrame(rows)


def _check_claims(path: Path, file: PredictionFile, values: Mapping[str, float]) -> None:
    for name, claimed in (("macro_auc_ovr", file.auc), ("accuracy", file.accuracy)):
        # Half of the last digit, plus what a tie at the threshold may add on a small set.
        if claimed is not None and abs(claimed - values[name]) > 0.0005 + 1.0 / len(file.probabilities):
            raise ValueError(f"{path}: {name} must be that of its name, {claimed:.3f}, got {values[name]:.4f}")


def _places(ids: np.ndarray) -> np.ndarray:
    """The index in its split of every image: the number at the end of its id, else its place."""
    ends = [re.fullmatch(r"(?:.*/)?(\d+)", str(value)) for value in ids.tolist()]
    places = np.array([int(end[1]) for end in ends if end])
    count = len(ids)
    return places if len(places) == count and len(np.unique(places)) == count else np.arange(count)
