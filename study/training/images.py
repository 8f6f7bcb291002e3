"""Images of a split as a cell trains on them, held on the training device or mapped from a file, and normalised."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from study.data import lying
from study.declaration.recipe import Recipe

EVALUATION_BATCH = 256
# Bytes of images in floating point that are resized at a time.
RESIZED_BYTES = 1 << 28
# Pixels that are added up at a time.
ADDED_PIXELS = 1 << 20
# Batches that are gathered from a file while one is trained on.
AHEAD = 3

Normalise = Callable[[Tensor], Tensor]
# A batch by the places of its images, and their pixels.
Gathered = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Images:
    """The images of one split on the training device: uint8 (n, height, width, channels) and labels (n,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])

    def gathered(self, batches: Iterable[Tensor]) -> Iterator[Gathered]:
        """The places of the images of each batch, on the device, with their pixels."""
        for batch in batches:
            places = batch.to(self.labels.device)
            yield places, self.pixels[places]

    def blocks(self, count: int) -> Iterator[Tensor]:
        """The pixels in order, `count` images at a time."""
        yield from self.pixels.split(count)


@dataclass(frozen=True, eq=False)
class MappedImages:
    """The images of one split, mapped from a file: a thread gathers the next batches while one is trained on.

    stored: uint8 (n, height, width, channels). size: height and width at which a cell trains. labels: on the device.
    """

    stored: np.ndarray
    size: tuple[int, int]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def gathered(self, batches: Iterable[Tensor]) -> Iterator[Gathered]:
        """The places of the images of each batch, on the device, with their pixels."""
        with lying.Rows(self.stored) as rows, ThreadPoolExecutor(1) as pool:
            coming: deque[tuple[Tensor, Future[Tensor]]] = deque()
            for batch in batches:
                coming.append((batch, pool.submit(self._read, rows, batch.numpy())))
                if len(coming) > AHEAD:
                    yield self._come(*coming.popleft())
            while coming:
                yield self._come(*coming.popleft())

    def blocks(self, count: int) -> Iterator[Tensor]:
        """The pixels in order, `count` images at a time."""
        for _, pixels in self.gathered(torch.arange(len(self)).split(count)):
            yield pixels

    def _read(self, rows: lying.Rows, places: np.ndarray) -> Tensor:
        return resized(torch.from_numpy(rows.read(places)), self.size)

    def _come(self, batch: Tensor, pixels: Future[Tensor]) -> Gathered:
        device = self.labels.device
        return batch.to(device), pixels.result().to(device)


class Normaliser:
    """Turns uint8 (batch, height, width, channels) into normalised floats (batch, channels, height, width).

    They are channels-last in memory.
    """

    def __init__(self, images: Images | MappedImages) -> None:
        means, deviations = mean_and_deviation(images)
        device = images.labels.device
        mean = torch.tensor(means, dtype=torch.float64, device=device)
        deviation = torch.tensor(deviations, dtype=torch.float64, device=device).clamp_min(1.0)
        self.scale = (1 / deviation).float()
        self.offset = (-mean / deviation).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        return torch.addcmul(self.offset, pixels.float(), self.scale).permute(0, 3, 1, 2)


def mean_and_deviation(images: Images | MappedImages) -> tuple[list[float], list[float]]:
    """Mean and standard deviation (n - 1) of each channel over all pixels, from sums of whole numbers, hence exact."""
    count = 0
    sums = squares = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    for block in images.blocks(max(1, ADDED_PIXELS // math.prod(images.size))):
        values = block.flatten(0, 2).long()
        count += len(values)
        sums, squares = sums + values.sum(0), squares + (values * values).sum(0)
    totals = [(int(one), int(two)) for one, two in zip(sums, squares)]
    means = [one / count for one, _ in totals]
    variances = [Fraction(two * count - one * one, count * (count - 1)) for one, two in totals]
    return means, [math.sqrt(variance) for variance in variances]


def on_device(images: np.ndarray, labels: np.ndarray, recipe: Recipe, device: torch.device) -> Images:
    """A split as cells train on it: at the recipe's size, on the device."""
    size = recipe.size_for((images.shape[1], images.shape[2]))
    if lying.mapping_of(images) is not None:
        # A copy of its own, some at a time.
        parts = [resized(torch.from_numpy(block.copy()), size) for block in lying.blocks(images, EVALUATION_BATCH)]
        pixels = torch.cat(parts).to(device)
    else:
        pixels = resized(torch.from_numpy(np.ascontiguousarray(images)).to(device), size)
    return Images(pixels, _labels(labels, device))


def as_trained(images: np.ndarray, labels: np.ndarray, recipe: Recipe, device: torch.device) -> Images | MappedImages:
    """A split as cells train on it, at the recipe's size: on the device, or mapped where it is too large to be held."""
    size = recipe.size_for((images.shape[1], images.shape[2]))
    if lying.mapping_of(images) is None or len(images) * math.prod(size) * images.shape[3] <= lying.HELD:
        return on_device(images, labels, recipe, device)
    return MappedImages(images, size, _labels(labels, device))


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels uint8 (n, height, width, channels) at another height and width: bilinear, filtered against aliasing."""
    if size == tuple(pixels.shape[1:3]):
        return pixels
    count = max(1, min(EVALUATION_BATCH, RESIZED_BYTES // (4 * pixels[0].numel())))
    parts = []
    for part in pixels.split(count):
        made = F.interpolate(part.permute(0, 3, 1, 2).float(), size=size, mode="bilinear", antialias=True)
        parts.append(made.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    return torch.cat(parts)


def _labels(labels: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
