"""Paired cells of two variants, as a value; free of tables, so that any process can take it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PairedCells:
    """The paired cells of one data set, by the seeds that both variants finished, and what their records say.

    values: the contrast's metric, by cell_id. weight: what it counts beside other data sets, 1 / k of k files of one
    source. n_train: training images, 0 where records do not tell.
    """

    dataset: str
    difference: float
    n_seeds: int
    n_test: int
    cost_ratio: float
    baseline_cells: tuple[str, ...]
    against_cells: tuple[str, ...]
    values: dict[str, float]
    weight: float = 1.0
    n_train: int = 0
