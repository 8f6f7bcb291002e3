"""Neural memory as a layer: an ordinary differential equation in every channel of every position."""

from __future__ import annotations

import math

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from medmamba_variants.design.sequences import recurrent as design
from medmamba_variants.parts.init import depthwise, linear
from medmamba_variants.parts.mixers.ss2d import SS2D

# First value of the offset in γ: where sin² is steepest. At 0 it is flat, and small inputs would give no gradient.
STEEPEST = math.pi / 4


def neural_memory(gamma: Tensor, steps: int, solver: str) -> Tensor:
    """y(1) of ẏ = −y + sin²(y + γ) with y(0) = 0, in explicit steps of an equal size; shaped like γ.

    Yi, "nmODE: neural memory ordinary differential equation" (2023). `solver` is euler, midpoint or rk4.
    """

    def slope(y: Tensor) -> Tensor:
        wave = torch.sin(y + gamma)
        return wave * wave - y

    size = 1 / steps
    y = torch.zeros_like(gamma)
    for _ in range(steps):
        first = slope(y)
        if solver == "euler":
            y = y + size * first
            continue
        middle = slope(y + size / 2 * first)
        if solver == "midpoint":
            y = y + size * middle
            continue
        later = slope(y + size / 2 * middle)
        y = y + size / 6 * (first + 2 * middle + 2 * later + slope(y + size * later))
    return y


class NmODEBranch(nn.Module):
    """Layer norm, γ by a linear map and a depth-wise convolution, neural memory, a linear map, drop path."""

    def __init__(self, channels: int, component: design.NmODE, drop_path: float) -> None:
        super().__init__()
        self.steps, self.solver = component.ode_steps, component.ode_solver
        self.norm = nn.LayerNorm(channels)
        self.in_proj = linear(channels, channels, bias=False)
        self.conv2d = depthwise(channels, component.d_conv)
        assert self.conv2d.bias is not None
        nn.init.constant_(self.conv2d.bias, STEEPEST)
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.conv2d(self.in_proj(self.norm(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop_path(self.mixing(neural_memory(gamma, self.steps, self.solver)))


class NmODESS2DBranch(nn.Module):
    """Layer norm, selective scan, an offset that makes it γ, neural memory, a linear map, drop path."""

    def __init__(self, channels: int, component: design.NmODESS2D, drop_path: float) -> None:
        super().__init__()
        self.steps, self.solver = component.ode_steps, component.ode_solver
        self.norm = nn.LayerNorm(channels)
        self.mixer = SS2D(channels, component)
        self.offset = nn.Parameter(torch.full((channels,), STEEPEST))
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.mixer(self.norm(x)) + self.offset
        return self.drop_path(self.mixing(neural_memory(gamma, self.steps, self.solver)))
