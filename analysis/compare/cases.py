"""A metric of every case and method: what tools that judge claims of outperformance from single cases read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records.predictions import Predictions

Cell = tuple[str, str, int]


def _hits(found: Predictions) -> np.ndarray:
    """1 where the predicted class is right, else 0."""
    return (found.probabilities.argmax(axis=1) == found.labels).astype(np.int64)


def _brier(found: Predictions) -> np.ndarray:
    """Half the squared distance between probabilities and the one-hot label, as in `analysis.metrics.brier`."""
    distance = found.probabilities.astype(np.float64)
    distance[np.arange(len(found.labels)), found.labels] -= 1.0
    return 0.5 * np.square(distance).sum(axis=1)


# Metrics that one image has; a mean over images gives the metric of that name.
OF_CASES: dict[str, Callable[[Predictions], np.ndarray]] = {"accuracy": _hits, "brier": _brier}


def case_table(cells: Mapping[Cell, Predictions], metric: str) -> pd.DataFrame:
    """A row per data set, seed and image with the columns dataset, seed, case, label, group, and one for each method.

    cells: by (method, data set, seed). A method without that seed has no value there.
    """
    blocks = []
    methods = list(dict.fromkeys(method for method, _, _ in cells))
    for dataset, seed in dict.fromkeys((dataset, seed) for _, dataset, seed in cells):
        here = {method: cells[method, dataset, seed] for method in methods if (method, dataset, seed) in cells}
        first = next(iter(here.values()))
        block = pd.DataFrame({"dataset": dataset, "seed": seed, "case": first.ids, "label": first.labels})
        block["group"] = first.ids if first.groups is None else first.groups
        for method, found in here.items():
            block[method] = pd.Series(OF_CASES[metric](found), index=found.ids).reindex(first.ids).to_numpy()
        blocks.append(block)
    return pd.concat(blocks, ignore_index=True)[["dataset", "seed", "case", "label", "group", *methods]]


def write_cases(
    folder: Path, cells: Mapping[Cell, Predictions], metrics: Sequence[str] = tuple(OF_CASES)
) -> list[Path]:
    """Writes `cases_<metric>.csv` for each metric into a folder; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for metric in metrics:
        path = folder / f"cases_{metric}.csv"
        case_table(cells, metric).to_csv(path, index=False, lineterminator="\n")
        paths.append(path)
    return paths
