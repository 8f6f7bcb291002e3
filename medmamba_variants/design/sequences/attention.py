"""Attention over a map: softmax, within windows or everywhere, and linear attention."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.kinds import Choice, Flag, SettingError, whole
from medmamba_variants.design.scan_policy import WINDOW_SHIFT
from medmamba_variants.design.sequences.duality import HEADS, check_heads

# Rows or columns between two positions that the relative bias tells apart at most.
FARTHEST = 15
ROPE = axis(
    False,
    Flag(),
    "whether queries and keys are turned by angles that grow with row and column (2-D rotary embedding), so that their "
    "products know how far apart places are",
    "RoFormer 2021; MLLA, RoPE",
    probe=True,
)


def check_rope(word: str, channels: int, heads: int, rope: bool, stage: int) -> None:
    """Raises SettingError where a head has no pair of channels that could be turned."""
    if rope and channels // heads < 2:
        raise SettingError(
            ("rope",), f"needs two channels in every head, got {channels} in {heads} heads of {word} in stage {stage}"
        )


@dataclass(frozen=True)
class LinearAttention(Mixer):
    """Attention whose weights are products of positive features, in time linear in the map (MLLA)."""

    word = "linear_attention"
    builds = "medmamba_variants.parts.mixers.attention:LinearAttentionBranch"

    heads: int = shared(HEADS)
    rope: bool = shared(ROPE)
    attention_gate: str = axis(
        "none",
        Choice(("none", "silu")),
        "gate on what linear attention reads: none, or SiLU of a linear map of its input",
        "MLLA, block design",
        probe="silu",
    )

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        check_heads(self.word, channels, self.heads, stage)
        check_rope(self.word, channels, self.heads, self.rope, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # Each head's sum over positions is read with one more column, the sum of its weights; what is not turned by an
        # embedding is a product of its own. Then LePE's nine taps.
        attention = 2 * channels * (channels // self.heads) + channels * (1 if self.rope else 2)
        maps = 4 if self.attention_gate == "none" else 5
        return height * width * (maps * channels**2 + attention + 9 * channels)


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
    rope: bool = shared(ROPE)
    relative_bias: bool = axis(
        False,
        Flag(),
        f"whether each head adds a learned number to a product, by the rows and columns between two positions; from "
        f"{FARTHEST} on they are one distance",
        "Swin Transformer, section 3.2; clipped as in Shaw 2018",
        probe=True,
    )

    def reach(self) -> int:
        """Rows or columns between two positions from which on the bias is the same."""
        return min(self.attention_window - 1, FARTHEST) if self.attention_window else FARTHEST

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
        check_rope(self.word, channels, self.heads, self.rope, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        rows, columns = self.window(height, width)
        windows = math.ceil((height + self.before(height)) / rows) * math.ceil((width + self.before(width)) / columns)
        return 4 * channels**2 * height * width + windows * 2 * channels * (rows * columns) ** 2
