"""The axes of the design space: each one is declared here once, with its bounds, meaning, source and probe.

Validation, the YAML schema, the documentation table, search distributions and tests all follow from these declarations.
This module imports no torch, so that reading a study file stays instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medmamba_variants.hints import unknown_name
from medmamba_variants.scan.directions import DIRECTION_SETS

OPERATORS = ("conv", "ss2d")
FUSIONS = ("shuffle", "concat", "conv1x1", "squeeze_excite", "attention", "none")
DOWNSAMPLINGS = ("patch_merging", "max_pool", "average_pool", "strided_conv")
ODD_MAPS = ("truncate", "pad")

Branch = tuple[float, str]
Branches = tuple[Branch, ...]


@dataclass(frozen=True)
class Axis:
    """One dimension of design: what it may be, what it means, where it comes from, one step away from the default.

    `kind` is int, float, choice, ints, branches or directions; `choices` are all literals of a choice, the operators of
    branches, the named sets of directions, and the words an int may be replaced by. `needs` names the conditions
    (keys of `config.NEEDS`) under which the axis has any effect.
    """

    name: str
    kind: str
    meaning: str
    source: str
    probe: Any
    choices: tuple[str | int, ...] = ()
    low: float | None = None
    high: float | None = None
    needs: tuple[str, ...] = ()


_DECLARED = (
    Axis(
        "patch_size",
        "int",
        "side of the patches the stem turns into tokens, in pixels",
        "MedMamba, patch embedding",
        probe=2,
        low=1,
        high=32,
    ),
    Axis(
        "depths",
        "ints",
        "blocks in each stage",
        "MedMamba, model variants",
        probe=(1, 2, 2, 1),
        low=1,
        high=64,
    ),
    Axis(
        "dims",
        "ints",
        "channels in each stage",
        "MedMamba, model variants",
        probe=(48, 96, 192, 384),
        low=2,
        high=4096,
    ),
    Axis(
        "branches",
        "branches",
        "(share of channels, operator) of each branch of a block, or one such list for each stage",
        "MedMamba, SS-Conv-SSM",
        probe=((0.75, "conv"), (0.25, "ss2d")),
        choices=OPERATORS,
    ),
    Axis(
        "fusion",
        "choice",
        "how the outputs of a block's branches are put together",
        "MedMamba, SS-Conv-SSM; squeeze-excite: Hu 2018",
        probe="conv1x1",
        choices=FUSIONS,
        needs=("two_branches",),
    ),
    Axis(
        "shuffle_groups",
        "int",
        "groups of the channel shuffle",
        "MedMamba, SS-Conv-SSM; ShuffleNet",
        probe=4,
        low=2,
        high=64,
        needs=("two_branches", "shuffle"),
    ),
    Axis(
        "d_state",
        "int",
        "size of the state of each channel in the selective scan (N)",
        "Mamba, section 3",
        probe=8,
        low=1,
        high=256,
        needs=("ss2d",),
    ),
    Axis(
        "expand",
        "float",
        "inner channels of the scan for each channel of its branch (E)",
        "Mamba, section 3.4",
        probe=1.0,
        low=0.25,
        high=8.0,
        needs=("ss2d",),
    ),
    Axis(
        "d_conv",
        "choice",
        "side of the depth-wise convolution before the scan",
        "VMamba, SS2D",
        probe=5,
        choices=(1, 3, 5, 7),
        needs=("ss2d",),
    ),
    Axis(
        "dt_rank",
        "int",
        "rank of the step-size projection; auto is a sixteenth of the branch's channels, rounded up",
        "Mamba, section 3.6",
        probe=5,
        choices=("auto",),
        low=1,
        high=1024,
        needs=("ss2d",),
    ),
    Axis(
        "scan_directions",
        "directions",
        "paths over the map, each with its own parameters, summed: a named set or a list of directions",
        "VMamba, cross-scan",
        probe="corner4",
        choices=tuple(DIRECTION_SETS),
        needs=("ss2d",),
    ),
    Axis(
        "downsampling",
        "choice",
        "how a map is halved between stages",
        "Swin Transformer, patch merging",
        probe="max_pool",
        choices=DOWNSAMPLINGS,
        needs=("two_stages",),
    ),
    Axis(
        "odd_maps",
        "choice",
        "what halving does with an odd row or column: drop it, or repeat it once",
        "MedMamba's code truncates",
        probe="pad",
        choices=ODD_MAPS,
        needs=("two_stages",),
    ),
    Axis(
        "drop_path_rate",
        "float",
        "probability of dropping the ss2d branch of an image, rising linearly to this value in the last block",
        "Huang 2016; MedMamba's code",
        probe=0.5,
        low=0.0,
        high=0.95,
        needs=("late_ss2d",),
    ),
    Axis(
        "input_channels",
        "choice",
        "channels the stem reads: those of the data, or grey (1) or RGB (3) after conversion",
        "this project",
        probe=1,
        choices=("data", 1, 3),
    ),
)

AXES: dict[str, Axis] = {axis.name: axis for axis in _DECLARED}

# Accepted wherever an axis is named, rewritten into the axis it stands for: one variant keeps one identity.
SUGAR: dict[str, Axis] = {
    "split_ratio": Axis(
        "split_ratio",
        "float",
        "share of the channels through ss2d, the rest through conv; a number, or one for each stage (writes branches)",
        "MedMamba, SS-Conv-SSM",
        probe=0.25,
        low=0.0,
        high=1.0,
    )
}


def find_axis(name: str, where: str = "") -> Axis:
    """The declaration of an axis (or of split_ratio). Raises ValueError with a suggestion for an unknown name."""
    known = AXES | SUGAR
    if name in known:
        return known[name]
    raise ValueError((f"{where}: " if where else "") + unknown_name("axis", name, known))


def is_per_stage(branches: Branches | tuple[Branches, ...]) -> bool:
    """Whether branches are given for each stage rather than once for all."""
    return isinstance(branches[0][0], tuple)


def directions_of(scan_directions: str | tuple[str, ...]) -> tuple[str, ...]:
    """The direction names of a canonical scan_directions value."""
    return DIRECTION_SETS[scan_directions] if isinstance(scan_directions, str) else scan_directions
