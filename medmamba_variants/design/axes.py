"""Axes of the design space: those of the network, declared here, and those that components own.

Validation, the YAML schema, the documentation table, search distributions and tests all follow from these declarations.
This module imports no torch, so that reading a study file stays instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.branches import SHARE_DIGITS, BranchLists
from medmamba_variants.design.components import Component, owners
from medmamba_variants.design.joints import FUSIONS, HALVINGS
from medmamba_variants.design.kinds import Choice, Flag, Kind, Listed, Number, OrEach, SettingError, whole
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.design.wraps.around import POSITIONS, RESIDUALS, STEMS
from medmamba_variants.design.wraps.attentions import ATTENTIONS
from medmamba_variants.design.wraps.channel_mixers import CHANNEL_MIXERS
from medmamba_variants.hints import one_of

EACH_STAGE = "a list of whole numbers, one for each stage"
# Why an axis may have no effect, in words.
NO_SUCH_BRANCH = "branches (or split_ratio) hold no {}"
SINGLE_BRANCH = "branches (or split_ratio) leave every stage a single branch"
NO_TWINS = "no two branches have the same share and operator"
SINGLE_STAGE = "depths name a single stage"
NO_HALVING = "downsampling is none"
NO_LATE_MIXER = "branches (or split_ratio) hold nothing but {} after the first block, nor is there a channel_mixer"


@dataclass(frozen=True)
class Axis:
    """An axis, one dimension of design: its kind, meaning and source, and a probe value one step from the default.

    `no_effect` says in words where it has none, which `structure.dead_axes` decides; `hangs_on` names the axes of its
    component whose values decide that, too.
    """

    name: str
    kind: Kind
    default: Any
    meaning: str
    source: str
    probe: Any
    no_effect: tuple[str, ...] = ()
    hangs_on: tuple[str, ...] = ()

    @property
    def number(self) -> Number | None:
        """The kind of a single value if it is a number, so that a search may draw it from a range."""
        kind = self.kind.item if isinstance(self.kind, OrEach) else self.kind
        return kind if isinstance(kind, Number) else None


def or_(words: Iterable[str]) -> str:
    """Words joined as alternatives: ss2d; ssd or attention; a, b or c."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


# The choices of components by an axis of their own: its name → word → component. Mixers are chosen by `branches`.
FAMILIES: dict[str, Mapping[str, type[Component]]] = {
    "fusion": FUSIONS,
    "downsampling": HALVINGS,
    "channel_mixer": CHANNEL_MIXERS,
    "attention": ATTENTIONS,
    "residual": RESIDUALS,
    "stem": STEMS,
    "position": POSITIONS,
}
# Those of which there is one for each halving, or a single one; of all others one for each stage.
OF_HALVINGS, OF_NETWORK = ("downsampling",), ("stem", "position")
# Why a family may stand nowhere.
NOWHERE = {"fusion": SINGLE_BRANCH, "downsampling": SINGLE_STAGE}
MIXER_AXES = owners(MIXERS)
FAMILY_AXES = {family: owners(members) for family, members in FAMILIES.items()}
# The family that owns an axis.
FAMILY_OF = {name: family for family, owned in FAMILY_AXES.items() for name in owned}
# The mixers whose branches drop path leaves alone.
NEVER_DROPPED = or_(word for word, mixer in MIXERS.items() if not mixer.drops_path)

# The axes that no component owns.
NETWORK = (
    Axis(
        "patch_size",
        whole(1, 32),
        4,
        "side of the patches the stem turns into tokens, in pixels",
        "MedMamba, patch embedding",
        probe=2,
    ),
    Axis(
        "depths",
        Listed(whole(1, 64), EACH_STAGE, filled=True),
        (2, 2, 4, 2),
        "blocks in each stage",
        "MedMamba, model variants",
        probe=(1, 2, 2, 1),
    ),
    Axis(
        "dims",
        Listed(whole(2, 4096), EACH_STAGE, filled=True),
        (96, 192, 384, 768),
        "channels in each stage",
        "MedMamba, model variants",
        probe=(48, 96, 192, 384),
    ),
    Axis(
        "branches",
        BranchLists(MIXERS),
        ((0.5, "conv"), (0.5, "ss2d")),
        "(share of channels, operator) of each branch of a block, or one such list for each stage",
        "MedMamba, SS-Conv-SSM",
        probe=((0.75, "conv"), (0.25, "ss2d")),
    ),
    Axis(
        "fusion",
        OrEach(Choice(tuple(FUSIONS))),
        "shuffle",
        "how the outputs of a block's branches are put together",
        "MedMamba, SS-Conv-SSM; squeeze-excite: Hu 2018",
        probe="conv1x1",
        no_effect=(SINGLE_BRANCH,),
    ),
    Axis(
        "downsampling",
        OrEach(Choice(tuple(HALVINGS))),
        "patch_merging",
        "how a map is halved between stages",
        "Swin Transformer, patch merging",
        probe="max_pool",
        no_effect=(SINGLE_STAGE,),
    ),
    Axis(
        "odd_maps",
        Choice(("truncate", "pad")),
        "truncate",
        "what halving does with an odd row or column: drop it, or repeat it once",
        "MedMamba's code truncates",
        probe="pad",
        no_effect=(SINGLE_STAGE, NO_HALVING),
    ),
    Axis(
        "channel_mixer",
        OrEach(Choice(("none", *CHANNEL_MIXERS))),
        "none",
        "second half of a block, x + f(norm(x)), which mixes channels; MedMamba has none",
        "Vaswani 2017, section 3.3",
        probe="mlp",
    ),
    Axis(
        "attention",
        OrEach(Choice(("none", *ATTENTIONS))),
        "none",
        "attention module, which weighs channels or places",
        "Hu 2018; Woo 2018",
        probe="squeeze_excite",
    ),
    Axis(
        "residual",
        OrEach(Choice(("plain", *RESIDUALS))),
        "plain",
        "how a block adds what it computes to what it reads",
        "He 2016; CaiT; LightM-UNet",
        probe="layer_scale",
    ),
    Axis(
        "block_norm",
        OrEach(Choice(("layer_norm", "rms_norm", "dynamic_tanh"))),
        "layer_norm",
        "what stands for every layer norm of a stage's blocks",
        "Ba 2016; Zhang & Sennrich 2019; Zhu 2025 (DyT)",
        probe="rms_norm",
    ),
    Axis(
        "cpe",
        OrEach(Choice(("none", "mixer", "both"))),
        "none",
        "conditional positions, a depth-wise 3×3 that is added before token mixing, or before the channel mixer too",
        "Chu 2023 (CPVT), MLLA",
        probe="mixer",
    ),
    Axis(
        "cascade",
        OrEach(Flag()),
        False,
        "whether each branch but the first also reads what the one before it made",
        "Res2Net, section 3.1; MAFUNet",
        probe=True,
        no_effect=(SINGLE_BRANCH,),
    ),
    Axis(
        "branch_weights",
        OrEach(Choice(("own", "shared"))),
        "own",
        "weights of branches that are alike: of each its own, or one set for all of them",
        "UltraLight VM-UNet, parallel vision Mamba",
        probe="shared",
        no_effect=(NO_TWINS,),
    ),
    Axis(
        "shift_round",
        OrEach(Flag()),
        False,
        "whether every second block divides its channels half a branch further on",
        "ASP-VMUNet, shift round",
        probe=True,
        no_effect=(SINGLE_BRANCH,),
    ),
    Axis(
        "stem",
        Choice(tuple(STEMS)),
        "patches",
        "how images become the first map, whose sides are the images' over patch_size",
        "MedMamba, patch embedding; PVTv2; Xiao 2021",
        probe="overlapping",
    ),
    Axis(
        "position",
        Choice(("none", *POSITIONS)),
        "none",
        "positions added to the first map",
        "Vaswani 2017; ViT",
        probe="learned",
    ),
    Axis(
        "final_norm",
        Choice(("none", "map", "pooled")),
        "none",
        "layer norm before the head: none, as MedMamba, of the last map, or of its mean",
        "Swin has it of the map, ConvNeXt of the mean",
        probe="map",
    ),
    Axis(
        "drop_path_rate",
        Number(0.0, 0.95),
        0.1,
        f"probability of dropping a branch (any but {NEVER_DROPPED}) or channel mixer of an image, rising linearly to "
        "this value in the last block",
        "Huang 2016; MedMamba's code",
        probe=0.5,
        no_effect=(NO_LATE_MIXER.format(NEVER_DROPPED),),
    ),
    Axis(
        "input_channels",
        Choice(("data", 1, 3)),
        "data",
        "channels the stem reads: those of the data, or grey (1) or RGB (3) after conversion",
        "this project",
        probe=1,
    ),
)


def _owned() -> list[Axis]:
    """The axes that components own, each of which may be given for every stage."""
    found = {}
    for family, owned in {**FAMILY_AXES, "branches": MIXER_AXES}.items():
        members = FAMILIES.get(family, MIXERS)
        for name, words in owned.items():
            declared = members[words[0]].declared()[name]
            assert name not in found, f"{name} must belong to one family"
            assert all(members[word].declared()[name] == declared for word in words), f"{name} must mean one thing"
            reasons = (NO_SUCH_BRANCH,) if family == "branches" else (*_nowhere(family), f"{family} is not {{}}")
            no_effect = tuple(reason.format(or_(words)) for reason in reasons)
            kind = declared.kind if family in OF_NETWORK else OrEach(declared.kind)
            found[name] = Axis(
                name,
                kind,
                declared.default,
                declared.meaning,
                declared.source,
                declared.probe,
                (*no_effect, *(need.words for need in declared.needs)),
                tuple(other for need in declared.needs for other in need.on),
            )
    return list(found.values())


def _nowhere(family: str) -> tuple[str, ...]:
    return (NOWHERE[family],) if family in NOWHERE else ()


AXES: dict[str, Axis] = {axis.name: axis for axis in (*NETWORK, *_owned())}
DEFAULTS: dict[str, Any] = {axis.name: axis.default for axis in AXES.values()}

# Accepted wherever an axis is named, rewritten into the axis it stands for: one variant keeps one identity.
SUGAR: dict[str, Axis] = {
    "split_ratio": Axis(
        "split_ratio",
        OrEach(Number(0.0, 1.0, digits=SHARE_DIGITS)),
        None,
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
    """The canonical value of an axis: floats as floats, lists as tuples, equal designs as equal values.

    Raises SettingError for a bad value, its path starting with the axis, and for an unknown axis.
    """
    return find_axis(name).kind.parse(value, (name,))
