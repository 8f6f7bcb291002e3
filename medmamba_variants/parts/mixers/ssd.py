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

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import sequence_mixers as design
from medmamba_variants.parts.init import spread_steps
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch
from medmamba_variants.scan.paths import constant_of_graphs, scan_path

# Bounds of −A at the start: uniform between them (Mamba-2's code).
A_MIN, A_MAX = 1.0, 16.0


def chunked_scan(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, chunk: int = design.CHUNK) -> Tensor:
    """y_t = C_t h_t with h_t = exp(log_decay_t) h_{t−1} + B_t x_tᵀ for every head, in products over chunks of steps.

    x (batch, length, H, P), log_decay (batch, length, H) of no positive number, B and C (batch, length, N), the same
    for all heads; y like x. Mamba-2, section 6, with products in place of its running sums.
    """
    length, heads, width = x.shape[1:]
    size = min(chunk, length)
    count = math.ceil(length / size)
    missing = count * size - length
    # Steps after the last that write nothing.
    x, log_decay = F.pad(x, (0, 0, 0, 0, 0, missing)), F.pad(log_decay, (0, 0, 0, missing))
    B, C = (F.pad(each, (0, 0, 0, missing)).unflatten(1, (count, size)) for each in (B, C))
    x = x.unflatten(1, (count, size))
    # The decays since a chunk began, (batch, count, H, size).
    since = _running_sums(log_decay.unflatten(1, (count, size)).transpose(2, 3))
    reach = torch.exp(_differences(since, since, 1))
    y = ((C @ B.transpose(2, 3))[:, :, None] * reach) @ x.transpose(2, 3)
    if count > 1:
        ends = B.transpose(2, 3) @ (x * torch.exp(since[..., -1:] - since).transpose(2, 3)[..., None]).flatten(3)
        whole = since[..., -1].transpose(1, 2)
        until = _running_sums(whole)
        # From the end of each chunk to the start of each later one.
        kept = torch.exp(_differences(until - whole, until, 0))
        starts = kept @ ends.unflatten(3, (heads, width)).permute(0, 3, 1, 2, 4).flatten(3)
        starts = starts.unflatten(3, (B.shape[-1], width)).permute(0, 2, 3, 1, 4).flatten(3)
        y = y + (C @ starts).unflatten(3, (heads, width)).transpose(2, 3) * torch.exp(since)[..., None]
    return y.transpose(2, 3).flatten(1, 2)[:, :length]


def _running_sums(terms: Tensor) -> Tensor:
    """Sums along the last axis up to each term, itself included; as a product, whose cost is counted."""
    ones = torch.ones(terms.shape[-1], terms.shape[-1], dtype=terms.dtype, device=terms.device)
    return terms @ ones.triu()


def _differences(to: Tensor, since: Tensor, diagonal: int) -> Tensor:
    """to_i − since_j for all j < i + diagonal; of the others −inf, before an exponential that could overflow."""
    size = to.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=to.device).triu(diagonal)
    return (to[..., :, None] - since[..., None, :]).masked_fill(later, -math.inf)


@lru_cache(maxsize=256)
def _cached_orders(
    directions: tuple[str, ...], height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    table = scan_path(directions, height, width).table.astype(np.int64)
    count, length = table.shape
    each = np.arange(count)[:, None]
    indices = (table, table * count + each, table.argsort(axis=1) + each * length)
    read, write, back = (torch.from_numpy(index.ravel()).to(device) for index in indices)
    return read, write, back


@constant_of_graphs
def orders(directions: tuple[str, ...], height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where K paths find their steps in (length, …), in (length · K, …), and positions in (K · length, …); cached."""
    # What inference mode makes could not be an index in training afterwards; and a default device is for weights.
    with torch.inference_mode(False), torch.device("cpu"):
        return _cached_orders(directions, height, width, device)


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
        read, write, back = orders(self.directions, *size, u.device)
        # Each direction is an image of its own, (batch · K, length, …).
        batch, shape = len(u), (self.count, u.shape[1])
        u = u.index_select(1, read).unflatten(1, shape).flatten(0, 1)
        B, C, delta, decay = (
            each.flatten(1, 2).index_select(1, write).unflatten(1, shape).flatten(0, 1)
            for each in (B, C, delta, -delta * rates)
        )
        y = chunked_scan(u * delta[..., None], decay, B, C)
        y = y.unflatten(0, (batch, self.count)).flatten(1, 2)
        return y.index_select(1, back).unflatten(1, shape).sum(1)


class NonCausalSSD(_Dual):
    """The same without decay or order: every position writes to one state, by its own rate, and reads it."""

    def __init__(self, channels: int, component: design.NonCausalSSD) -> None:
        super().__init__(channels, component, 1)

    def mix(self, u: Tensor, delta: Tensor, rates: Tensor, B: Tensor, C: Tensor, size: tuple[int, int]) -> Tensor:
        written = (u * (delta * rates).squeeze(2)[..., None]).flatten(2)
        state = B.squeeze(2).transpose(1, 2) @ written
        return (C.squeeze(2) @ state).view_as(u)


class SSDBranch(WiredBranch):
    """Layer norm, state-space duality along paths, drop path. Map in, map of the same shape out."""

    layer = SSD


class NonCausalSSDBranch(WiredBranch):
    """Layer norm, state-space duality without order, drop path. Map in, map of the same shape out."""

    layer = NonCausalSSD
