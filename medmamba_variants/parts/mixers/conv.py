"""Convolutional branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.mixers import Conv
from medmamba_variants.parts.init import convolution


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains on a single pixel: one value per channel is normalised as in evaluation.

    Torch refuses that, since one value has no variance; where the last stage's map is one pixel, an epoch whose last
    batch is one image would fail.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ConvBranch(nn.Module):
    """The published local branch: two full 3×3 convolutions and one 1×1, batch norm first, ReLU last.

    Since it ends in a ReLU, its output is never negative. Map in, map of the same shape out.
    """

    def __init__(self, channels: int, component: Conv, drop_path: float) -> None:
        super().__init__()
        # upstream: drop path belongs to the scan branch alone.
        del component, drop_path
        self.layers = nn.Sequential(
            BatchNorm(channels),
            convolution(channels, channels, 3, 1, 1),
            BatchNorm(channels),
            nn.ReLU(),
            convolution(channels, channels, 3, 1, 1),
            BatchNorm(channels),
            nn.ReLU(),
            convolution(channels, channels, 1, 1, 0),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
