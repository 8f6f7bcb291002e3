"""The block: channels are shared out to branches, each runs its operator, a fusion joins them to the residual."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from medmamba_variants.config import VariantConfig
from medmamba_variants.parts.fusions import FUSIONS, Concat
from medmamba_variants.parts.mixers.conv import ConvBranch
from medmamba_variants.parts.mixers.ss2d import SS2DBranch


class BranchOperator(Protocol):
    """What a branch operator's class must offer."""

    def __call__(self, channels: int, config: VariantConfig, drop_path: float) -> nn.Module: ...


# The names are the operators of the axis `branches`.
OPERATORS: dict[str, BranchOperator] = {"conv": ConvBranch, "ss2d": SS2DBranch}


class Block(nn.Module):
    """One MedMamba block of a stage: x + fusion(operator_i(slice i of x)), on (batch, height, width, channels)."""

    def __init__(self, stage: int, config: VariantConfig, drop_path: float) -> None:
        super().__init__()
        self.widths = config.widths(stage)
        operators = [operator for _, operator in config.stages_of_branches()[stage]]
        self.branches = nn.ModuleList(
            OPERATORS[operator](width, config, drop_path) for operator, width in zip(operators, self.widths)
        )
        # With a single branch a shuffle or a gate would only re-parametrise it.
        fusion = FUSIONS[config.fusion] if len(self.widths) > 1 else Concat
        self.fusion = fusion(self.widths, config)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.widths) == 1:
            return x + self.branches[0](x)
        slices = x.split(self.widths, dim=-1)
        return self.fusion(x, [branch(part) for branch, part in zip(self.branches, slices)])
