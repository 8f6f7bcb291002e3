"""Rules that turn the differential equation h′ = A h + B x into steps of size Δ; A is diagonal.

A step is h = decay · h + Δ · (now · u + before · u₋), with u = B x at this step and u₋ at the step before, and factors
of z = Δ A alone. With φ₁(z) = (eᶻ − 1) / z, φ₂ = (φ₁ − 1) / z and φ₃ = (φ₂ − ½) / z:

    rule      decay                  now             before    source
    mamba     eᶻ                     1               0         Gu & Dao, "Mamba" (2023): its code, for all its ZOH
    zoh       eᶻ                     φ₁              0         Gu & Dao, "Mamba" (2023), equation 4: x held constant
    bilinear  (1 + z/2) / (1 − z/2)  1 / (1 − z/2)   0         Gu, Goel & Ré, "S4" (2022), equation 3 (Tustin)
    foh       eᶻ                     φ₂              φ₁ − φ₂   Franklin, Powell & Workman (1998): u runs straight

Before the first step, and where the state starts anew, u₋ is zero.
"""

from math import factorial

import torch
from torch import Tensor

# Where |z| is below the first, φ is a series, whose terms after so many are below the dtype's rounding.
_SERIES = {torch.float64: (1.0, 16), torch.float32: (0.5, 7)}
Factors = tuple[Tensor, Tensor, Tensor | None]


def factors(rule: str, z: Tensor) -> Factors:
    """The factors (decay, now, before) of a rule other than mamba's, of z's shape; before is None where it is zero."""
    if rule == "bilinear":
        now = 1 / (1 - z / 2)
        return (1 + z / 2) * now, now, None
    decay, *phi = _phi(z, 1 if rule == "zoh" else 2)
    return decay, *((phi[0], None) if rule == "zoh" else (phi[1], phi[0] - phi[1]))


def factors_and_slopes(rule: str, z: Tensor) -> tuple[Factors, Factors]:
    """The factors and their derivatives with respect to z: φₖ′ = φₖ − k φₖ₊₁."""
    if rule == "bilinear":
        decay, now, before = factors(rule, z)
        square = now.square()
        return (decay, now, before), (square, square / 2, None)
    if rule == "zoh":
        decay, one, two = _phi(z, 2)
        return (decay, one, None), (decay, one - two, None)
    decay, one, two, three = _phi(z, 3)
    slope = two - 2 * three
    return (decay, two, one - two), (decay, slope, one - two - slope)


def _phi(z: Tensor, last: int) -> list[Tensor]:
    """exp(z) and φ₁ to φ_last to rounding, also near zero, where their fractions cancel; differentiable."""
    border, terms = _SERIES[z.dtype]
    near = z.abs() < border
    # Each branch stays finite where the other counts, or its gradient would be none.
    small, large = z.clamp(-border, border), z.masked_fill(near, -1)
    series = torch.full_like(z, 1 / factorial(terms + last - 1))
    for order in reversed(range(last, terms + last - 1)):
        series = series * small + 1 / factorial(order)
    close = [series]
    for order in reversed(range(1, last)):
        close.insert(0, close[0] * small + 1 / factorial(order))
    found = [z.exp()]
    far = found[0]
    for order, exact in enumerate(close):
        far = (far - 1 / factorial(order)) / large
        found.append(torch.where(near, exact, far))
    return found
