"""The 2-D selective scan as a layer: gating, projections and initialisation around `scan.ss2d_scan`.

Everything is channel-last and in spatial order: only the scan itself knows about paths. The symbols are those of `s6`,
and z is the gate (Mamba, figure 3).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import scan_mixer as design
from medmamba_variants.design.scan_policy import Part
from medmamba_variants.parts.mixers.s6 import S6, Factors
from medmamba_variants.parts.mixers.scan_order import LearnedOrder, RandomStep
from medmamba_variants.parts.mixers.scan_parts import by_grids, merge_similar, quarter, random_quarter
from medmamba_variants.parts.mixers.scan_router import Router
from medmamba_variants.parts.mixers.wiring import WiredBranch
from medmamba_variants.scan import ss2d_scan
from medmamba_variants.scan.partitions import partitioned_path
from medmamba_variants.scan.paths import ScanPath

# The parameters whose first axis goes through the sets, alone or together with the channels.
SET_BY_SET = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Bs", "Cs", "Ds")


class SS2D(S6):
    """Gated scan of a map (batch, height, width, channels) along all directions at once; keeps the shape."""

    def __init__(self, channels: int, component: design.SS2D) -> None:
        super().__init__(channels, component)
        self.directions = component.directions
        self.partition = component.partition
        self.merge = component.merge
        self.rule = component.discretisation
        everything = self.count * self.d_inner
        if self.merge == "softmax":
            self.merge_logits = nn.Parameter(torch.zeros(self.count))
        elif self.merge == "squeeze_excite":
            self.squeeze = nn.Linear(everything, component.gate_hidden(channels))
            self.excite = nn.Linear(component.gate_hidden(channels), everything)
        elif self.merge == "concat":
            self.merge_proj = nn.Linear(everything, self.d_inner, bias=False)
            # Fresh, what comes out has the variance of one direction.
            nn.init.normal_(self.merge_proj.weight, std=everything**-0.5)

        self.parts, self.step = component.parts, component.scan_atrous
        if len(self.parts) > 1:
            # They are cut out of the map before they are scanned.
            self.partition = replace(self.partition, atrous=1)
        self.reduction, self.experts = component.token_reduction, component.experts
        self.order: nn.Module | None = None
        if component.scan_order == "random_step":
            self.order = RandomStep()
        elif component.scan_order != "fixed":
            self.order = LearnedOrder(self.d_inner, component.scan_order == "learned_shuffled")
        self.router: nn.Module | None = None
        if component.routing == "top_k":
            self.router = Router(self.d_inner, self.count, component.routed_directions)

    def forward(self, x: Tensor) -> Tensor:
        inner, z = self.halves(x)
        return self.normed_and_joined(self.mapped(self.convolved(inner)), z)

    def mapped(self, inner: Tensor) -> Tensor:
        """The scan of a map of inner channels by the layer's policy, both (batch, height, width, d_inner)."""
        if self.reduction == "none":
            return self.ordered(inner)
        # The skip leaves nothing out; it is linear, so that it may be added afterwards.
        layer = self.with_parameters(Ds=torch.zeros_like(self.Ds))
        if self.reduction == "quarter":
            y = quarter(inner, layer.ordered)
        elif self.reduction == "merge_similar":
            y = merge_similar(inner, layer.ordered)
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
        D = self._for_directions(self.Ds.view(self.sets, self.d_inner), 0)
        if self.merge == "softmax":
            return self.merge_logits.softmax(0) @ D
        return D.mean(0) if self.merge == "mean" else D.sum(0)

    def part(self, part: Part) -> SS2D:
        """The layer with the directions and the parameters of one part alone: the same tensors, not copies."""
        chosen = {}
        for name in SET_BY_SET:
            parameter = self._parameters.get(name)
            if parameter is not None:
                chosen[name] = parameter.unflatten(0, (self.sets, -1))[part.sets].flatten(0, 1)
        if self.component.direction_embedding:
            first = self.directions.index(part.directions[0])
            chosen["direction_embedding"] = self.direction_embedding[first : first + len(part.directions)]
        layer = self.with_parameters(**chosen)
        layer.directions, layer.count = part.directions, len(part.directions)
        layer.sets = part.sets.stop - part.sets.start
        return layer

    def with_parameters(self, **others: Tensor) -> SS2D:
        """The layer with other tensors for some of its parameters."""
        layer = copy.copy(self)
        layer._parameters = self._parameters | {name: cast(nn.Parameter, tensor) for name, tensor in others.items()}
        return layer

    def scanned(self, inner: Tensor, path: ScanPath | None = None) -> Tensor:
        """The scan of a map (batch, height, width, d_inner) along all directions of the layer, merged to one map.

        `path` stands for the layer's own path, where the merge needs only a weighted sum.
        """
        batch, height, width, _ = inner.shape
        tokens = inner.reshape(batch, height * width, self.d_inner)
        factors = self.factors(tokens)
        if self.component.merges_apart:
            y = self.apart(tokens, factors, height, width)
        else:
            y = self.together(tokens, factors, path or self.path(height, width))
        return y.view(batch, height, width, self.d_inner)

    def together(self, tokens: Tensor, factors: Factors, path: ScanPath) -> Tensor:
        """The weighted sum of all directions' outputs, by one scan."""
        C, D = factors.C, factors.D
        # A direction's output is linear in its C and D, so a weight on both is one on the output, without another scan.
        if self.merge == "mean":
            C, D = C * (1 / self.count), D * (1 / self.count)
        elif self.merge == "softmax":
            weights = self.merge_logits.softmax(0)[:, None]
            C, D = C * weights.to(C.dtype), D * weights
        return ss2d_scan(
            tokens, factors.delta, factors.A, factors.B, C, D, factors.delta_bias, path,
            factors.delta_weight, discretisation=self.rule,
        )  # fmt: skip

    def apart(self, tokens: Tensor, factors: Factors, height: int, width: int) -> Tensor:
        """One output of all directions' outputs, each by a scan of its own, since a scan yields only their sum."""
        outputs = []
        for k, direction in enumerate(self.directions):
            one = slice(k, k + 1)
            y = ss2d_scan(
                tokens, factors.delta[:, :, one], factors.A[one], factors.B[:, :, one], factors.C[:, :, one],
                factors.D[one], factors.delta_bias[one], self.path(height, width, (direction,)),
                factors.delta_weight[one], discretisation=self.rule,
            )  # fmt: skip
            outputs.append(y)
        if self.merge == "concat":
            merged: Tensor = self.merge_proj(torch.cat(outputs, dim=-1))
            return merged
        means = torch.cat([output.mean(1) for output in outputs], dim=-1)
        # Fresh, about one, as in the fusion of that name.
        gates = (2 * torch.sigmoid(self.excite(F.silu(self.squeeze(means)))))[:, None].chunk(self.count, dim=-1)
        y = outputs[0] * gates[0]
        for output, gate in zip(outputs[1:], gates[1:]):
            y = torch.addcmul(y, output, gate)
        return y

    def path(self, height: int, width: int, directions: tuple[str, ...] | None = None) -> ScanPath:
        """The orders in which the directions, or some of them, visit a map of that size."""
        return partitioned_path(directions or self.directions, height, width, self.partition)


class SS2DBranch(WiredBranch):
    """The published global branch: layer norm, 2-D selective scan, drop path. Map in, map of the same shape out."""

    layer = SS2D
