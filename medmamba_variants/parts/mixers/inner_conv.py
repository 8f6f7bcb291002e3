"""Convolutions before an operator, one filter for each channel, on maps (batch, channels, height, width)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.gated import CAUSAL_TAPS, Gated
from medmamba_variants.parts.init import depthwise


def inner_convolution(component: Gated, channels: int) -> nn.Module:
    """The convolution that a component's `inner_conv` names; keeps the map's shape."""
    if component.inner_conv == "dw2d":
        return depthwise(channels, component.d_conv)
    if component.inner_conv == "causal1d":
        return AlongRows(channels, CAUSAL_TAPS, CAUSAL_TAPS - 1)
    if component.inner_conv == "same1d":
        return AlongRows(channels, component.d_conv, component.d_conv // 2)
    return Partial(channels, component.d_conv) if component.inner_conv == "partial" else nn.Identity()


class AlongRows(nn.Conv1d):
    """Convolution along the positions of a map, row after row; the taps begin `before` positions earlier."""

    def __init__(self, channels: int, taps: int, before: int) -> None:
        super().__init__(channels, channels, taps, groups=channels)
        self.around = before, taps - 1 - before
        # As the published convolution over squares, so that shape is all that differs.
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x.flatten(2), self.around)).unflatten(2, x.shape[2:])


class Partial(nn.Conv2d):
    """Convolution over squares of positions of the first half of the channels; the others pass (FasterNet)."""

    def __init__(self, channels: int, side: int) -> None:
        half = channels // 2
        super().__init__(half, half, side, padding=side // 2, groups=half)
        self.parts = half, channels - half
        # Taps of unit energy: beside channels that pass, those of the small published weights would be lost.
        nn.init.normal_(self.weight, std=1 / side)

    def forward(self, x: Tensor) -> Tensor:
        seen, rest = x.split(self.parts, dim=1)
        return torch.cat([super().forward(seen), rest], dim=1)
