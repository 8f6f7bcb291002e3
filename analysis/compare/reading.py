"""Files of results, each known by its form, read together as one comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.compare import long, printed
from analysis.compare.results import Results, of_predictions, of_values
from analysis.metrics import METRICS
from analysis.records import medmnist
from analysis.records.predictions import Predictions
from analysis.records.table import MEAN_OF_SEEDS
from analysis.words import counted, listed

METRICS_OF_PREDICTIONS = ("macro_auc_ovr", "macro_f1")


@dataclass(frozen=True)
class Form:
    """What files cannot say of themselves.

    metrics: names; of predictions those of `analysis.metrics`, of values the one name that they have. lower_is_better:
    of values. rows, unit: see `analysis.compare.printed`. labels: where MedMNIST's npz files lie.
    """

    metrics: tuple[str, ...] = ()
    lower_is_better: bool = False
    rows: printed.Rows | None = None
    unit: printed.Unit | None = None
    labels: Path | None = None


def read_files(paths: Sequence[Path], form: Form) -> Results:
    """The results in some files: all with predictions of images, or all with values.

    A folder holds one method's prediction files as MedMNIST's evaluator writes them, and is named after it; a CSV file
    with the columns id and label has predictions, one with model and data set a value a line, and any other file is a
    table as papers print it. Raises ValueError, one line, for files that are none of these or do not fit together.
    """
    images: dict[long.Cell, Predictions] = {}
    classes: dict[str, list[str]] = {}
    values: dict[long.Cell, float] = {}
    told: list[str] = []
    names: list[str] = []
    tables: list[tuple[Path, printed.Printed]] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: must be a file of results, or a folder of prediction files, got nothing there")
        if path.is_dir():
            _take(images, _medmnist(path, form.labels, classes), path)
            continue
        table = _frame(path)
        columns = {} if table is None else long.known_columns(list(table.columns))
        if table is not None and {"id", "label"} <= set(columns):
            found, own = long.read_predictions(path, table)
            for dataset, names_here in own.items():
                if classes.setdefault(dataset, names_here) != names_here:
                    known = ", ".join(classes[dataset])
                    raise ValueError(f"{path}: classes of {dataset} must be {known}, got {', '.join(names_here)}")
            _take(images, found, path)
        elif table is not None and {"model", "dataset"} <= set(columns):
            name, lines = long.read_values(path, table, form.metrics[0] if form.metrics else None)
            names.append(name)
            _take(values, {line[:3]: line[3] for line in lines}, path)
        else:
            tables.append((path, printed.read_printed(path, form.rows)))
    if images and (values or tables):
        raise ValueError(f"{paths[0]}: files must all hold predictions of images, or all values, got both")
    if images:
        _check_alike(images)
        _check_metrics(form)
        return of_predictions(images, classes, form.metrics or METRICS_OF_PREDICTIONS, told)
    for path, found_table in tables:
        _take(values, {(m, d, MEAN_OF_SEEDS): v for (d, m), v in found_table.values.items()}, path)
        if found_table.left_out:
            told.append(
                f"Not read from {path.name}, as a summary or a description: {listed(found_table.left_out, 12)}."
            )
        if found_table.spreads:
            told.append(
                f"{path.name} prints a spread beside {counted(len(found_table.spreads), 'mean')}: over what is not for "
                "a table to say, so no test uses it."
            )
    factor, how = printed.as_shares(
        list(values.values()), form.unit, any(table.is_percent for _, table in tables), form.lower_is_better
    )
    name = form.metrics[0] if form.metrics else (names[0] if names else "value")
    quoted = f"{name.rstrip(' ↑↓')} {'↓' if form.lower_is_better or name.endswith('↓') else '↑'}"
    spreads = {key: spread * factor for _, table in tables for key, spread in table.spreads.items()}
    return of_values([(*key, value * factor) for key, value in values.items()], quoted, [how, *told], spreads)


def _frame(path: Path) -> pd.DataFrame | None:
    """A CSV file as a table with a heading; None where it is none."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return None
    try:
        return pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else None, engine="python", comment="#")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError):
        return None


def _take(into: dict, found: Mapping, path: Path) -> None:
    """Adds what a file holds. Raises ValueError where another file holds it, too."""
    twice = next((key for key in found if key in into), None)
    if twice is not None:
        method, dataset, seed = twice
        run = "" if seed == MEAN_OF_SEEDS else f" (seed {seed})"
        raise ValueError(f"{path}: every method and data set must be in one file, got {method} on {dataset}{run} again")
    into |= found


def _medmnist(folder: Path, labels: Path | None, classes: dict[str, list[str]]) -> dict[long.Cell, Predictions]:
    """The predictions in a folder of MedMNIST's files, by (folder's name, data set, run)."""
    if labels is None:
        raise ValueError(
            f"{folder}: --labels must name the folder of MedMNIST's npz files for prediction files, got none"
        )
    found = {}
    for row in medmnist.load_predictions({folder.name: folder}, labels).to_dict("records"):
        file = medmnist.read_predictions(row["probabilities"])
        truth = medmnist.medmnist_labels(labels, file.flag, file.split, file.size)
        ids = np.arange(len(truth))
        found[folder.name, row["dataset"], int(row["seed"])] = Predictions(file.probabilities, truth, ids, None)
        classes.setdefault(row["dataset"], [str(k) for k in range(file.probabilities.shape[1])])
    return found


def _check_metrics(form: Form) -> None:
    strangers = [name for name in form.metrics if name not in METRICS]
    if strangers:
        raise ValueError(f"--metric must be one of {', '.join(METRICS)} for predictions, got {strangers[0]!r}")


def _check_alike(images: Mapping[long.Cell, Predictions]) -> None:
    """Raises ValueError unless all methods have the same images, labels and groups on a data set."""
    firsts: dict[str, tuple[str, dict[str, int]]] = {}
    for (method, dataset, _), found in images.items():
        own = dict(zip(map(str, found.ids.tolist()), found.labels.tolist()))
        first, theirs = firsts.setdefault(dataset, (method, own))
        alone = sorted(set(own) ^ set(theirs))
        if alone:
            side = method if alone[0] in own else first
            raise ValueError(
                f"{method} on {dataset} must have the images of {first}, got {len(alone)} that only one has, such as "
                f"{alone[0]} of {side}"
            )
        differing = next((name for name, label in own.items() if theirs[name] != label), None)
        if differing is not None:
            raise ValueError(
                f"{method} on {dataset} must have the labels of {first}, got {own[differing]} for image {differing} "
                f"in place of {theirs[differing]}"
            )
