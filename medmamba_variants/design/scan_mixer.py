"""The selective scan of maps as a mixer: what it scans, with which parameters, and what becomes of its directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.components import axis
from medmamba_variants.design.gated import check_inner
from medmamba_variants.design.kinds import Choice, SettingError, whole
from medmamba_variants.design.scan_policy import ALL_AT_ONCE, EVERYWHERE, UNROUTED, ScanPolicy

# The planes and lines that each choice of scan_axes scans: h rows, w columns, c channels.
SCANNED = {
    "triplet": ("hw", "ch", "cw"),
    "spatial_channel": ("hw", "c"),
    "axes": ("h", "w", "c"),
    "channel": ("c",),
}


@dataclass(frozen=True)
class SS2D(ScanPolicy):
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
    dt_rank: int | str = axis(
        "auto",
        whole(1, 1024, alternatives=("auto",)),
        "rank of the step-size projection; auto is a sixteenth of the branch's channels, rounded up",
        "Mamba, section 3.6",
        probe=5,
    )
    merge: str = axis(
        "sum",
        Choice(("sum", "mean", "softmax")),
        "how the directions' outputs become one: sum, mean (after the layer norm it is sum but for its epsilon), "
        "or softmax, a learned weight for each direction, equal at first",
        "VMamba, cross-merge; LocalMamba, weights of directions",
        probe="softmax",
        needs=(ALL_AT_ONCE, EVERYWHERE, UNROUTED),
    )

    def rank(self, channels: int) -> int:
        """Rank of the step-size projection."""
        return math.ceil(channels / 16) if isinstance(self.dt_rank, str) else self.dt_rank

    def check(self, channels: int, stage: int) -> None:
        check_inner(self.word, channels, self.inner(channels), self.expand, stage)
        self.check_paths(stage)
        for name, plain in (("merge", "sum"), ("direction_weights", "own")):
            if len(self.directions) == 1 and getattr(self, name) != plain:
                raise SettingError(
                    (name,),
                    f"must be {plain} where there is a single direction, of which all its values make the same; "
                    f"got {name}={getattr(self, name)} with scan_directions=[{self.directions[0]}] in stage {stage}",
                )

    def macs(self, channels: int, height: int, width: int) -> int:
        inner, rank = self.inner(channels), self.rank(channels)
        projections = 2 * channels * inner + inner * channels
        total = height * width * (projections + self.d_conv**2 * inner)
        for length, sets, directions in self.scans(height, width):
            # x to step sizes' low rank, B and C, once where the directions share it; then for each direction low rank
            # to step sizes, and the scan by VMamba's nine for each state.
            total += length * inner * (sets * (rank + 2 * self.d_state) + directions * (rank + 9 * self.d_state))
        return total + self.policy_macs(inner, height, width)


@dataclass(frozen=True)
class TensorScan(SS2D):
    """Selective scans over several planes or axes of a map, channels among them, and their mean (TM-UNet, PV-SSM)."""

    word = "tensor_scan"
    builds = "medmamba_variants.parts.mixers.tensor_scan:TensorScanBranch"

    scan_axes: str = axis(
        "triplet",
        Choice(tuple(SCANNED)),
        "what is scanned, by a layer each: the planes of rows and columns, channels and rows, channels and "
        "columns; rows and columns, and channels; rows, columns and channels one by one; or channels alone",
        "TM-UNet, RM-UNet; spatial_channel: SCFMUNet; axes: PV-SSM; channel: U-Mamba",
        probe="axes",
    )
    axis_bins: int = axis(
        4,
        whole(2, 16),
        "bins into which positions are averaged where they are the features of scanned channels, so that parameters do "
        "not depend on the image's size",
        "this project; the papers take every position as a feature",
        probe=3,
    )

    @property
    def scanned_axes(self) -> tuple[str, ...]:
        """The planes and lines that are scanned."""
        return SCANNED[self.scan_axes]

    def features(self, axes: str, channels: int) -> int:
        """Features of a position of such a plane or line."""
        return {"ch": self.axis_bins, "cw": self.axis_bins, "c": self.axis_bins**2}.get(axes, channels)

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        for axes in self.scanned_axes:
            features = self.features(axes, channels)
            check_inner(self.word, features, self.inner(features), self.expand, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        bins, total = self.axis_bins, 0
        every = channels * height * width
        # Rows, columns and number of the maps that are scanned, and the products that average positions into bins.
        maps = {
            "hw": (height, width, 1, 0),
            "ch": (channels, height, 1, every * bins),
            "cw": (channels, width, 1, every * bins),
            "h": (height, 1, width, 0),
            "w": (width, 1, height, 0),
            "c": (channels, 1, 1, every * bins + channels * height * bins**2),
        }
        for axes in self.scanned_axes:
            rows, columns, number, averages = maps[axes]
            total += number * super().macs(self.features(axes, channels), rows, columns) + averages
        return total
