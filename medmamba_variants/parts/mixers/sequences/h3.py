"""Hungry Hungry Hippos as a layer, along paths over the map.

Fu et al., "Hungry hungry hippos: towards language modeling with state space models" (2023), section 3: with queries q,
keys k and values v, y = q ⊙ diag(shift(k) ⊙ v), where shift is a state space whose state is the last inputs, that is a
causal convolution, and diag one with a diagonal matrix. Neither depends on the input.

The diagonal one is the selective scan with constant step sizes, B and C. As in that scan, B and C are the same for all
channels, whose rates and steps are their own; H3 ties all of them in groups of channels. A layer norm stands before
the product with q, as before every gate of this project.
"""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.sequences import state_spaces as design
from medmamba_variants.parts.init import linear, spread_steps
from medmamba_variants.scan import ss2d_scan
from medmamba_variants.scan.dual.products import in_order, in_place
from medmamba_variants.scan.paths import scan_path


class H3(nn.Module):
    """Two state spaces and two products on a map (batch, height, width, channels) along all directions."""

    def __init__(self, channels: int, component: design.H3) -> None:
        super().__init__()
        self.directions, self.taps = component.directions, component.shift_taps
        count, states = len(self.directions), component.d_state
        self.steps = component.dt_min, component.dt_max
        self.qkv = linear(channels, 3 * channels, bias=False)
        # Each direction's channels are channels of one scan along the paths.
        self.shift = nn.Parameter(torch.empty(count * channels, 1, self.taps))
        self.A_logs = nn.Parameter(torch.empty(count * channels, states))
        self.Bs, self.Cs = nn.Parameter(torch.empty(states)), nn.Parameter(torch.empty(states))
        self.dt_projs_bias = nn.Parameter(torch.empty(count * channels))
        self.Ds = nn.Parameter(torch.ones(count * channels))
        self.out_norm = nn.LayerNorm(channels)
        self.mixing = linear(channels, channels, bias=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.uniform_(self.shift, -(self.taps**-0.5), self.taps**-0.5)
        spread_steps(self.dt_projs_bias, *self.steps)
        # S4D-real, with the input weights and random read-outs of S4D.
        self.A_logs.copy_(torch.arange(1, self.A_logs.shape[1] + 1, device=self.A_logs.device).log())
        nn.init.ones_(self.Bs)
        nn.init.normal_(self.Cs)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        count, length, states = len(self.directions), height * width, len(self.Bs)
        path = scan_path(self.directions, height, width)
        q, k, v = self.qkv(x).flatten(1, 2).split(channels, -1)
        # (batch, length, K · channels), each direction in its visiting order.
        k, v = (in_order(each[:, :, None], path).transpose(1, 2).flatten(2) for each in (k, v))
        past = F.pad(k.transpose(1, 2), (self.taps - 1, 0))
        shifted = F.conv1d(past, self.shift.to(past.dtype), groups=len(self.shift)).transpose(1, 2)
        driven = shifted * v
        A = -torch.exp(self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)))
        B, C = (each.expand(batch, length, 1, states) for each in (self.Bs, self.Cs))
        # A single constant factor times a weight for each channel is the step size before softplus.
        ones = driven.new_ones(1).expand(batch, length, 1, 1)
        steps = self.dt_projs_bias[None, :, None].to(driven.dtype)
        line = scan_path(("rows",), 1, length)
        y = ss2d_scan(driven, ones, A[None], B, C, self.Ds[None], None, line, steps)
        y = in_place(y.unflatten(2, (count, channels)).transpose(1, 2), path).sum(2)
        return self.mixing((self.out_norm(y) * q).view_as(x))


class H3Branch(nn.Module):
    """Layer norm, H3 along paths, drop path. Map in, map of the same shape out."""

    def __init__(self, channels: int, component: design.H3, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mixer = H3(channels, component)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixer(self.norm(x)))
