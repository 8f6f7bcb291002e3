"""The gated convolution as a layer: the wiring of `ss2d` without its scan, on maps (batch, height, width, channels)."""

from __future__ import annotations

from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import gated as design
from medmamba_variants.fused.norms import LayerNorm
from medmamba_variants.parts.init import depthwise, linear
from medmamba_variants.parts.mixers.ss2d import gated


class GatedConv(nn.Module):
    """A linear map to twice the inner channels, a depth-wise convolution with SiLU on one half, the other its gate.

    What the block of Yu & Wang, "MambaOut" (2024) asks: does the scan itself pay? Names, shapes and first values are
    those of SS2D, also the layer norm before the gate, which MambaOut's block lacks, so that the scan is all that
    differs.
    """

    def __init__(self, channels: int, component: design.GatedConv) -> None:
        super().__init__()
        inner = component.inner(channels)
        self.in_proj = linear(channels, 2 * inner, bias=False)
        self.conv2d = depthwise(inner, component.d_conv)
        self.out_norm = LayerNorm(inner)
        self.out_proj = linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight_inner, weight_gate = self.in_proj.weight.chunk(2)
        inner = self.conv2d(F.linear(x, weight_inner).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.out_proj(gated(self.out_norm(F.silu(inner)), F.linear(x, weight_gate)))


class GatedConvBranch(nn.Module):
    """Layer norm, gated convolution, drop path. Map in, map of the same shape out."""

    def __init__(self, channels: int, component: design.GatedConv, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.mixer = GatedConv(channels, component)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.mixer(self.norm(x)))
