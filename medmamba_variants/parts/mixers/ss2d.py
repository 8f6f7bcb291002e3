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

import copy
import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import scan_mixer as design
from medmamba_variants.design.scan_policy import Part
from medmamba_variants.parts.mixers.scan_order import LearnedOrder, RandomStep
from medmamba_variants.parts.mixers.scan_parts import by_grids, quarter, random_quarter
from medmamba_variants.parts.mixers.scan_router import Router
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch
from medmamba_variants.scan import ss2d_scan
from medmamba_variants.scan.partitions import partitioned_path
from medmamba_variants.scan.paths import ScanPath

# Bounds of softplus(dt_projs_bias) at the start: log-uniform between them (Mamba, section 3.6).
DT_MIN, DT_MAX = 1e-3, 1e-1
# The parameters whose first axis goes through the sets, alone or together with the channels.
SET_BY_SET = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


class SS2D(Wired):
    """Gated scan of a map (batch, height, width, channels) along all directions at once; keeps the shape.

    Parameters carry the published names and shapes; the leading axis K follows `component.directions`, or is 1 where
    all directions share one set; where atrous grids have parameters of their own, it has all of these grid by grid.
    """

    def __init__(self, channels: int, component: design.SS2D) -> None:
        super().__init__(channels, component, component.inner(channels))
        self.directions = component.directions
        self.parts, self.step = component.parts, component.scan_atrous
        # Parts are cut out of the map before they are scanned.
        self.partition = component.partition if len(self.parts) == 1 else replace(component.partition, atrous=1)
        self.merge = component.merge
        self.reduction = component.token_reduction
        self.experts = component.experts
        self.d_state = component.d_state
        self.dt_rank = component.rank(channels)
        self.sets = sets = component.sets

        self.x_proj_weight = nn.Parameter(torch.empty(sets, self.dt_rank + 2 * self.d_state, self.d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(sets, self.d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(sets, self.d_inner))
        self.A_logs = nn.Parameter(torch.empty(sets * self.d_inner, self.d_state))
        self.Ds = nn.Parameter(torch.empty(sets * self.d_inner))
        if self.merge == "softmax":
            self.merge_logits = nn.Parameter(torch.empty(len(self.directions)))
        self._initialise()
        self.order: nn.Module | None = None
        if component.scan_order == "random_step":
            self.order = RandomStep()
        elif component.scan_order != "fixed":
            self.order = LearnedOrder(self.d_inner, component.scan_order == "learned_shuffled")
        self.router: nn.Module | None = None
        if component.routing == "top_k":
            self.router = Router(self.d_inner, len(self.directions), component.routed_directions)

    @torch.no_grad()
    def _initialise(self) -> None:
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
        inner, z = self.halves(x)
        y = self.mapped(self.convolved(inner))
        return self.joined(self.out_norm(y), z)

    def mapped(self, inner: Tensor) -> Tensor:
        """The scan of a map of inner channels by the layer's policy, both (batch, height, width, d_inner)."""
        if self.reduction == "none":
            return self.ordered(inner)
        # The skip leaves nothing out; it is linear, so that it may be added afterwards.
        layer = self.with_parameters(Ds=torch.zeros_like(self.Ds))
        if self.reduction == "quarter":
            y = quarter(inner, layer.ordered)
        else:
            y = random_quarter(inner, self.path, layer.scanned)
        return y + inner * self.skip().to(inner.dtype)

    def ordered(self, inner: Tensor) -> Tensor:
        """The scan of a map whose positions may be laid out anew before."""
        return self.divided(inner) if self.order is None else self.order(inner, self.divided)

    def divided(self, inner: Tensor) -> Tensor:
        """The scan of a map as a whole, or in parts that have directions or parameters of their own."""
        if self.router is not None:
            routed: Tensor = self.router(inner, lambda index, x: self.part(self.experts[index]).scanned(x))
            return routed
        if len(self.parts) == 1:
            return self.scanned(inner)
        return by_grids(inner, self.parts, self.step, lambda grid, part: self.part(part).scanned(grid))

    def skip(self) -> Tensor:
        """What multiplies the map itself in the merged output of all directions, (d_inner,)."""
        D = self.Ds.view(self.sets, self.d_inner).expand(len(self.directions), -1)
        if self.merge == "softmax":
            return self.merge_logits.softmax(0) @ D
        return D.mean(0) if self.merge == "mean" else D.sum(0)

    def part(self, part: Part) -> SS2D:
        """The layer with the directions and the parameters of one part alone: the same tensors, not copies."""
        chosen = {}
        for name in SET_BY_SET:
            parameter = getattr(self, name)
            size = len(parameter) // self.sets
            chosen[name] = parameter[part.first_set * size : (part.first_set + part.sets) * size]
        layer = self.with_parameters(**chosen)
        layer.directions, layer.sets = part.directions, part.sets
        return layer

    def with_parameters(self, **others: Tensor) -> SS2D:
        """The layer with other tensors for some of its parameters."""
        layer = copy.copy(self)
        layer._parameters = self._parameters | {name: cast(nn.Parameter, tensor) for name, tensor in others.items()}
        return layer

    def scanned(self, inner: Tensor, path: ScanPath | None = None) -> Tensor:
        """The scan of a map (batch, height, width, d_inner) along all directions of the layer, merged to one map.

        `path` stands for the layer's own path.
        """
        batch, height, width, _ = inner.shape
        K, R, N = len(self.directions), self.dt_rank, self.d_state
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
        y = ss2d_scan(tokens, low_rank, A, B, C, D, bias, path or self.path(height, width), factor)
        return y.view(batch, height, width, self.d_inner)

    def path(self, height: int, width: int) -> ScanPath:
        """The orders in which the directions visit a map of that size."""
        return partitioned_path(self.directions, height, width, self.partition)


class SS2DBranch(WiredBranch):
    """The published global branch: layer norm, 2-D selective scan, drop path. Map in, map of the same shape out."""

    layer = SS2D
