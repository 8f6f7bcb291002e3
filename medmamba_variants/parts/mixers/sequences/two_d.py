"""The selective scan in two dimensions as a layer: states run along rows, and what comes of them along columns.

Zhang et al., "2DMamba: efficient state space model for image representation" (2025), section 3.2: with Ā = exp(ΔA) of
each position, g_{ij} = Ā_{ij} g_{i,j−1} + Δ_{ij} B_{ij} x_{ij} along each row, h_{ij} = Ā_{ij} h_{i−1,j} + g_{ij} along
each column, and y_{ij} = C_{ij} h_{ij} + D x_{ij}. So a position reads all that lies above it and left of it, at a
distance of rows plus columns. The paper scans from one corner; here every corner has parameters of its own, and outputs
are summed.
Symbols, names and first values are those of SS2D, around the scan everything is as there.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.sequences import state_spaces as design
from medmamba_variants.parts.init import spread_steps
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch
from medmamba_variants.scan.lines import scan_lines
from medmamba_variants.scan.loops import asked_for

# The axes of a map (batch, height, width, …) that are reversed for each corner's scan.
REVERSED: dict[int, tuple[tuple[int, ...], ...]] = {1: ((),), 2: ((), (1, 2)), 4: ((), (1, 2), (2,), (1,))}


def plane_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """y (batch, height, width, d) of scans from the upper left corner: along rows, then along columns.

    x and delta (batch, height, width, d), the latter positive; A (d, N) negative; B and C (batch, height, width, N).
    """
    decay = torch.exp(delta[..., None] * A)
    drive = (delta * x)[..., None] * B[..., None, :]
    h = scan_lines(decay, scan_lines(decay, drive, 2), 1)
    return (h * C[..., None, :]).sum(-1)


class TwoD(Wired):
    """Gated two-dimensional scan of a map (batch, height, width, channels) from its corners; keeps the shape."""

    def __init__(self, channels: int, component: design.TwoD) -> None:
        super().__init__(channels, component, component.inner(channels))
        self.d_state, self.dt_rank, self.corners = component.d_state, component.rank(channels), component.corners
        self.steps = component.dt_min, component.dt_max
        self.x_proj_weight = nn.Parameter(torch.empty(self.corners, self.dt_rank + 2 * self.d_state, self.d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(self.corners, self.d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(self.corners, self.d_inner))
        self.A_logs = nn.Parameter(torch.empty(self.corners * self.d_inner, self.d_state))
        self.Ds = nn.Parameter(torch.ones(self.corners * self.d_inner))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.uniform_(self.x_proj_weight, -(self.d_inner**-0.5), self.d_inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        spread_steps(self.dt_projs_bias, *self.steps)
        # S4D-real: A = −1, −2, …, −N for every channel.
        self.A_logs.copy_(torch.arange(1, self.d_state + 1, dtype=torch.float32, device=self.A_logs.device).log())

    def forward(self, x: Tensor) -> Tensor:
        K, R, N = self.corners, self.dt_rank, self.d_state
        inner, z = self.halves(x)
        inner = self.convolved(inner)
        projected = F.linear(inner, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (K, R + 2 * N))
        low_rank, B, C = projected.split((R, N, N), -1)
        # In the state's precision: float32 for half precision, but float64 stays.
        dtype = torch.promote_types(inner.dtype, torch.float32)
        u, low_rank, B, C = (each.to(dtype) for each in (inner, low_rank, B, C))
        # The meta device, on which costs are counted, knows no autocast; nor do files that hold loops.
        precise = nullcontext() if asked_for() else torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)
        with precise:
            A = -torch.exp(self.A_logs.to(dtype)).view(K, self.d_inner, N)
            weights = self.dt_projs_weight.to(dtype)
            total = u * self.Ds.view(K, -1).sum(0)
            for k, axes in enumerate(REVERSED[K]):
                delta = F.softplus(F.linear(low_rank[..., k, :], weights[k], self.dt_projs_bias[k].to(dtype)))
                keys, queries = (each[..., k, :].flip(axes) for each in (B, C))
                total = total + plane_scan(u.flip(axes), delta.flip(axes), A[k], keys, queries).flip(axes)
        return self.normed_and_joined(total, z)


class TwoDBranch(WiredBranch):
    """Layer norm, two-dimensional scan, drop path. Map in, map of the same shape out."""

    layer = TwoD
