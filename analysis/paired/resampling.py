"""Metrics of many resamples at once: exact, and as fast as the metric allows.

A *unit* is what is drawn: an image, or a group of images that share a patient or a lesion. The functions here turn
drawn units into metric values; which uncertainty that makes is said in `analysis.paired`.

Given the same draws every path gives the same numbers:

- macro-F1, balanced accuracy, accuracy and MCC need a confusion table only, and a resample of images is a resample of
  the cells of the joint table (truth, prediction of a, prediction of b, …): counts per cell, then one small product;
- macro-AUC sorts each class once; a resample only weighs the sorted list, and 32 of them are summed side by side in
  compiled code (`analysis.paired.kernels`);
- any other metric is called on each resample.
"""

from collections.abc import Callable, Iterator

import numpy as np

from analysis.metrics import METRICS, checked, class_f1, class_recall, ratio, table_mcc
from analysis.paired.lanes import LANES

Metric = str | Callable[[np.ndarray, np.ndarray], float]
# Indices of drawn units (lanes, units), or swaps (lanes, units), to values (lanes, models).
Values = Callable[[np.ndarray], np.ndarray]


def checked_pair(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and both models' probabilities as `analysis.metrics.checked` returns them, of one shape."""
    labels, checked_a = checked(labels, a)
    _, checked_b = checked(labels, b)
    if checked_a.shape != checked_b.shape:
        raise ValueError(f"a and b must have one shape, got {np.shape(a)} and {np.shape(b)}")
    return labels, checked_a, checked_b


def unit_codes(groups: np.ndarray | None, images: int) -> np.ndarray | None:
    """The unit of each image as integers 0 … units − 1; None where every image is its own unit.

    Raises ValueError for groups of another length or of a kind that cannot name anything.
    """
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (images,):
        raise ValueError(f"groups must name one group for each of {images} images, got shape {groups.shape}")
    if groups.dtype.kind == "O" and all(isinstance(name, str) for name in groups):
        # Text as pandas keeps it.
        groups = groups.astype(str)
    if groups.dtype.kind not in "iubUS":
        raise ValueError(f"groups must be integers or strings, got {groups.dtype}")
    names, codes = np.unique(groups, return_inverse=True)
    return None if len(names) == images else codes.astype(np.int64)


def drawn_units(rng: np.random.Generator, units: int, draws: int) -> Iterator[np.ndarray]:
    """Blocks of (lanes, units) indices, each row one resample of the units with replacement; `draws` rows in all."""
    for first in range(0, draws, LANES):
        # The last block is drawn whole and cut: compiled code has a fixed width.
        yield rng.integers(0, units, size=(LANES, units), dtype=np.uint32)[: draws - first]


def drawn_swaps(rng: np.random.Generator, units: int, draws: int) -> Iterator[np.ndarray]:
    """Blocks of (lanes, units) booleans, each row a fair coin for every unit; `draws` rows in all."""
    for first in range(0, draws, LANES):
        yield rng.integers(0, 2, size=(LANES, units), dtype=bool)[: draws - first]


def resampled_values(metric: Metric, labels: np.ndarray, models: np.ndarray, codes: np.ndarray | None) -> Values:
    """A function of drawn units (lanes, units) that returns the metric (lanes, models) on those resamples.

    labels (images,) and models (models, images, classes) as `analysis.metrics.checked` returns them.
    """
    if metric == "macro_auc_ovr":
        units = len(labels) if codes is None else int(codes.max()) + 1
        rows = np.arange(len(labels)) if codes is None else codes
        areas = _Areas(labels, models, np.broadcast_to(rows, models.shape[:2]))
        own = np.arange(units)
        return lambda indices: areas.values(_counts(indices, own, units), len(indices))
    if isinstance(metric, str) and metric in TABLE_METRICS:
        return _resampled_tables(TABLE_METRICS[metric], labels, models, codes)
    function = metric_function(metric)
    members = None if codes is None else np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])

    def values(indices: np.ndarray) -> np.ndarray:
        result = np.empty((len(indices), len(models)))
        for row, drawn in zip(result, indices):
            images = drawn if members is None else np.concatenate([members[unit] for unit in drawn])
            row[:] = [function(labels[images], model[images]) for model in models]
        return result

    return values


def swapped_values(
    metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, codes: np.ndarray | None
) -> Values:
    """A function of swaps (lanes, units) that returns the metric (lanes, 2) of a and b with those units exchanged."""
    rows = np.arange(len(labels)) if codes is None else codes
    if metric == "macro_auc_ovr":
        units = int(rows.max()) + 1
        # Both models' scores in one sorted list; a swap chooses whose score an image shows.
        pooled = np.concatenate([a, b])
        places = np.stack([np.concatenate([rows, rows + units]), np.concatenate([rows + units, rows])])
        areas = _Areas(np.tile(labels, 2), np.stack([pooled, pooled]), places)
        return lambda swaps: areas.values(_lanes(np.concatenate([~swaps, swaps], axis=1)), len(swaps))
    if isinstance(metric, str) and metric in TABLE_METRICS:
        return _swapped_tables(TABLE_METRICS[metric], labels, a, b, rows)
    function = metric_function(metric)

    def values(swaps: np.ndarray) -> np.ndarray:
        result = np.empty((len(swaps), 2))
        for row, swap in zip(result, swaps):
            exchanged = swap[rows, None]
            row[0] = function(labels, np.where(exchanged, b, a))
            row[1] = function(labels, np.where(exchanged, a, b))
        return result

    return values


def metric_function(metric: Metric) -> Callable[[np.ndarray, np.ndarray], float]:
    """The function of a metric's name, or the function itself. Raises ValueError for an unknown name."""
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ValueError(f"metric must be a function or one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


# Hits, true and predicted counts (…, classes) of many tables to the metric of each.
TableMetric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
TABLE_METRICS: dict[str, TableMetric] = {
    "macro_f1": lambda hits, true, predicted: _row_means(class_f1(hits, true, predicted)),
    "balanced_accuracy": lambda hits, true, predicted: _row_means(class_recall(hits, true)),
    "accuracy": lambda hits, true, predicted: hits.sum(axis=-1) / true.sum(axis=-1),
    "mcc": table_mcc,
}


def _resampled_tables(metric: TableMetric, labels: np.ndarray, models: np.ndarray, codes: np.ndarray | None) -> Values:
    predicted = models.argmax(axis=2)
    if codes is None:
        # Images in one cell of the joint table are alike: what is drawn is counted per cell.
        cells, rows = np.unique(np.stack([labels, *predicted], axis=1), axis=0, return_inverse=True)
        rows = rows.reshape(-1)
        tables = _Tables(cells[:, 0], cells[:, 1:].T, models.shape[2], np.arange(len(cells)))
    else:
        tables = _Tables(labels, predicted, models.shape[2], codes)
        rows = np.arange(int(codes.max()) + 1)
    n_rows = int(rows.max()) + 1

    def values(indices: np.ndarray) -> np.ndarray:
        true, hits, predictions = tables.sums(_counts(indices, rows, n_rows), len(indices))
        return metric(hits, true, predictions)

    return values


def _swapped_tables(metric: TableMetric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, rows: np.ndarray) -> Values:
    predicted = np.stack([a.argmax(axis=1), b.argmax(axis=1)])
    # A swap moves an image's hit and prediction from one model to the other; where both agree it moves nothing.
    differ = predicted[0] != predicted[1]
    moving, places = np.unique(rows[differ], return_inverse=True)
    tables = _Tables(labels[differ], predicted[:, differ], a.shape[1], places)
    true, hits, predictions = _Tables(labels, predicted, a.shape[1], np.zeros_like(labels)).sums(
        np.ones((1, LANES), np.uint16), 1
    )

    def values(swaps: np.ndarray) -> np.ndarray:
        _, moved_hits, moved = tables.sums(_lanes(swaps[:, moving]), len(swaps))
        return metric(hits + moved_hits[:, ::-1] - moved_hits, true, predictions + moved[:, ::-1] - moved)

    return values


class _Tables:
    """Sums of confusion tables over rows (cells, images or groups) that carry integer weights.

    labels (items,), predicted (models, items), rows (items,): where an item's weight stands.
    """

    def __init__(self, labels: np.ndarray, predicted: np.ndarray, classes: int, rows: np.ndarray) -> None:
        self.models, self.classes = len(predicted), classes
        # Columns: true counts, then hits and predictions of each model.
        n_columns = (1 + 2 * self.models) * classes
        starts = rows * n_columns
        entries = [starts + labels]
        for model, choice in enumerate(predicted):
            first = (1 + 2 * model) * classes
            hit = choice == labels
            entries += [(starts + first + labels)[hit], starts + first + classes + choice]
        places, times = np.unique(np.concatenate(entries), return_counts=True)
        self.rows, self.columns = (side.astype(np.int32) for side in np.divmod(places, n_columns))
        self.times = times.astype(np.int64)
        self.totals = np.zeros((n_columns, LANES), dtype=np.int64)

    def sums(self, weights: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True counts (lanes, 1, classes), hits and predictions (lanes, models, classes) of weights (rows, LANES)."""
        from analysis.paired.kernels import add_rows

        add_rows(weights, self.rows, self.columns, self.times, self.totals)
        sums = self.totals.T[:lanes].astype(np.float64, order="C").reshape(lanes, -1, self.classes)
        return sums[:, :1], sums[:, 1::2], sums[:, 2::2]


class _Areas:
    """Macro one-vs-rest AUCs of models whose items carry integer weights, exact.

    labels (items,), scores (models, items, classes), rows (models, items): where an item's weight stands.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> None:
        self.models = len(scores)
        classes = scores.shape[2]
        # Two classes have one ranking, that of class 1; a class that is never, or always, true has none.
        self.classes = [k for k in ([1] if classes == 2 else range(classes)) if 0 < np.sum(labels == k) < len(labels)]
        programs = [
            _program(scores[model, :, k], labels == k, rows[model])
            for model in range(self.models)
            for k in self.classes
        ]
        self.steps = np.concatenate([steps for steps, _ in programs] or [np.empty(0, np.int32)])
        self.kinds = np.concatenate([kinds for _, kinds in programs] or [np.empty(0, np.uint8)])
        self.ends = np.cumsum([len(steps) for steps, _ in programs], dtype=np.int64)
        self.twice, self.positives, self.negatives = np.zeros((3, len(programs), LANES), dtype=np.int64)

    def values(self, weights: np.ndarray, lanes: int) -> np.ndarray:
        """Macro-AUC (lanes, models) under weights (rows, LANES); NaN where no class has both sides."""
        # Late: importing numba takes half a second, which --help should not pay.
        from analysis.paired.kernels import rank_sums

        if not self.classes:
            return np.full((lanes, self.models), np.nan)
        rank_sums(weights, self.steps, self.kinds, self.ends, self.twice, self.positives, self.negatives)
        areas = ratio(self.twice, 2 * self.positives * self.negatives)
        return _row_means(np.ascontiguousarray(areas.T[:lanes]).reshape(lanes, self.models, len(self.classes)))


def _program(scores: np.ndarray, positive: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (rows to visit) and their kinds (analysis.paired.kernels) that add up one AUC along its sorted scores."""
    from analysis.paired.lanes import NEGATIVE, POSITIVE, POSITIVE_AFTER, POSITIVE_BEFORE

    order = np.argsort(scores)
    ordered, is_positive = scores[order], positive[order]
    run = np.cumsum(np.concatenate(([False], ordered[1:] != ordered[:-1])))
    of_run = np.bincount(run, weights=is_positive)
    mixed = ((of_run > 0) & (of_run < np.bincount(run)))[run] & is_positive
    kinds = np.where(is_positive, np.where(mixed, POSITIVE_BEFORE, POSITIVE), NEGATIVE)
    # Positives of a mixed run come twice, around its negatives.
    items = np.concatenate([order, order[mixed]])
    kinds = np.concatenate([kinds, np.full(mixed.sum(), POSITIVE_AFTER)])
    runs = np.concatenate([run, run[mixed]])
    place = np.lexsort((np.select([kinds == NEGATIVE, kinds == POSITIVE_AFTER], [1, 2], 0), runs))
    return rows[items[place]].astype(np.int32), kinds[place].astype(np.uint8)


def _counts(indices: np.ndarray, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """How often each row was drawn, (rows, LANES), from indices (lanes, units) and the row of each unit."""
    from analysis.paired.kernels import count_rows

    # A row is drawn at most as often as there are draws in a lane.
    counts = np.empty((n_rows, LANES), np.uint16 if indices.shape[1] < 1 << 16 else np.uint32)
    count_rows(indices, rows, counts)
    return counts


def _lanes(swaps: np.ndarray) -> np.ndarray:
    """Swaps (lanes, rows) as weights (rows, LANES)."""
    weights = np.zeros((swaps.shape[1], LANES), np.uint16)
    weights[:, : len(swaps)] = swaps.T
    return weights


def _row_means(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of what is defined, NaN where nothing is."""
    means = values.mean(axis=-1)
    # Rare: a class that no image of a resample has. Row by row, as the metrics do it, to the last bit.
    for place in zip(*np.nonzero(np.isnan(means))):
        defined = values[place][~np.isnan(values[place])]
        if len(defined):
            means[place] = defined.mean()
    return means
