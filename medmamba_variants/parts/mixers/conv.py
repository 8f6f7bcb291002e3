"""Convolutional branch operators, on maps (batch, height, width, channels)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.mixers import Conv
from medmamba_variants.fused.fitting import fits
from medmamba_variants.fused.norms import batch_norm
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

    @property
    def norms(self) -> list[BatchNorm]:
        """The batch norms, before each convolution."""
        return [layer for layer in self.layers if isinstance(layer, BatchNorm)]

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The convolutions: two of 3×3 pixels, one of a single pixel."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor) -> Tensor:
        (first_norm, second_norm, third_norm), (first, second, mixing) = self.norms, self.convolutions
        x = _convolved(first, batch_norm(x, first_norm, relu=False))
        x = _convolved(second, batch_norm(x, second_norm, relu=True))
        x = batch_norm(x, third_norm, relu=True)
        if not fits(x, mixing.weight, mixing.bias):
            return F.relu(_convolved(mixing, x))
        # A convolution of one pixel is a product over channels, whose backward pass is faster by half.
        return F.relu_(F.linear(x, mixing.weight.flatten(1), mixing.bias))


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution of a channel-last map."""
    seen: Tensor = layer(x.permute(0, 3, 1, 2))
    return seen.permute(0, 2, 3, 1)
