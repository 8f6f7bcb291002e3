"""What look-alikes mean for a data set: images seen in training, pictures with two labels, clusters; as plain JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from study.audit.alike import TURNS, Pairs
from study.audit.pair import both_ends, described
from study.audit.pool import Pool
from study.data.protocol import SPLITS

# Pairs of each kind that are listed by name.
LISTED = 24
# The splits in which an image of this split should not have been seen.
EARLIER = {"test": ("train", "val"), "val": ("train",)}


def overlap(pool: Pool, pairs: Pairs, listed: int = LISTED) -> dict[str, Any]:
    """What the pairs of a pool say, as JSON values.

    seen: for test and val, how many images have a look-alike in an earlier split (`images`, of which `equal` pixel by
    pixel), and how many others a mirrored or turned one (`turned`). conflicts: pairs whose images bear different
    labels, turned ones apart, since a label may name a side. within: images of a split with a look-alike in it,
    straight or turned, that is in no group with it. clusters: sets of images that chains of look-alikes join.
    pairs: how many of each kind; examples: at most `listed` of each, half of them the first (across splits, of test,
    equal, by correlation), the others the least alike.
    """
    across = pool.splits[pairs.first] != pool.splits[pairs.second]
    conflict = pool.labels[pairs.first] != pool.labels[pairs.second]
    straight = pairs.straight
    seen: dict[str, dict[str, int]] = {}
    kinds: dict[str, np.ndarray] = {}
    for split, earlier in EARLIER.items():
        here, before = pool.of(split), np.isin(pool.splits, [SPLITS.index(name) for name in earlier])
        chosen = (here[pairs.first] & before[pairs.second]) | (before[pairs.first] & here[pairs.second])
        images = _images(pairs, chosen & straight, here)
        turned = np.setdiff1d(_images(pairs, chosen & ~straight, here), images)
        seen[split] = {
            "of": int(here.sum()),
            "images": len(images),
            "equal": len(_images(pairs, chosen & pairs.equal, here)),
            "turned": len(turned),
        }
        kinds |= {split: chosen & straight, f"{split} turned": chosen & ~straight}
    inside = ~across if pool.groups is None else ~across & (pool.groups[pairs.first] != pool.groups[pairs.second])
    kinds |= {"conflicts": conflict & straight, "conflicts turned": conflict & ~straight, "within": inside & ~conflict}
    sizes = np.bincount(clusters(len(pool), pairs))
    sizes = sizes[sizes > 1]
    return {
        "images": len(pool),
        "compared": pairs.compared,
        "complete": pairs.complete,
        "not_sought": list(dict.fromkeys(name for name, _ in TURNS[pairs.tried :])),
        "pairs": {kind: int(chosen.sum()) for kind, chosen in kinds.items()},
        "seen": seen,
        "within": {split: len(_images(pairs, inside, pool.of(split))) for split in SPLITS},
        "conflicts": {
            "pairs": int((conflict & straight).sum()),
            "equal": int((conflict & pairs.equal).sum()),
            "turned": int((conflict & ~straight).sum()),
        },
        "clusters": {"count": len(sizes), "images": int(sizes.sum()), "largest": int(max(sizes, default=0))},
        "examples": {kind: _examples(pool, pairs, chosen, listed) for kind, chosen in kinds.items()},
    }


def clusters(n: int, pairs: Pairs) -> np.ndarray:
    """The number of each image's cluster (n,): images that a chain of look-alikes joins have the same."""
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs.first, pairs.second)), shape=(n, n))
    return connected_components(links, directed=False)[1]


def _images(pairs: Pairs, chosen: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The rows of the images in the chosen pairs, of those that `among` flags (n,)."""
    held = np.union1d(pairs.first[chosen], pairs.second[chosen])
    return held[among[held]]


def _examples(pool: Pool, pairs: Pairs, chosen: np.ndarray, listed: int) -> list[dict[str, Any]]:
    places = np.flatnonzero(chosen)
    one, later = pool.splits[pairs.first[places]], pool.splits[pairs.second[places]]
    order = np.lexsort((places, -pairs.correlation[places], ~pairs.equal[places], -later, one == later))
    return [_pair(pool, pairs, int(place)) for place in both_ends(places[order], pairs.correlation, listed)]


def _pair(pool: Pool, pairs: Pairs, place: int) -> dict[str, Any]:
    # The later split comes first: its image is the one that was seen before.
    rows = int(pairs.second[place]), int(pairs.first[place])
    turn = TURNS[pairs.turns[place]][0]
    return described((pool, pool), rows, turn, pairs.correlation[place], pairs.bits[place], pairs.equal[place])
