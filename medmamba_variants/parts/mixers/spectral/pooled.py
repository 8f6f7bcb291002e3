"""Coarse and fine cues of a map by pooling, as a branch operator, on maps (batch, height, width, channels)."""

from __future__ import annotations

from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.spectral import mixers as design
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach


class PooledLowHighBranch(nn.Module):
    """Layer norm; 3×3 taps on SiLU of the map times its pooled self, others on SiLU of the difference; a linear map.

    The cue module of InceptionMamba: u is the map pooled by a depth-wise convolution of as many taps as its stride, and
    brought back to size, here by repetition; the coarse cue is x·u and the fine one x − u. Patches that the map's edge
    cuts are filled with zeros. Drop path last.
    """

    def __init__(self, channels: int, component: design.PooledLowHigh, drop_path: float) -> None:
        super().__init__()
        side = self.side = component.pool_stride
        self.norm = nn.LayerNorm(channels)
        self.pool = nn.Conv2d(channels, channels, side, stride=side, groups=channels)
        # Fresh, it keeps the variance of white noise.
        nn.init.normal_(self.pool.weight, std=1 / side)
        assert self.pool.bias is not None
        nn.init.zeros_(self.pool.bias)
        self.low, self.high = FilterEach(channels, (3, 3)), FilterEach(channels, (3, 3))
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        coarse = self.pooled(x)
        return self.drop_path(self.mixing(self.low(F.silu(x * coarse)) + self.high(F.silu(x - coarse))))

    def pooled(self, x: Tensor) -> Tensor:
        """The map with every pixel replaced by what its patch is pooled to."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, -width % self.side, 0, -height % self.side))
        patches = self.pool(padded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        repeated = patches[:, :, None, :, None].expand(-1, -1, self.side, -1, self.side, -1)
        return repeated.flatten(3, 4).flatten(1, 2)[:, :height, :width]
