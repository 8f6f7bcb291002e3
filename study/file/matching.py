"""Equal budgets: the variants of a study, widened or narrowed until they cost as much as one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.kinds import Keys, SettingError
from medmamba_variants.networks import Network
from study.recipe import Recipe

DEFAULT_TOLERANCE = 0.02
# Pixels a side where neither the file nor its recipe names a size.
DEFAULT_SIDE = 64


@dataclass(frozen=True)
class Matched:
    """What was matched: the measure, whose cost was met, within what share of it, and each variant before and after.

    image_size: of the square images, with three channels and two classes, for which costs are counted.
    """

    measure: str
    baseline: str
    tolerance: float
    image_size: int
    before: Mapping[str, Network]
    after: Mapping[str, Network]

    def declared(self) -> dict[str, Any]:
        """What the file asks for, as plain JSON values."""
        return {
            "measure": self.measure,
            "baseline": self.before[self.baseline].variant_id,
            "tolerance": self.tolerance,
            "image_size": self.image_size,
        }

    def to_dict(self) -> dict[str, Any]:
        """What was asked for and what came of it, one entry a variant, as plain JSON values."""
        from medmamba_variants.scaling import MEASURES, cost_at, factor_of

        rows = []
        for label, before in self.before.items():
            after = self.after[label]
            row: dict[str, Any] = {"label": label, "variant_id": after.variant_id, "before": before.diff()}
            row["factor"] = 1.0 if after == before else factor_of(before, after)
            for measure in MEASURES:
                row[f"{measure}_before"] = cost_at(before, measure, self.image_size)
                row[f"{measure}_after"] = cost_at(after, measure, self.image_size)
            rows.append(row)
        return {**self.declared(), "baseline": self.baseline, "variants": rows}


def match_variants(
    given: Mapping[str, Any], grid: Mapping[str, Network], baseline: str, measure: str, recipe: Recipe, path: Keys
) -> Matched:
    """The variants of a grid, by label, scaled in width to the cost of the one labelled `baseline`.

    given: the file's settings. Raises SettingError where a variant has no widths or cannot come near enough.
    """
    from medmamba_variants.scaling import cost_at, scaled_to

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
    return Matched(measure, baseline, tolerance, side, dict(grid), after)
