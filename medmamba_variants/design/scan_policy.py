"""Paths of the selective scan as choices: which directions a block follows, and the cells that it scans one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from medmamba_variants.design.components import Need, axis, shared
from medmamba_variants.design.gated import SEVERAL, Directed
from medmamba_variants.design.kinds import Choice, SettingError, whole
from medmamba_variants.design.orders import directions_of
from medmamba_variants.scan.cells import Partition
from medmamba_variants.scan.directions import order_of

WINDOW_SHIFT = axis(
    "none",
    Choice(("none", "half")),
    "whether windows move by half their side in every second block, counted from the stem, the second being the first",
    "Swin Transformer, section 3.2; MFEVM-UNet",
    probe="half",
    needs=(
        Need(
            ("scan_window", "attention_window"),
            lambda side: side > 1,
            "scan_window (of attention: attention_window) is 0 or 1",
            example=3,
        ),
    ),
)


# A block that follows one direction has nothing to merge or to share.
ALL_AT_ONCE = Need(
    ("direction_schedule",), lambda value: value == "all", "direction_schedule is alternate", example="all"
)
ATROUS = Need(("scan_atrous",), lambda step: step > 1, "scan_atrous is 1", example=2)
GRIDS = Need(("atrous_over",), lambda value: value == "grid", "atrous_over is sequence", example="grid")
EVERYWHERE = Need(("atrous_scans",), lambda value: value == "all", "atrous_scans is disjoint", example="all")
LINED = Need(
    ("scan_directions",),
    lambda value: any(order_of(name)[0].lines for name in directions_of(value)),
    "scan_directions have no lines",
    example="cross4",
)
ROUTED = Need(("routing",), lambda value: value == "top_k", "routing is none", example="top_k")
UNROUTED = Need(("routing",), lambda value: value == "none", "routing is top_k", example="none")
# Knots between which the learned part of a score that depends on the place alone is linear.
KNOTS = 64


@dataclass(frozen=True)
class Part:
    """A part of a scan: the grid that begins at an offset, directions through it, and the set of parameters of each."""

    row: int
    column: int
    directions: tuple[str, ...]
    set_of: tuple[int, ...]

    @property
    def sets(self) -> slice:
        """The sets that the part uses, which lie side by side."""
        return slice(min(self.set_of), max(self.set_of) + 1)

    def size(self, height: int, width: int, step: int) -> tuple[int, int]:
        """Rows and columns of the grid of every step-th row and column; none of a map smaller than the offset."""
        return -((self.row - height) // step), -((self.column - width) // step)


@dataclass(frozen=True)
class ScanPolicy(Directed):
    """A scan of maps along directions, each through the cells of a partition of the map."""

    scan_window: int = axis(
        0,
        whole(0, 256),
        "side of the square windows that all directions scan one by one, the state anew in each; 0: the whole map",
        "LocalMamba, local scan",
        probe=2,
    )
    window_shift: str = shared(WINDOW_SHIFT)
    scan_lines: str = axis(
        "joined",
        Choice(("joined", "apart")),
        "whether the state runs on from line to line of a direction (row, column, diagonal, ring), or starts anew in "
        "each, an axial scan",
        "VMamba; apart: axial scans as in MobileViM and PV-SSM",
        probe="apart",
        needs=(LINED,),
    )
    scan_atrous: int = axis(
        1,
        whole(1, 16),
        "step s of the atrous scan: each of the s² grids of every s-th row and column is scanned alone, windows being "
        "those of a grid",
        "ASP-VMUNet",
        probe=2,
    )
    atrous_over: str = axis(
        "grid",
        Choice(("grid", "sequence")),
        "what the atrous step counts: rows and columns of the map, or the steps of a direction, of which s runs are "
        "scanned alone",
        "ASP-VMUNet's code, v6 and v3",
        probe="sequence",
        needs=(ATROUS,),
    )
    atrous_scans: str = axis(
        "all",
        Choice(("all", "disjoint")),
        "whether all directions scan every atrous grid, or each grid one of them, in turn, so that a position is "
        "scanned once",
        "ASP-VMUNet; disjoint: EfficientVMamba, efficient scan",
        probe="disjoint",
        needs=(ATROUS, GRIDS, SEVERAL, ALL_AT_ONCE),
    )
    atrous_weights: str = axis(
        "shared",
        Choice(("shared", "own")),
        "whether the atrous grids share the parameters of a direction, or each has its own",
        "ASP-VMUNet, EfficientVMamba: own",
        probe="own",
        needs=(ATROUS, GRIDS),
    )
    scan_order: str = axis(
        "fixed",
        Choice(("fixed", "random_step", "learned", "learned_shuffled")),
        "order in which positions are laid out before the directions go through them: as in the map, at random anew in "
        "every training step, by a learned score of each image's positions, or by these scores shuffled, the control",
        "VMamba; learned: ASM-UNet",
        probe="learned",
    )
    routing: str = axis(
        "none",
        Choice(("none", "top_k")),
        "whether a router, from an image's mean, keeps the routed_directions best of the directions and weighs their "
        "outputs",
        "Switch-UMamba; MedMamba-ESS keeps two of cross-scan's four",
        probe="top_k",
        needs=(SEVERAL, ALL_AT_ONCE),
    )
    routed_directions: int = axis(
        2,
        whole(2, 64),
        "directions that the router keeps of an image (k)",
        "MedMamba-ESS: 2 of 4; Switch-UMamba: 4 of 16",
        probe=3,
        needs=(ROUTED,),
    )
    token_reduction: str = axis(
        "none",
        Choice(("none", "quarter", "random_drop", "merge_similar")),
        "positions that are scanned: all, the first of each 2×2 patch, as many drawn at random once, or those first "
        "ones as means of themselves and of the others most similar to each; the others take the output of their "
        "patch, the nearest or the one they went into; skip and gate see all. Parameters stay: also after training",
        "QuarterMap; ToMe (Bolya et al. 2023, equation 1 to 3; one of each patch as in its form for diffusion)",
        probe="quarter",
    )

    @property
    def partition(self) -> Partition:
        """The cells that each direction scans one by one."""
        return Partition(
            window=self.scan_window,
            shifted=self.window_shift == "half",
            atrous=self.scan_atrous,
            over=self.atrous_over,
            lines_apart=self.scan_lines == "apart",
        )

    @property
    def set_of(self) -> tuple[int, ...]:
        """For each direction the index of its set of parameters among those of a grid."""
        return tuple(range(len(self.directions)))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is scanned with parameters or directions of its own: the atrous grids, or else the one map as it is."""
        names, sets = self.directions, self.set_of
        disjoint, own = self.atrous_scans == "disjoint", self.atrous_weights == "own"
        if not (disjoint or own):
            return (Part(0, 0, names, sets),)
        parts = []
        for index in range(self.scan_atrous**2):
            turn = index % len(names)
            offset = divmod(index, self.scan_atrous)
            if disjoint:
                parts.append(Part(*offset, (names[turn],), (index if own else sets[turn],)))
            else:
                parts.append(Part(*offset, names, tuple(index * (max(sets) + 1) + each for each in sets)))
        return tuple(parts)

    @property
    def sets(self) -> int:
        """Sets of scan parameters, those of a direction or of several, of a grid or of all."""
        return max(part.sets.stop for part in self.parts)

    @property
    def experts(self) -> tuple[Part, ...]:
        """Each direction with its set of parameters, as a router chooses among them."""
        return tuple(Part(0, 0, (name,), (used,)) for name, used in zip(self.directions, self.set_of))

    def scans(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Positions, sets of parameters and directions of each scan of a map of that size."""
        height, width = self.scanned_size(height, width)
        if self.routing == "top_k":
            return [(height * width, 1, 1)] * self.routed_directions
        parts, step = self.parts, self.scan_atrous if len(self.parts) > 1 else 1
        return [
            (math.prod(part.size(height, width, step)), part.sets.stop - part.sets.start, len(part.directions))
            for part in parts
        ]

    def scanned_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of what is scanned of a map; of a random choice, those of a map with as many positions."""
        return (height, width) if self.token_reduction == "none" else (-(-height // 2), -(-width // 2))

    def policy_macs(self, inner: int, height: int, width: int) -> int:
        """Multiply-adds of what decides on paths: a router, learned scores."""
        total = inner * len(self.directions) if self.routing == "top_k" else 0
        if self.scan_order.startswith("learned"):
            total += math.prod(self.scanned_size(height, width)) * (inner + KNOTS)
        if self.token_reduction == "merge_similar":
            kept = math.prod(self.scanned_size(height, width))
            total += kept * (height * width - kept) * inner
        return total

    def in_block(self, index: int) -> Self:
        here = super().in_block(index)
        return here if index % 2 else replace(here, window_shift="none")

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        if self.routing == "top_k" and self.routed_directions > len(self.directions):
            raise SettingError(
                ("routed_directions",),
                f"must be at most the directions, got {self.routed_directions} of {len(self.directions)} "
                f"in stage {stage}",
            )
        for name, plain, others in (
            ("routing", "none", ("atrous_scans", "atrous_weights")),
            ("token_reduction", "none", ("atrous_scans", "atrous_weights", "routing")),
        ):
            for other in others if getattr(self, name) != plain else ():
                default = type(self).declared()[other].default
                if getattr(self, other) != default:
                    raise SettingError(
                        (other,),
                        f"must be {default} where {name} is {getattr(self, name)}, "
                        f"got {getattr(self, other)} in stage {stage}",
                    )
        if self.token_reduction == "random_drop" and self.scan_order != "fixed":
            raise SettingError(
                ("scan_order",),
                f"must be fixed where token_reduction is random_drop, got {self.scan_order} in stage {stage}",
            )
        if self.atrous_scans == "disjoint" and len(self.directions) > self.scan_atrous**2:
            raise SettingError(
                ("scan_atrous",),
                "must make a grid for each direction where atrous_scans=disjoint, "
                f"got {len(self.directions)} directions and {self.scan_atrous**2} grids in stage {stage}",
            )
