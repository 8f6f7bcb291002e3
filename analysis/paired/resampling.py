"""Metrics of many resamples at once: exact, and as fast as the metric allows.

A *unit* is what is drawn: an image, or a group of images that share a patient or a lesion. The functions here turn
drawn units into metric values; `analysis.paired` says which uncertainty results.

Given the same draws every path gives the same numbers:

- macro-F1, balanced accuracy, accuracy and MCC need a confusion table only, and a resample of images is a resample of
  the cells of the joint table (truth, prediction of a, prediction of b, …): counts per cell, then one small product;
- macro-AUC sorts each class once; a resample only weighs the sorted list, and 32 of them are summed side by side in
  compiled code (`analysis.paired.kernels`);
- quadratic kappa, and such metrics of many labels, are functions of sums over images (`analysis.paired.sums`);
- any other metric is called on each resample.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from analysis.metrics import class_f1, class_recall, ratio, table_mcc
from analysis.paired.lanes import BLOCK, LANES, ROW_BYTES, WIDE_FROM
from analysis.paired.models import Joint, Metric, Model, Ranking, metric_function, rank, ranked_classes, ranking
from analysis.paired.sums import image_sums, resampled_sums
from analysis.tasks import members

# Indices of drawn units (lanes, units), or swaps (lanes, units), to values (lanes, models).
Values = Callable[[np.ndarray], np.ndarray]


def drawn_units(rng: np.random.Generator, units: int, draws: int) -> Iterator[np.ndarray]:
    """Blocks of (lanes, units) indices, each row one resample of the units with replacement; `draws` rows in all."""
    lanes = LANES * max(1, BLOCK // (LANES * units))
    for first in range(0, draws, lanes):
        # Whole multiples of LANES are drawn and cut, so that the division into blocks makes no difference.
        rows = min(lanes, -(-(draws - first) // LANES) * LANES)
        yield rng.integers(0, units, size=(rows, units), dtype=np.uint32)[: draws - first]


def drawn_swaps(rng: np.random.Generator, units: int, draws: int) -> Iterator[np.ndarray]:
    """Blocks of (lanes, units) booleans, each row one fair coin toss per unit; `draws` rows in all."""
    for first in range(0, draws, LANES):
        yield rng.integers(0, 2, size=(LANES, units), dtype=bool)[: draws - first]


def resampled_values(
    metric: Metric, models: Sequence[Model], codes: np.ndarray | None, joint: Callable[[], Joint]
) -> Values:
    """A function of drawn units (lanes, units) that returns the metric (lanes, models) on those resamples.

    models: of the same images. joint: their joint table, where one is needed.
    """
    labels = models[0].labels
    units = len(labels) if codes is None else int(codes.max()) + 1
    if metric == "macro_auc_ovr":
        rows = np.arange(len(labels), dtype=np.uint32) if codes is None else codes.astype(np.uint32)
        rank(models)
        rankings = [ranking for model in models for ranking in model.rankings]
        areas = _Areas(rankings, [rows] * len(rankings), len(models), units, units)
        return areas.of_units
    sums = image_sums(metric, models)
    if sums is not None:
        return lambda indices: resampled_sums(sums, codes, units, indices)
    if isinstance(metric, str) and metric in TABLE_METRICS:
        if codes is None:
            # Images in one cell of the joint table are alike: what is drawn is counted per cell.
            table = joint()
            cells = np.arange(len(table.truth))
            tables = _Tables(table.truth, table.predicted, models[0].classes, cells, table.cell, units)
        else:
            predicted = np.stack([model.predicted for model in models], axis=1)
            tables = _Tables(labels, predicted, models[0].classes, codes, np.arange(units), units)
        if metric == "macro_f1":
            return tables.f1_of_units
        return lambda indices: TABLE_METRICS[metric](*tables.of_units(indices))
    function = metric_function(metric)
    members = None if codes is None else np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])

    def values(indices: np.ndarray) -> np.ndarray:
        result = np.empty((len(indices), len(models)))
        for row, drawn in zip(result, indices):
            images = drawn if members is None else np.concatenate([members[unit] for unit in drawn])
            row[:] = [function(labels[images], model.probabilities[images]) for model in models]
        return result

    return values


def swapped_values(metric: Metric, a: Model, b: Model, codes: np.ndarray | None) -> Values:
    """A function of swaps (lanes, units) that returns the metric (lanes, 2) of a and b with those units exchanged."""
    labels = a.labels
    rows = np.arange(len(labels)) if codes is None else codes
    units = int(rows.max()) + 1
    if metric == "macro_auc_ovr":
        # Both models' scores in one sorted list; a swap chooses whose score an image shows.
        pooled, twice = np.concatenate([a.probabilities, b.probabilities]), np.concatenate([labels, labels])
        places = [np.concatenate([rows, rows + units]), np.concatenate([rows + units, rows])]
        own = [ranking(pooled[:, k], members(twice, k)) for k in ranked_classes(twice, a.classes)]
        rankings, shown = own * 2, [row.astype(np.uint32) for row in places for _ in own]
        areas = _Areas(rankings, shown, 2, 2 * units, 1)
        return lambda swaps: areas.of_weights(np.concatenate([~swaps, swaps], axis=1))
    if isinstance(metric, str) and metric in TABLE_METRICS and not a.has_many:
        return _swapped_tables(TABLE_METRICS[metric], labels, a, b, rows)
    function = metric_function(metric)

    def values(swaps: np.ndarray) -> np.ndarray:
        result = np.empty((len(swaps), 2))
        for row, swap in zip(result, swaps):
            exchanged = swap[rows, None]
            row[0] = function(labels, np.where(exchanged, b.probabilities, a.probabilities))
            row[1] = function(labels, np.where(exchanged, a.probabilities, b.probabilities))
        return result

    return values


# numpy sums longer rows in halves.
COMPILED_UP_TO = 128
# Hits, true and predicted counts (…, classes) of many tables to the metric of each.
TableMetric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
TABLE_METRICS: dict[str, TableMetric] = {
    "macro_f1": lambda hits, true, predicted: _row_means(class_f1(hits, true, predicted)),
    "balanced_accuracy": lambda hits, true, predicted: _row_means(class_recall(hits, true)),
    "accuracy": lambda hits, true, predicted: hits.sum(axis=-1) / true.sum(axis=-1),
    "mcc": table_mcc,
}


def _swapped_tables(metric: TableMetric, labels: np.ndarray, a: Model, b: Model, rows: np.ndarray) -> Values:
    predicted = np.stack([a.predicted, b.predicted], axis=1)
    # A swap moves an image's hit and prediction from one model to the other; where both agree it moves nothing.
    differ = predicted[:, 0] != predicted[:, 1]
    moving, places = np.unique(rows[differ], return_inverse=True)
    tables = _Tables(labels[differ], predicted[differ], a.classes, places, np.arange(len(moving)), 1)
    whole = _Tables(labels, predicted, a.classes, np.zeros(len(labels), np.int64), np.zeros(1, np.int64), 1)
    hits, true, predictions = whole.of_weights(np.ones((1, 1), bool))

    def values(swaps: np.ndarray) -> np.ndarray:
        moved_hits, _, moved = tables.of_weights(swaps[:, moving])
        return metric(hits + moved_hits[:, ::-1] - moved_hits, true, predictions + moved[:, ::-1] - moved)

    return values


class _Weights:
    """Room for the weights of one row of lanes: rows of 64 bytes, as counts and as words.

    n_rows: how many rows; drawn: how many draws are counted in one of them at most; items (items,): which row each of
    them takes its weight from.
    """

    def __init__(self, n_rows: int, drawn: int, items: Sequence[np.ndarray]) -> None:
        most = max((int(np.bincount(rows, minlength=1).max()) for rows in items), default=1)
        # The sum of all weights of a lane has to fit in one of its counts.
        self.is_wide = drawn * max(1, most) >= WIDE_FROM
        kind = np.uint32 if self.is_wide else np.uint16
        self.lanes = ROW_BYTES // np.dtype(kind).itemsize
        self.counts = np.zeros((n_rows, self.lanes), kind)
        self.words = self.counts.view(np.uint64)
        self.sums = np.uint64 if self.is_wide else np.uint32

    def set(self, lanes: np.ndarray) -> None:
        """Sets the weights to whole numbers (lanes, rows), no more lanes than there are."""
        self.counts[:] = 0
        self.counts[:, : len(lanes)] = lanes.T


class _Tables:
    """Sums of confusion tables over items (cells or images) that carry integer weights.

    labels (items,), predicted (items, models), rows (items,): where an item's weight stands. counted (units,): the row
    in which a drawn unit is counted; units: how many are drawn.
    """

    def __init__(
        self, labels: np.ndarray, predicted: np.ndarray, classes: int, rows: np.ndarray, counted: np.ndarray, units: int
    ) -> None:
        self.classes = classes
        self.rows, self.counted, self.labels = (side.astype(np.uint32) for side in (rows, counted, labels))
        self.predicted = np.ascontiguousarray(predicted, dtype=np.uint32)
        self.weights = _Weights(int(counted.max(initial=-1)) + 1, units, [rows])
        self.sums = np.zeros((classes * (1 + 2 * predicted.shape[1]), 8), np.uint64)

    def of_units(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hits (draws, models, classes), true counts (draws, 1, classes) and predictions of drawn units."""
        return self._parts(self._resampled(indices))

    def f1_of_units(self, indices: np.ndarray) -> np.ndarray:
        """Macro-F1 (draws, models) of drawn units, as `TABLE_METRICS` has it."""
        from analysis.paired.kernels import table_f1

        values = np.empty((len(indices), self.predicted.shape[1]))
        for first in range(0, len(indices), self.weights.lanes):
            here = slice(first, first + self.weights.lanes)
            table_f1(self._resampled(indices[here]), self.classes, values[here])
        return values

    def _resampled(self, indices: np.ndarray) -> np.ndarray:
        """Tables (draws, columns) of drawn units."""
        # Late: importing numba takes half a second, which --help should not pay.
        from analysis.paired.kernels import resampled_tables

        weights, lanes = self.weights, self.sums.view(self.weights.counts.dtype)
        tables = np.empty((len(indices), len(self.sums)))
        resampled_tables(
            indices, self.counted, weights.counts, weights.words, self.rows, self.labels, self.predicted, self.sums,
            lanes, tables,
        )  # fmt: skip
        return tables

    def of_weights(self, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hits (draws, models, classes), true counts and predictions for weights (lanes, rows)."""
        from analysis.paired.kernels import add_tables

        parts = []
        for first in range(0, len(lanes), self.weights.lanes):
            here = lanes[first : first + self.weights.lanes]
            self.weights.set(here)
            add_tables(self.weights.words, self.rows, self.labels, self.predicted, self.sums)
            parts.append(self.sums.view(self.weights.counts.dtype).T[: len(here)].astype(np.float64, order="C"))
        return self._parts(np.concatenate(parts))

    def _parts(self, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sums = tables.reshape(len(tables), -1, self.classes)
        return sums[:, 1::2], sums[:, :1], sums[:, 2::2]


class _Areas:
    """Macro one-vs-rest AUCs of models whose items carry integer weights, exact.

    rankings: of every class of each model, model after model; rows: for each of them where an item's weight stands,
    (items,). n_rows: how many weights there are; units: how many draws they count.
    """

    def __init__(
        self, rankings: Sequence[Ranking], rows: Sequence[np.ndarray], models: int, n_rows: int, units: int
    ) -> None:
        self.models, self.programs = models, len(rankings)
        self.weights = _Weights(n_rows, units, rows[:1])
        if not rankings:
            return
        self.steps = np.stack([row[r.order] for r, row in zip(rankings, rows)])
        self.items = np.concatenate([row[r.positives] for r, row in zip(rankings, rows)])
        self.below, self.upto = (np.concatenate([getattr(r, side) for r in rankings]) for side in ("below", "upto"))
        self.ends = np.cumsum([len(r.positives) for r in rankings], dtype=np.uint64)
        self.prefix = np.zeros((self.steps.shape[1] + 1, 8), np.uint64)
        self.block = np.zeros((3, self.programs, self.weights.lanes), self.weights.sums)

    @property
    def _program(self) -> tuple[np.ndarray, ...]:
        prefixes = self.prefix.view(self.weights.counts.dtype)
        return self.steps, self.items, self.below, self.upto, self.ends, self.prefix, prefixes

    def of_units(self, indices: np.ndarray) -> np.ndarray:
        """Macro-AUC (draws, models) on resamples (draws, units); NaN where no class has both sides."""
        from analysis.paired.kernels import resampled_areas

        if not self.programs:
            return np.full((len(indices), self.models), np.nan)
        weights, own = self.weights, np.arange(indices.shape[1], dtype=np.uint32)
        areas = np.empty((len(indices), self.programs))
        resampled_areas(indices, own, weights.counts, weights.words, *self._program, self.block, areas)
        return _row_means(areas.reshape(len(indices), self.models, -1))

    def of_weights(self, lanes: np.ndarray) -> np.ndarray:
        """Macro-AUC (draws, models) for weights (lanes, rows)."""
        from analysis.paired.kernels import rank_sums

        if not self.programs:
            return np.full((len(lanes), self.models), np.nan)
        parts = []
        for first in range(0, len(lanes), self.weights.lanes):
            here = lanes[first : first + self.weights.lanes]
            self.weights.set(here)
            rank_sums(self.weights.counts, self.weights.words, *self._program, *self.block)
            parts.append(self.block[..., : len(here)].astype(np.int64))
        return self._means(*np.concatenate(parts, axis=2))

    def _means(self, twice: np.ndarray, positives: np.ndarray, totals: np.ndarray) -> np.ndarray:
        areas = ratio(twice, 2 * positives * (totals - positives))
        return _row_means(np.ascontiguousarray(areas.T).reshape(areas.shape[1], self.models, -1))


def _row_means(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of the defined values, NaN where there is none."""
    if values.shape[-1] <= COMPILED_UP_TO and values.flags.c_contiguous:
        from analysis.paired.kernels import row_means

        found = np.empty(values.shape[:-1])
        row_means(values.reshape(-1, values.shape[-1]), found.reshape(-1))
        return found
    means = values.mean(axis=-1)
    # Rare: a class that no image of a resample has. Row by row, as the metrics do it, to the last bit.
    for place in zip(*np.nonzero(np.isnan(means))):
        defined = values[place][~np.isnan(values[place])]
        if len(defined):
            means[place] = defined.mean()
    return means
