"""Where an axis has an effect: the published network, or one step to a component that owns it."""

from __future__ import annotations

from typing import Any

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import FAMILY_AXES, FAMILY_OF, MIXER_AXES


def alive(name: str) -> dict[str, Any]:
    """The difference from the published network under which an axis has an effect."""
    if name not in VariantConfig().dead_axes():
        return {}
    if name == "branch_weights":
        return {"branches": ((0.25, "ss2d"), (0.25, "ss2d"), (0.5, "conv"))}
    if name in MIXER_AXES:
        return {"branches": ((0.5, "conv"), (0.5, MIXER_AXES[name][0]))}
    family = FAMILY_OF[name]
    return {family: FAMILY_AXES[family][name][0]}
