"""Controlled phantoms: one question each, whose answer no mean intensity gives away, and a dial for its difficulty."""

import numpy as np

from study.data.phantoms.brush import Array, Canvas, Dials, Picture, choose

PLACES = ("anywhere", "centre", "edge", "top_left", "top_right", "bottom_left", "bottom_right")


def texture(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Local texture: is a patch striped across, striped upright, checked or spotted? Around it is grain of that scale.

    Phase, pitch and tilt are random; no flip turns one class into another.
    """
    c = canvas
    y, x, size = c.uniform(-0.35, 0.35), c.uniform(-0.35, 0.35), c.uniform(0.45, 0.6)
    patch = c.rings(y, x, size, size) / (1 + c.wobble(y, x, np.array(0.08), (2, 3, 4)))
    cover = c.inside(patch, 0.3)
    tilt, pitch = c.uniform(-0.25, 0.25), 0.3 * c.uniform(0.85, 1.2)
    down, right = c.y * np.cos(tilt) + c.x * np.sin(tilt), c.x * np.cos(tilt) - c.y * np.sin(tilt)
    across = np.cos(2 * np.pi * down / pitch + c.smooth(4) + c.uniform(0, 2 * np.pi))
    upright = np.cos(2 * np.pi * right / pitch + c.smooth(4) + c.uniform(0, 2 * np.pi))
    # Each of unit height in root mean square, like the stripes.
    checks, spots = np.sqrt(2) * across * upright, np.sqrt(2) * np.maximum(across, 0) * np.maximum(upright, 0) * 2 - 0.6
    kind = labels.reshape(-1, 1, 1)
    pattern = np.select([kind == 0, kind == 1, kind == 2], [across, upright, checks], spots)
    signal = cover * pattern * c.uniform(0.35, 0.95) + (1 - cover) * 0.4 * c.grain(0.06 / c.pixel)
    image = 120 + 12 * c.smooth(3) + 26 * signal + 24 * dials["noise"] * c.grain(0.4)
    return image, patch < 1


def sparse(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Sparse structure: a few points as sharp as a calcification, or as many blurs of the same total brightness?"""
    c = canvas
    count = dials["count"]
    y, x = 0.85 * (2 * c.rng.random((2, c.count, count, 1, 1)) - 1)
    sharp, blurred = 0.05, 0.12
    weight = 0.48 + 0.35 * c.rng.random((c.count, count, 1, 1))
    points = c.dots(y, x, sharp, weight)
    blurs = c.dots(y, x, blurred, weight * (sharp / blurred) ** 2)
    tissue = 85 + 22 * c.smooth(4) + 7 * c.grain(0.1 / c.pixel)
    finding = np.where(labels.reshape(-1, 1, 1) > 0, points, blurs)
    image = tissue + 105 * finding + 13 * dials["noise"] * c.grain(0.3)
    return image, (points > 0.3) & (labels > 0).reshape(-1, 1, 1)


def relation(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Relation of two distant findings: are two solid spots level, or is one of them higher? Hollow spots mislead.

    The dial `distance` is the horizontal distance of the two, as a share of the image's width. In both classes each
    spot alone is as often high as low, so that no single place tells the classes apart, only the two together.
    """
    c = canvas
    apart = dials["distance"] * c.uniform(0.9, 1.1)
    y, x = c.uniform(-0.35, 0.35), c.uniform(-1, 1) * np.clip(0.85 - apart, 0, None)
    rise = 0.3 * c.sign()
    image = 100 + 16 * c.smooth(4) + 7 * c.grain(0.09 / c.pixel)
    mask = np.zeros((c.count, c.height, c.width), dtype=bool)
    for side, height in ((-1, rise), (1, np.where(labels.reshape(-1, 1, 1) > 0, -rise, rise))):
        size = c.uniform(0.12, 0.17)
        spot_y = y + height + c.uniform(-0.08, 0.08)
        radius = c.rings(spot_y, x + side * apart, size, size * c.uniform(0.9, 1.1))
        image = image + c.uniform(55, 95) * c.inside(radius, 0.5)
        mask |= radius < 1.1
    for _ in range(2):
        size = c.uniform(0.15, 0.2)
        ring = c.rings(c.uniform(-0.8, 0.8), c.uniform(-0.8, 0.8), size, size)
        image = image + c.uniform(40, 80) * (c.inside(ring, 0.5) - c.inside(ring / 0.55, 0.6))
    return image + 14 * dials["noise"] * c.grain(0.3), mask


def position(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Lesion at a given position: is a target, light or dark at random, where the dial `where` says?"""
    c = canvas
    where = dials["where"]
    if where == "edge":
        along, out = c.uniform(-0.45, 0.45), c.sign() * c.uniform(0.72, 0.82)
        upright = c.chance(0.5)
        y, x = np.where(upright > 0, out, along), np.where(upright > 0, along, out)
    elif where in ("anywhere", "centre"):
        reach = 0.75 if where == "anywhere" else 0.08
        y, x = c.uniform(-reach, reach), c.uniform(-reach, reach)
    else:
        down, right = where.startswith("bottom"), where.endswith("right")
        y, x = (1 if down else -1) * c.uniform(0.66, 0.8), (1 if right else -1) * c.uniform(0.66, 0.8)
    size = c.uniform(0.17, 0.23)
    radius = c.rings(y, x, size, size * c.uniform(0.85, 1.15))
    # The sum over the lesion is about zero and its sign random: brightness at the place says nothing.
    target = c.sign() * (1 - 1.2 * radius**2) * np.exp(-(radius**2))
    image = 110 + 18 * c.smooth(4) + 9 * c.grain(0.09 / c.pixel)
    image = image + choose(labels, (0, 1)) * c.uniform(50, 95) * target + 14 * dials["noise"] * c.grain(0.3)
    return image, (radius < 1.2) & (labels > 0).reshape(-1, 1, 1)
