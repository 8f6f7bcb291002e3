"""Look-alikes among the images of a data set: pairs that show one picture, found by correlation and a hash.

Two images are alike where the correlation of their grey copies of 32 × 32 pixels is at least .995, or at least .985
with at most 6 of 63 bits of a hash apart. Correlation does not see brightness and contrast; resizing and JPEG
compression change it little. The hash is the perceptual one: whether each of the 63 lowest waves of the cosine
transform but the mean lies above their median. An image is also compared with mirrored and turned ones, as augmented
copies are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn

from study.audit.pool import Pool

SURE = 0.995
LIKELY = 0.985
MOST_BITS = 6
# Waves a side that the hash keeps, of which the first is the mean.
WAVES = 8
# Where more pairs than this look alike, the images have no picture of their own that could be told from another.
MOST_PAIRS = 1_000_000
# Rows at a time: a block of products beside 100,000 images takes 200 MB.
BLOCK = 512
# Products in float32 find candidates with this to spare; their correlation is then computed exactly.
SPARE = 1e-4
PAIRS_AT_ONCE = 4096

# Ways to turn images (n, side, side), by what the turned one is called; the first is none.
TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("as it is", lambda images: images),
    ("mirrored", lambda images: images[:, :, ::-1]),
    ("upside down", lambda images: images[:, ::-1]),
    ("turned by 180°", lambda images: images[:, ::-1, ::-1]),
    ("turned by 90°", lambda images: np.rot90(images, 1, (1, 2))),
    ("turned by 90°", lambda images: np.rot90(images, 3, (1, 2))),
    ("mirrored and turned by 90°", lambda images: images.transpose(0, 2, 1)),
    ("mirrored and turned by 90°", lambda images: np.rot90(images, 2, (1, 2)).transpose(0, 2, 1)),
)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of look-alikes by their rows in a pool, first < second, in that order, each once.

    turns (pairs,): place in TURNS, the first that makes them alike. correlation (pairs,): of the small copies, 1 for
    equal pixels. bits (pairs,): of the hash that differ. equal (pairs,): whether the pixels are equal. compared: how
    many images were compared with all. tried: how many of TURNS. complete: False where the search ended early, at
    MOST_PAIRS.
    """

    first: np.ndarray
    second: np.ndarray
    turns: np.ndarray
    correlation: np.ndarray
    bits: np.ndarray
    equal: np.ndarray
    compared: int
    tried: int
    complete: bool

    def __len__(self) -> int:
        return len(self.first)

    @property
    def straight(self) -> np.ndarray:
        """Whether each pair is alike as it is, without turning (pairs,)."""
        return self.turns == 0


def find_pairs(pool: Pool, rows: np.ndarray | None = None, turns: int = len(TURNS), most: int = MOST_PAIRS) -> Pairs:
    """The pairs of look-alikes of a pool; constant images are left out, since they show nothing.

    rows: where not None, only these images, in ascending order, are compared with all; of other equal images each is
    then paired with the first of them. turns: how many of TURNS are
    tried. Time: 1,024 multiply-adds for each pair of images and turn. Memory: 4 kB an image, and 2 kB an image for a
    block of products.
    """
    vectors = unit_vectors(pool.copies)
    vectors[pool.constant] = 0
    found: list[tuple[np.ndarray, ...]] = []
    complete, count = True, 0
    for number, (_, turn) in enumerate(TURNS[:turns]):
        turned = turn(pool.copies)
        i, j, whole = _candidates(turned, vectors, pool.constant, rows, most - count)
        complete, count = complete and whole, count + len(i)
        equal = (pool.contents[i] == pool.contents[j]) & (number == 0)
        correlation = np.where(equal, 1.0, correlations(turned[i], pool.copies[j]))
        bits = distances(turned, i, pool.copies, j)
        kept = equal | (correlation >= SURE) | ((correlation >= LIKELY) & (bits <= MOST_BITS))
        parts = (np.minimum(i, j), np.maximum(i, j), np.full(len(i), number), correlation, bits, equal)
        found.append(tuple(part[kept] for part in parts))
    if rows is not None:
        found.append(_equal(pool))
    columns = [np.concatenate(parts) for parts in zip(*found)]
    # A pair that is alike as it is may also be alike when mirrored: the first way counts.
    order = np.lexsort((columns[2], columns[1], columns[0]))
    first, second = columns[0][order], columns[1][order]
    order = order[np.r_[True, (np.diff(first) != 0) | (np.diff(second) != 0)][: len(order)]]
    first, second, ways, correlation, bits, equal = (column[order] for column in columns)
    compared = len(pool) if rows is None else len(rows)
    return Pairs(first, second, ways, correlation, bits, equal, compared, turns, complete)


def _equal(pool: Pool) -> tuple[np.ndarray, ...]:
    """Pairs of equal images, each with the first of its kind, as the columns of `Pairs`."""
    _, firsts, kinds = np.unique(pool.contents, return_index=True, return_inverse=True)
    second = np.flatnonzero((firsts[kinds] != np.arange(len(pool))) & ~pool.constant)
    zeros = np.zeros(len(second), dtype=int)
    return firsts[kinds][second], second, zeros, zeros + 1.0, zeros, zeros == 0


def _candidates(
    turned: np.ndarray, vectors: np.ndarray, constant: np.ndarray, rows: np.ndarray | None, most: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Images (pairs,) which turned are near another's vector, these others, and whether those are all, not `most`."""
    asked = np.zeros(len(vectors), dtype=bool)
    asked[slice(None) if rows is None else rows] = True
    chosen = np.flatnonzero(asked & ~constant)
    left, right = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for start in range(0, len(chosen), BLOCK):
        block = chosen[start : start + BLOCK]
        # What lies before the block has met it already, where all are compared.
        begin = int(block[0]) if rows is None else 0
        near = unit_vectors(turned[block]) @ vectors[begin:].T >= LIKELY - SPARE
        i, j = np.nonzero(near)
        i, j = block[i], j + begin
        once = (j > i) | ((j < i) & ~asked[j])
        if once.sum() > most:
            return np.concatenate(left), np.concatenate(right), False
        most -= int(once.sum())
        left.append(i[once])
        right.append(j[once])
    return np.concatenate(left), np.concatenate(right), True


def unit_vectors(copies: np.ndarray) -> np.ndarray:
    """Images (n, side, side) as vectors (n, side²) float32 of mean 0 and length 1, or 0 where they are flat."""
    vectors = copies.reshape(len(copies), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    return vectors


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson correlations of pairs of images (pairs, side, side) uint8, from exact sums; 0 for a flat image."""
    found = np.zeros(len(one))
    for start in range(0, len(one), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        a, b = (side[part].reshape(len(side[part]), -1).astype(np.float64) for side in (one, other))
        n, sum_a, sum_b = a.shape[1], a.sum(axis=1), b.sum(axis=1)
        squares_a, squares_b, products = (np.einsum("np,np->n", x, y) for x, y in ((a, a), (b, b), (a, b)))
        below = np.sqrt((n * squares_a - sum_a**2) * (n * squares_b - sum_b**2))
        above = n * products - sum_a * sum_b
        found[part] = np.divide(above, below, out=np.zeros(len(a)), where=below > 0)
    return found


def distances(one: np.ndarray, i: np.ndarray, other: np.ndarray, j: np.ndarray) -> np.ndarray:
    """How many of the 63 bits of their hashes differ between images i of one set and j of another (pairs,)."""
    if not len(i):
        return np.empty(0, dtype=int)
    (named_i, places_i), (named_j, places_j) = (np.unique(rows, return_inverse=True) for rows in (i, j))
    return (hashes(one[named_i])[places_i] != hashes(other[named_j])[places_j]).sum(axis=1)


def hashes(copies: np.ndarray) -> np.ndarray:
    """The perceptual hash of images (n, side, side): 63 bits each (n, 63)."""
    waves = dctn(copies.astype(np.float64), axes=(1, 2), norm="ortho")[:, :WAVES, :WAVES].reshape(len(copies), -1)
    # Without the mean, which is brightness.
    waves = waves[:, 1:]
    return waves > np.median(waves, axis=1, keepdims=True)
