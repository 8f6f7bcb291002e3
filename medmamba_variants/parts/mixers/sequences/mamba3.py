"""Mamba-3 as a layer, along paths over the map.

Symbols, with their place in Lahoti et al., "Mamba-3" (2026), section 3:

    H, P     heads, and the inner channels of each
    N        ssd_state, the size of the state of each channel: N/2 complex numbers
    K        the number of scan directions, each with its own parameters
    delta    step size of every position and head
    A        (K, H) negative rates of decay, kept as log(−A)
    theta    (batch, length, K, N/2) rates of turning: a step turns pair n of a head by delta · theta_n
    lambda   (batch, length, K, H) weight of the newer end of the trapezoid, between 0 and 1
    B, C     (batch, length, K, N) before their offsets (K, H, N), which begin at 1

The state of a head is h_t = α_t R_t h_{t−1} + (1 − λ_t) Δ_t α_t R_t B_{t−1} x_{t−1} + λ_t Δ_t B_t x_t with
α = exp(ΔA) and R_t the rotation of a step. With B and C turned by the sum of all angles so far, R_t falls away (the
paper's rotary form). And what step t takes from x_{t−1} may be written at t − 1 already, if the output at t − 1 does
without it: so it is the dual scan with weights λ_t Δ_t + (1 − λ_{t+1}) Δ_{t+1}, minus
(1 − λ_{t+1}) Δ_{t+1} C_t·B_t x_t.

As in the paper B and C are normalised by their mean square and no convolution sees them; of x, the depth-wise one of
this project's wiring stays, which the paper's layer for text does without. A does not depend on the input, and there
is one input for each channel (no MIMO).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.sequences import state_spaces as design
from medmamba_variants.design.sequences.duality import CHUNK
from medmamba_variants.parts.init import spread_steps
from medmamba_variants.parts.mixers.sequences.rotary import rotate
from medmamba_variants.parts.mixers.ssd import A_MAX, A_MIN
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch
from medmamba_variants.scan.dual.op import dual_scan
from medmamba_variants.scan.dual.products import in_order, in_place
from medmamba_variants.scan.paths import ScanPath, scan_path

NORM_EPSILON = 1e-5


def trapezoidal_scan(
    x: Tensor, delta: Tensor, newer: Tensor, rates: Tensor, angles: Tensor, B: Tensor, C: Tensor, path: ScanPath
) -> Tensor:
    """The sum over the K directions of a path of y_t = C_t h_t with the states of this file's head.

    x (batch, length, H, P), delta and newer (λ) (batch, length, K, H), rates (−A) (K, H), angles (θ) (batch, length, K,
    N/2), B and C (batch, length, K, H, N); y like x.
    """
    turns = in_place(in_order(delta[..., None] * angles[:, :, :, None], path).cumsum(2), path)
    cos, sin = turns.cos(), turns.sin()
    # What the next step along each path takes from here; nothing comes after the last.
    newest = newer * delta
    older = in_order(delta - newest, path)
    older = in_place(torch.cat([older[:, :, 1:], torch.zeros_like(older[:, :, :1])], 2), path)
    y = dual_scan(x[:, :, None], newest + older, -delta * rates, rotate(B, cos, sin), rotate(C, cos, sin), path, CHUNK)
    # A product, so that its cost is counted; turning both changes nothing.
    together = (C[..., None, :] @ B[..., None])[..., 0, 0]
    return y[:, :, 0] - (older * together).sum(2)[..., None] * x


class Mamba3(Wired):
    """Gated scan of a map (batch, height, width, channels) along all directions; keeps the shape."""

    def __init__(self, channels: int, component: design.Mamba3) -> None:
        count, projected = len(component.directions), component.projected()
        super().__init__(channels, component, component.inner(channels), beside=count * projected)
        self.projected, self.steps = projected, (component.dt_min, component.dt_max)
        self.directions, self.heads, self.state = component.directions, component.heads, component.ssd_state
        self.dt_projs_bias = nn.Parameter(torch.empty(count, self.heads))
        self.A_logs = nn.Parameter(torch.empty(count, self.heads))
        self.Ds = nn.Parameter(torch.ones(count, self.heads))
        # Factors and offsets of the normalised B and C.
        self.BC_weight = nn.Parameter(torch.ones(2, count, 1, self.state))
        self.BC_bias = nn.Parameter(torch.ones(2, count, self.heads, self.state))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        spread_steps(self.dt_projs_bias, *self.steps)
        self.A_logs.uniform_(A_MIN, A_MAX).log_()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        z, inner, rest = self.in_proj(x).split(
            [self.gate_width, self.d_inner, len(self.directions) * self.projected], -1
        )
        # In the state's precision: float32 for half precision, but float64 stays.
        dtype = torch.promote_types(inner.dtype, torch.float32)
        u = self.convolved(inner).flatten(1, 2).to(dtype).unflatten(-1, (self.heads, self.d_inner // self.heads))
        rest = rest.flatten(1, 2).to(dtype).unflatten(-1, (len(self.directions), self.projected))
        # The meta device, on which costs are counted, knows no autocast.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            both, angles, delta, newer = rest.split([2 * self.state, self.state // 2, self.heads, self.heads], -1)
            both = both.unflatten(-1, (2, 1, self.state))
            both = both * torch.rsqrt((both * both).mean(-1, keepdim=True) + NORM_EPSILON)
            weight, bias = (each.to(dtype).transpose(0, 1) for each in (self.BC_weight, self.BC_bias))
            B, C = (both * weight + bias).unbind(3)
            delta = F.softplus(delta + self.dt_projs_bias)
            rates = torch.exp(self.A_logs.to(dtype))
            path = scan_path(self.directions, height, width)
            y = trapezoidal_scan(u, delta, torch.sigmoid(newer), rates, angles, B, C, path)
            y = y + u * self.Ds.sum(0)[:, None]
        return self.joined(self.out_norm(y.flatten(2)).unflatten(1, (height, width)), z)


class Mamba3Branch(WiredBranch):
    """Layer norm, Mamba-3 along paths, drop path. Map in, map of the same shape out."""

    layer = Mamba3
