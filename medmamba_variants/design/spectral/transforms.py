"""What Fourier transforms of maps cost."""

from __future__ import annotations

import math


def fft_macs(lines: int, points: int, real: bool = False) -> int:
    """Multiply-adds of some Fourier transforms of so many points each, rounded up.

    Counted as 5·n·log2(n) flops for n complex points and half as many for real ones, the usual convention whatever the
    algorithm and n (Frigo & Johnson, FFTW), at two flops a multiply-add. A transform over two axes has their product as
    points.
    """
    return math.ceil((1.25 if real else 2.5) * lines * points * math.log2(points)) if points else 0


def fft_pair_macs(channels: int, height: int, width: int) -> int:
    """Multiply-adds of a real map's transform over both axes and back, where half of the frequencies are kept."""
    back = fft_macs(channels * half(width), height) + fft_macs(channels * height, width, real=True)
    return fft_macs(channels, height * width, real=True) + back


def half(width: int) -> int:
    """The frequencies of a row of real numbers that are not conjugates of others."""
    return width // 2 + 1
