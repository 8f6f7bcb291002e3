"""Fusions: how the outputs of a block's branches meet, and are added to the residual.

A fusion joins branch outputs, each (batch, height, width, channels of the branch), and adds them to the block's input
(batch, height, width, channels). It is only built for two branches or more. With `none`
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
from medmamba_variants.parts.init import pointwise


class Join(nn.Module):
    """A fusion: `join` makes one map of the branches' outputs, and `forward` adds it to the block's input."""

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        """One map (batch, height, width, channels) of the outputs of the branches."""
        raise NotImplementedError

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        return x + self.join(outputs)


class Concat(Join):
    """Concatenation: within a stage the branches stay separate streams, which meet where the map is halved."""

    def __init__(self, widths: Sequence[int], channels: int, component: Component) -> None:
        super().__init__()

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(outputs), dim=-1)


class Shuffle(Join):
    """The published fusion: concatenation, then the channel shuffle of ShuffleNet; no parameters."""

    def __init__(self, widths: Sequence[int], channels: int, component: joints.Shuffle) -> None:
        super().__init__()
        self.groups = component.shuffle_groups
        # Two equal branches in two groups interleave, which is one copy instead of two.
        self.interleaves = self.groups == len(widths) and len(set(widths)) == 1

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        return self._shuffled(outputs).flatten(-2)

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        # upstream: the residual is added as it is, not shuffled.
        if self.interleaves and self.groups == 2:
            return shuffled_sum(x, *outputs)
        return (x.unflatten(-1, (-1, self.groups)) + self._shuffled(outputs)).flatten(-2)

    def _shuffled(self, outputs: Sequence[Tensor]) -> Tensor:
        """The shuffled channels, (…, channels of a group, groups)."""
        if self.interleaves:
            return torch.stack(list(outputs), dim=-1)
        return torch.cat(list(outputs), dim=-1).unflatten(-1, (self.groups, -1)).transpose(-1, -2)


class Pointwise(Join):
    """A learned 1×1 convolution over the concatenation, which can express every shuffle."""

    def __init__(self, widths: Sequence[int], channels: int, component: joints.Pointwise) -> None:
        super().__init__()
        self.mixing = pointwise(sum(widths), channels)

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        mixed: Tensor = self.mixing(torch.cat(list(outputs), dim=-1))
        return mixed


class Gate(Join):
    """A fusion by a gate on every channel of the concatenation."""

    def gated(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The concatenation (batch, height, width, channels), and its gate (batch, 1, 1, channels)."""
        raise NotImplementedError

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        joined, gate = self.gated(outputs)
        return joined * gate

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        return torch.addcmul(x, *self.gated(outputs))


class SqueezeExcite(Gate):
    """Concatenation with a gate on every channel, computed from the mean of all channels (Hu 2018).

    The gate is twice a sigmoid: fresh, it is about one, and the fusion starts as plain concatenation. The bottleneck
    has SiLU, as in EfficientNet: of the few units of a narrow stage a ReLU may leave none alive.
    """

    def __init__(self, widths: Sequence[int], channels: int, component: joints.SqueezeExcite) -> None:
        super().__init__()
        hidden = component.hidden(widths)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def gated(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        joined = torch.cat(list(outputs), dim=-1)
        gate = 2 * torch.sigmoid(self.excite(F.silu(self.squeeze(joined.mean((1, 2))))))
        return joined, gate[:, None, None, :]


class BranchAttention(Gate):
    """Tiny attention across the branches: each branch is one token, which decides how to gate its channels.

    The mean of a branch's output becomes a token of a few numbers; one head of softmax attention lets the tokens attend
    to each other; the result gates the channels of each token's branch, again by twice a sigmoid.
    """

    def __init__(self, widths: Sequence[int], channels: int, component: joints.Attention) -> None:
        super().__init__()
        size = component.size(widths)
        self.describe = nn.ModuleList(nn.Linear(width, size) for width in widths)
        self.attend = nn.Linear(size, 3 * size, bias=False)
        self.gate = nn.ModuleList(nn.Linear(size, width) for width in widths)

    def gated(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        tokens = torch.stack([describe(out.mean((1, 2))) for describe, out in zip(self.describe, outputs)], dim=1)
        query, key, value = self.attend(tokens).chunk(3, dim=-1)
        weights = torch.softmax(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)
        gathered = tokens + weights @ value
        gates = torch.cat([gate(gathered[:, index]) for index, gate in enumerate(self.gate)], dim=-1)
        return torch.cat(list(outputs), dim=-1), (2 * torch.sigmoid(gates))[:, None, None, :]
