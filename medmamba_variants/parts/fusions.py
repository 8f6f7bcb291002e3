"""Fusions: how the outputs of a block's branches meet, and are added to the residual.

A fusion gets the block's input (batch, height, width, channels) and a list of branch outputs, each (batch, height,
width, channels of the branch), and returns the block's output. It is only built for two branches or more. With `none`
the streams do not meet even where the map is halved: this difference from `concat` lies in downsampling.Streams.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import joints
from medmamba_variants.design.components import Component
from medmamba_variants.fused.joins import shuffled_sum


class Concat(nn.Module):
    """Concatenation: within a stage the branches stay separate streams, which meet where the map is halved."""

    def __init__(self, widths: Sequence[int], component: Component) -> None:
        super().__init__()

    def forward(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        return x + torch.cat(outputs, dim=-1)


class Shuffle(nn.Module):
    """The published fusion: concatenation, then the channel shuffle of ShuffleNet; no parameters."""

    def __init__(self, widths: Sequence[int], component: joints.Shuffle) -> None:
        super().__init__()
        self.groups = component.shuffle_groups
        # Two equal branches in two groups interleave, which is one copy instead of two.
        self.interleaves = self.groups == len(widths) and len(set(widths)) == 1

    def forward(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        # upstream: the residual is added as it is, not shuffled.
        if self.interleaves and self.groups == 2:
            return shuffled_sum(x, *outputs)
        if self.interleaves:
            shuffled = torch.stack(outputs, dim=-1)
        else:
            shuffled = torch.cat(outputs, dim=-1).unflatten(-1, (self.groups, -1)).transpose(-1, -2)
        return (x.unflatten(-1, (-1, self.groups)) + shuffled).flatten(-2)


class Pointwise(nn.Module):
    """A learned 1×1 convolution over the concatenation, which can express every shuffle."""

    def __init__(self, widths: Sequence[int], component: joints.Pointwise) -> None:
        super().__init__()
        channels = sum(widths)
        self.mixing = nn.Linear(channels, channels)
        # Initialised like every convolution of the network, though written as a product over channels.
        nn.init.kaiming_normal_(self.mixing.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.mixing.bias)

    def forward(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        return x + self.mixing(torch.cat(outputs, dim=-1))


class SqueezeExcite(nn.Module):
    """Concatenation with a gate on every channel, computed from the mean of all channels (Hu 2018).

    The gate is twice a sigmoid: fresh, it is about one, and the fusion starts as plain concatenation. The bottleneck
    has SiLU, as in EfficientNet: of the few units of a narrow stage a ReLU may leave none alive.
    """

    def __init__(self, widths: Sequence[int], component: joints.SqueezeExcite) -> None:
        super().__init__()
        channels = sum(widths)
        hidden = component.hidden(widths)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        joined = torch.cat(outputs, dim=-1)
        gate = 2 * torch.sigmoid(self.excite(F.silu(self.squeeze(joined.mean((1, 2))))))
        return torch.addcmul(x, joined, gate[:, None, None, :])


class BranchAttention(nn.Module):
    """Tiny attention across the branches: each branch is one token, which decides how to gate its channels.

    The mean of a branch's output becomes a token of a few numbers; one head of softmax attention lets the tokens attend
    to each other; the result gates the channels of each token's branch, again by twice a sigmoid.
    """

    def __init__(self, widths: Sequence[int], component: joints.Attention) -> None:
        super().__init__()
        size = component.size(widths)
        self.describe = nn.ModuleList(nn.Linear(width, size) for width in widths)
        self.attend = nn.Linear(size, 3 * size, bias=False)
        self.gate = nn.ModuleList(nn.Linear(size, width) for width in widths)

    def forward(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        tokens = torch.stack([describe(out.mean((1, 2))) for describe, out in zip(self.describe, outputs)], dim=1)
        query, key, value = self.attend(tokens).chunk(3, dim=-1)
        weights = torch.softmax(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)
        gathered = tokens + weights @ value
        gates = torch.cat([gate(gathered[:, index]) for index, gate in enumerate(self.gate)], dim=-1)
        return torch.addcmul(x, torch.cat(outputs, dim=-1), (2 * torch.sigmoid(gates))[:, None, None, :])
