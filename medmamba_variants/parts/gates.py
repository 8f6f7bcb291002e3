"""Fusions that gate branches side by side, maps (batch, height, width, channels); see `design.fusions.gates`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.components import Component, Operator
from medmamba_variants.design.fusions import gates as design
from medmamba_variants.design.wraps import attentions
from medmamba_variants.parts.fusions import Join
from medmamba_variants.parts.init import linear, pointwise
from medmamba_variants.parts.selection import ChannelGate


class Weighed(Join):
    """Concatenation whose map an attention module weighs, the one that the axis `attention` may put anywhere."""

    attention: type[Operator]

    def __init__(self, widths: Sequence[int], channels: int, component: Component) -> None:
        super().__init__()
        operator = self.attention()
        self.weigh = operator.builder()(channels, operator)

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        joined: Tensor = self.weigh(torch.cat(list(outputs), dim=-1))
        return joined


class EfficientChannels(Weighed):
    """Concatenation with a gate on every channel by its neighbours', across the edge of two branches too (ECA-Net)."""

    attention = attentions.EfficientChannels


class ChannelsAndPlaces(Weighed):
    """Concatenation with a gate on every channel, then one on every place (CBAM).

    The gate on places lacks the batch norm of the released code, which a single pixel could not train.
    """

    attention = attentions.CBAM


class AttentionGate(nn.Module):
    """A branch's map with a gate on every place, twice a sigmoid of v · SiLU(W x + U g) for the map x and others g.

    The additive attention gate of Oktay et al., "Attention U-Net" (2018), where batch norm follows each linear map, and
    SiLU is a ReLU, which may leave none of few units alive.
    """

    def __init__(self, width: int, width_of_others: int, hidden: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, hidden)
        self.others = nn.Linear(width_of_others, hidden, bias=False)
        self.gate = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        return x * (2 * torch.sigmoid(self.gate(F.silu(self.own(x) + self.others(others)))))


def beside(outputs: Sequence[Tensor], index: int) -> Tensor:
    """The maps of all branches but one, side by side."""
    return torch.cat([*outputs[:index], *outputs[index + 1 :]], dim=-1)


class CoAttention(Join):
    """Each branch gated at every place by the others, all of them side by side, gated channel by channel.

    The co-attention of MambaCAFU, for two branches an attention gate in either direction, then squeeze-excite. Where
    branches together have more channels than the stage, a 1×1 convolution narrows them.
    """

    def __init__(self, widths: Sequence[int], channels: int, component: design.CoAttention) -> None:
        super().__init__()
        total = sum(widths)
        self.gates = nn.ModuleList(AttentionGate(own, total - own, component.hidden(own)) for own in widths)
        self.channel_gate = ChannelGate(total)
        self.narrow = pointwise(total, channels) if total > channels else nn.Identity()

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        gated = [gate(each, beside(outputs, i)) for i, (gate, each) in enumerate(zip(self.gates, outputs))]
        joined: Tensor = self.narrow(self.channel_gate(torch.cat(gated, dim=-1)))
        return joined


class CrossAttention(Join):
    """Each branch plus what its positions gather from the others', side by side.

    One head of softmax attention for each branch: its normalised positions are the queries, those of the other branches
    keys and values. Where branches together have more channels than the stage, a 1×1 convolution narrows them. Nothing
    tells places apart.
    """

    def __init__(self, widths: Sequence[int], channels: int, component: design.CrossAttention) -> None:
        super().__init__()
        size, total = component.size(widths), sum(widths)
        self.widths = list(widths)
        # Over all branches at once, for a branch may have a single channel.
        self.norm = nn.LayerNorm(total)
        self.query = nn.ModuleList(linear(own, size, bias=False) for own in widths)
        self.key_value = nn.ModuleList(linear(total - own, 2 * size, bias=False) for own in widths)
        self.mixing = nn.ModuleList(linear(size, own, bias=True) for own in widths)
        self.narrow = pointwise(total, channels) if total > channels else nn.Identity()

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        normed = self.norm(torch.cat(list(outputs), dim=-1)).split(self.widths, dim=-1)
        gathered = [each + self._gather(normed, index) for index, each in enumerate(outputs)]
        joined: Tensor = self.narrow(torch.cat(gathered, dim=-1))
        return joined

    def _gather(self, normed: Sequence[Tensor], index: int) -> Tensor:
        """What the positions of one branch gather, (batch, height, width, channels of the branch)."""
        query = self.query[index](normed[index])
        key, value = self.key_value[index](beside(normed, index)).chunk(2, dim=-1)
        query, key, value = (each.flatten(1, 2)[:, None] for each in (query, key, value))
        read = F.scaled_dot_product_attention(query, key, value)[:, 0]
        gathered: Tensor = self.mixing[index](read.unflatten(1, normed[index].shape[1:3]))
        return gathered
