"""Equal budgets: the variants of a study, widened or narrowed until they cost as much as one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmamba_variants.design.kinds import Keys, SettingError
from medmamba_variants.networks import Network
from study.declaration.recipe import Recipe

DEFAULT_TOLERANCE = 0.02
# Pixels a side where neither the file nor its recipe names a size.
DEFAULT_SIDE = 64


def match_variants(
    given: Mapping[str, Any], grid: Mapping[str, Network], baseline: str, measure: str, recipe: Recipe, path: Keys
) -> tuple[dict[str, Network], dict[str, Any]]:
    """The variants of a grid, by label, scaled in width to the cost of one of them, and an account of it.

    The account in plain JSON values: the measure, whose cost was met, within what share of it, for square images of how
    many pixels a side (three channels, two classes), and each variant before and after. given: the file's settings.
    Raises SettingError where a variant has no widths or cannot come near enough.
    """
    from medmamba_variants.scaling import MEASURES, cost_at, factor_of, scaled_to

    tolerance = float(given.get("tolerance", DEFAULT_TOLERANCE))
    side = given.get("image_size") or recipe.image_size or recipe.max_image_size or DEFAULT_SIDE
    after: dict[str, Network] = {}
    try:
        target = cost_at(grid[baseline], measure, side)
        for label, network in grid.items():
            same = label == baseline
            after[label] = (
                network if same else scaled_to(network, target, lambda n: cost_at(n, measure, side), tolerance)
            )
    except ValueError as error:
        raise SettingError((*path, measure), f": {error} (images of {side}×{side})") from None
    rows = []
    for label, before in grid.items():
        row: dict[str, Any] = {"label": label, "variant_id": after[label].variant_id, "before": before.diff()}
        row["factor"] = 1.0 if after[label] == before else factor_of(before, after[label])
        for each in MEASURES:
            row[f"{each}_before"] = cost_at(before, each, side)
            row[f"{each}_after"] = cost_at(after[label], each, side)
        rows.append(row)
    told = {"measure": measure, "tolerance": tolerance, "image_size": side, "baseline": baseline, "variants": rows}
    return after, told
