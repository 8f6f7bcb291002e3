"""Filters and convolutions of a map's Fourier transform as branch operators, on (batch, height, width, channels)."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from medmamba_variants.design.spectral import mixers as design
from medmamba_variants.design.spectral.transforms import half
from medmamba_variants.parts.init import linear
from medmamba_variants.parts.mixers.conv import BatchNorm
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.mixers.spectral.transforms import (
    from_parts,
    from_spectrum,
    parts_of,
    read_table,
    spectrum,
)


class FourierFilterBranch(nn.Module):
    """Layer norm, the product of each frequency with a learned complex number, a linear map, drop path.

    Rao et al., "Global filter networks" (2021), whose filter has the size of the map and is interpolated for others:
    here it is a table over all frequencies that a map of any size reads. The product is a circular convolution of the
    map with a filter as large as itself. Its first values are GFNet's, normal with a deviation of .02, added to one: a
    fresh filter leaves the map about as it is, and the branch is as loud as its peers.
    """

    def __init__(self, channels: int, component: design.FourierFilter, drop_path: float) -> None:
        super().__init__()
        self.side = component.frequency_table
        self.norm = nn.LayerNorm(channels)
        # Real and imaginary part of each; for real maps, half of a row's frequencies say it all.
        self.table = nn.Parameter(torch.empty(2, self.side, half(self.side), channels))
        nn.init.normal_(self.table, std=0.02)
        with torch.no_grad():
            self.table[0] += 1
        self.mixing = linear(channels, channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        filtered = from_spectrum(spectrum(self.norm(x)) * self.filters(height, width), width)
        return self.drop_path(self.mixing(filtered.to(x.dtype)))

    def filters(self, height: int, width: int) -> Tensor:
        """The complex number at every frequency of a map: (height, width // 2 + 1, channels).

        Frequencies repeat after that of a point, so the table's last row is next to its first.
        """
        table = self.table.to(torch.promote_types(self.table.dtype, torch.float32))
        down = read_table(table.transpose(0, 1), self.side, height, height, wraps=True)
        real, imaginary = read_table(down.transpose(0, 2), self.side, width, half(width)).transpose(0, 2).unbind(1)
        return torch.complex(real, imaginary)


class FFTBlockBranch(nn.Module):
    """Layer norm; of the Fourier transform batch norm, 3×3 taps added to it, gated 1×1 convolutions; drop path.

    The FFT block of FreqConvMamba. Real and imaginary parts are channels. The taps tell frequencies from their
    neighbours (frequency position encoding). Each of some groups of channels answers for all channels by a 1×1
    convolution, and a softmax over a 1×1 convolution of all channels weighs the groups' answers at each frequency.
    """

    def __init__(self, channels: int, component: design.FFTBlock, drop_path: float) -> None:
        super().__init__()
        parts, self.groups = 2 * channels, component.spectral_groups
        self.norm = nn.LayerNorm(channels)
        self.spectral_norm = BatchNorm(parts)
        self.position = FilterEach(parts, (3, 3))
        self.answers = nn.Conv2d(parts, parts * self.groups, 1, groups=self.groups, bias=False)
        nn.init.trunc_normal_(self.answers.weight, std=0.02)
        self.gate = linear(parts, self.groups, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        seen = parts_of(spectrum(self.norm(x)), x.dtype)
        seen = self.spectral_norm(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        seen = seen + self.position(seen)
        answers = self.answers(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(-1, (self.groups, -1))
        weighed = (self.gate(seen).softmax(-1)[..., None] * answers).sum(-2)
        return self.drop_path(from_spectrum(from_parts(weighed), x.shape[2]).to(x.dtype))
