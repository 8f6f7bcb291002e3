"""The unit of work: a recipe, a reference to data, and the cell that joins them to a variant and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from analysis.hashes import content_hash
from medmamba_variants.config import VariantConfig
from study.recipe import Recipe

# Raised whenever a change of ours alters the numbers that an unchanged cell produces; old records then no longer count.
NUMERICS_VERSION = 4


@dataclass(frozen=True)
class DataRef:
    """A data set by name and content; `source` says where it lies and is no part of a cell's identity."""

    name: str
    fingerprint: str
    source: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True)
class Cell:
    """Variant × recipe × data set × seed: the unit of work, of pairing and of resumption."""

    variant: VariantConfig
    recipe: Recipe
    data: DataRef
    seed: int

    @cached_property
    def cell_id(self) -> str:
        """Content hash of all that may change the numbers: a finished cell is recognised by it."""
        return content_hash(
            {
                "variant": self.variant.variant_id,
                "recipe": self.recipe.recipe_id,
                "data": self.data.fingerprint,
                "seed": self.seed,
                "numerics": NUMERICS_VERSION,
            }
        )
