"""Images of a split on the training device, and their normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from study.recipe import Recipe

EVALUATION_BATCH = 256


Normalise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Images:
    """The images of one split on the training device: uint8 (n, height, width, channels) and labels (n,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Normaliser:
    """Turns uint8 (batch, height, width, channels) into normalised floats (batch, channels, height, width).

    They are channels-last in memory.
    """

    def __init__(self, pixels: Tensor) -> None:
        values = pixels.double().flatten(0, 2)
        mean, deviation = values.mean(0), values.std(0).clamp_min(1.0)
        self.scale = (1 / deviation).float()
        self.offset = (-mean / deviation).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        return torch.addcmul(self.offset, pixels.float(), self.scale).permute(0, 3, 1, 2)


def on_device(images: np.ndarray, labels: np.ndarray, recipe: Recipe, device: torch.device) -> Images:
    """A split as cells train on it: at the recipe's size, on the device."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    size = recipe.size_for((pixels.shape[1], pixels.shape[2]))
    if size != tuple(pixels.shape[1:3]):
        pixels = resized(pixels, size)
    return Images(pixels, torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device))


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Images uint8 (n, height, width, channels) of another size: bilinear, antialiased, rounded to uint8."""
    parts = []
    for part in pixels.split(EVALUATION_BATCH):
        smooth = F.interpolate(part.permute(0, 3, 1, 2).float(), size=size, mode="bilinear", antialias=True)
        parts.append(smooth.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    return torch.cat(parts)
