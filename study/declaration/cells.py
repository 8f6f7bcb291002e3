"""The unit of work: a recipe, a reference to data, and the cell that joins them to a variant and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from analysis.hashes import content_hash
from medmamba_variants.networks import Network
from study.declaration.recipe import Recipe

# Goes up whenever a change of ours alters the numbers of an unchanged cell; older records then no longer count.
NUMERICS_VERSION = 5


@dataclass(frozen=True)
class DataRef:
    """A reference to a data set by name and content.

    `source`, where it lies, is not part of a cell's identity; nor is `source_key`, the collection that it comes from.
    """

    name: str
    fingerprint: str
    source: Mapping[str, Any] = field(compare=False)
    source_key: str = field(compare=False, default="")

    def __post_init__(self) -> None:
        if not self.source_key:
            object.__setattr__(self, "source_key", self.name)


@dataclass(frozen=True)
class Cell:
    """A cell, variant × recipe × data set × seed: the unit of work, of pairing and of resumption."""

    variant: Network
    recipe: Recipe
    data: DataRef
    seed: int

    @cached_property
    def cell_id(self) -> str:
        """Content hash of everything that may change the numbers, by which a finished cell is recognised."""
        return content_hash(
            {
                "variant": self.variant.variant_id,
                "recipe": self.recipe.recipe_id,
                "data": self.data.fingerprint,
                "seed": self.seed,
                "numerics": NUMERICS_VERSION,
            }
        )
