"""State-space duality as a layer, along paths over the map or without any order.

Symbols, with their place in Dao & Gu, "Transformers are SSMs" (Mamba-2, 2024), and Shi et al., "VSSD" (2025):

    H, P     heads, and the inner channels of each                               Mamba-2, section 7
    N        ssd_state, the size of the state of each channel                    Mamba-2, section 6
    K        the number of scan directions, each with its own parameters         VMamba, section 4.2 (cross-scan)
    delta    step size of every position and head                                Mamba-2, section 7
    A        (K, H) negative rates of decay, kept as log(−A)                      Mamba-2, section 7
    B, C     (batch, length, N) input and output weights of the state            Mamba-2, section 6
    D        (K, H) skip                                                         Mamba-2, section 7
    z        the gate                                                            Mamba-2, figure 6

Around the operator everything is as in SS2D, but that B, C and delta come from the layer's input, as in Mamba-2, where
the convolution sees B and C, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.sequences import duality as design
from medmamba_variants.parts.init import spread_steps
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch
from medmamba_variants.scan.dual.op import dual_scan
from medmamba_variants.scan.paths import scan_path

# Bounds of −A at the start: uniform between them (Mamba-2's code).
A_MIN, A_MAX = 1.0, 16.0


class _Dual(Wired):
    """What the two layers share: projections and first values; `mix` is what they differ in."""

    def __init__(self, channels: int, component: design.SSD | design.NonCausalSSD, directions: int) -> None:
        seen = component.inner(channels) + 2 * directions * component.ssd_state
        super().__init__(channels, component, seen, beside=directions * component.heads)
        self.heads, self.state, self.count, self.seen = component.heads, component.ssd_state, directions, seen
        self.steps = component.dt_min, component.dt_max
        self.dt_projs_bias = nn.Parameter(torch.empty(directions, self.heads))
        self.A_logs = nn.Parameter(torch.empty(directions, self.heads))
        self.Ds = nn.Parameter(torch.empty(directions, self.heads))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        spread_steps(self.dt_projs_bias, *self.steps)
        self.A_logs.uniform_(A_MIN, A_MAX).log_()
        nn.init.ones_(self.Ds)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        z, seen, delta = self.in_proj(x).split([self.gate_width, self.seen, self.count * self.heads], dim=-1)
        seen = self.convolved(seen).flatten(1, 2)
        states = self.count * self.state
        # In the state's precision: float32 for half precision, but float64 stays.
        dtype = torch.promote_types(seen.dtype, torch.float32)
        u, B, C = (part.to(dtype) for part in seen.split([self.d_inner, states, states], dim=-1))
        u = u.unflatten(-1, (self.heads, self.d_inner // self.heads))
        delta = delta.flatten(1, 2).to(dtype).unflatten(-1, (self.count, self.heads))
        # The meta device, on which costs are counted, knows no autocast.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            delta = F.softplus(delta + self.dt_projs_bias)
            rates = torch.exp(self.A_logs.to(dtype))
            B, C = (each.unflatten(-1, (self.count, self.state)) for each in (B, C))
            y = self.mix(u, delta, rates, B, C, (height, width)) + u * self.Ds.sum(0)[:, None]
        return self.normed_and_joined(y.flatten(2).unflatten(1, (height, width)), z)

    def mix(self, u: Tensor, delta: Tensor, rates: Tensor, B: Tensor, C: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps u (batch, length, H, P), by delta (batch, length, K, H), rates (K, H), B, C (batch, length, K, N)."""
        raise NotImplementedError


class SSD(_Dual):
    """Gated scan of a map (batch, height, width, channels) along all directions, with a decay for each head."""

    def __init__(self, channels: int, component: design.SSD) -> None:
        super().__init__(channels, component, len(component.directions))
        self.directions = component.directions

    def mix(self, u: Tensor, delta: Tensor, rates: Tensor, B: Tensor, C: Tensor, size: tuple[int, int]) -> Tensor:
        path = scan_path(self.directions, *size)
        return dual_scan(u[:, :, None], delta, -delta * rates, B[:, :, :, None], C[:, :, :, None], path, design.CHUNK)[
            :, :, 0
        ]


class NonCausalSSD(_Dual):
    """The same without decay or order: every position writes to one state, by its own rate, and reads it."""

    def __init__(self, channels: int, component: design.NonCausalSSD) -> None:
        super().__init__(channels, component, 1)

    def mix(self, u: Tensor, delta: Tensor, rates: Tensor, B: Tensor, C: Tensor, size: tuple[int, int]) -> Tensor:
        return sum_without_order(u, (delta * rates).squeeze(2), B.squeeze(2), C.squeeze(2))


def sum_without_order(u: Tensor, weights: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """C_t Σ_s B_s (weight_s u_s)ᵀ: u (batch, length, H, P), weights (batch, length, H), B and C (batch, length, N)."""
    state = B.transpose(1, 2) @ (u * weights[..., None]).flatten(2)
    return (C @ state).view_as(u)


class SSDBranch(WiredBranch):
    """Layer norm, state-space duality along paths, drop path. Map in, map of the same shape out."""

    layer = SSD


class NonCausalSSDBranch(WiredBranch):
    """Layer norm, state-space duality without order, drop path. Map in, map of the same shape out."""

    layer = NonCausalSSD
