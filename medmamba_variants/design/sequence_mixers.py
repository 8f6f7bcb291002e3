"""Mixers of whole maps other than the selective scan: state-space duality and attention."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.gated import DT_MAX, DT_MIN, Directed, Gated, check_steps
from medmamba_variants.design.kinds import SettingError, whole
from medmamba_variants.design.scan_policy import WINDOW_SHIFT

# Steps that are multiplied out at once; a state is handed on from one such chunk to the next.
CHUNK = 64

HEADS = axis(
    4,
    whole(1, 64),
    "heads, each with equally many channels; ssd and nc_ssd have them of inner channels and with one decay each",
    "Vaswani 2017; Mamba-2, section 7",
    probe=2,
)
SSD_STATE = axis(
    64, whole(1, 256), "size of the state of each channel in state-space duality (N)", "Mamba-2, section 6", probe=8
)


def check_heads(word: str, channels: int, heads: int, stage: int) -> None:
    """Raises SettingError where heads cannot have equally many channels."""
    if channels % heads:
        raise SettingError(
            ("heads",), f"must divide the {channels} channels between them, got {heads} of {word} in stage {stage}"
        )


@dataclass(frozen=True)
class SSD(Directed):
    """State-space duality: a scan whose states decay by one number for each head and position (Mamba-2)."""

    word = "ssd"
    builds = "medmamba_variants.parts.mixers.ssd:SSDBranch"

    heads: int = shared(HEADS)
    ssd_state: int = shared(SSD_STATE)
    dt_min: float = shared(DT_MIN)
    dt_max: float = shared(DT_MAX)

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        check_steps(self.dt_min, self.dt_max, stage)
        check_heads(self.word, self.inner(channels), self.heads, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        length, inner, state, directions = height * width, self.inner(channels), self.ssd_state, len(self.directions)
        wiring = self.wiring_macs(channels, inner + 2 * directions * state, directions * self.heads)
        size = min(CHUNK, length)
        chunks = math.ceil(length / size)
        # Sums of decays, C with B, and what that weighs.
        within = chunks * size**2 * (self.heads + state + inner)
        # The last states of chunks, their decays and sums over chunks, what C reads of them.
        between = 2 * chunks * size * state * inner + chunks**2 * (self.heads + state * inner) if chunks > 1 else 0
        return length * wiring + directions * (within + between)


@dataclass(frozen=True)
class NonCausalSSD(Gated):
    """State-space duality without decay or order: all positions write one state, which all read (VSSD)."""

    word = "nc_ssd"
    builds = "medmamba_variants.parts.mixers.ssd:NonCausalSSDBranch"

    heads: int = shared(HEADS)
    ssd_state: int = shared(SSD_STATE)
    dt_min: float = shared(DT_MIN)
    dt_max: float = shared(DT_MAX)

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        check_steps(self.dt_min, self.dt_max, stage)
        check_heads(self.word, self.inner(channels), self.heads, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        inner, state = self.inner(channels), self.ssd_state
        return height * width * (self.wiring_macs(channels, inner + 2 * state, self.heads) + 2 * state * inner)


@dataclass(frozen=True)
class LinearAttention(Mixer):
    """Attention whose weights are products of positive features, in time linear in the map (MLLA, without its RoPE)."""

    word = "linear_attention"
    builds = "medmamba_variants.parts.mixers.attention:LinearAttentionBranch"

    heads: int = shared(HEADS)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        check_heads(self.word, channels, self.heads, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # Each head's sum over positions is read with one more column, the sum of its weights; then LePE's nine taps.
        attention = 2 * channels * (channels // self.heads + 1)
        return height * width * (4 * channels**2 + attention + 9 * channels)


@dataclass(frozen=True)
class Attention(Mixer):
    """Softmax attention between all positions of the map, or of windows of it (Vaswani 2017; Swin)."""

    word = "attention"
    builds = "medmamba_variants.parts.mixers.attention:AttentionBranch"

    heads: int = shared(HEADS)
    attention_window: int = axis(
        0,
        whole(0, 256),
        "side of the windows within which positions attend to each other, in positions; 0: the whole map",
        "Swin Transformer, section 3.2",
        probe=4,
    )
    window_shift: str = shared(WINDOW_SHIFT)

    def in_block(self, index: int) -> Self:
        return self if index % 2 else replace(self, window_shift="none")

    def before(self, side: int) -> int:
        """How many positions the first window reaches over the edge, along a side of the map."""
        window = self.attention_window
        return window - window // 2 if self.window_shift == "half" and window < side else 0

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a window on a map of that size."""
        side = self.attention_window or max(height, width)
        return min(side, height), min(side, width)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        check_heads(self.word, channels, self.heads, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        rows, columns = self.window(height, width)
        windows = math.ceil((height + self.before(height)) / rows) * math.ceil((width + self.before(width)) / columns)
        return 4 * channels**2 * height * width + windows * 2 * channels * (rows * columns) ** 2
