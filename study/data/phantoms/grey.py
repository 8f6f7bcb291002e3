"""Grey phantoms: ultrasound, X-ray projection, CT and MRI slices. A finding's place, size and contrast vary freely."""

import numpy as np

from study.data.phantoms.brush import Array, Canvas, Dials, Picture, blend, choose


def ultrasound(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Breast ultrasound: layers, fully developed speckle, log compression; a mass is smooth and wide or spiky and tall.

    Classes: normal, benign mass (bright behind it), malignant mass (a shadow behind it). Normal tissue has a fat lobule
    of similar darkness.
    """
    c = canvas
    skin = np.exp(-(((c.y + 0.97 + 0.05 * c.wander()) / 0.06) ** 2))
    fat_end = c.uniform(-0.75, -0.35) + 0.1 * c.wander()
    gland_end = c.uniform(0.35, 0.75) + 0.1 * c.wander()
    gland = np.clip((c.y - fat_end) / 0.15, 0, 1) * np.clip((gland_end - c.y) / 0.15, 0, 1)
    fascia = np.exp(-(((c.y - gland_end - 0.12 - 0.05 * c.wander()) / 0.05) ** 2))
    # Echogenicity in decibels below the brightest echo.
    decibels = -27 + 10 * gland + 3 * c.smooth(5) + 12 * skin + 9 * fascia

    y, x = c.uniform(-0.3, 0.35), c.uniform(-0.55, 0.55)
    size = c.uniform(0.2, 0.36)
    # A fat lobule is as flat as a benign mass but has no sharp edge.
    flat = choose(labels, (0.65, 0.7, 1.05)) * c.uniform(0.85, 1.15)
    ry, rx = size * np.sqrt(flat), size / np.sqrt(flat)
    edge = c.wobble(y, x, choose(labels, (0.06, 0.04, 0.15)), (3, 5, 7, 9))
    radius = c.rings(y, x, ry, rx, c.uniform(-0.3, 0.3)) / (1 + edge)
    mass = c.inside(radius, choose(labels, (0.9, 0.2, 0.35)))
    decibels -= mass * choose(labels, (8, 13, 12)) * c.uniform(0.75, 1.3)
    behind = np.clip((c.y - y) / ry - 0.5, 0, 1) * np.clip(1.4 - np.abs(c.x - x) / rx, 0, 1)
    decibels += behind * np.exp((y - c.y) / 0.9) * choose(labels, (0, 8, -10)) * c.uniform(0.4, 1.2)
    decibels -= 4 * (c.y + 1) * c.uniform(0.3, 1.2)

    cell = max(0.6, 0.03 / c.pixel)
    speckle = np.hypot(c.grain(cell), c.grain(cell)) + 0.05
    image = 255 * (1 + (decibels + dials["noise"] * 17 * np.log10(speckle)) / 42)
    return image, (radius < 1) & (labels > 0).reshape(-1, 1, 1)


def xray(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Chest X-ray: path lengths through trunk, lungs, heart, spine and ribs, attenuated and counted as photons.

    Classes: normal, consolidation (a cloud in one lung), interstitial pattern (a net over a good part of the lungs).
    """
    c = canvas
    y0, x0 = c.uniform(-0.08, 0.08), c.uniform(-0.08, 0.08)
    wide, tall = c.uniform(0.31, 0.4), c.uniform(0.66, 0.82)
    y, x = c.y - y0, c.x - x0
    across = np.abs(x)
    trunk = np.sqrt(np.clip(1 - (x / 1.3) ** 2, 0, 1)) * np.clip((y + 1.25) / 0.5, 0.35, 1)
    bulge = 1 + 0.04 * c.wander()
    sides = [c.rings(y0 - 0.05, x0 + side, tall, wide * bulge, -0.12 * np.sign(side)) for side in (-0.44, 0.44)]
    lungs = sum(np.sqrt(np.clip(1 - radius**2, 0, 1)) for radius in sides)
    dome = np.clip((y - c.uniform(0.4, 0.6) + 0.4 * (across - 0.42) ** 2) / 0.08, 0, 1)
    lungs = lungs * (1 - dome)
    heart_y, heart_x = y0 + c.uniform(0.25, 0.4), x0 + c.uniform(0.08, 0.2)
    heart = np.sqrt(np.clip(1 - c.rings(heart_y, heart_x, 0.36, c.uniform(0.3, 0.44), 0.5) ** 2, 0, 1))
    spine = np.exp(-((x / 0.13) ** 2))
    phase = (y - 0.3 * across + 0.55 * across**2) * c.uniform(2.4, 3.0) + c.uniform(0, 1)
    ribs = np.clip(np.cos(2 * np.pi * phase), 0, 1) ** 2 * np.clip((0.95 - across) / 0.2, 0, 1) * (across > 0.1)
    collar = np.exp(-(((y + 0.78 + 0.25 * (across - 0.4)) / 0.05) ** 2)) * np.clip((0.8 - across) / 0.1, 0, 1)

    side = c.sign()
    spot_y, spot_x = y0 + c.uniform(-0.5, 0.25), x0 + side * c.uniform(0.3, 0.58)
    cloud = np.exp(-(c.rings(spot_y, spot_x, c.uniform(0.16, 0.34), c.uniform(0.13, 0.24)) ** 2))
    cloud = cloud * np.clip(1 + 0.35 * c.grain(1.5), 0, None)
    reach = np.clip(0.55 + 0.8 * c.smooth(2), 0, 1)
    net = reach * np.clip(c.grain(0.045 / c.pixel), -1, 2)
    finding = choose(labels, (0, 1, 0)) * 0.62 * cloud + choose(labels, (0, 0, 1)) * 0.2 * net
    aerated = lungs > 0.2
    attenuation = 1.1 * trunk - 0.8 * lungs + 0.4 * heart + 0.5 * spine + 0.14 * ribs + 0.18 * collar + 0.25 * dome
    attenuation = attenuation + finding * c.uniform(0.8, 1.5) * np.clip(lungs * 1.6, 0, 1) + 0.04 * c.smooth(3)
    # Fewer photons behind more matter: the noise of the logarithm grows with attenuation.
    attenuation = attenuation + dials["noise"] * 0.06 * np.exp(0.5 * attenuation) * c.grain(0.3)
    image = 255 * (attenuation * c.uniform(0.85, 1.1) + c.uniform(-0.05, 0.1)) / 1.75
    shape = np.where(labels.reshape(-1, 1, 1) == 1, cloud > 0.4, reach > 0.4)
    return image, shape & aerated & (labels > 0).reshape(-1, 1, 1)


def ct(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Abdominal CT slice in a soft-tissue window: fat, muscle, spine, aorta, stomach, spleen and a liver with vessels.

    Classes: no lesion, cyst (dark, sharp), metastasis (a bright rim about a dim middle), all in the liver. Dark veins
    and bright arteries are in every liver.
    """
    c = canvas
    y0, x0 = c.uniform(-0.06, 0.06), c.uniform(-0.06, 0.06)
    ry, rx = c.uniform(0.7, 0.82), c.uniform(0.84, 0.95)
    contour = 1 + c.wobble(y0, x0, c.uniform(0.01, 0.03), (2, 3, 4))
    body = c.rings(y0, x0, ry, rx) / contour
    image = np.zeros((c.count, c.height, c.width))
    image = blend(image, 62, c.inside(body, 0.08))
    wall = c.uniform(0.8, 0.9)
    image = blend(image, 128, c.inside(body / wall, 0.1))
    image = blend(image, 84 + 8 * c.smooth(4), c.inside(body / (wall - 0.12), 0.12))
    liver_y, liver_x = y0 + c.uniform(-0.2, -0.05), x0 + c.uniform(-0.36, -0.28)
    liver = c.rings(liver_y, liver_x, c.uniform(0.38, 0.46), c.uniform(0.4, 0.48), c.uniform(-0.4, 0.4))
    liver = liver / (1 + c.wobble(liver_y, liver_x, c.uniform(0.02, 0.07), (2, 3, 4)))
    within = c.inside(liver, 0.12)
    image = blend(image, c.uniform(138, 158), within)
    veins_y = liver_y[:, np.newaxis] + c.uniform(-0.3, 0.3, 5)
    veins_x = liver_x[:, np.newaxis] + c.uniform(-0.3, 0.3, 5)
    image = image + within * (
        c.dots(veins_y[:, :3], veins_x[:, :3], 0.055, -26) + c.dots(veins_y[:, 3:], veins_x[:, 3:], 0.05, 30)
    )
    spleen = c.rings(y0 + 0.05, x0 + 0.55, c.uniform(0.22, 0.32), 0.17, c.uniform(-0.4, 0.1))
    image = blend(image, c.uniform(140, 160), c.inside(spleen, 0.25))
    stomach = c.rings(y0 - 0.32, x0 + c.uniform(0.25, 0.4), c.uniform(0.14, 0.22), c.uniform(0.18, 0.26))
    image = blend(image, 118, c.inside(stomach, 0.3))
    image = blend(image, 8, c.inside(stomach / 0.6, 0.4) * np.clip((y0 - 0.28 - c.y) / 0.06, 0, 1))
    image = blend(image, 238, c.inside(c.rings(y0 + 0.42, x0, 0.13, 0.16), 0.3))
    image = blend(image, 150, c.inside(c.rings(y0 + 0.42, x0, 0.06, 0.07), 0.5))
    image = blend(image, c.uniform(170, 205), c.inside(c.rings(y0 + 0.2, x0 + 0.04, 0.075, 0.075), 0.4))

    turn, away = c.uniform(0, 2 * np.pi), np.sqrt(c.uniform(0, 1)) * 0.24
    spot_y, spot_x, size = liver_y + away * np.sin(turn), liver_x + away * np.cos(turn), c.uniform(0.11, 0.2)
    spot = c.rings(spot_y, spot_x, size, size * c.uniform(0.8, 1.25), turn)
    strength = c.uniform(0.75, 1.35)
    cyst = -46 * c.inside(spot, 0.3)
    rim = np.exp(-(((spot - 0.95) / 0.28) ** 2))
    metastasis = 30 * rim - 30 * c.inside(spot / 0.6, 0.6)
    image = image + within * strength * (choose(labels, (0, 1, 0)) * cyst + choose(labels, (0, 0, 1)) * metastasis)
    # Reconstruction noise is correlated; streaks run across between dense parts.
    streak = c.grain(0.0).mean(axis=2, keepdims=True) * np.sqrt(c.width)
    image = image + dials["noise"] * (11 * c.grain(0.6) + 2.5 * streak * c.inside(body, 0.1))
    return image, (spot < 1.1) & (liver < 1) & (labels > 0).reshape(-1, 1, 1)


def mri(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Brain MRI slice, contrast-enhanced T1: scalp, skull, folded cortex, white matter, ventricles, coil shading.

    Classes: no tumour, glioma (irregular, bright rim, dark middle, oedema about it), meningioma (round, even, on the
    inside of the skull). Noise is Rician.
    """
    c = canvas
    y0, x0 = c.uniform(-0.05, 0.05), c.uniform(-0.05, 0.05)
    ry, rx, turn = c.uniform(0.82, 0.93), c.uniform(0.68, 0.8), c.uniform(-0.12, 0.12)
    head = c.rings(y0, x0, ry, rx, turn)
    image = np.zeros((c.count, c.height, c.width))
    image = blend(image, c.uniform(150, 215), c.inside(head, 0.08))
    image = blend(image, 28, c.inside(head / 0.92, 0.08))
    brain = head / 0.83
    folds = c.wobble(y0, x0, c.uniform(0.03, 0.05), (9, 11, 14, 17))
    image = blend(image, c.uniform(88, 104), c.inside(brain * (1 + 0.5 * folds), 0.1))
    image = blend(image, c.uniform(124, 142), c.inside(brain / 0.8 * (1 + 2 * folds), 0.14))
    image = image * (1 - 0.45 * np.exp(-(((c.x - x0 + turn * (c.y - y0)) / 0.03) ** 2)) * (brain < 1))
    for side in (-1.0, 1.0):
        horn = c.rings(y0 - 0.05, x0 + 0.11 * side, c.uniform(0.2, 0.3), c.uniform(0.05, 0.09), turn + 0.25 * side)
        image = blend(image, 42, c.inside(horn, 0.4))

    glioma = choose(labels, (0, 1, 0))
    angle = c.uniform(0, 2 * np.pi)
    away = np.where(glioma > 0, c.uniform(0.25, 0.5), 0.76)
    spot_y, spot_x = y0 + away * ry * np.sin(angle), x0 + away * rx * np.cos(angle)
    size = c.uniform(0.15, 0.27)
    edge = c.wobble(spot_y, spot_x, np.where(glioma > 0, 0.13, 0.03), (2, 3, 4, 5))
    spot = c.rings(spot_y, spot_x, size, size * c.uniform(0.85, 1.2)) / (1 + edge)
    strength = c.uniform(0.8, 1.4)
    rim = np.exp(-(((spot - 0.85) / 0.3) ** 2))
    swelling = np.exp(-((spot / 1.7) ** 2))
    image = image + glioma * strength * (58 * rim - 48 * c.inside(spot / 0.55, 0.6) - 26 * swelling) * (brain < 1)
    image = image + choose(labels, (0, 0, 1)) * strength * 52 * c.inside(spot, 0.25) * (brain < 1.02)
    image = image * (1 + 0.1 * c.smooth(2))
    noise = 9 * dials["noise"]
    image = np.hypot(image + noise * c.grain(0.3), noise * c.grain(0.3))
    return image, (spot < 1.1) & (brain < 1.02) & (labels > 0).reshape(-1, 1, 1)
