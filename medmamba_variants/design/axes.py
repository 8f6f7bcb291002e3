"""The axes of the design space: each one is declared here once, with its kind, meaning, source and probe.

Validation, the YAML schema, the documentation table, search distributions and tests all follow from these declarations.
This module imports no torch, so that reading a study file stays instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.branches import SHARE_DIGITS, BranchLists
from medmamba_variants.design.kinds import Choice, Kind, Listed, Number, OrEach, SettingError, whole
from medmamba_variants.design.orders import Directions
from medmamba_variants.hints import one_of

OPERATORS = ("conv", "ss2d")
FUSIONS = ("shuffle", "concat", "conv1x1", "squeeze_excite", "attention", "none")
DOWNSAMPLINGS = ("patch_merging", "max_pool", "average_pool", "strided_conv")
ODD_MAPS = ("truncate", "pad")
EACH_STAGE = "a list of whole numbers, one for each stage"


@dataclass(frozen=True)
class Axis:
    """One dimension of design: what it may be, what it means, where it comes from, one step away from the default.

    `needs` names the conditions (keys of `config.NEEDS`) under which the axis has any effect.
    """

    name: str
    kind: Kind
    meaning: str
    source: str
    probe: Any
    needs: tuple[str, ...] = ()

    @property
    def number(self) -> Number | None:
        """The kind of a single value where it is a number, so that a search may draw it from a range."""
        kind = self.kind.item if isinstance(self.kind, OrEach) else self.kind
        return kind if isinstance(kind, Number) else None


_DECLARED = (
    Axis(
        "patch_size",
        whole(1, 32),
        "side of the patches the stem turns into tokens, in pixels",
        "MedMamba, patch embedding",
        probe=2,
    ),
    Axis(
        "depths",
        Listed(whole(1, 64), EACH_STAGE, filled=True),
        "blocks in each stage",
        "MedMamba, model variants",
        probe=(1, 2, 2, 1),
    ),
    Axis(
        "dims",
        Listed(whole(2, 4096), EACH_STAGE, filled=True),
        "channels in each stage",
        "MedMamba, model variants",
        probe=(48, 96, 192, 384),
    ),
    Axis(
        "branches",
        BranchLists(OPERATORS),
        "(share of channels, operator) of each branch of a block, or one such list for each stage",
        "MedMamba, SS-Conv-SSM",
        probe=((0.75, "conv"), (0.25, "ss2d")),
    ),
    Axis(
        "fusion",
        Choice(FUSIONS),
        "how the outputs of a block's branches are put together",
        "MedMamba, SS-Conv-SSM; squeeze-excite: Hu 2018",
        probe="conv1x1",
        needs=("two_branches",),
    ),
    Axis(
        "shuffle_groups",
        whole(2, 64),
        "groups of the channel shuffle",
        "MedMamba, SS-Conv-SSM; ShuffleNet",
        probe=4,
        needs=("two_branches", "shuffle"),
    ),
    Axis(
        "d_state",
        whole(1, 256),
        "size of the state of each channel in the selective scan (N)",
        "Mamba, section 3",
        probe=8,
        needs=("ss2d",),
    ),
    Axis(
        "expand",
        Number(0.25, 8.0),
        "inner channels of the scan for each channel of its branch (E)",
        "Mamba, section 3.4",
        probe=1.0,
        needs=("ss2d",),
    ),
    Axis(
        "d_conv",
        Choice((1, 3, 5, 7)),
        "side of the depth-wise convolution before the scan",
        "VMamba, SS2D",
        probe=5,
        needs=("ss2d",),
    ),
    Axis(
        "dt_rank",
        whole(1, 1024, alternatives=("auto",)),
        "rank of the step-size projection; auto is a sixteenth of the branch's channels, rounded up",
        "Mamba, section 3.6",
        probe=5,
        needs=("ss2d",),
    ),
    Axis(
        "scan_directions",
        Directions(),
        "paths over the map, each with its own parameters, summed: a named set or a list of directions",
        "VMamba, cross-scan",
        probe="corner4",
        needs=("ss2d",),
    ),
    Axis(
        "downsampling",
        Choice(DOWNSAMPLINGS),
        "how a map is halved between stages",
        "Swin Transformer, patch merging",
        probe="max_pool",
        needs=("two_stages",),
    ),
    Axis(
        "odd_maps",
        Choice(ODD_MAPS),
        "what halving does with an odd row or column: drop it, or repeat it once",
        "MedMamba's code truncates",
        probe="pad",
        needs=("two_stages",),
    ),
    Axis(
        "drop_path_rate",
        Number(0.0, 0.95),
        "probability of dropping the ss2d branch of an image, rising linearly to this value in the last block",
        "Huang 2016; MedMamba's code",
        probe=0.5,
        needs=("late_ss2d",),
    ),
    Axis(
        "input_channels",
        Choice(("data", 1, 3)),
        "channels the stem reads: those of the data, or grey (1) or RGB (3) after conversion",
        "this project",
        probe=1,
    ),
)

AXES: dict[str, Axis] = {axis.name: axis for axis in _DECLARED}

# Accepted wherever an axis is named, rewritten into the axis it stands for: one variant keeps one identity.
SUGAR: dict[str, Axis] = {
    "split_ratio": Axis(
        "split_ratio",
        OrEach(Number(0.0, 1.0, digits=SHARE_DIGITS)),
        "share of the channels through ss2d, the rest through conv; a number, or one for each stage (writes branches)",
        "MedMamba, SS-Conv-SSM",
        probe=0.25,
    )
}


def find_axis(name: str) -> Axis:
    """The declaration of an axis (or of split_ratio). Raises SettingError with a suggestion for an unknown name."""
    known = AXES | SUGAR
    if name in known:
        return known[name]
    raise SettingError((), f"axis {one_of(str(name), known)}")


def parse_axis(name: str, value: Any) -> Any:
    """The canonical value of an axis: floats are floats, lists are tuples, equal designs are equal values.

    Raises SettingError for a bad value, its path starting with the axis, and for an unknown axis.
    """
    return find_axis(name).kind.parse(value, (name,))
