"""Convolutional branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

from torch import Tensor, nn

from medmamba_variants.config import VariantConfig


def convolution(channels_in: int, channels_out: int, kernel_size: int, stride: int, padding: int) -> nn.Conv2d:
    """A dense convolution with the published initialisation (He, fan out)."""
    layer = nn.Conv2d(channels_in, channels_out, kernel_size, stride=stride, padding=padding)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class ConvBranch(nn.Module):
    """The published local branch: two full 3×3 convolutions and one 1×1, batch norm first, ReLU last.

    Ending in a ReLU, its output is never negative. Map in, map of the same shape out.
    """

    def __init__(self, channels: int, config: VariantConfig, drop_path: float) -> None:
        super().__init__()
        # upstream: drop path belongs to the scan branch alone.
        del config, drop_path
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            convolution(channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            convolution(channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            convolution(channels, channels, 1, 1, 0),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
