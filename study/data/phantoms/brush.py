"""Tools for drawing many small images at once: coordinates, soft shapes, smooth fields and noise, in float64.

Every array of numbers is (images, height, width), or (images, 1, 1) for one number per image. All is float64:
rounding on another processor or in another numpy release differs by 10^-13 grey levels, which leaves uint8 images the
same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

Array = np.ndarray
Number = np.ndarray | float
Dials = Mapping[str, Any]
Picture = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Canvas:
    """Room for `count` images; y grows downwards and x to the right, both from -1 to 1."""

    rng: np.random.Generator
    count: int
    height: int
    width: int

    @cached_property
    def y(self) -> Array:
        """Vertical position of each pixel centre, (1, height, 1)."""
        return ((2 * np.arange(self.height) + 1) / self.height - 1).reshape(1, -1, 1)

    @cached_property
    def x(self) -> Array:
        """Horizontal position of each pixel centre, (1, 1, width)."""
        return ((2 * np.arange(self.width) + 1) / self.width - 1).reshape(1, 1, -1)

    @property
    def pixel(self) -> float:
        """Width of a pixel in units of the longer side's coordinate."""
        return 2 / max(self.height, self.width)

    def uniform(self, low: float, high: float, columns: int = 1) -> Array:
        """Uniform random numbers, one per image (images, 1, 1) or several (images, columns, 1, 1)."""
        drawn = low + (high - low) * self.rng.random((self.count, columns, 1, 1))
        return drawn[:, 0] if columns == 1 else drawn

    def sign(self) -> Array:
        """Random signs, minus one or one per image."""
        return np.where(self.rng.random((self.count, 1, 1)) < 0.5, -1.0, 1.0)

    def chance(self, probability: float) -> Array:
        """Random ones, with this probability, and zeros, one number per image."""
        return (self.rng.random((self.count, 1, 1)) < probability).astype(float)

    def grain(self, blur: float = 0.0) -> Array:
        """White noise blurred by `blur` pixels and scaled back to unit variance."""
        noise = self.rng.standard_normal((self.count, self.height, self.width))
        if blur <= 0:
            return noise
        noise = gaussian_filter(noise, (0, blur, blur), mode="wrap", truncate=3.0)
        return noise / noise.std(axis=(1, 2), keepdims=True)

    def smooth(self, waves: int = 3) -> Array:
        """A random field without detail: cosines of up to `waves` half-periods a side, variance about one."""
        return _cosines(self.y[0, :, 0], waves) @ self._coefficients(waves) @ _cosines(self.x[0, 0], waves).T

    def wander(self, waves: int = 3) -> Array:
        """A random smooth curve over x, (images, 1, width), variance about one."""
        weights = self.rng.standard_normal((self.count, 1, waves)) / np.sqrt(waves)
        return np.sqrt(2) * weights @ _cosines(self.x[0, 0], waves)[:, 1:].T

    def rings(self, y: Number, x: Number, ry: Number, rx: Number, turn: Number = 0.0) -> Array:
        """Elliptic radius about (y, x): 0 in the middle, 1 on the ellipse with half-axes ry and rx turned by `turn`."""
        dy, dx = self.y - y, self.x - x
        if isinstance(turn, float) and turn == 0.0:
            return np.hypot(dy / ry, dx / rx)
        cos, sin = np.cos(turn), np.sin(turn)
        return np.hypot((cos * dy - sin * dx) / ry, (sin * dy + cos * dx) / rx)

    def wobble(self, y: Array, x: Array, strength: Array, harmonics: Sequence[int]) -> Array:
        """Relative change of a contour's radius with the angle about (y, x); `strength` is its standard deviation."""
        angle = np.arctan2(self.y - y, self.x - x)
        total = np.zeros(())
        for harmonic in harmonics:
            total = total + np.cos(harmonic * angle + self.uniform(0, 2 * np.pi))
        return strength * total * np.sqrt(2 / len(harmonics))

    def inside(self, radius: Array, softness: Number = 0.15) -> Array:
        """Coverage from 1 within an outline (`radius` below 1) to 0 outside; `softness` is the width of the edge."""
        return np.clip(0.5 - (radius - 1) / softness, 0, 1)

    def dots(self, y: Array, x: Array, sigma: Number, weight: Number = 1.0) -> Array:
        """Sum of Gaussian dots at y, x (images, dots, 1, 1), each of height `weight`."""
        # A dot is the product of a column and a row, which avoids an array of images × dots × pixels.
        column = weight * np.exp(-0.5 * ((self.y[:, np.newaxis] - y) / sigma) ** 2)
        row = np.exp(-0.5 * ((self.x[:, np.newaxis] - x) / sigma) ** 2)
        return np.swapaxes(column[..., 0], 1, 2) @ row[:, :, 0]

    def _coefficients(self, waves: int) -> Array:
        falloff = 1 / (1 + np.add.outer(np.arange(waves + 1), np.arange(waves + 1)))
        falloff[0, 0] = 0
        drawn = self.rng.standard_normal((self.count, waves + 1, waves + 1)) * falloff
        return drawn / np.sqrt((falloff**2).sum() / 2)


def _cosines(position: Array, waves: int) -> Array:
    return np.cos(np.multiply.outer(np.pi * (position + 1) / 2, np.arange(waves + 1)))


def choose(labels: Array, values: Sequence[float]) -> Array:
    """The value of each image's class, (images, 1, 1)."""
    return np.asarray(values, float)[labels].reshape(-1, 1, 1)


def blend(under: Array, over: Number, cover: Array) -> Array:
    """A blend: `over` where `cover` is 1, `under` where it is 0, and in proportion between."""
    return under + cover * (over - under)


def paint(under: Array, colour: Sequence[float] | Array, cover: Array) -> Array:
    """A colour laid over (images, height, width, 3) with this cover (images, height, width)."""
    return under + cover[..., np.newaxis] * (np.asarray(colour, float) - under)
