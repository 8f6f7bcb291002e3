"""Mixers that multiply convolutions with each other: the gated spatial convolution, and products of any order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.convolutions import KERNEL_SIZE
from medmamba_variants.design.kinds import Choice, SettingError, whole
from medmamba_variants.design.scan_mixer import SS2D

COMBINE = axis(
    "product",
    Choice(("product", "sum")),
    "how convolutions of a gated branch meet: product, as their papers say, or sum, as released code has it",
    "HorNet; sum: MambaClinix's and SegMamba's code",
    probe="sum",
)
INTERACTION_ORDER = axis(
    3,
    whole(1, 5),
    "factors that a position's channels are multiplied with in a row (n)",
    "HorNet, section 3.1, where n is [2,3,4,5] in four stages; H-vmunet",
    probe=2,
)


def factor_widths(order: int, channels: int, least: int = 0) -> tuple[int, ...]:
    """Channels of the factors of a product of that order, from the first to the last, which has all."""
    return tuple(max(channels // 2**halvings, least) for halvings in reversed(range(order)))


def check_order(order: int, channels: int, stage: int) -> None:
    """Raises SettingError where a product of that order would have a factor without a channel."""
    if not factor_widths(order, channels)[0]:
        raise SettingError(
            ("interaction_order",),
            f"must leave a channel to the first factor, which has 1/2^{order - 1} of them; "
            f"got interaction_order={order} for {channels} channels in stage {stage}",
        )


@dataclass(frozen=True)
class GatedSpatial(Mixer):
    """The gated spatial convolution: two 3×3 convolutions in a row gated by a 1×1, one more, the input (SegMamba)."""

    word = "gsc"
    builds = "medmamba_variants.parts.mixers.products:GatedSpatialBranch"

    combine: str = shared(COMBINE)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return (9 + 9 + 1 + 1) * channels**2 * height * width


@dataclass(frozen=True)
class HighOrder(Mixer):
    """The recursive gated convolution gⁿConv: a product of depth-wise filtered maps that doubles in width (HorNet)."""

    word = "high_order"
    builds = "medmamba_variants.parts.mixers.products:HighOrderBranch"

    kernel_size: int = shared(KERNEL_SIZE)
    interaction_order: int = shared(INTERACTION_ORDER)
    combine: str = shared(COMBINE)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        check_order(self.interaction_order, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        widths = factor_widths(self.interaction_order, channels)
        entering = channels * (widths[0] + sum(widths))
        between = sum(before * after for before, after in pairwise(widths))
        return (entering + self.kernel_size**2 * sum(widths) + between + channels**2) * height * width


@dataclass(frozen=True)
class HighOrderScan(SS2D):
    """Selective scans in a row, each of the last one's output times one more filtered factor (H-SS2D of H-vmunet)."""

    word = "h_ss2d"
    builds = "medmamba_variants.parts.mixers.products:HighOrderScanBranch"

    interaction_order: int = shared(INTERACTION_ORDER)

    def widths(self, channels: int) -> tuple[int, ...]:
        """Channels of the factors, two at least, since every scan norms what it reads."""
        return factor_widths(self.interaction_order, channels, least=2)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        for width in self.widths(channels):
            super().check(width, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        widths = self.widths(channels)
        entering = channels * (widths[0] + sum(widths)) + 9 * sum(widths)
        between = sum(before * after for before, after in pairwise(widths))
        scans = sum(super(HighOrderScan, self).macs(each, height, width) for each in widths)
        return (entering + between) * height * width + scans
