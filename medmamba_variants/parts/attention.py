"""Attention modules: gates on channels or places of maps (batch, height, width, channels).

Every gate is about one at first, twice a sigmoid or one plus a tanh, so that a fresh network is about the one without.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.components import bottleneck
from medmamba_variants.design.wraps import attentions as design
from medmamba_variants.parts.constants import kept
from medmamba_variants.parts.selection import ChannelGate

# What is added under a root (GCT's code).
EPSILON = 1e-5


class SqueezeExcite(ChannelGate):
    """A gate on every channel, computed from the mean of all channels (Hu 2018, section 3)."""

    def __init__(self, channels: int, component: design.SqueezeExcite) -> None:
        super().__init__(channels)


class EfficientChannels(nn.Module):
    """A gate on every channel: a filter over the means of neighbouring channels (Wang 2020, "ECA-Net", section 3.2)."""

    def __init__(self, channels: int, component: design.EfficientChannels) -> None:
        super().__init__()
        taps = component.taps(channels)
        self.filter = nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.filter(x.mean((1, 2))[:, None]))
        return x * gate[:, 0, None, None, :]


class DualPooling(nn.Module):
    """A gate on every channel from its mean and maximum, through one bottleneck for both (Woo 2018, section 3.1)."""

    def __init__(self, channels: int, component: design.DualPooling | design.CBAM) -> None:
        super().__init__()
        hidden = bottleneck(channels)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        held = (x.mean((1, 2), keepdim=True), x.amax((1, 2), keepdim=True))
        mean, largest = (self.excite(F.silu(self.squeeze(each))) for each in held)
        return x * (2 * torch.sigmoid(mean + largest))


class Spatial(nn.Module):
    """A gate on every place: a 7×7 convolution of mean and maximum over its channels (Woo 2018, section 3.2)."""

    def __init__(self, channels: int, component: design.Spatial | design.CBAM) -> None:
        super().__init__()
        self.places = nn.Conv2d(2, 1, design.PLACES, padding=design.PLACES // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.stack([x.mean(-1), x.amax(-1)], dim=1)
        return x * (2 * torch.sigmoid(self.places(seen))).permute(0, 2, 3, 1)


class CBAM(nn.Module):
    """A gate on every channel, then one on every place (Woo 2018)."""

    def __init__(self, channels: int, component: design.CBAM) -> None:
        super().__init__()
        self.channels = DualPooling(channels, component)
        self.places = Spatial(channels, component)

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = self.places(self.channels(x))
        return weighed


class MultiScale(nn.Module):
    """Groups of channels whose two views gate each other's places (Ouyang 2023, "EMA", section 3).

    One view weighs rows and columns by a product over the means along them, and is normed; the other is a 3×3
    convolution. The mean of each view, a softmax over its channels, weighs the channels of the other, and the sum of
    the two is the gate of every place.
    """

    def __init__(self, channels: int, component: design.MultiScale) -> None:
        super().__init__()
        self.groups = component.attention_groups
        width = channels // self.groups
        self.strips = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.local = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        # Every group is an image of its own.
        grouped = x.unflatten(-1, (self.groups, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        strips = self.strips(torch.cat((grouped.mean(2), grouped.mean(1)), dim=1))
        rows, columns = (2 * torch.sigmoid(part) for part in strips.split([height, width], dim=1))
        wide = self.norm(grouped * rows[:, :, None] * columns[:, None])
        near = self.local(grouped.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        views = [view.flatten(1, 2) for view in (wide, near)]
        weights = [view.mean(1).softmax(-1)[..., None] for view in views]
        seen = views[1] @ weights[0] + views[0] @ weights[1]
        gated = grouped * (2 * torch.sigmoid(seen.unflatten(1, (height, width))))
        return gated.unflatten(0, (len(x), self.groups)).permute(0, 2, 3, 1, 4).flatten(-2)


class GatedChannels(nn.Module):
    """x_c (1 + tanh(γ_c s_c / rms(s) + β_c)), s_c = α_c ‖x_c‖₂ (Yang 2020, "GCT", equation 4)."""

    def __init__(self, channels: int, component: design.GatedChannels) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = self.alpha * (x.square().sum((1, 2)) + EPSILON).sqrt()
        common = energy * (energy.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        return x * (1 + torch.tanh(self.gamma * common + self.beta))[:, None, None, :]


class SpectralChannels(nn.Module):
    """A gate on every channel from one wave of its cosine transform, by group of channels (Qin 2021, "FcaNet").

    The mean of squeeze-and-excitation is the lowest of these waves; the groups take the eight lowest in turn, each
    scaled to the mean's size.
    """

    def __init__(self, channels: int, component: design.SpectralChannels) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, bottleneck(channels))
        self.excite = nn.Linear(bottleneck(channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        held = (x * waves(x.shape[1], x.shape[2], x.shape[3], x.device).to(x.dtype)).mean((1, 2))
        gate = 2 * torch.sigmoid(self.excite(F.silu(self.squeeze(held))))
        return x * gate[:, None, None, :]


@kept
def waves(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """A wave of the cosine transform for each channel, (height, width, channels); kept."""
    chosen = np.array([design.WAVES[c * len(design.WAVES) // channels] for c in range(channels)])
    row, column = (np.arange(size)[:, None] + 0.5 for size in (height, width))
    # A map of few rows or columns has no faster waves.
    down = np.cos(np.pi * row * np.minimum(chosen[:, 0], height - 1) / height)
    across = np.cos(np.pi * column * np.minimum(chosen[:, 1], width - 1) / width)
    return torch.from_numpy((down[:, None] * across[None]).astype(np.float32)).to(device)
