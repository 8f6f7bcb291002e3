"""Mixers of state spaces beside the selective scan: H3, Mamba-3, and the scan in two dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.gated import (
    DIRECTION_SCHEDULE,
    DT_MAX,
    DT_MIN,
    SCAN_DIRECTIONS,
    Directed,
    Gated,
    check_steps,
)
from medmamba_variants.design.kinds import Choice, SettingError, whole
from medmamba_variants.design.orders import directions_of
from medmamba_variants.design.scan_mixer import SS2D
from medmamba_variants.design.sequences.duality import HEADS, SSD_STATE, check_heads, dual_macs

# What SS2D declares.
D_STATE, DT_RANK = SS2D.__dataclass_fields__["d_state"], SS2D.__dataclass_fields__["dt_rank"]
# Multiply-adds of a scan for each state, by VMamba's convention.
SCAN = 9


@dataclass(frozen=True)
class H3(Mixer):
    """Hungry Hungry Hippos: queries times a diagonal state space of shifted keys times values (Fu 2023)."""

    word = "h3"
    builds = "medmamba_variants.parts.mixers.sequences.h3:H3Branch"

    d_state: int = shared(D_STATE)
    scan_directions: str | tuple[str, ...] = shared(SCAN_DIRECTIONS)
    direction_schedule: str = shared(DIRECTION_SCHEDULE)
    dt_min: float = shared(DT_MIN)
    dt_max: float = shared(DT_MAX)
    shift_taps: int = axis(
        4,
        whole(1, 64),
        "steps of a path that H3's shift state space remembers: the taps of a causal convolution of the keys",
        "H3, section 3.1",
        probe=2,
    )

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the scan directions, in the order of their parameters."""
        return directions_of(self.scan_directions)

    def in_block(self, index: int) -> Self:
        if self.direction_schedule == "all":
            return self
        only = self.directions[index % len(self.directions)]
        return replace(self, scan_directions=(only,), direction_schedule="all")

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        check_steps(self.dt_min, self.dt_max, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        # Each path has its taps, its step sizes and its scan.
        path = channels * (self.shift_taps + 1 + SCAN * self.d_state)
        return height * width * (4 * channels**2 + len(self.directions) * path)


@dataclass(frozen=True)
class Mamba3(Directed):
    """Mamba-3: a scan with one decay for each head, a trapezoid for its input, and states that turn (Lahoti 2026)."""

    word = "mamba3"
    builds = "medmamba_variants.parts.mixers.sequences.mamba3:Mamba3Branch"

    heads: int = shared(HEADS)
    ssd_state: int = shared(SSD_STATE)
    dt_min: float = shared(DT_MIN)
    dt_max: float = shared(DT_MAX)

    def projected(self) -> int:
        """Numbers of each direction and position: B, C and angles, step sizes and weights of the trapezoid."""
        return 2 * self.ssd_state + self.ssd_state // 2 + 2 * self.heads

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        check_steps(self.dt_min, self.dt_max, stage)
        check_heads(self.word, self.inner(channels), self.heads, stage)
        if self.ssd_state % 2:
            raise SettingError(
                ("ssd_state",), f"must be even, since mamba3 turns pairs, got {self.ssd_state} in stage {stage}"
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        length, inner, directions = height * width, self.inner(channels), len(self.directions)
        wiring = self.wiring_macs(channels, inner, directions * self.projected())
        # Each head has a B and a C of its own, since each turns by its own steps; once more C with B of a position.
        scan = self.heads * (dual_macs(length, 1, self.ssd_state, inner // self.heads) + length * self.ssd_state)
        return length * wiring + directions * scan


@dataclass(frozen=True)
class TwoD(Gated):
    """The selective scan in two dimensions: states run along rows, and these along columns (2DMamba, Zhang 2025)."""

    word = "two_d"
    builds = "medmamba_variants.parts.mixers.sequences.two_d:TwoDBranch"

    d_state: int = shared(D_STATE)
    dt_rank: int | str = shared(DT_RANK)
    dt_min: float = shared(DT_MIN)
    dt_max: float = shared(DT_MAX)
    corners: int = axis(
        4,
        Choice((1, 2, 4)),
        "corners of the map from which the two-dimensional scan runs, each with its own parameters: the upper left, "
        "that and the lower right, or all",
        "2DMamba, there one",
        probe=1,
    )

    def rank(self, channels: int) -> int:
        """Rank of the step-size projection."""
        return math.ceil(channels / 16) if isinstance(self.dt_rank, str) else self.dt_rank

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        check_steps(self.dt_min, self.dt_max, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        inner, rank = self.inner(channels), self.rank(channels)
        # Rows and columns are a scan each.
        corner = inner * (2 * rank + 2 * self.d_state + 2 * SCAN * self.d_state)
        return height * width * (self.wiring_macs(channels, inner, 0) + self.corners * corner)
