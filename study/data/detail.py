"""Detail of images: how much of their variance lies within small patches, a number for how textured a set is."""

import numpy as np

PATCH = 4


def detail(images: np.ndarray, patch: int = PATCH) -> float:
    """The share of the variance of images (n, height, width, channels) that lies within patches of `patch` pixels.

    From 0, where each patch is flat, to 1, where all patches have one mean. By Haar's orthogonal transform it is the
    energy of the bands finer than a patch (patch 4: the two finest) in that of all bands but the mean. Channels are
    averaged, odd rows and columns left out, images weigh by their own variance. Raises ValueError for images smaller
    than a patch, and for images without any variance.
    """
    grey = images.mean(axis=-1, dtype=np.float64)
    n, height, width = grey.shape
    rows, columns = height // patch, width // patch
    if not rows or not columns:
        raise ValueError(f"images must be at least a patch of {patch} pixels a side, got {height}×{width}")
    whole = grey[:, : rows * patch, : columns * patch]
    blocks = whole.reshape(n, rows, patch, columns, patch)
    within = np.square(blocks - blocks.mean(axis=(2, 4), keepdims=True)).sum()
    total = np.square(whole - whole.mean(axis=(1, 2), keepdims=True)).sum()
    if total == 0:
        raise ValueError("images must vary, got flat ones alone")
    return float(within / total)
