"""Where an axis has an effect: the published network, or one step to a component that owns it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import FAMILIES, FAMILY_AXES, FAMILY_OF, MIXER_AXES
from medmamba_variants.design.components import Declared
from medmamba_variants.design.mixers import MIXERS


def alive(name: str) -> dict[str, Any]:
    """The difference from the published network under which an axis has an effect."""
    if name not in VariantConfig().dead_axes():
        return {}
    if name == "branch_weights":
        return {"branches": ((0.25, "ss2d"), (0.25, "ss2d"), (0.5, "conv"))}
    if name in MIXER_AXES:
        word = MIXER_AXES[name][0]
        # In the published branches where it lives there.
        around = {} if word in ("conv", "ss2d") else {"branches": ((0.5, "conv"), (0.5, word))}
        return around | needed(MIXERS[word].declared(), name)
    family = FAMILY_OF[name]
    word = FAMILY_AXES[family][name][0]
    return {family: word} | needed(FAMILIES[family][word].declared(), name)


def needed(declared: Mapping[str, Declared], name: str) -> dict[str, Any]:
    """Values of other axes of a component under which one of its axes has an effect."""
    found: dict[str, Any] = {}
    for need in declared[name].needs:
        for other in need.on:
            if other in declared and not need.holds(declared[other].default):
                found |= needed(declared, other) | {other: need.example}
    return found
