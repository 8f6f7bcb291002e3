"""What stands around the branches of a network: residual connections, stems and positions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from medmamba_variants.design.components import Component, Stem, axis, by_word
from medmamba_variants.design.kinds import Number, SettingError


@dataclass(frozen=True)
class LayerScale(Component):
    """A learned scale on each channel of what a block adds (CaiT)."""

    word = "layer_scale"
    builds = "medmamba_variants.parts.residual:LayerScale"

    residual_scale: float = axis(
        0.1,
        Number(1e-6, 1.0),
        "first value of layer_scale's factors",
        "CaiT, section 3.1: .1 to 1e-6 by depth",
        probe=1e-3,
    )


@dataclass(frozen=True)
class LearnedSkip(Component):
    """A learned scale on the input to which a block adds, one number for the block (LightM-UNet)."""

    word = "learned_skip"
    builds = "medmamba_variants.parts.residual:LearnedSkip"


RESIDUALS: dict[str, type[Component]] = by_word(LayerScale, LearnedSkip)


@dataclass(frozen=True)
class Patches(Stem):
    """The published stem: one convolution as large as its stride, then layer norm."""

    word = "patches"
    builds = "medmamba_variants.parts.stem:Patches"

    def macs(self, channels_in: int, channels_out: int, patch_size: int, height: int, width: int) -> int:
        return patch_size**2 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class Overlapping(Stem):
    """One convolution whose side is twice its stride less one, so that patches overlap, then layer norm (PVTv2)."""

    word = "overlapping"
    builds = "medmamba_variants.parts.stem:Overlapping"

    def check(self, patch_size: int) -> None:
        if patch_size == 1:
            raise SettingError(("stem",), "must be patches for patch_size=1, where nothing overlaps, got overlapping")

    def macs(self, channels_in: int, channels_out: int, patch_size: int, height: int, width: int) -> int:
        return (2 * patch_size - 1) ** 2 * channels_in * channels_out * height * width


@dataclass(frozen=True)
class Convolutions(Stem):
    """3×3 convolutions of stride 2 that double the channels, batch norm and ReLU between them (Xiao 2021)."""

    word = "convolutions"
    builds = "medmamba_variants.parts.stem:Convolutions"

    def widths(self, channels_in: int, channels_out: int, patch_size: int) -> list[int]:
        """Channels before the first convolution and after each."""
        steps = patch_size.bit_length() - 1
        return [channels_in, *(max(1, channels_out >> (steps - 1 - step)) for step in range(steps))]

    def check(self, patch_size: int) -> None:
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise SettingError(
                ("patch_size",), f"must be a power of two from 2 for stem=convolutions, which halve, got {patch_size}"
            )

    def macs(self, channels_in: int, channels_out: int, patch_size: int, height: int, width: int) -> int:
        widths = self.widths(channels_in, channels_out, patch_size)
        scale, total = patch_size, 0
        for before, after in itertools.pairwise(widths):
            scale //= 2
            total += 9 * before * after * height * width * scale**2
        return total


STEMS: dict[str, type[Stem]] = by_word(Patches, Overlapping, Convolutions)


@dataclass(frozen=True)
class LearnedPosition(Component):
    """A learned vector for each place of a grid, interpolated to the map (ViT; here of 14×14 places)."""

    word = "learned"
    builds = "medmamba_variants.parts.position:Learned"


@dataclass(frozen=True)
class SinusoidalPosition(Component):
    """Sines and cosines of rows and columns, as in MAE, times one learned number (Vaswani 2017)."""

    word = "sinusoidal"
    builds = "medmamba_variants.parts.position:Sinusoidal"


POSITIONS: dict[str, type[Component]] = by_word(LearnedPosition, SinusoidalPosition)
