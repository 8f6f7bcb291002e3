"""Counts over per-image predictions, made one cell at a time so that thousands of cells need little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.metrics import checked, confusion
from analysis.records.predictions import Predictions, check_recorded, load_probabilities
from analysis.tasks import decided, supports

if TYPE_CHECKING:
    import pandas as pd

# Ten bins show a curve where the 15 of the calibration error would show noise on a few hundred images.
CONFIDENCE_BINS = 10
# A bin of fewer images than this has an accuracy that says nothing.
FEWEST_IN_BIN = 5
# Matrices of up to so many classes stand two in a row; larger ones take the whole width each.
SMALL_MATRIX = 4
# By this metric, which is made of the counts shown, predictions are held against the record of their cell.
HELD = "macro_f1"


@dataclass(frozen=True)
class Tally:
    """The counts of one variant on one data set, seeds added up: every test image counts once per seed.

    confusion: (true class, predicted class); of several labels an image (label, predicted label), images with the one
    for which the other is predicted. supports (classes,): images of each class or label. counts, hits, confidence:
    (bins,) images, correct ones, and the sum of their confidence, by bins of confidence; of several labels an image
    each is a question of its own: probabilities, those whose label is there, and their sum. has_many: whether there are
    several. n_seeds: cells added up; n_images: test images of one of them.
    """

    confusion: np.ndarray
    counts: np.ndarray
    hits: np.ndarray
    confidence: np.ndarray
    n_seeds: int
    n_images: int
    supports: np.ndarray
    has_many: bool = False


def tally_cells(
    folder: Path | str,
    cells: pd.DataFrame,
    variants: Iterable[str],
    datasets: Iterable[str],
    hear: Callable[[str, str, Predictions], None] | None = None,
) -> tuple[dict[tuple[str, str], Tally], dict[str, str]]:
    """Tallies of a table's finished cells by (variant_id, dataset), and by cell_id why a cell is left out.

    hear: is told variant, data set and predictions of each cell that is not left out, which are read once.
    """
    variants, datasets = set(variants), set(datasets)
    wanted = cells[(cells["status"] == "done") & cells["variant_id"].isin(variants) & cells["dataset"].isin(datasets)]
    tallies: dict[tuple[str, str], Tally] = {}
    problems: dict[str, str] = {}
    columns = ["cell_id", "variant_id", "dataset", "probabilities", f"test.{HELD}"]
    for cell_id, variant_id, dataset, kept, recorded in wanted[columns].itertuples(index=False, name=None):
        if not isinstance(kept, str):
            problems[cell_id] = "its record names no probabilities"
            continue
        try:
            predictions = load_probabilities(folder, cell_id)
            check_recorded(folder, cell_id, HELD, recorded, predictions.labels, predictions.probabilities)
            tally = _tally(predictions.labels, predictions.probabilities)
        except ValueError as problem:
            problems[cell_id] = str(problem)
            continue
        if hear is not None:
            hear(variant_id, dataset, predictions)
        earlier = tallies.get((variant_id, dataset))
        tallies[variant_id, dataset] = tally if earlier is None else _sum(earlier, tally)
    return tallies, problems


def _tally(labels: np.ndarray, probabilities: np.ndarray) -> Tally:
    labels, probabilities = checked(labels, probabilities)
    has_many = labels.ndim == 2
    predicted = decided(probabilities, has_many)
    if has_many:
        confidence, right, counted = probabilities.reshape(-1), labels.reshape(-1), labels.T @ predicted
    else:
        confidence, right = probabilities[np.arange(len(labels)), predicted], predicted == labels
        counted = confusion(labels, probabilities)
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    return Tally(
        confusion=counted,
        counts=np.bincount(bins, minlength=CONFIDENCE_BINS),
        hits=np.bincount(bins, weights=right, minlength=CONFIDENCE_BINS),
        confidence=np.bincount(bins, weights=confidence, minlength=CONFIDENCE_BINS),
        n_seeds=1,
        n_images=len(labels),
        supports=supports(labels, probabilities.shape[1]),
        has_many=has_many,
    )


def _sum(a: Tally, b: Tally) -> Tally:
    return Tally(
        confusion=a.confusion + b.confusion,
        counts=a.counts + b.counts,
        hits=a.hits + b.hits,
        confidence=a.confidence + b.confidence,
        n_seeds=a.n_seeds + b.n_seeds,
        n_images=max(a.n_images, b.n_images),
        supports=a.supports + b.supports,
        has_many=a.has_many,
    )
