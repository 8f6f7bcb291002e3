"""Cells of two variants that were paired, as a value; free of tables, so that it goes anywhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PairedCells:
    """The cells of one data set on whose seeds both variants finished, and what their records say.

    values: the contrast's metric, by cell_id.
    """

    dataset: str
    difference: float
    n_seeds: int
    n_test: int
    cost_ratio: float
    baseline_cells: tuple[str, ...]
    against_cells: tuple[str, ...]
    values: dict[str, float]
