"""Fusions of maps that are brought to one width, (batch, height, width, channels) each; see `design.fusions.sums`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.components import bottleneck
from medmamba_variants.design.fusions import sums as design
from medmamba_variants.parts.fusions import Join
from medmamba_variants.parts.init import pointwise
from medmamba_variants.parts.selection import Selection


class Meeting(Join):
    """A fusion of maps of one width: `meet` makes one map of them, which is spread over the stage's channels."""

    def __init__(self, widths: Sequence[int], channels: int, component: design.Sum) -> None:
        super().__init__()
        del component
        self.width = max(widths)
        self.spread = pointwise(self.width, channels) if self.width < channels else nn.Identity()

    def meet(self, maps: Sequence[Tensor]) -> Tensor:
        """One map of the branches' maps, all of them as wide as the widest."""
        raise NotImplementedError

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        even = [F.pad(each, (0, self.width - each.shape[-1])) for each in outputs]
        joined: Tensor = self.spread(self.meet(even))
        return joined


class Add(Meeting):
    """The sum of the branches."""

    def meet(self, maps: Sequence[Tensor]) -> Tensor:
        return reduce(torch.add, maps)


class Select(Meeting):
    """A mixture of the branches for each channel, the weights of which add up to one.

    Li et al., "Selective kernel networks" (2019), as ASP-VMUNet joins its two branches.
    """

    def __init__(self, widths: Sequence[int], channels: int, component: design.Select) -> None:
        super().__init__(widths, channels, component)
        self.selection = Selection(len(widths), self.width)

    def meet(self, maps: Sequence[Tensor]) -> Tensor:
        mixture: Tensor = self.selection(maps)
        return mixture


class SqueezeSelect(Meeting):
    """The sum of the branches, each channel of each gated by the means of all channels of all branches.

    SMM-UNet joins so its scan and what it scanned, here a branch `identity`, whose learned scale is that of its gates.
    The gate is twice a sigmoid: fresh, the fusion is about the sum.
    """

    def __init__(self, widths: Sequence[int], channels: int, component: design.SqueezeSelect) -> None:
        super().__init__(widths, channels, component)
        hidden = bottleneck(sum(widths))
        self.squeeze = nn.Linear(sum(widths), hidden)
        self.excite = nn.Linear(hidden, sum(widths))

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        held = torch.cat([each.mean((1, 2)) for each in outputs], dim=-1)
        gates = (2 * torch.sigmoid(self.excite(F.silu(self.squeeze(held)))))[:, None, None, :]
        widths = [each.shape[-1] for each in outputs]
        return super().join([each * gate for each, gate in zip(outputs, gates.split(widths, dim=-1))])

    def meet(self, maps: Sequence[Tensor]) -> Tensor:
        return reduce(torch.add, maps)


class Gated(Meeting):
    """The first branch times twice a sigmoid of the others' sum, which is about one where that is about zero."""

    def meet(self, maps: Sequence[Tensor]) -> Tensor:
        return 2 * maps[0] * torch.sigmoid(reduce(torch.add, maps[1:]))


class MaxGate(Meeting):
    """σ(mean of x) · x + σ(mean of m) · m for the first branch x and the maximum m of all branches.

    The channel-wise fusion (CDGF) of MAFUNet, where x is what was scanned, here a branch `identity`.
    """

    def meet(self, maps: Sequence[Tensor]) -> Tensor:
        first, largest = maps[0], reduce(torch.maximum, maps)
        gates = [torch.sigmoid(each.mean((1, 2), keepdim=True)) for each in (first, largest)]
        return torch.addcmul(first * gates[0], largest, gates[1])
