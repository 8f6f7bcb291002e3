"""Transforms of maps (batch, height, width, channels) over both axes, and tables over frequencies.

All are orthonormal: the squares of a map add up to those of its transform (Parseval).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosines(size: int, like: Tensor) -> Tensor:
    """The matrix (frequency, position) of the discrete cosine transform (DCT-II) of so many points.

    Row n is cos(π·n·(i + ½)/size) over i, with a length of one.
    """
    count = torch.arange(size, dtype=torch.float64, device=like.device)
    rows = torch.cos(count[:, None] * (count + 0.5) * (math.pi / size)) * (2 / size) ** 0.5
    return torch.cat([rows[:1] * 0.5**0.5, rows[1:]]).to(like.dtype)


def cosine_transform(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The transform of a map along its columns by the matrix `rows` (out, height), along its rows by `columns`.

    The first rows of a matrix of `cosines` keep low frequencies alone; the transposed matrices go back.
    """
    batch, height, width, channels = x.shape
    # Across the map first as one product over all columns and channels, then within each row.
    down = rows @ x.reshape(batch, height, width * channels)
    return (columns @ down.view(batch * len(rows), width, channels)).view(batch, len(rows), len(columns), channels)


def spectrum(x: Tensor) -> Tensor:
    """The Fourier transform (batch, height, width // 2 + 1, channels) of a real map, complex.

    In single precision at least: half precision has no transform on a CPU. Of the frequencies of a row, the negative
    ones are left out, as conjugates of others.
    """
    batch, height, width, channels = x.shape
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if not batch:
        # MKL refuses to transform nothing.
        return x.new_zeros(0, height, width // 2 + 1, channels, dtype=torch.promote_types(x.dtype, torch.complex64))
    return torch.fft.rfft2(x, dim=(1, 2), norm="ortho")


def from_spectrum(frequencies: Tensor, width: int) -> Tensor:
    """The real map whose transform the frequencies (batch, height, width // 2 + 1, channels) are.

    Frequencies of no real map lose what a real map cannot have: axis by axis on every device, since libraries disagree
    about it where they transform both axes at once.
    """
    if not len(frequencies):
        return frequencies.real.new_zeros(0, frequencies.shape[1], width, frequencies.shape[3])
    rows = torch.fft.ifft(frequencies, dim=1, norm="ortho")
    return torch.fft.irfft(rows, n=width, dim=2, norm="ortho")


def parts_of(frequencies: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex channels as real ones, twice as many: real and imaginary part of each side by side."""
    return torch.view_as_real(frequencies).flatten(-2).to(dtype)


def from_parts(parts: Tensor) -> Tensor:
    """Real channels, two by two, as complex ones, in single precision at least."""
    parts = parts.to(torch.promote_types(parts.dtype, torch.float32))
    return torch.view_as_complex(parts.unflatten(-1, (-1, 2)).contiguous())


def read_table(table: Tensor, points: int, size: int, count: int, wraps: bool = False) -> Tensor:
    """The values of a table at the first `count` of `size` frequencies, between its points linearly.

    An interval of frequencies is divided evenly from its start, by the table into `points`, of which it may hold only
    the first, by the frequencies into `size`: as many of both, and the table is read as it stands. Past its last point
    comes its first where it `wraps`, else the last again.
    """
    # In whole numbers, so that points are met exactly.
    places = torch.arange(count, device=table.device) * points
    below = places // size
    above = (below + 1) % len(table) if wraps else (below + 1).clamp(max=len(table) - 1)
    share = ((places % size) / size).to(table.dtype).view(-1, *[1] * (table.dim() - 1))
    low = table[below]
    return low + share * (table[above] - low)
