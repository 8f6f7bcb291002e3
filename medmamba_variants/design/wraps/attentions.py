"""Attention modules: gates on the channels or places of a map."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.components import Operator, axis, bottleneck, by_word, shared
from medmamba_variants.design.kinds import Choice, SettingError, whole

ATTENTION_PLACE = axis(
    "fusion",
    Choice(("fusion", "branches", "stage")),
    "what attention weighs: a block's joined branches before they are added, each branch's output, or the block's map",
    "SENet, section 3; CBAM, section 3",
    probe="stage",
)
# Side of the convolution that gates places (CBAM).
PLACES = 7
# Waves of the cosine transform along each axis that stand for a channel group's content (FcaNet's lowest, in order).
WAVES = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2))


@dataclass(frozen=True)
class _Attention(Operator):
    """An attention module, with the place where it stands."""

    attention_place: str = shared(ATTENTION_PLACE)


@dataclass(frozen=True)
class SqueezeExcite(_Attention):
    """A gate on every channel, computed from the mean of all channels (Hu 2018)."""

    word = "squeeze_excite"
    builds = "medmamba_variants.parts.attention:SqueezeExcite"

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * channels * bottleneck(channels)


@dataclass(frozen=True)
class EfficientChannels(_Attention):
    """A gate on every channel, a filter over the means of its neighbours among the channels (ECA, Wang 2020)."""

    word = "eca"
    builds = "medmamba_variants.parts.attention:EfficientChannels"

    def taps(self, channels: int) -> int:
        """Length of the filter, which grows with the logarithm of the channels (ECA, section 3.3)."""
        length = int(abs(math.log2(channels) / 2 + 0.5))
        return max(length if length % 2 else length + 1, 3)

    def macs(self, channels: int, height: int, width: int) -> int:
        return self.taps(channels) * channels


@dataclass(frozen=True)
class DualPooling(_Attention):
    """A gate on every channel from its mean and its maximum, through one bottleneck for both (CBAM's first half)."""

    word = "dual_pooling"
    builds = "medmamba_variants.parts.attention:DualPooling"

    def macs(self, channels: int, height: int, width: int) -> int:
        return 4 * channels * bottleneck(channels)


@dataclass(frozen=True)
class Spatial(_Attention):
    """A gate on every place, a 7×7 convolution of the mean and maximum over the channels there (CBAM's second half)."""

    word = "spatial"
    builds = "medmamba_variants.parts.attention:Spatial"

    def check(self, channels: int, stage: int) -> None:
        _needs_two("spatial", channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * PLACES**2 * height * width


@dataclass(frozen=True)
class CBAM(_Attention):
    """A gate on every channel from mean and maximum, then one on every place (Woo 2018)."""

    word = "cbam"
    builds = "medmamba_variants.parts.attention:CBAM"

    def check(self, channels: int, stage: int) -> None:
        _needs_two("cbam", channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return 4 * channels * bottleneck(channels) + 2 * PLACES**2 * height * width


@dataclass(frozen=True)
class MultiScale(_Attention):
    """Groups of channels whose two views, strips and 3×3, gate each other's places (EMA, Ouyang 2023)."""

    word = "ema"
    builds = "medmamba_variants.parts.attention:MultiScale"

    attention_groups: int = axis(
        4, whole(1, 64), "groups of channels that ema weighs one by one", "EMA, section 3.1, with 8", probe=2
    )

    def check(self, channels: int, stage: int) -> None:
        if channels % self.attention_groups:
            raise SettingError(
                ("attention_groups",),
                f"must divide the {channels} channels that ema weighs, got {self.attention_groups} in stage {stage}",
            )
        if channels == self.attention_groups:
            raise SettingError(
                ("attention_groups",),
                f"must leave ema two channels a group, got {self.attention_groups} of {channels} in stage {stage}",
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        group = channels // self.attention_groups
        # A product over the strips, a 3×3 convolution, and two views that weigh each other's channels.
        return channels * (group * (height + width) + 9 * group * height * width + 2 * height * width)


@dataclass(frozen=True)
class GatedChannels(_Attention):
    """A gate on every channel, 1 + tanh of its energy beside the others', three numbers a channel (GCT, Yang 2020)."""

    word = "gct"
    builds = "medmamba_variants.parts.attention:GatedChannels"

    def check(self, channels: int, stage: int) -> None:
        _needs_two("gct", channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return 0


@dataclass(frozen=True)
class SpectralChannels(_Attention):
    """A gate on every channel from one wave of its cosine transform, another for each group (FcaNet, Qin 2021)."""

    word = "spectral"
    builds = "medmamba_variants.parts.attention:SpectralChannels"

    def macs(self, channels: int, height: int, width: int) -> int:
        return 2 * channels * bottleneck(channels)


def _needs_two(word: str, channels: int, stage: int) -> None:
    if channels < 2:
        raise SettingError((), f"{word} must have at least two channels to compare, got {channels} in stage {stage}")


ATTENTIONS: dict[str, type[Operator]] = by_word(
    SqueezeExcite, EfficientChannels, DualPooling, Spatial, CBAM, MultiScale, GatedChannels, SpectralChannels
)
