"""Grey phantoms: ultrasound, X-ray projection, CT and MRI slices. A finding's place, size and contrast vary freely."""

import numpy as np

from study.data.canvas import Array, Canvas, Dials, Picture, choose


def ultrasound(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Breast ultrasound: layers, fully developed speckle, log compression; a mass is smooth and wide or spiky and tall.

    Classes: normal, benign mass (bright behind it), malignant mass (a shadow behind it). Normal tissue holds a fat
    lobule of much the same darkness.
    """
    c = canvas
    depth = c.y + 0.05 * c.wander()
    skin = np.exp(-(((depth + 0.97) / 0.06) ** 2))
    fat_end = c.uniform(-0.75, -0.35) + 0.1 * c.wander()
    gland_end = c.uniform(0.35, 0.75) + 0.1 * c.wander()
    gland = np.clip((c.y - fat_end) / 0.15, 0, 1) * np.clip((gland_end - c.y) / 0.15, 0, 1)
    # Echogenicity in decibels below the brightest echo.
    decibels = -30 + 9 * gland + 3.0 * c.smooth(5) + 12 * skin
    decibels += 8 * np.exp(-(((c.y - gland_end - 0.12 - 0.05 * c.wander()) / 0.05) ** 2))

    y, x = c.uniform(-0.3, 0.35), c.uniform(-0.55, 0.55)
    size = c.uniform(0.2, 0.38)
    # A fat lobule is as flat as a benign mass but has no sharp edge.
    flat = choose(labels, (0.6, 0.7, 1.05)) * c.uniform(0.85, 1.15)
    ry, rx = size * np.sqrt(flat), size / np.sqrt(flat)
    edge = c.wobble(y, x, choose(labels, (0.06, 0.04, 0.16)), (3, 5, 7, 9))
    radius = c.rings(y, x, ry, rx, c.uniform(-0.3, 0.3)) / (1 + edge)
    mass = c.inside(radius, choose(labels, (0.9, 0.2, 0.35)))
    decibels -= mass * choose(labels, (8, 13, 12)) * c.uniform(0.7, 1.3)
    behind = np.clip((c.y - y) / ry - 0.5, 0, 1) * np.clip(1.4 - np.abs(c.x - x) / rx, 0, 1) * np.exp(-(c.y - y) / 0.9)
    decibels += behind * choose(labels, (0, 7, -9)) * c.uniform(0.2, 1.2)
    decibels -= 4 * (c.y + 1) * c.uniform(0.3, 1.2)

    speckle = np.hypot(c.grain(0.5), c.grain(0.5)) + 0.02
    image = 255 * (1 + (decibels + dials["noise"] * 20 * np.log10(speckle)) / 45)
    return image, (radius < 1) & (labels > 0).reshape(-1, 1, 1)
