"""Augmentation of a whole batch on its device: one affine resampling and one change of intensity."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from study.declaration.recipe import Recipe


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Randomly flipped, shifted, rotated and re-scaled images, (batch, channels, height, width) in and out.

    `images` are normalised floats; what moves in from outside repeats the border. `generator` lives on the CPU, so that
    a seed draws the same changes on every device.
    """
    batch = len(images)
    draw = torch.rand(7, batch, generator=generator)
    sign = draw * 2 - 1
    if recipe.flip != "none" or recipe.shift or recipe.rotate:
        images = _affine(images, recipe, draw, sign)
    if recipe.intensity:
        contrast = 1 + recipe.intensity * sign[5]
        brightness = recipe.intensity * sign[6]
        contrast, brightness = (v.view(batch, 1, 1, 1).to(images.device) for v in (contrast, brightness))
        images = torch.addcmul(brightness, images, contrast)
    return images


def _affine(images: Tensor, recipe: Recipe, draw: Tensor, sign: Tensor) -> Tensor:
    batch, _, height, width = images.shape
    angle = sign[0] * math.radians(recipe.rotate)
    flip_x = torch.where(draw[1] < 0.5, -1.0, 1.0) if recipe.flip in ("horizontal", "both") else torch.ones(batch)
    flip_y = torch.where(draw[2] < 0.5, -1.0, 1.0) if recipe.flip == "both" else torch.ones(batch)
    # The grid runs over [-1, 1] on both axes: a share of the side is twice that in its units, and a rotation of
    # pixels on a map that is not square needs the ratio of the sides.
    ratio = height / width
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack([cos * flip_x, -sin * flip_y * ratio, 2 * recipe.shift * sign[3]], dim=1),
        torch.stack([sin * flip_x / ratio, cos * flip_y, 2 * recipe.shift * sign[4]], dim=1),
    )
    theta = torch.stack(rows, dim=1).to(images.device)
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
