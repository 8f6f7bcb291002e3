"""Long CSV files: a line per image with its class probabilities, or per result with its value.

Headings are known by the words that people use; case, spaces, hyphens and underscores do not matter.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records.predictions import Predictions

NAMES = {
    "id": ("id", "imageid", "image", "case", "caseid", "filename", "file", "index"),
    "label": ("label", "target", "truth", "true", "ytrue", "groundtruth", "truelabel"),
    "model": ("model", "modelname", "method", "network", "encoder", "encodername", "algorithm", "variant"),
    "dataset": ("dataset", "datasetname", "task", "benchmark"),
    "seed": ("seed", "run", "fold"),
    "group": ("group", "patient", "patientid", "subject", "subjectid"),
}
PROBABILITY = re.compile(
    r"(?:p|probs?|proba|probability|score)(?:[ _.\-]+(?P<name>.+)|(?P<number>\d+))?", re.IGNORECASE
)
ONE_DATASET = "the data set"
Cell = tuple[str, str, int]


def known_columns(headings: Sequence[str]) -> dict[str, str]:
    """The columns of a long file by what they hold, as far as their headings say; each word of `NAMES` at most once."""
    found: dict[str, str] = {}
    for heading in headings:
        bare = re.sub(r"[\s_\-.]", "", str(heading)).lower()
        for what, words in NAMES.items():
            if bare in words:
                found.setdefault(what, str(heading))
    return found


def read_values(path: Path, table: pd.DataFrame, metric: str | None) -> tuple[str, list[tuple[str, str, int, float]]]:
    """The metric's column and (method, data set, seed, value) of a long file of results.

    metric: the heading of the values, by default the only one left. Lines of one method, data set and seed that differ
    by image are averaged. Raises ValueError, one line starting with the file.
    """
    columns = known_columns(list(table.columns))
    left = [str(name) for name in table.columns if str(name) not in columns.values()]
    numeric = [name for name in left if pd.api.types.is_numeric_dtype(table[name])]
    bare = (metric or "").rstrip(" ↑↓")
    chosen = [name for name in numeric if name.lower() == bare.lower()] or (numeric if not bare else [])
    if len(chosen) != 1:
        raise ValueError(f"{path}: --metric must name one of the columns {', '.join(numeric)}, got {bare or 'none'!r}")
    (column,) = chosen
    seeds = _seeds(path, table, columns)
    cells: dict[Cell, list[float]] = {}
    rows = zip(table[columns["model"]], table[columns["dataset"]], seeds, table[column])
    for place, (method, dataset, seed, value) in enumerate(rows, start=2):
        if not np.isfinite(value):
            raise ValueError(f"{path}: {column} must be a number, got {value} in line {place}")
        cells.setdefault((str(method), str(dataset), seed), []).append(float(value))
    several = next((key for key, values in cells.items() if len(values) > 1), None)
    if several is not None and "id" not in columns:
        raise ValueError(f"{path}: model, data set and seed must name one line, got {len(cells[several])} of {several}")
    return column, [(*key, float(np.mean(values))) for key, values in cells.items()]


def read_predictions(path: Path, table: pd.DataFrame) -> tuple[dict[Cell, Predictions], dict[str, list[str]]]:
    """Predictions by (method, data set, seed), and the classes of each data set, of a long file of probabilities.

    Columns: id, label, one for each class ("p_NAME", "prob_0", …); model (by default the file's name), data set, seed
    (0) and group (of images of one patient) may be there. Labels are class numbers or names. Classes whose column is
    empty for a data set are none of it. Raises ValueError, one line starting with the file.
    """
    columns = known_columns(list(table.columns))
    rest = [str(name) for name in table.columns if str(name) not in columns.values()]
    matches = {name: PROBABILITY.fullmatch(name) for name in rest}
    strangers = [name for name, match in matches.items() if match is None]
    if strangers or not rest:
        came = ", ".join(strangers) or "none"
        raise ValueError(f"{path}: further columns must be class probabilities (p_NAME, prob_0 …), got {came}")
    # A single column without a name is the probability of class 1.
    names = {name: match["name"] or match["number"] or "1" for name, match in matches.items() if match is not None}
    methods = _texts(table, columns, "model", path.stem)
    datasets = _texts(table, columns, "dataset", ONE_DATASET)
    seeds = pd.Series(_seeds(path, table, columns), index=table.index)
    cells: dict[Cell, Predictions] = {}
    classes: dict[str, list[str]] = {}
    for (method, dataset, seed), here in table.groupby([methods, datasets, seeds], sort=False):
        where = f"{path}: {method} on {dataset} (seed {seed})"
        used = [name for name in rest if here[name].notna().any()]
        values = here[used].to_numpy()
        if not used or values.dtype.kind not in "fi" or not np.isfinite(values).all():
            raise ValueError(f"{where}: class probabilities must be numbers for every image, got others")
        own = [names[name] for name in used]
        if len(own) == 1:
            values = np.hstack([1.0 - values, values])
            own = ["0" if own == ["1"] else f"not {own[0]}", *own]
        if classes.setdefault(str(dataset), own) != own:
            raise ValueError(f"{where}: classes must be {', '.join(classes[str(dataset)])}, got {', '.join(own)}")
        ids = here[columns["id"]].astype(str).to_numpy(dtype=str)
        if len(set(ids.tolist())) < len(ids):
            raise ValueError(
                f"{where}: ids must differ from each other, got {len(ids) - len(set(ids.tolist()))} repeats"
            )
        groups = here[columns["group"]].astype(str).to_numpy(dtype=str) if "group" in columns else None
        labels = _labels(where, here[columns["label"]], own)
        cells[str(method), str(dataset), int(seed)] = Predictions(values.astype(np.float64), labels, ids, groups)
    return cells, classes


def _texts(table: pd.DataFrame, columns: dict[str, str], what: str, otherwise: str) -> pd.Series:
    return table[columns[what]].astype(str) if what in columns else pd.Series(otherwise, index=table.index)


def _labels(where: str, column: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Labels as class numbers."""
    if pd.api.types.is_integer_dtype(column):
        return column.to_numpy(dtype=np.int64)
    places = {name: place for place, name in enumerate(classes)}
    strangers = sorted(set(column.astype(str)) - set(places))
    if strangers:
        raise ValueError(f"{where}: labels must be class numbers or one of {', '.join(classes)}, got {strangers[0]!r}")
    return column.astype(str).map(places).to_numpy(dtype=np.int64)


def _seeds(path: Path, table: pd.DataFrame, columns: dict[str, str]) -> list[int]:
    if "seed" not in columns:
        return [0] * len(table)
    column = table[columns["seed"]]
    if pd.api.types.is_integer_dtype(column):
        return [int(seed) for seed in column]
    # Names of runs, in the order in which they appear.
    if column.isna().any():
        raise ValueError(f"{path}: {columns['seed']} must be given in every line, got an empty one")
    places = {name: place for place, name in enumerate(dict.fromkeys(column))}
    return [places[name] for name in column]
