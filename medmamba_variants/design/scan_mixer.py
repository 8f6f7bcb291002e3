"""The selective scan of maps as a mixer: what it scans, with which parameters, and what becomes of its directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medmamba_variants.design.components import Need, axis, shared
from medmamba_variants.design.gated import DT_MAX, DT_MIN, SEVERAL, check_inner, check_steps
from medmamba_variants.design.kinds import Choice, Flag, SettingError, whole
from medmamba_variants.design.scan_policy import ALL_AT_ONCE, EVERYWHERE, UNROUTED, ScanPolicy
from medmamba_variants.scan.directions import order_of
from medmamba_variants.scan.discretisation.rules import RULES

# Channels of all directions for each of the bottleneck of their gate (Hu 2018), and the fewest there.
EXCITE_REDUCTION, EXCITE_MINIMUM = 16, 4
# What depends on the input, by the word of the axis.
SELECTED = {"all": frozenset({"delta", "b", "c"}), "none": frozenset[str]()} | {
    word: frozenset(word.split("_")) for word in ("delta", "b", "c", "delta_b", "delta_c", "b_c")
}
SELECTIVE_STEPS = Need(
    ("selective",), lambda value: "delta" in SELECTED[value], "selective leaves delta out", example="all"
)
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
        needs=(SELECTIVE_STEPS,),
    )
    merge: str = axis(
        "sum",
        Choice(("sum", "mean", "softmax", "squeeze_excite", "concat")),
        "how the directions' outputs become one: sum, mean (after the layer norm it is sum but for its epsilon), "
        "softmax, a learned weight for each direction, equal at first; squeeze_excite, the sum after a gate on each "
        "channel of each direction, from the means of all of them; concat, a learned projection of all to one",
        "VMamba, cross-merge; LocalMamba, weights and attention of directions; squeeze-excite: Hu 2018",
        probe="softmax",
        needs=(ALL_AT_ONCE, EVERYWHERE, UNROUTED),
    )
    direction_weights: str = axis(
        "own",
        Choice(("own", "shared", "pairs")),
        "projections to B, C and step sizes, A and D: of each direction its own, one set for all directions, or one "
        "for each pair of a direction and its reverse",
        "VMamba, SS2D; shared: PlainMamba, there with direction embeddings; pairs: MedMamba-ESS, grouped sharing",
        probe="shared",
        needs=(ALL_AT_ONCE,),
    )

    direction_embedding: bool = axis(
        False,
        Flag(),
        "whether each direction adds a learned vector of its own to B, so that the scan knows which way it goes; with "
        "own weights it is the offset that the projection to B lacks",
        "PlainMamba, direction-aware update",
        probe=True,
        needs=(SEVERAL, ALL_AT_ONCE),
    )
    selective: str = axis(
        "all",
        Choice(tuple(SELECTED)),
        "which of step size Δ, B and C depend on the position's input; each of the others is a learned constant for "
        "each direction, and with none the scan is linear and time-invariant (S4D)",
        "Mamba, section 3.2 and table 7; none: S4D",
        probe="none",
    )
    discretisation: str = axis(
        "mamba",
        Choice(RULES),
        "rule that makes steps of the state's differential equation: mamba, decay exp(ΔA) and gain Δ; zoh, exact for "
        "an input held constant; bilinear; foh, exact for one that runs straight from step to step; all but mamba in "
        "plain torch, many times slower",
        "Mamba, equation 4, and its code; S4, equation 3",
        probe="zoh",
    )
    a_init: str = axis(
        "s4d_real",
        Choice(("s4d_real", "s4d_lin", "random", "uniform")),
        "A of each channel's states at the start: s4d_real, −1 to −N (the diagonal of HiPPO-LegS); s4d_lin, −1/2 for "
        "all (S4D-Lin's real part); random, minus the exponential of a standard normal; uniform, from −16 to −1",
        "Mamba, section 3.6 and table 8; uniform: Mamba-2's code",
        probe="random",
    )
    dt_min: float = shared(DT_MIN)
    dt_max: float = shared(DT_MAX)
    dt_init: str = axis(
        "random",
        Choice(("random", "constant")),
        "weights of the step-size projection at the start: random, uniform within the inverse root of its rank, or all "
        "equal to that",
        "Mamba's code",
        probe="constant",
        needs=(SELECTIVE_STEPS,),
    )

    @property
    def selected(self) -> frozenset[str]:
        """Which of delta, b and c depend on the input."""
        return SELECTED[self.selective]

    @property
    def set_of(self) -> tuple[int, ...]:
        """For each direction the index of its set of scan parameters."""
        if self.direction_weights == "pairs":
            orders = [order_of(direction)[0] for direction in self.directions]
            firsts = [order for index, order in enumerate(orders) if order not in orders[:index]]
            return tuple(firsts.index(order) for order in orders)
        return tuple(0 if self.direction_weights == "shared" else index for index in range(len(self.directions)))

    @property
    def merges_apart(self) -> bool:
        """Whether the merge needs the outputs of directions one by one, not just a weighted sum."""
        return self.merge in ("squeeze_excite", "concat")

    def projected(self, channels: int) -> int:
        """What the projection of a position's input yields for each set: low rank of step sizes, B and C."""
        return (self.rank(channels) if "delta" in self.selected else 0) + self.d_state * len(self.selected & {"b", "c"})

    def gate_hidden(self, channels: int) -> int:
        """Width of the bottleneck of squeeze_excite."""
        return max(len(self.directions) * self.inner(channels) // EXCITE_REDUCTION, EXCITE_MINIMUM)

    def rank(self, channels: int) -> int:
        """Rank of the step-size projection."""
        return math.ceil(channels / 16) if isinstance(self.dt_rank, str) else self.dt_rank

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        check_steps(self.dt_min, self.dt_max, stage)
        for name, plain in (("merge", "sum"), ("direction_weights", "own")):
            if len(self.directions) == 1 and getattr(self, name) != plain:
                raise SettingError(
                    (name,),
                    f"must be {plain} where there is a single direction, of which all its values make the same; "
                    f"got {name}={getattr(self, name)} with scan_directions=[{self.directions[0]}] in stage {stage}",
                )

        if self.token_reduction != "none" and self.merges_apart:
            raise SettingError(
                ("merge",),
                f"must be sum, mean or softmax where token_reduction is {self.token_reduction}, whose skip is added "
                f"to the merged output; got {self.merge} in stage {stage}",
            )
        self._check_sharing(stage)

    def _check_sharing(self, stage: int) -> None:
        directions, sets = len(self.directions), max(self.set_of) + 1
        if self.direction_weights != "own" and self.atrous_scans == "disjoint" and self.atrous_weights == "own":
            raise SettingError(
                ("direction_weights",),
                "must be own where each grid has one direction and its own parameters, of which all its values make "
                f"the same; got {self.direction_weights} in stage {stage}",
            )
        if self.direction_weights == "pairs" and sets in (1, directions):
            same = "shared" if sets == 1 else "own"
            raise SettingError(
                ("direction_weights",),
                f"must be {same} where pairs would be no different, the {directions} directions having {sets} "
                f"orders; got pairs in stage {stage}",
            )
        if self.direction_embedding and "b" not in self.selected and sets == directions:
            raise SettingError(
                ("direction_embedding",),
                f"must be false where each direction has a constant B of its own, with selective={self.selective} and "
                f"direction_weights=own; got true in stage {stage}",
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        inner = self.inner(channels)
        # A constant step size enters the scan as a product of rank one.
        rank = self.rank(channels) if "delta" in self.selected else 1
        total = height * width * self.wiring_macs(channels, inner, 0) + self.policy_macs(inner, height, width)
        for length, sets, directions in self.scans(height, width):
            # x to step sizes' low rank, B and C, once where directions share it; then for each direction low rank to
            # step sizes, and the scan by VMamba's nine for each state.
            total += length * inner * (sets * self.projected(channels) + directions * (rank + 9 * self.d_state))
            if self.merge == "concat":
                total += length * directions * inner**2
            elif self.merge == "squeeze_excite" and length:
                total += 2 * directions * inner * self.gate_hidden(channels)
        return total


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
