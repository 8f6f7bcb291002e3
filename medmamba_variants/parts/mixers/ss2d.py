"""The 2-D selective scan as a layer: gating, projections and initialisation around `scan.ss2d_scan`.

Symbols, with their place in Gu & Dao, "Mamba" (2023), and Liu et al., "VMamba" (2024):

    d_inner  E · width, the channels inside the layer                            Mamba, section 3.4
    N        d_state, the size of the state of each channel                      Mamba, section 2
    R        dt_rank, the rank of the step-size projection                       Mamba, section 3.6
    K        the number of scan directions, each with its own parameters         VMamba, section 4.2 (cross-scan)
    delta    step size of every position and channel, before bias and softplus   Mamba, algorithm 2
    A        (K, d_inner, N) negative rates of decay, kept as log(−A)             Mamba, section 3.6 (S4D-real)
    B, C     (batch, length, K, N) input and output weights of the state         Mamba, algorithm 2
    D        (K, d_inner) skip                                                   Mamba, section 2
    z        the gate                                                            Mamba, figure 3

Everything is channel-last and in spatial order: only the scan itself knows about paths.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import mixers as design
from medmamba_variants.fused.filters import filtered_silu
from medmamba_variants.fused.norms import LayerNorm, gated_norm
from medmamba_variants.parts.init import depthwise, linear
from medmamba_variants.scan import ss2d_scan
from medmamba_variants.scan.paths import scan_path

# Bounds of softplus(dt_projs_bias) at the start: log-uniform between them (Mamba, section 3.6).
DT_MIN, DT_MAX = 1e-3, 1e-1


class SS2D(nn.Module):
    """Gated scan of a map (batch, height, width, channels) along all directions at once; keeps the shape.

    Parameters carry the published names and shapes; the leading axis K follows `component.directions`, or is 1 where
    all directions share one set.
    """

    def __init__(self, channels: int, component: design.SS2D) -> None:
        super().__init__()
        self.directions = component.directions
        self.window = component.scan_window
        self.merge = component.merge
        self.d_inner = component.inner(channels)
        self.d_state = component.d_state
        self.dt_rank = component.rank(channels)
        self.sets = sets = component.sets

        self.in_proj = linear(channels, 2 * self.d_inner, bias=False)
        self.conv2d = depthwise(self.d_inner, component.d_conv)
        self.x_proj_weight = nn.Parameter(torch.empty(sets, self.dt_rank + 2 * self.d_state, self.d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(sets, self.d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(sets, self.d_inner))
        self.A_logs = nn.Parameter(torch.empty(sets * self.d_inner, self.d_state))
        self.Ds = nn.Parameter(torch.empty(sets * self.d_inner))
        if self.merge == "softmax":
            self.merge_logits = nn.Parameter(torch.empty(len(self.directions)))
        self.out_norm = LayerNorm(self.d_inner)
        self.out_proj = linear(self.d_inner, channels, bias=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        if self.A_logs.is_meta:
            return
        nn.init.uniform_(self.x_proj_weight, -(self.d_inner**-0.5), self.d_inner**-0.5)
        # Keeps the variance of delta independent of its rank.
        nn.init.uniform_(self.dt_projs_weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt = torch.empty_like(self.dt_projs_bias).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
        # Inverse of softplus: log(exp(dt) − 1), written so that small dt keep their digits.
        self.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        # S4D-real: A = −1, −2, …, −N for every channel.
        self.A_logs.copy_(torch.arange(1, self.d_state + 1, dtype=torch.float32, device=self.A_logs.device).log())
        nn.init.ones_(self.Ds)
        if self.merge == "softmax":
            nn.init.zeros_(self.merge_logits)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        K, R, N = len(self.directions), self.dt_rank, self.d_state
        # Two products instead of one cut in half: both parts come out contiguous.
        weight_inner, weight_gate = self.in_proj.weight.chunk(2)
        z = F.linear(x, weight_gate)
        inner = F.linear(x, weight_inner)
        inner = filtered_silu(inner, self.conv2d)
        tokens = inner.reshape(batch, height * width, self.d_inner)

        # One product serves all directions: (batch, length, sets, R + 2N).
        projected = F.linear(tokens, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (self.sets, R + 2 * N))
        # In the state's precision: float32 for half precision, while float64 stays.
        A = -torch.exp(self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)))
        A, D = A.view(self.sets, self.d_inner, N), self.Ds.view(self.sets, self.d_inner)
        # Under autocast the factors have the same dtype, as in any other product.
        bias: Tensor = self.dt_projs_bias
        factor = self.dt_projs_weight.to(projected.dtype)
        if self.sets < K:
            projected = projected.expand(-1, -1, K, -1)
            A, D = A.expand(K, -1, -1), D.expand(K, -1)
            bias, factor = bias.expand(K, -1), factor.expand(K, -1, -1)
        low_rank, B, C = projected.split((R, N, N), dim=-1)
        # A direction's output is linear in its C and D, so a weight on both is one on the output, without another scan.
        if self.merge == "mean":
            C, D = C * (1 / K), D * (1 / K)
        elif self.merge == "softmax":
            weights = self.merge_logits.softmax(0)[:, None]
            C, D = C * weights.to(C.dtype), D * weights
        path = scan_path(self.directions, height, width, self.window)
        y = ss2d_scan(tokens, low_rank, A, B, C, D, bias, path, factor)
        return self.out_proj(gated_norm(y.view_as(z), z, self.out_norm))


def gated(y: Tensor, z: Tensor) -> Tensor:
    """The product y · silu(z), which keeps only y and z for the backward pass."""
    # A trace must hold operations, not a Python function; without gradients nothing is kept anyway.
    if torch.jit.is_tracing() or not torch.is_grad_enabled():
        return y * F.silu(z)
    product: Tensor = _Gated.apply(y, z)
    return product


class _Gated(torch.autograd.Function):
    """The product y · silu(z) that recomputes silu(z) in the backward pass, where autograd would keep it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, z: Tensor) -> Tensor:
        return y * F.silu(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
        y, z = ctx.saved_tensors
        dgate = (dout * y).to(z.dtype)
        if torch.is_grad_enabled():  # Under create_graph: the fused operator has no derivative.
            s = z.sigmoid()
            dz = dgate * s * (1 + z * (1 - s))
        else:
            dz = torch.ops.aten.silu_backward(dgate, z)
        return (dout * F.silu(z)).to(y.dtype), dz


class SS2DBranch(nn.Module):
    """The published global branch: layer norm, 2-D selective scan, drop path. Map in, map of the same shape out."""

    def __init__(self, channels: int, component: design.SS2D, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.mixer = SS2D(channels, component)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixer(self.norm(x)))
