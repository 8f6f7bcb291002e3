"""The 2-D selective scan as a layer: gating, projections and initialisation around `scan.ss2d_scan`.

Everything is channel-last and in spatial order: only the scan itself knows about paths. The symbols are those of `s6`,
and z is the gate (Mamba, figure 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import scan_mixer as design
from medmamba_variants.parts.mixers.s6 import S6, Factors
from medmamba_variants.parts.mixers.wiring import WiredBranch
from medmamba_variants.scan import ss2d_scan
from medmamba_variants.scan.partitions import partitioned_path
from medmamba_variants.scan.paths import ScanPath


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

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        inner, z = self.halves(x)
        tokens = self.convolved(inner).reshape(batch, height * width, self.d_inner)
        factors = self.factors(tokens)
        y = (self.together if not self.component.merges_apart else self.apart)(tokens, factors, height, width)
        return self.normed_and_joined(y.view(batch, height, width, self.d_inner), z)

    def together(self, tokens: Tensor, factors: Factors, height: int, width: int) -> Tensor:
        """The weighted sum of all directions' outputs, by one scan."""
        C, D = factors.C, factors.D
        # A direction's output is linear in its C and D, so a weight on both is one on the output, without another scan.
        if self.merge == "mean":
            C, D = C * (1 / self.count), D * (1 / self.count)
        elif self.merge == "softmax":
            weights = self.merge_logits.softmax(0)[:, None]
            C, D = C * weights.to(C.dtype), D * weights
        return ss2d_scan(
            tokens, factors.delta, factors.A, factors.B, C, D, factors.delta_bias, self.path(height, width),
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
