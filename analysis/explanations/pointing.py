"""Scores of a network's maps: pointing at known lesions, deletion and insertion, and how far receptive fields reach.

A saliency map is (rows, columns) on the grid of a stage, never below zero. A mask is (height, width), True on the
lesion. Every interval here is over test images alone: retraining the same network may give other maps, and only cells
of several seeds show how different.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.interval import Interval, expanded_percentiles

LEVEL = 0.95
DRAWS = 2000
# Noise maps for each lesion: enough to know their mean score to a hundredth.
NOISE_MAPS = 20
# The places on a stage's grid whose outputs are traced back to the image.
PLACES = ("centre", "top_left", "top_right", "bottom_left", "bottom_right")
# Pixels of one map that are equal to this many digits share its maximum.
TIE = 1e-6


@dataclass(frozen=True)
class Control:
    """A control: a score without what the maps are credited for, and the paired gain over it with its interval."""

    name: str
    value: float
    gain: float
    interval: Interval


@dataclass(frozen=True)
class Score:
    """The mean of a measure over images, its interval over test images, and the same measure under each control.

    `n_empty` maps were zero everywhere: they say nothing and score like a map that is the same everywhere.
    """

    measure: str
    value: float
    interval: Interval
    controls: tuple[Control, ...]
    n_images: int
    n_empty: int = 0


def spread(maps: np.ndarray, cell: int, size: tuple[int, int]) -> np.ndarray:
    """Maps (n, rows, columns) over the pixels of the image, (n, height, width): linear between the cells' centres.

    A cell covers `cell` × `cell` pixels from the top left on, as a network's patches do: where the grid does not end
    with the image, stretching it to the image's size would shift every finding. Beyond the outer centres maps stay
    constant.
    """
    down = _weights(maps.shape[1], cell, size[0])
    across = _weights(maps.shape[2], cell, size[1])
    return down @ np.asarray(maps, dtype=np.float64) @ across.T


def pointing(maps: np.ndarray, cell: int, masks: np.ndarray) -> np.ndarray:
    """The pointing game, (n,): 1 where the middle of the largest cell of a map (n, rows, columns) lies on the lesion.

    Where several cells share the maximum, or the middle lies between pixels, the share of them on the lesion: what a
    fair draw among them would hit. The point is taken on the grid: on a map spread over pixels, border cells, which
    stay constant outwards, would win over equal ones inside. After Zhang et al., "Top-down neural attention by
    excitation backprop" (2016), without their tolerance.
    """
    return _sum(_peaks(maps) * _at_middles(masks, cell, maps.shape[1:]))


def energy(maps: np.ndarray, cell: int, masks: np.ndarray) -> np.ndarray:
    """The share of each map's sum over the pixels that lies on the lesion, (n,); maps (n, rows, columns).

    After Wang et al., "Score-CAM" (2020), who use boxes. A map of zeros counts as one that is the same everywhere.
    """
    return _sum(_shares(spread(maps, cell, masks.shape[1:])) * masks)


MEASURES: dict[str, Callable[[np.ndarray, int, np.ndarray], np.ndarray]] = {
    "pointing game": pointing,
    "energy in lesion": energy,
}


def localise(
    maps: np.ndarray,
    cell: int,
    masks: np.ndarray,
    *,
    rng: np.random.Generator,
    untrained: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Score]:
    """Pointing game and energy of maps (n, rows, columns) on masks (n, height, width), against four controls.

    Controls, from the weakest: "chance" (the share of the image that the lesion covers), "noise" (random maps on the
    same grid), "other image" (the map of every other image on this lesion, which shows what knowing where lesions tend
    to lie is worth) and, where given, "untrained" (the same network's maps before training). The gain over a control is
    paired by image. The intervals are over test images, or over `groups` of them; network and seed are held fixed.

    Raises ValueError when a mask is empty or there are fewer than two images.
    """
    masks = np.asarray(masks, dtype=bool)
    if len(maps) < 2 or len(maps) != len(masks):
        raise ValueError(f"maps must be at least two, one a mask, got {len(maps)} maps and {len(masks)} masks")
    if not masks.any((1, 2)).all():
        raise ValueError(f"masks must mark a lesion each, got {int((~masks.any((1, 2))).sum())} empty ones")
    noise = {name: np.zeros(len(masks)) for name in MEASURES}
    for _ in range(NOISE_MAPS):
        drawn = rng.random(maps.shape)
        for name, measure in MEASURES.items():
            noise[name] += measure(drawn, cell, masks) / NOISE_MAPS
    swapped = {
        "pointing game": _swapped(_peaks(maps), _at_middles(masks, cell, maps.shape[1:])),
        "energy in lesion": _swapped(_shares(spread(maps, cell, masks.shape[1:])), masks),
    }
    empty = int((~maps.any((1, 2))).sum())
    scores = []
    for name, measure in MEASURES.items():
        controls = {"chance": masks.mean((1, 2)), "noise": noise[name], "other image": swapped[name]}
        if untrained is not None:
            controls["untrained"] = measure(untrained, cell, masks)
        scores.append(_score(name, measure(maps, cell, masks), controls, 1.0, groups, rng, draws, level, empty))
    return scores


def faithfulness(
    fractions: np.ndarray,
    curves: Mapping[str, np.ndarray],
    kind: str,
    *,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Score:
    """The area under deletion or insertion curves, against areas on the same images with pixels in other orders.

    fractions (steps,): the share of pixels removed or put back, from 0 to 1. curves: (n, steps) probabilities of one
    class each by order of pixels, "map" and the controls ("random", "untrained"). kind: "deletion" (a good map makes
    the probability fall early: a small area) or "insertion" (rise early: a large one); a gain is positive where the map
    does better. After Petsiuk et al., "RISE" (2018). The intervals are over test images, or over `groups` of them.
    """
    if kind not in ("deletion", "insertion"):
        raise ValueError(f"kind must be deletion or insertion, got {kind!r}")
    areas = {order: area_under(fractions, values) for order, values in curves.items()}
    values = areas.pop("map")
    sign = -1.0 if kind == "deletion" else 1.0
    return _score(f"{kind} area", values, areas, sign, groups, rng, draws, level)


def area_under(fractions: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """The area under each curve (n, steps) over fractions that run from 0 to 1, (n,), by trapezia."""
    fractions = np.asarray(fractions, dtype=np.float64)
    if fractions.ndim != 1 or len(fractions) < 2 or fractions[0] != 0 or fractions[-1] != 1:
        raise ValueError(f"fractions must run from 0 to 1, got {fractions.tolist()}")
    if (np.diff(fractions) <= 0).any():
        raise ValueError(f"fractions must rise, got {fractions.tolist()}")
    return np.trapezoid(np.asarray(curves, dtype=np.float64), fractions, axis=1)


def places(rows: int, columns: int) -> list[tuple[int, int]]:
    """Row and column of PLACES on a grid."""
    bottom, right = rows - 1, columns - 1
    return [(rows // 2, columns // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)]


def extent(field: np.ndarray, share: float = 0.95) -> float:
    """The smallest share of an image's pixels that holds a given share of a receptive field's energy (height, width).

    0 where the field is zero everywhere. For a fixed network's mean field over images; no uncertainty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    energies = np.sort(np.asarray(field, dtype=np.float64).ravel())[::-1]
    total = energies.sum()
    if total == 0:
        return 0.0
    return float((np.searchsorted(np.cumsum(energies) / total, share) + 1) / len(energies))


def context(field: np.ndarray, position: tuple[int, int], cell: int) -> float:
    """The share of a receptive field's energy that comes from beyond the eight cells around the output's own.

    position: row and column of the output on its grid of cells, each `cell` pixels a side. NaN for a field of zeros.
    """
    height, width = field.shape
    rows = np.abs(np.arange(height) // cell - position[0]) <= 1
    columns = np.abs(np.arange(width) // cell - position[1]) <= 1
    total = float(field.sum())
    return 1.0 - float(field[np.ix_(rows, columns)].sum()) / total if total else float("nan")


def mean_interval(
    values: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator, draws: int = DRAWS, level: float = LEVEL
) -> Interval:
    """A bootstrap interval for the mean of values (n,), one per image, over test images or whole groups.

    Undefined with fewer of them than reach the level, five for .95 (see `analysis.interval.expanded_percentiles`).
    """
    over = "test images" if groups is None else "groups of test images"
    keys = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    n = int(keys.max()) + 1 if len(keys) else 0
    if n < 2:
        return Interval(float("nan"), float("nan"), level, over, n)
    sums, counts = np.bincount(keys, weights=values, minlength=n), np.bincount(keys, minlength=n)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    means = (drawn @ sums) / (drawn @ counts)
    return expanded_percentiles(means, level, over, n)


def _score(
    measure: str,
    values: np.ndarray,
    controls: Mapping[str, np.ndarray],
    sign: float,
    groups: np.ndarray | None,
    rng: np.random.Generator,
    draws: int,
    level: float,
    empty: int = 0,
) -> Score:
    def interval(numbers: np.ndarray) -> Interval:
        return mean_interval(numbers, groups, rng, draws, level)

    compared = []
    for name, others in controls.items():
        gains = sign * (values - others)
        compared.append(Control(name, float(others.mean()), float(gains.mean()), interval(gains)))
    return Score(measure, float(values.mean()), interval(values), tuple(compared), len(values), empty)


def _weights(cells: int, cell: int, pixels: int) -> np.ndarray:
    """The weight of each cell in each pixel, (pixels, cells)."""
    place = np.clip((np.arange(pixels) + 0.5) / cell - 0.5, 0, cells - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, 1)


def _sum(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.sum((1, 2)), dtype=np.float64)


def _at_middles(masks: np.ndarray, cell: int, grid: tuple[int, ...]) -> np.ndarray:
    """The mask at the middle of each cell, (n, rows, columns); the mean where two or four pixels are innermost.

    A cell whose middle lies beyond the image, where maps are padded, is read at the image's last pixel.
    """
    total: np.ndarray | float = 0.0
    inner = [(cell - 1) // 2, cell // 2]
    rows, columns = (
        [np.minimum(np.arange(count) * cell + shift, pixels - 1) for shift in inner]
        for count, pixels in zip(grid, masks.shape[1:])
    )
    for down in rows:
        for across in columns:
            total = total + masks[:, down[:, None], across] / 4
    return np.asarray(total)


def _shares(maps: np.ndarray) -> np.ndarray:
    """Maps scaled to sum to one; a map of zeros becomes the same everywhere."""
    sums = maps.sum((1, 2), keepdims=True)
    return np.where(sums > 0, maps / np.where(sums > 0, sums, 1), 1 / (maps.shape[1] * maps.shape[2]))


def _peaks(maps: np.ndarray) -> np.ndarray:
    """Maps of where the maximum is: a sum of one, shared by all pixels that reach it."""
    return _shares((maps >= maps.max((1, 2), keepdims=True) * (1 - TIE)).astype(np.float64))


def _swapped(weights: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The mean score of all other images' maps on each lesion, (n,)."""
    count = len(masks)
    by_pair = masks.reshape(count, -1).astype(np.float64) @ weights.reshape(count, -1).T
    return (by_pair.sum(1) - np.diagonal(by_pair)) / (count - 1)
