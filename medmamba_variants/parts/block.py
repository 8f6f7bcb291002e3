"""Block of a stage: channels are divided among branches, each runs its operator, a fusion adds them to the residual."""

from __future__ import annotations

from torch import Tensor, nn

from medmamba_variants.design.structure import Stage
from medmamba_variants.fused.joins import parted


class Block(nn.Module):
    """One MedMamba block of a stage: x + fusion(operator_i(slice i of x)), on (batch, height, width, channels)."""

    def __init__(self, stage: Stage, drop_path: float) -> None:
        super().__init__()
        self.widths = stage.widths
        self.branches = nn.ModuleList(
            mixer.builder()(width, mixer, drop_path) for mixer, width in zip(stage.mixers, self.widths, strict=True)
        )
        # With a single branch a shuffle or a gate would only re-parametrise it.
        if len(self.widths) > 1:
            self.fusion = stage.fusion.builder()(self.widths, stage.fusion)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.widths) == 1:
            return x + self.branches[0](x)
        x, *slices = parted(x, self.widths)
        return self.fusion(x, [branch(part) for branch, part in zip(self.branches, slices)])
