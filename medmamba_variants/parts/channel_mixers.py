"""Channel mixers: the second half of a block, on normed maps (batch, height, width, channels)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design import wraps as design
from medmamba_variants.parts.init import linear


class MLP(nn.Module):
    """Two linear maps with a GELU between them (Vaswani 2017, section 3.3)."""

    def __init__(self, channels: int, component: design.MLP) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.widen = linear(channels, hidden, bias=True)
        self.narrow = linear(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(F.gelu(self.widen(x)))
        return mixed
