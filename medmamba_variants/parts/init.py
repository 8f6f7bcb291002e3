"""Linear layers, convolutions and step sizes with MedMamba's initial values."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FILLERS = frozenset(
    {getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")}
    | {
        getattr(torch.Tensor, name)
        for name in ("normal_", "uniform_", "fill_", "zero_", "copy_", "erfinv_", "clamp_", "mul_", "add_")
    }
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


def first_values() -> AbstractContextManager[Any]:
    """Context for building a network: without first values where the default device is meta, else without effect."""
    return Valueless() if torch.get_default_device().type == "meta" else nullcontext()


def convolution(
    channels_in: int, channels_out: int, kernel_size: int, stride: int, padding: int, bias: bool = True
) -> nn.Conv2d:
    """A dense convolution with the published initialisation (He, fan out)."""
    layer = nn.Conv2d(channels_in, channels_out, kernel_size, stride=stride, padding=padding, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def linear(channels_in: int, channels_out: int, bias: bool) -> nn.Linear:
    """A linear layer with the published initialisation: truncated normal of deviation .02, no offset."""
    layer = nn.Linear(channels_in, channels_out, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def pointwise(channels_in: int, channels_out: int) -> nn.Linear:
    """A 1×1 convolution, initialised like every convolution of the network, though written as a linear layer."""
    layer = nn.Linear(channels_in, channels_out)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def preserving(channels_in: int, channels_out: int) -> nn.Linear:
    """A linear layer that, fresh, keeps the variance of independent channels, with an offset of zero."""
    layer = nn.Linear(channels_in, channels_out)
    nn.init.normal_(layer.weight, std=channels_in**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def depthwise(channels: int, kernel_size: int) -> nn.Conv2d:
    """A depth-wise convolution that keeps the map's size, with the published initialisation."""
    layer = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
    # upstream: the fan is counted over all channels although each filter sees one, so these weights start small.
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


@torch.no_grad()
def spread_steps(bias: Tensor, low: float, high: float) -> None:
    """Sets what softplus turns into step sizes log-uniform between two bounds (Mamba, section 3.6)."""
    dt = torch.empty_like(bias).uniform_(math.log(low), math.log(high)).exp()
    # Inverse of softplus: log(exp(dt) − 1), written so that small dt keep their digits.
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))
