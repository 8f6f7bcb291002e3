"""Selections by what maps (batch, height, width, channels) hold on average: among maps, and among channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.components import bottleneck


class Selection(nn.Module):
    """One map of several, a mixture for each channel whose weights add up to one, chosen by the mean of their sum.

    Li et al., "Selective kernel networks" (2019), section 3.1, without the batch norm of the bottleneck, which a
    single image could not train; its ReLU is SiLU, since of the few units of a narrow stage it may leave none alive.
    """

    def __init__(self, maps: int, channels: int) -> None:
        super().__init__()
        hidden = bottleneck(channels)
        self.squeeze = nn.Linear(channels, hidden)
        self.choose = nn.Linear(hidden, maps * channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        held = torch.stack([each.mean((1, 2)) for each in maps], dim=1)
        logits = self.choose(F.silu(self.squeeze(held.sum(1))))
        weights = torch.softmax(logits.view(held.shape), dim=1)[:, :, None, None, :]
        mixture = maps[0] * weights[:, 0]
        for index, each in enumerate(maps[1:], start=1):
            mixture = torch.addcmul(mixture, each, weights[:, index])
        return mixture


class ChannelGate(nn.Module):
    """A gate on every channel of a map, computed from the mean of all channels (Hu 2018).

    It is twice a sigmoid: fresh, it is about one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = bottleneck(channels)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean((1, 2))))))
        return x * gate[:, None, None, :]
