"""Linear layers and convolutions with MedMamba's initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

FILLERS = frozenset(
    {getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")}
    | {getattr(torch.Tensor, name) for name in ("normal_", "uniform_", "fill_", "zero_", "copy_")}
)


class Valueless(TorchFunctionMode):
    """Context in which nothing is filled with first values, for networks on the meta device, which has none.

    There an initialiser computes shapes, in Python, for half of the time that it takes to build a network.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in FILLERS:
            return args[0] if args else next(iter((kwargs or {}).values()))
        return function(*args, **(kwargs or {}))


def convolution(channels_in: int, channels_out: int, kernel_size: int, stride: int, padding: int) -> nn.Conv2d:
    """A dense convolution with the published initialisation (He, fan out)."""
    layer = nn.Conv2d(channels_in, channels_out, kernel_size, stride=stride, padding=padding)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def linear(channels_in: int, channels_out: int, bias: bool) -> nn.Linear:
    """A linear layer with the published initialisation: truncated normal of deviation .02, no offset."""
    layer = nn.Linear(channels_in, channels_out, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def depthwise(channels: int, kernel_size: int) -> nn.Conv2d:
    """A depth-wise convolution that keeps the map's size, with the published initialisation."""
    layer = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
    # upstream: the fan is counted over all channels although each filter sees one, so these weights start small.
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
