"""Mixers, the operators of branches, each with its own axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.adaptive import Deformable, Dynamic, Morphology, SelectiveKernel
from medmamba_variants.design.components import Mixer, axis, by_word, shared
from medmamba_variants.design.convolutions import (
    Axial,
    ConvNeXt,
    Depthwise,
    Identity,
    Inception,
    MultiScale,
    Reparametrised,
    Strips,
)
from medmamba_variants.design.gated import D_CONV, EXPAND, GatedConv
from medmamba_variants.design.kinds import Choice, SettingError, whole
from medmamba_variants.design.orders import directions_of
from medmamba_variants.design.products import GatedSpatial, HighOrder
from medmamba_variants.design.sequence_mixers import SCAN_DIRECTIONS, SSD, Attention, LinearAttention, NonCausalSSD


@dataclass(frozen=True)
class Conv(Mixer):
    """The published local branch: two full 3×3 convolutions and one 1×1."""

    word = "conv"
    builds = "medmamba_variants.parts.mixers.conv:ConvBranch"
    # upstream: drop path belongs to the scan branch alone.
    drops_path = False

    def macs(self, channels: int, height: int, width: int) -> int:
        return (9 + 9 + 1) * channels**2 * height * width


@dataclass(frozen=True)
class SS2D(Mixer):
    """The published global branch: layer norm, gated 2-D selective scan."""

    word = "ss2d"
    builds = "medmamba_variants.parts.mixers.ss2d:SS2DBranch"

    d_state: int = axis(
        16,
        whole(1, 256),
        "size of the state of each channel in the selective scan (N)",
        "Mamba, section 3",
        probe=8,
    )
    expand: float = shared(EXPAND)
    d_conv: int = shared(D_CONV)
    dt_rank: int | str = axis(
        "auto",
        whole(1, 1024, alternatives=("auto",)),
        "rank of the step-size projection; auto is a sixteenth of the branch's channels, rounded up",
        "Mamba, section 3.6",
        probe=5,
    )
    scan_directions: str | tuple[str, ...] = shared(SCAN_DIRECTIONS)
    scan_window: int = axis(
        0,
        whole(0, 256),
        "side of the square windows that all directions scan one by one, the state anew in each; 0: the whole map",
        "LocalMamba, local scan",
        probe=2,
    )
    merge: str = axis(
        "sum",
        Choice(("sum", "mean", "softmax")),
        "how the directions' outputs become one: sum, mean (after the layer norm it is sum but for its epsilon), "
        "or softmax, a learned weight for each direction, equal at first",
        "VMamba, cross-merge; LocalMamba, weights of directions",
        probe="softmax",
    )
    direction_weights: str = axis(
        "own",
        Choice(("own", "shared")),
        "projections to B, C and step sizes, A and D: of each direction its own, or one set for all directions",
        "VMamba, SS2D; shared: PlainMamba, there with direction embeddings",
        probe="shared",
    )

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the scan directions, in the order of their parameters."""
        return directions_of(self.scan_directions)

    @property
    def sets(self) -> int:
        """Sets of scan parameters, each for one direction or a single one for all."""
        return 1 if self.direction_weights == "shared" else len(self.directions)

    def inner(self, channels: int) -> int:
        """Channels inside the layer."""
        return int(self.expand * channels)

    def rank(self, channels: int) -> int:
        """Rank of the step-size projection."""
        return math.ceil(channels / 16) if isinstance(self.dt_rank, str) else self.dt_rank

    def check(self, channels: int, stage: int) -> None:
        if min(channels, self.inner(channels)) < 2:
            raise SettingError(
                (),
                "ss2d must have at least two channels and two inner ones, since the layer norm of one is constant; "
                f"got {channels}, and {self.inner(channels)} inner ones with expand={self.expand:g}, in stage {stage}",
            )
        for name, plain in (("merge", "sum"), ("direction_weights", "own")):
            if len(self.directions) == 1 and getattr(self, name) != plain:
                raise SettingError(
                    (name,),
                    f"must be {plain} where there is a single direction, of which all its values make the same; "
                    f"got {name}={getattr(self, name)} with scan_directions=[{self.directions[0]}] in stage {stage}",
                )

    def macs(self, channels: int, height: int, width: int) -> int:
        length, inner, rank, directions = (
            height * width,
            self.inner(channels),
            self.rank(channels),
            len(self.directions),
        )
        projections = 2 * channels * inner + inner * channels
        convolution = self.d_conv**2 * inner
        # x to step sizes' low rank, B and C, once where the directions share it; then for each direction low rank to
        # step sizes, and the scan by VMamba's nine for each state.
        scan = self.sets * inner * (rank + 2 * self.d_state) + directions * (inner * rank + 9 * inner * self.d_state)
        return length * (projections + convolution + scan)


MIXERS: dict[str, type[Mixer]] = by_word(
    Conv,
    SS2D,
    Identity,
    Depthwise,
    Inception,
    Axial,
    ConvNeXt,
    MultiScale,
    Strips,
    Reparametrised,
    SelectiveKernel,
    Deformable,
    Dynamic,
    Morphology,
    GatedSpatial,
    HighOrder,
    GatedConv,
    SSD,
    NonCausalSSD,
    LinearAttention,
    Attention,
)
