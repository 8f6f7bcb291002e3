"""Scans over other pairs of a map's axes as a layer: the tensor is turned, scanned and turned back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmamba_variants.design import scan_mixer as design
from medmamba_variants.parts.mixers.ss2d import SS2D
from medmamba_variants.parts.mixers.wiring import WiredBranch


class TensorScan(nn.Module):
    """The mean of gated scans over planes and lines of a map (batch, height, width, channels); keeps the shape.

    Where channels are positions, the features of a position are the map's rows or columns, averaged into bins. TM-UNet
    (Tang et al., "Rotate to scan", 2024) takes each row or column as a feature, so that weights fit one image size.
    """

    def __init__(self, channels: int, component: design.TensorScan) -> None:
        super().__init__()
        self.axes, self.bins = component.scanned_axes, component.axis_bins
        self.layers = nn.ModuleList()
        for axes in self.axes:
            features = component.features(axes, channels)
            layer = SS2D(features, component)
            with torch.no_grad():
                # Else the few features of channels would speak far less loudly than the channels of a position.
                for projection in (layer.in_proj, layer.out_proj):
                    projection.weight.mul_((channels / features) ** 0.5)
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._turned(axes, layer, x) for axes, layer in zip(self.axes, self.layers)]
        return torch.stack(outputs).mean(0)

    def _turned(self, axes: str, layer: nn.Module, x: Tensor) -> Tensor:
        """What a layer makes of one plane or line of a map, as a map."""
        height, width = x.shape[1:3]
        y: Tensor
        if axes == "hw":
            y = layer(x)
        elif axes == "h":
            # Each column is a map of its own.
            y = layer(x.transpose(1, 2).flatten(0, 1)[:, :, None]).unflatten(0, (len(x), width)).squeeze(3)
            y = y.transpose(1, 2)
        elif axes == "w":
            y = layer(x.flatten(0, 1)[:, :, None]).unflatten(0, (len(x), height)).squeeze(3)
        elif axes == "ch":
            # (batch, channels, rows, bins of columns)
            y = spread(layer(averaged(x.permute(0, 3, 1, 2), self.bins)), width).permute(0, 2, 3, 1)
        elif axes == "cw":
            y = spread(layer(averaged(x.permute(0, 3, 2, 1), self.bins)), height).permute(0, 3, 2, 1)
        else:
            # (batch, channels, bins of columns, bins of rows)
            bins = averaged(averaged(x.permute(0, 3, 1, 2), self.bins).transpose(2, 3), self.bins)
            y = layer(bins.flatten(2)[:, :, None])[:, :, 0].unflatten(2, (self.bins, self.bins))
            y = spread(spread(y, height).transpose(2, 3), width).permute(0, 2, 3, 1)
        return y


def averaged(x: Tensor, bins: int) -> Tensor:
    """The last axis averaged into bins, as adaptive pooling does; as a product, whose gradient is deterministic."""
    size = x.shape[-1]
    index, place = torch.arange(bins, device=x.device)[:, None], torch.arange(size, device=x.device)
    # From the last position at or before a bin's start to the first at or after its end.
    inside = (place >= index * size // bins) & (place * bins < (index + 1) * size)
    weights = inside / inside.sum(1, keepdim=True)
    return x @ weights.to(x.dtype).T


def spread(x: Tensor, size: int) -> Tensor:
    """The last axis of bins given to `size` positions: each takes the bin in which it begins."""
    return x.index_select(-1, torch.arange(size, device=x.device) * x.shape[-1] // size)


class TensorScanBranch(WiredBranch):
    """Layer norm, scans over planes or lines of the map and their mean, drop path. Map in, map of the shape out."""

    layer = TensorScan
