"""Mixers with one decay for each head: state-space duality, along paths or without any order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.components import axis, shared
from medmamba_variants.design.gated import DT_MAX, DT_MIN, Directed, Gated, check_steps
from medmamba_variants.design.kinds import SettingError, whole

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
        return length * wiring + directions * dual_macs(length, self.heads, state, inner)


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
