"""Board of a study's cells by variant and data set: counts, means, the best so far, and how long the rest will take.

All of it is by validation: nobody should look at the test split while decisions are still open.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median

from analysis.records.schema import Record

METRIC = "macro_f1"


@dataclass(frozen=True)
class Best:
    """The variant that is ahead: its mean validation metric over `cells`, and the 95 % interval of that mean.

    low and high are None where there is nothing to draw anew; `over` says what is: data sets, sources, or seeds.
    """

    label: str
    value: float
    cells: int
    low: float | None
    high: float | None
    over: str


@dataclass
class Square:
    """The cells of one variant on one data set: how many ended in which way, and those that finished by seed."""

    ended: Counter[str] = field(default_factory=Counter)
    values: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """The mean validation metric over seeds; None before the first."""
        return fmean(self.values.values()) if self.values else None


@dataclass(frozen=True)
class _Ended:
    label: str
    dataset: str
    seed: int
    status: str
    seconds: float | None


class Board:
    """The cells of a study that count in the end, as they come in.

    labels, datasets: those known before, in the study's order. seeds: how many cells a square gets; None where that is
    not known. sources: the collection of a data set, where the study names it.
    """

    def __init__(
        self,
        labels: Iterable[str] = (),
        datasets: Iterable[str] = (),
        seeds: int | None = None,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.labels: dict[str, None] = dict.fromkeys(labels)
        self.datasets: dict[str, None] = dict.fromkeys(datasets)
        self.seeds = seeds
        self.failures: dict[str, tuple[str, Record]] = {}
        self._sources = dict(sources or {})
        self._squares: dict[tuple[str, str], Square] = defaultdict(Square)
        self._cells: dict[str, _Ended] = {}
        self._usual: dict[tuple[str | None, str | None], float] = {}
        self._usual_of = 0

    def add(self, label: str, record: Record) -> None:
        """Counts a cell that has ended; one that had ended before is counted anew."""
        cell_id, dataset, seed = record["cell_id"], record["dataset"], record["seed"]
        earlier = self._cells.get(cell_id)
        if earlier is not None:
            square = self._squares[earlier.label, earlier.dataset]
            square.ended[earlier.status] -= 1
            square.values.pop(earlier.seed, None)
        self.labels.setdefault(label)
        self.datasets.setdefault(dataset)
        self._sources.setdefault(dataset, record.get("source_key") or dataset)
        self._cells[cell_id] = _Ended(label, dataset, seed, record["status"], record.get("seconds"))
        square = self._squares[label, dataset]
        square.ended[record["status"]] += 1
        value = (record.get("validation") or {}).get(METRIC) if record["status"] == "done" else None
        if value is not None:
            square.values[seed] = value
        self.failures.pop(cell_id, None)
        if record["status"] == "failed":
            self.failures[cell_id] = (label, record)

    def square(self, label: str, dataset: str) -> Square:
        """The cells of a variant on a data set."""
        return self._squares.get((label, dataset)) or Square()

    def count(self, status: str) -> int:
        """The number of cells that ended so."""
        return sum(square.ended[status] for square in self._squares.values())

    def best(self) -> Best | None:
        """The variant that is ahead; None before the first finished cell.

        Variants are ranked by their mean distance from the others on the same data set and seed, so that one that has
        run only on easy data sets is not ahead because of that.
        """
        pairs: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        for (label, dataset), square in self._squares.items():
            for seed, value in square.values.items():
                pairs[dataset, seed][label] = value
        ahead: dict[str, list[float]] = defaultdict(list)
        for by_label in pairs.values():
            middle = fmean(by_label.values())
            for label, value in by_label.items():
                ahead[label].append(value - middle)
        if not ahead:
            return None
        label = max(ahead, key=lambda name: fmean(ahead[name]))
        cells = {pair: by_label[label] for pair, by_label in pairs.items() if label in by_label}
        low, high, over = self._interval(cells)
        return Best(label, fmean(cells.values()), len(cells), low, high, over)

    def _interval(self, cells: Mapping[tuple[str, int], float]) -> tuple[float | None, float | None, str]:
        """The 95 % interval of a mean: over sources (files and seeds averaged), of a single one over seeds."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        by_set: dict[str, list[float]] = defaultdict(list)
        for (dataset, seed), value in cells.items():
            by_set[dataset].append(value)
            by_seed[seed].append(value)
        by_source: dict[str, list[float]] = defaultdict(list)
        for dataset, values in by_set.items():
            by_source[self._sources.get(dataset, dataset)].append(fmean(values))
        several = len(by_source) > 1
        over = ("data sets" if len(by_source) == len(by_set) else "sources") if several else "seeds"
        units = [fmean(values) for values in (by_source if several else by_seed).values()]
        if len(units) < 2:
            return None, None, over
        # Late: a launch that has not come so far need not wait for numpy and scipy.
        import numpy as np

        from analysis.across.mean_tests import t_interval

        interval = t_interval(np.asarray(units), 0.95, over)
        return max(0.0, interval.low), min(1.0, interval.high), over

    def usual(self, label: str, dataset: str) -> float | None:
        """Seconds that a cell usually takes: the median of such cells, else of the data set's, else of all."""
        if self._usual_of != len(self._cells):
            groups: dict[tuple[str | None, str | None], list[float]] = defaultdict(list)
            for cell in self._cells.values():
                if cell.status == "done" and cell.seconds is not None:
                    for key in ((cell.label, cell.dataset), (None, cell.dataset), (None, None)):
                        groups[key].append(cell.seconds)
            self._usual = {key: median(values) for key, values in groups.items()}
            self._usual_of = len(self._cells)
        keys = ((label, dataset), (None, dataset), (None, None))
        return next((self._usual[key] for key in keys if key in self._usual), None)

    def seconds_left(self, places: Iterable[tuple[str, str]]) -> float | None:
        """Seconds of computing that cells of these variants and data sets will take, one after the other."""
        total = 0.0
        for label, dataset in places:
            seconds = self.usual(label, dataset)
            if seconds is None:
                return None
            total += seconds
        return total

    def missing(self) -> list[tuple[str, str]]:
        """(label, data set) of every cell that is still to come, where the number of seeds is known."""
        if self.seeds is None:
            return []
        return [
            (label, dataset)
            for label in self.labels
            for dataset in self.datasets
            for _ in range(self.seeds - sum(self.square(label, dataset).ended.values()))
        ]
