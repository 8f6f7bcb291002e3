"""Colour phantoms: fundus, dermatoscopy and histology. Stain, skin and light vary more than any class does."""

import numpy as np

from study.data.phantoms.brush import Array, Canvas, Dials, Picture, choose, paint


def fundus(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Fundus photograph of a left or right eye: disc, macula, two arcades of vessels, uneven light.

    Classes: no finding, microaneurysms (small dark red dots), exudates (small yellow dots in groups).
    """
    c = canvas
    eye = c.sign()
    disc_y, disc_x = c.uniform(-0.12, 0.12), eye * c.uniform(0.42, 0.56)
    tone = np.stack([c.uniform(185, 225), c.uniform(85, 115), c.uniform(38, 62)], axis=-1)
    image = np.broadcast_to(tone, (c.count, c.height, c.width, 3))
    # u grows from the disc towards the macula.
    u, v = (c.x - disc_x) * -eye, c.y - disc_y
    macula = np.exp(-(((u - 0.58) / 0.2) ** 2) - (v / 0.2) ** 2)
    image = paint(image, (120, 45, 25), 0.55 * macula)
    vessels = np.zeros((c.count, c.height, c.width))
    reach = np.exp(-np.hypot(u, v) / 1.6)
    for bend, width in ((c.uniform(0.4, 0.65), 0.045), (c.uniform(0.65, 1.1), 0.03), (-c.uniform(0.5, 1.0), 0.035)):
        apart = np.abs(u + 0.03 * c.wander(4) - v**2 / bend) / np.sqrt(1 + (2 * v / bend) ** 2)
        vessels = np.maximum(vessels, np.exp(-0.5 * (apart / (width * reach + 0.008)) ** 2))
    for _ in range(4):
        angle = c.uniform(0, 2 * np.pi)
        along, apart = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        twig = np.exp(-0.5 * ((apart - 0.12 * along**2 * c.sign()) / (0.022 * reach + 0.006)) ** 2) * (along > 0)
        vessels = np.maximum(vessels, 0.7 * twig)
    image = paint(image, (110, 22, 15), 0.75 * vessels)
    disc = c.inside(c.rings(disc_y, disc_x, c.uniform(0.15, 0.19), c.uniform(0.13, 0.17)), 0.5)
    image = paint(image, (250, 215, 145), 0.9 * disc * (1 - 0.5 * vessels))

    strength = c.uniform(0.65, 1.0)
    many = 9
    shown = (np.arange(many).reshape(1, -1, 1, 1) < c.uniform(3, many + 1)[:, np.newaxis]).astype(float)
    dot_y, dot_x = c.uniform(-0.65, 0.65, many), c.uniform(-0.65, 0.65, many)
    red = np.clip(c.dots(dot_y, dot_x, 0.045, shown), 0, 1)
    # Exudates lie closer together than microaneurysms.
    heart_y, heart_x = c.uniform(-0.45, 0.45)[:, np.newaxis], c.uniform(-0.45, 0.45)[:, np.newaxis]
    yellow = np.clip(c.dots(heart_y + 0.45 * dot_y, heart_x + 0.45 * dot_x, 0.045, shown), 0, 1)
    red, yellow = choose(labels, (0, 1, 0)) * red, choose(labels, (0, 0, 1)) * yellow
    image = paint(image, (95, 10, 12), 0.8 * strength * red)
    image = paint(image, (245, 215, 110), 0.75 * strength * yellow)

    light = 1 - 0.35 * c.rings(c.uniform(-0.2, 0.2), c.uniform(-0.2, 0.2), 1.2, 1.2) ** 2 + 0.07 * c.smooth(3)
    view = c.inside(c.rings(0, 0, 0.97, 0.97), 0.06)
    shade = (light * view)[..., np.newaxis]
    image = image * shade + _sensor(c, 7 * dials["noise"]) * view[..., np.newaxis]
    return image, ((red > 0.3) | (yellow > 0.3)) & (view > 0.5)


def dermatoscopy(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Dermatoscopy: skin with hairs and one pigmented lesion.

    Classes: naevus (even, symmetric), melanoma (uneven outline and colours, grey-blue and red parts), keratosis (sharp
    edge, waxy, small pale cysts). Outlines and colours of the classes overlap.
    """
    c = canvas
    skin = np.stack([c.uniform(205, 240), c.uniform(150, 190), c.uniform(125, 165)], axis=-1)
    image = skin + (7 * c.smooth(3) + 3 * c.grain(0.7))[..., np.newaxis]
    y, x = c.uniform(-0.22, 0.22), c.uniform(-0.22, 0.22)
    size = c.uniform(0.38, 0.62)
    uneven = np.clip(choose(labels, (0.15, 0.9, 0.3)) + 0.2 * c.uniform(-1, 1), 0, 1)
    edge = c.wobble(y, x, 0.16 * uneven, (2, 3)) + c.wobble(y, x, 0.1 * uneven, (5, 7, 9))
    radius = c.rings(y, x, size, size * c.uniform(0.75, 1.3), c.uniform(0, np.pi)) / np.clip(1 + edge, 0.4, None)
    cover = c.inside(radius, choose(labels, (0.55, 0.5, 0.22)) * c.uniform(0.7, 1.3))
    depth = c.uniform(0.65, 1.0)
    brown = np.stack([c.uniform(105, 160), c.uniform(65, 105), c.uniform(45, 80)], axis=-1)
    lesion = brown + 14 * (radius - 0.5)[..., np.newaxis].clip(0, 1)
    patches = c.smooth(5)
    mixed = np.clip(choose(labels, (0.15, 1.0, 0.2)) * c.uniform(0.7, 1.1), 0, 1)
    lesion = paint(lesion, (62, 62, 84), 0.8 * mixed * np.clip(patches - 0.4, 0, 1))
    lesion = paint(lesion, (48, 28, 24), 0.8 * mixed * np.clip(-patches - 0.4, 0, 1))
    lesion = paint(lesion, (190, 90, 85), 0.6 * mixed * np.clip(c.smooth(5) - 0.7, 0, 1))
    cysts = np.clip(
        c.dots(y[:, np.newaxis] + c.uniform(-0.4, 0.4, 8), x[:, np.newaxis] + c.uniform(-0.4, 0.4, 8), 0.05), 0, 1
    )
    lesion = paint(lesion, (225, 195, 165), choose(labels, (0.0, 0.0, 0.85)) * c.uniform(0.6, 1.1) * cysts)
    image = paint(image, lesion, cover * depth)
    for _ in range(4):
        angle = c.uniform(0, np.pi)
        along, apart = c.x * np.cos(angle) + c.y * np.sin(angle), c.y * np.cos(angle) - c.x * np.sin(angle)
        hair = np.exp(-0.5 * ((apart - c.uniform(-0.8, 0.8) - 0.3 * c.sign() * along**2) / 0.022) ** 2)
        image = paint(image, (45, 32, 28), 0.75 * hair * c.chance(0.25))
    light = 1.04 - 0.22 * c.rings(0, 0, 1.3, 1.3) ** 2
    image = image * light[..., np.newaxis] + _sensor(c, 6 * dials["noise"])
    return image, np.broadcast_to(radius < 1, cover.shape)


def histology(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Haematoxylin and eosin tissue: pink fibres, purple nuclei on a jittered lattice, two structures in each image.

    Classes: normal (small even nuclei, a vessel-like gap), adenocarcinoma (nuclei ring pale lumina), squamous carcinoma
    (solid nests of large uneven nuclei). Stain and density vary so much that the mean colour says little.
    """
    c = canvas
    lattice = 8
    nests = [(c.uniform(-0.65, 0.65), c.uniform(-0.65, 0.65), c.uniform(0.34, 0.5)) for _ in range(2)]
    step = 2 / lattice
    # One ring of cells beyond the border, since nuclei reach across it.
    middle = (np.arange(lattice + 2) - 0.5) * step - 1
    rng, shape = c.rng, (c.count, lattice + 2, lattice + 2)
    cell_y = middle.reshape(1, -1, 1) + step * 0.55 * (rng.random(shape) - 0.5)
    cell_x = middle.reshape(1, 1, -1) + step * 0.55 * (rng.random(shape) - 0.5)
    apart = np.minimum.reduce([np.hypot(cell_y - y, cell_x - x) / size for y, x, size in nests])
    lined, solid = choose(labels, (0.25, 1, 0.0)), choose(labels, (0.0, 0.1, 1))
    ring, core = np.exp(-(((apart - 0.95) / 0.25) ** 2)), np.clip(1.6 - apart, 0, 1)
    chance = c.uniform(0.35, 0.6) * (1 + 0.8 * lined * (ring - 0.35) + 0.35 * solid * (core - 0.4))
    inside_lumen = (apart < 0.75) & (lined > 0.5)
    here = (rng.random(shape) < chance) & ~inside_lumen
    uneven = rng.standard_normal(shape)
    nucleus = step * (0.34 + 0.03 * uneven + solid * core * (0.03 + 0.05 * uneven)) * c.uniform(0.9, 1.12)
    flat = 1 + 0.25 * rng.random(shape)
    turn = 2 * np.pi * rng.random(shape)

    stain = c.uniform(0.75, 1.2)
    fibres = np.cos(2 * np.pi * (2.2 * c.smooth(2) + 1.5 * c.smooth(4)))
    pink = np.stack([c.uniform(222, 242), c.uniform(150, 190), c.uniform(190, 215)], axis=-1)
    image = pink + 11 * fibres[..., np.newaxis] * np.array((0.5, 1.0, 0.6))
    lumen = np.minimum.reduce(
        [c.rings(y, x, size, size) / (1 + c.wobble(y, x, np.array(0.06), (2, 3, 5))) for y, x, size in nests]
    )
    gap = c.inside(lumen / 0.55, 0.4) * choose(labels, (0.6, 0.75, 0.4)) * c.uniform(0.3, 1.1).clip(0, 1)
    image = paint(image, (244, 238, 243), gap)
    image = paint(image, (205, 130, 175), 0.25 * solid * np.clip(1.4 - lumen, 0, 1) * c.uniform(0.3, 1))
    row = np.floor((c.y[0, :, 0] + 1) / step).astype(int) + 1
    column = np.floor((c.x[0, 0] + 1) / step).astype(int) + 1
    cover = np.zeros((c.count, c.height, c.width))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near = np.ix_(np.arange(c.count), row + down, column + right)
            dy, dx = c.y - cell_y[near], c.x - cell_x[near]
            cos, sin = np.cos(turn)[near], np.sin(turn)[near]
            radius = np.hypot((cos * dy - sin * dx) * flat[near], sin * dy + cos * dx) / nucleus[near]
            cover = np.maximum(cover, c.inside(radius, 0.45) * here[near])
    purple = np.stack([c.uniform(85, 130), c.uniform(55, 90), c.uniform(125, 165)], axis=-1)
    image = paint(image, purple + 10 * c.grain(0.4)[..., np.newaxis], np.clip(0.85 * stain * cover, 0, 1))
    image = image + _sensor(c, 7 * dials["noise"])
    return image, (lumen < 1.2) & (labels > 0).reshape(-1, 1, 1)


def _sensor(c: Canvas, strength: float) -> Array:
    """Camera noise, (images, height, width, 3), half of it common to the colours."""
    common = c.grain(0.4)[..., np.newaxis]
    own = c.rng.standard_normal((c.count, c.height, c.width, 3))
    return strength * (0.7 * common + 0.7 * own)
