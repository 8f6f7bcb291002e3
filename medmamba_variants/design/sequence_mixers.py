"""Mixers of whole maps other than the selective scan: state-space duality and attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.gated import D_CONV, EXPAND, check_inner
from medmamba_variants.design.kinds import Choice, Flag, SettingError, whole
from medmamba_variants.design.orders import Directions, directions_of

# Rows or columns between two positions that the relative bias tells apart at most.
FARTHEST = 15
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
# SS2D declares this for itself, too; the axes refuse to be made where the two differ.
SCAN_DIRECTIONS = axis(
    "cross4",
    Directions(),
    "paths over the map, whose outputs merge makes one: a named set or a list of directions",
    "VMamba, cross-scan",
    probe="corner4",
)


ROPE = axis(
    False,
    Flag(),
    "whether queries and keys are turned by angles that grow with row and column (2-D rotary embedding), so that their "
    "products know how far apart places are",
    "RoFormer 2021; MLLA, RoPE",
    probe=True,
)


def check_heads(word: str, channels: int, heads: int, stage: int) -> None:
    """Raises SettingError where heads cannot have equally many channels."""
    if channels % heads:
        raise SettingError(
            ("heads",), f"must divide the {channels} channels between them, got {heads} of {word} in stage {stage}"
        )


def check_rope(word: str, channels: int, heads: int, rope: bool, stage: int) -> None:
    """Raises SettingError where a head has no pair of channels that could be turned."""
    if rope and channels // heads < 2:
        raise SettingError(
            ("rope",), f"needs two channels in every head, got {channels} in {heads} heads of {word} in stage {stage}"
        )


def dual_macs(length: int, heads: int, state: int, channels: int) -> int:
    """Multiply-adds of a scan with one decay for each head, taken in products over chunks of steps (Mamba-2).

    B and C of `state` numbers are the same for all heads, whose channels together are `channels`.
    """
    size = min(CHUNK, length)
    chunks = math.ceil(length / size)
    # Sums of decays, C with B, and what that weighs.
    within = chunks * size**2 * (heads + state + channels)
    # The last states of chunks, their decays and sums over chunks, what C reads of them.
    between = 2 * chunks * size * state * channels + chunks**2 * (heads + state * channels) if chunks > 1 else 0
    return within + between


@dataclass(frozen=True)
class SSD(Mixer):
    """State-space duality: a scan whose states decay by one number for each head and position (Mamba-2)."""

    word = "ssd"
    builds = "medmamba_variants.parts.mixers.ssd:SSDBranch"

    expand: float = shared(EXPAND)
    d_conv: int = shared(D_CONV)
    scan_directions: str | tuple[str, ...] = shared(SCAN_DIRECTIONS)
    heads: int = shared(HEADS)
    ssd_state: int = shared(SSD_STATE)

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the scan directions, in the order of their parameters."""
        return directions_of(self.scan_directions)

    def inner(self, channels: int) -> int:
        """Channels inside the layer."""
        return int(self.expand * channels)

    def check(self, channels: int, stage: int) -> None:
        check_inner(self.word, channels, self.inner(channels), self.expand, stage)
        check_heads(self.word, self.inner(channels), self.heads, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        length, inner, state, directions = height * width, self.inner(channels), self.ssd_state, len(self.directions)
        projections = channels * (2 * inner + directions * (2 * state + self.heads)) + inner * channels
        convolution = self.d_conv**2 * (inner + 2 * directions * state)
        scans = directions * dual_macs(length, self.heads, state, inner)
        return length * (projections + convolution) + scans


@dataclass(frozen=True)
class NonCausalSSD(Mixer):
    """State-space duality without decay or order: all positions write one state, which all read (VSSD)."""

    word = "nc_ssd"
    builds = "medmamba_variants.parts.mixers.ssd:NonCausalSSDBranch"

    expand: float = shared(EXPAND)
    d_conv: int = shared(D_CONV)
    heads: int = shared(HEADS)
    ssd_state: int = shared(SSD_STATE)

    def inner(self, channels: int) -> int:
        """Channels inside the layer."""
        return int(self.expand * channels)

    def check(self, channels: int, stage: int) -> None:
        check_inner(self.word, channels, self.inner(channels), self.expand, stage)
        check_heads(self.word, self.inner(channels), self.heads, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        inner, state = self.inner(channels), self.ssd_state
        projections = channels * (2 * inner + 2 * state + self.heads) + inner * channels
        return height * width * (projections + self.d_conv**2 * (inner + 2 * state) + 2 * state * inner)


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
    """Softmax attention between all positions of the map, or of windows of it (Vaswani 2017; Swin, without shift)."""

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
        windows = math.ceil(height / rows) * math.ceil(width / columns)
        return 4 * channels**2 * height * width + windows * 2 * channels * (rows * columns) ** 2
