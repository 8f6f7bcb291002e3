"""Rules that a structure must keep: what is not a network, or would be the network of another variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmamba_variants.design.axes import or_
from medmamba_variants.design.components import Fusion
from medmamba_variants.design.joints import FUSIONS, Apart, Concat, Shuffle
from medmamba_variants.design.kinds import SettingError, to_json
from medmamba_variants.design.structure import Stage, Structure, structure_of


def check_structure(values: Mapping[str, Any]) -> None:
    """Raises SettingError for values that do not make a network, or that make the network of another variant."""
    structure = structure_of(values)
    structure.stem.check(values["patch_size"])
    for index, stage in enumerate(structure.stages):
        _check_wraps(stage, index)
        for share, width, mixer in zip(stage.shares, stage.widths, stage.mixers, strict=True):
            if width == 0:
                none = f"share {share:g} ({mixer.word}) of dims[{index}]={stage.channels} is none"
                raise SettingError((), f"every branch must get a channel: {none}")
            mixer.check(width, index)
        if len(stage.mixers) > 1:
            _check_kind_of_branches(stage, index)
            stage.fusion.check(stage.widths, stage.channels, index)
    joined = [stage for stage in structure.stages if len(stage.mixers) > 1]
    if joined and all(isinstance(s.fusion, Shuffle) and s.channels == s.fusion.shuffle_groups for s in joined):
        raise SettingError(
            ("shuffle_groups",),
            f"must be fewer than the channels, or the shuffle is concat, got {joined[0].channels} of as many",
        )
    if any(isinstance(stage.fusion, Apart) for stage in joined):
        _check_streams(structure)


def _check_wraps(stage: Stage, index: int) -> None:
    if stage.channel_mixer is not None:
        stage.channel_mixer.check(stage.channels, index)
    if stage.attention is not None:
        for channels in stage.weighed:
            stage.attention.check(channels, index)
        joins = len(stage.mixers) > 1 and isinstance(stage.fusion, Concat) and stage.attention_place == "fusion"
        if joins and stage.attention.word in FUSIONS:
            raise SettingError(
                ("attention",),
                f"must be none where fusion={stage.attention.word} is the same as it after concat, "
                f"got {stage.attention.word} in stage {index}",
            )
    if stage.cpe == "both" and stage.channel_mixer is None:
        raise SettingError(
            ("cpe",), f"must be mixer or none where there is no channel_mixer, got both in stage {index}"
        )
    if len(stage.mixers) == 1 and stage.attention_place == "branches":
        raise SettingError(
            ("attention_place",),
            f"must be fusion or stage where a stage has a single branch, of which branches makes what fusion makes; "
            f"got branches in stage {index}",
        )
    if len(stage.mixers) == 1:
        return
    if stage.cascade and len(set(stage.widths)) > 1:
        raise SettingError(
            ("cascade",), f"must have branches of one width, got {to_json(stage.widths)} in stage {index}"
        )
    if stage.shifts and (stage.parallel or stage.channels < 2 * len(stage.mixers)):
        raise SettingError(
            ("shift_round",),
            "must be false where branches do not divide the channels, two channels or more for each; "
            f"got true for {len(stage.mixers)} branches of {to_json(stage.widths)} channels in stage {index}",
        )


def _check_kind_of_branches(stage: Stage, index: int) -> None:
    def joins(fusion: type[Fusion] | Fusion) -> bool:
        return fusion.joins_parallel if stage.parallel else fusion.joins_divided

    if not joins(stage.fusion):
        how = "all read every channel (shares of 1)" if stage.parallel else "divide the channels"
        able = or_(word for word, fusion in FUSIONS.items() if joins(fusion))
        raise SettingError(
            ("fusion",),
            f"must be {able} where the branches of a stage {how}, got {stage.fusion.word} in stage {index}",
        )


def _check_streams(structure: Structure) -> None:
    stages = structure.stages
    if len(stages) == 1:
        raise SettingError(
            ("fusion",), "none must have stages between which streams stay apart: in a single one it is concat"
        )
    for stage in stages:
        if stage.channel_mixer is not None:
            raise SettingError(("fusion",), "none keeps streams apart, so channel_mixer must be none; got both")
        if stage.attention_place not in (None, "branches"):
            raise SettingError(("fusion",), "none keeps streams apart, so attention_place must be branches")
        if stage.shifts:
            raise SettingError(("fusion",), "none keeps streams apart, so shift_round must be false; got true")
        if stage.cascade:
            raise SettingError(("fusion",), "none keeps streams apart, so cascade must be false; got true")
    counts = [len(stage.mixers) for stage in stages]
    if len(set(counts)) > 1:
        raise SettingError(
            ("fusion",),
            "none keeps streams apart from stem to head, so every stage must have the same number of branches; "
            f"got {', '.join(map(str, counts))}",
        )
    if not all(isinstance(stage.fusion, Apart) for stage in stages):
        words = ", ".join(stage.fusion.word for stage in stages)
        raise SettingError(("fusion",), f"none keeps streams apart, so it must stand in every stage, got {words}")
    for index, (stage, halving) in enumerate(zip(stages, structure.halvings)):
        if halving.needs_two_channels and 1 in stage.widths:
            raise SettingError(
                ("fusion",),
                f"none must have streams of at least two channels for downsampling={halving.word}, "
                f"since the layer norm of one is constant; got {to_json(stage.widths)} in stage {index}",
            )
