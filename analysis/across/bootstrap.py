"""Data sets and seeds drawn anew: the bootstrap behind what has no closed form in general.

A draw takes data sets with replacement, and within each of them its seeds with replacement. Test images stay as they
are.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from analysis.interval import Interval, check_generator, expanded_percentiles

# Numbers held at once by one slice of draws.
SLICE = 1 << 18


def what_varies(n_seeds: Sequence[int], units: str = "data sets") -> tuple[str, int]:
    """What is drawn anew, for an interval's `over`, and how many of it there are; "nothing" with a single cell.

    units: what n_seeds has an entry for, "sources" where files of one source are averaged.
    """
    if len(n_seeds) > 1:
        return f"{units} and seeds" if max(n_seeds) > 1 else units, len(n_seeds)
    return ("seeds", n_seeds[0]) if n_seeds[0] > 1 else ("nothing", 1)


def redraw(
    n_seeds: Sequence[int], draws: int, rng: np.random.Generator, width: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Slices of draws: indices of data sets (draws, data sets), of seeds (draws, data sets, seeds), and which count.

    n_seeds: seeds on each data set; where a drawn data set has fewer than the most, the rest of its row does not count.
    width: how many numbers a caller holds for each seed drawn, which sets the slices' length and not the draws.
    """
    check_generator(rng)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    counts, most = np.asarray(n_seeds), max(n_seeds)
    datasets = rng.integers(0, len(counts), (draws, len(counts)))
    rows = max(1, SLICE // (len(counts) * most * width))
    for start in range(0, draws, rows):
        chosen = datasets[start : start + rows]
        here = counts[chosen][:, :, None]
        seeds = (rng.random((*chosen.shape, most)) * here).astype(np.int64)
        yield chosen, seeds, np.broadcast_to(np.arange(most), seeds.shape) < here


def percentile_interval(values: np.ndarray, level: float, n_seeds: Sequence[int]) -> Interval:
    """An interval from bootstrap draws of data sets and seeds, as `expanded_percentiles` has it."""
    return expanded_percentiles(values, level, *what_varies(n_seeds))
