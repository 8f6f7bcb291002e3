"""Channel mixers: the second half of a block, on normed maps (batch, height, width, channels)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.wraps import channel_mixers as design
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.depthwise import FilterEach


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


class SwiGLU(nn.Module):
    """W₃ (SiLU(W₁ x) ⊙ W₂ x) (Shazeer 2020, "GLU variants improve transformer", equation 6)."""

    def __init__(self, channels: int, component: design.SwiGLU) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.gate = linear(channels, hidden, bias=True)
        self.value = linear(channels, hidden, bias=True)
        self.narrow = linear(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(F.silu(self.gate(x)) * self.value(x))
        return mixed


class ConvGLU(nn.Module):
    """W₃ (GELU(dw3(W₁ x)) ⊙ W₂ x), dw3 a 3×3 filter for each channel (Shi 2024, "TransNeXt", section 3.4)."""

    def __init__(self, channels: int, component: design.ConvGLU) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.gate = linear(channels, hidden, bias=True)
        self.filters = FilterEach(hidden, (3, 3))
        self.value = linear(channels, hidden, bias=True)
        self.narrow = linear(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(F.gelu(self.filters(self.gate(x))) * self.value(x))
        return mixed


class ConvFFN(nn.Module):
    """W₂ GELU(dw3(W₁ x)), dw3 a 3×3 filter for each channel (Wang 2022, "PVT v2", section 3.3)."""

    def __init__(self, channels: int, component: design.ConvFFN) -> None:
        super().__init__()
        hidden = component.hidden(channels)
        self.widen = linear(channels, hidden, bias=True)
        self.filters = FilterEach(hidden, (3, 3))
        self.narrow = linear(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(F.gelu(self.filters(self.widen(x))))
        return mixed
