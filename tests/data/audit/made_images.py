"""Small data sets made for tests: smooth random pictures, whose copies can be planted."""

import numpy as np
from scipy.ndimage import gaussian_filter

from study.data.protocol import Dataset, assemble, checked_split

HEIGHT, WIDTH = 30, 36


def pictures(n, seed=0, height=HEIGHT, width=WIDTH):
    """Smooth random pictures (n, height, width) uint8, no two alike, from 20 to 200."""
    noise = np.random.default_rng(seed).normal(size=(n, height, width))
    smooth = gaussian_filter(noise, (0, 2.5, 2.5))
    low, high = (end((1, 2)) for end in (smooth.min, smooth.max))
    return (20 + 180 * (smooth - low[:, None, None]) / (high - low)[:, None, None]).astype(np.uint8)


def made(images, labels, groups=None, classes=("calm", "ill")) -> Dataset:
    """A data set of images, labels and groups, each by split."""
    splits = {
        name: checked_split(
            "made", name, images[name], np.asarray(labels[name]), None if groups is None else np.asarray(groups[name])
        )
        for name in images
    }
    return assemble("made", "made", classes, splits, "made")


def clean(counts=(40, 12, 16), seed=0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images and labels by split without a look-alike; labels take turns."""
    parts = np.split(pictures(sum(counts), seed), np.cumsum(counts)[:-1])
    images = dict(zip(("train", "val", "test"), parts, strict=True))
    return images, {name: np.arange(len(part)) % 2 for name, part in images.items()}
