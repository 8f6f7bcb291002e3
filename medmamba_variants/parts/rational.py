"""Channel mixers with learned functions in place of activations, on normed maps (batch, height, width, channels)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.wraps import channel_mixers as design
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach

# Where the splines' grid begins and ends: normed channels rarely lie beyond.
EDGE = 2.0
# Coefficients by rising power of the function that is the identity, and of the one nearest to SiLU from −3 to 3, whose
# denominator is 1 + |q₁ x + … + q₄ x⁴|.
IDENTITY = ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
SILU = ((0.0, 0.5, 0.25, 0.053251, 0.005796, 0.000274), (0.0, 0.106501, 0.0, 0.000549))


class SplineLayer(nn.Module):
    """A layer y_j = Σ_i w_ij SiLU(x_i) + Σ_k c_ijk B_k(x_i), B_k cubic splines on a uniform grid (Liu 2025, "KAN").

    Equation 2.10 there; the splines' own scale is one with their coefficients. Beyond the grid SiLU alone remains.
    """

    def __init__(self, channels_in: int, channels_out: int, grid: int) -> None:
        super().__init__()
        self.step = 2 * EDGE / grid
        # Where each spline has its middle; those of the edges reach in from without.
        self.count, self.first = grid + design.SPLINE_ORDER, -EDGE - self.step
        self.mixing = linear(channels_in * (self.count + 1), channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        middles = self.first + self.step * torch.arange(self.count, dtype=x.dtype, device=x.device)
        functions = torch.cat((F.silu(x)[..., None], cubic_spline((x[..., None] - middles) / self.step)), dim=-1)
        mixed: Tensor = self.mixing(functions.flatten(-2))
        return mixed


def cubic_spline(u: Tensor) -> Tensor:
    """The cardinal cubic spline about zero, ((2 − |u|)₊³ − 4 (1 − |u|)₊³) / 6; it sums to one over whole steps."""
    distance = u.abs()
    return (F.relu(2 - distance).pow(3) - 4 * F.relu(1 - distance).pow(3)) / 6


class KAN(nn.Module):
    """Two spline layers with a 3×3 filter for each hidden channel between them (Li 2024, tokenised KAN of U-KAN)."""

    def __init__(self, channels: int, component: design.KAN) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.widen = SplineLayer(channels, hidden, component.spline_grid)
        self.filters = FilterEach(hidden, (3, 3))
        self.narrow = SplineLayer(hidden, channels, component.spline_grid)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(self.filters(self.widen(x)))
        return mixed


class Rational(nn.Module):
    """P(x) / (1 + |Q(x)|), P of degree 5 and Q of 4, a pair for each group of channels (KAT, section 4)."""

    def __init__(self, channels: int, start: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        # As many groups as divide the channels, at most eight.
        self.groups = next(groups for groups in range(design.RATIONAL_GROUPS, 0, -1) if channels % groups == 0)
        self.numerator = nn.Parameter(torch.tensor(start[0]).repeat(self.groups, 1))
        self.denominator = nn.Parameter(torch.tensor(start[1]).repeat(self.groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(-1, (self.groups, -1))
        above, below = (self._polynomial(each, grouped) for each in (self.numerator, self.denominator))
        return (above / (1 + (below * grouped).abs())).flatten(-2)

    @staticmethod
    def _polynomial(coefficients: Tensor, x: Tensor) -> Tensor:
        """The polynomial with these coefficients (groups, powers), by Horner's rule."""
        value = coefficients[:, -1:].expand_as(x)
        for power in range(coefficients.shape[1] - 2, -1, -1):
            value = torch.addcmul(coefficients[:, power : power + 1], value, x)
        return value


class GroupRational(nn.Module):
    """An MLP with a group-rational function before each map, the first one fresh an identity (KAT, section 4)."""

    def __init__(self, channels: int, component: design.GroupRational) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.before = Rational(channels, IDENTITY)
        self.widen = linear(channels, hidden, bias=True)
        self.between = Rational(hidden, SILU)
        self.narrow = linear(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(self.between(self.widen(self.before(x))))
        return mixed
