"""The gated convolution as a layer: the wiring of `ss2d` without its scan, on maps (batch, height, width, channels)."""

from __future__ import annotations

from torch import Tensor

from medmamba_variants.design import gated as design
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch


class GatedConv(Wired):
    """A linear map to twice the inner channels, a depth-wise convolution with SiLU on one half, the other its gate.

    What the block of Yu & Wang, "MambaOut" (2024) asks: does the scan itself pay? Names, shapes and first values are
    those of SS2D, also the layer norm before the gate, which MambaOut's block lacks, so that the scan is all that
    differs.
    """

    def __init__(self, channels: int, component: design.GatedConv) -> None:
        super().__init__(channels, component, component.inner(channels))

    def forward(self, x: Tensor) -> Tensor:
        inner, z = self.halves(x)
        return self.normed_and_joined(self.convolved(inner), z)


class GatedConvBranch(WiredBranch):
    """Layer norm, gated convolution, drop path. Map in, map of the same shape out."""

    layer = GatedConv
