"""Phantoms of other tasks than one class an image: several findings in one image, and grades of one finding."""

import numpy as np

from study.data.phantoms.brush import Array, Canvas, Dials, Picture, choose


def findings(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Tissue in which a nodule, a strand and a cluster of grains lie or do not lie, each whatever the others do.

    labels (images, findings): 0 or 1. Each finding is bright or dark by chance, so that no pixel tells by its level.
    """
    c = canvas
    image = 118 + 16 * c.smooth(4) + dials["noise"] * 9 * c.grain(0.5)
    shapes = (_nodule(c), _strand(c), _cluster(c))
    mask = np.zeros(image.shape, dtype=bool)
    for place, cover in enumerate(shapes):
        # All are drawn, so that the next one's place does not depend on how many there are.
        strength = c.sign() * c.uniform(52, 78)
        if place < labels.shape[1]:
            there = labels[:, place].reshape(-1, 1, 1)
            image = image + there * strength * cover
            mask |= (there > 0) & (cover > 0.3)
    return image, mask


def grades(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Tissue with more spots the higher the grade: none, few, several, many; each bright or dark by chance."""
    c = canvas
    most = 14
    image = 118 + 16 * c.smooth(4) + dials["noise"] * 7 * c.grain(0.5)
    low, high = choose(labels, (0, 2, 5, 10)), choose(labels, (0, 3, 7, 14))
    count = np.rint(low + (high - low) * c.uniform(0, 1))
    y, x = c.uniform(-0.85, 0.85, most), c.uniform(-0.85, 0.85, most)
    shown = np.arange(most).reshape(1, -1, 1, 1) < count[:, np.newaxis]
    sign = np.where(c.uniform(0, 1, most) < 0.5, -1.0, 1.0)
    sigma = max(0.075, 1.1 * c.pixel)
    image = image + c.dots(y, x, sigma, sign * shown * 70)
    return image, c.dots(y, x, sigma, shown.astype(float)) > 0.3


def _nodule(c: Canvas) -> Array:
    size = c.uniform(0.17, 0.27)
    radius = c.rings(c.uniform(-0.6, 0.6), c.uniform(-0.6, 0.6), size, size * c.uniform(0.85, 1.15))
    return c.inside(radius, 0.4)


def _strand(c: Canvas) -> Array:
    long = c.uniform(0.6, 0.95)
    turn = c.uniform(0, np.pi)
    radius = c.rings(c.uniform(-0.4, 0.4), c.uniform(-0.4, 0.4), long, 0.0 * long + max(0.05, 0.9 * c.pixel), turn)
    return c.inside(radius, 0.8)


def _cluster(c: Canvas) -> Array:
    y, x = c.uniform(-0.6, 0.6), c.uniform(-0.6, 0.6)
    away = c.uniform(-0.28, 0.28, 12), c.uniform(-0.28, 0.28, 12)
    cover = c.dots(y[:, np.newaxis] + away[0], x[:, np.newaxis] + away[1], max(0.035, 0.5 * c.pixel))
    return np.clip(cover, 0, 1)
