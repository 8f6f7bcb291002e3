"""Systems as values: a published network, block or method, where it comes from, and the variant that stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from medmamba_variants.config import VariantConfig

# The lists that name systems; each numbers its own from one.
LISTS = {
    "note_1": "reading note on MedMamba",
    "note_2": "reading note on Mamba",
    "papers": "list of 88 papers",
    "comparators": "comparators named in those papers' abstracts",
    "related": "related backbones",
    "rivals": "closest rivals",
}
# What is known of a system, and hence how far its variant may be trusted.
EVIDENCE = {
    "code": "the released code was read",
    "abstract": "the abstract was read",
    "fragment": "a fragment of the abstract was read",
    "title": "the title alone was read",
    "textbook": "the formula is widely known",
}
TIERS = {
    0: "not a network",
    1: "core of the block",
    2: "exchangeable part",
    3: "needs more than classification",
}

# What a variant of a segmentation network leaves out.
ENCODER_ONLY = "encoder only: decoder and skips are left out"
# Where nothing is known of widths and depths, or they belong to another kind of network.
OWN_PLAN = "depths and dims are MedMamba-T's"
# What stands in the way of a system for which no variant can be given.
TASK = "a task beyond classifying an image: "
NO_NETWORK = "nothing to build: "


@dataclass(frozen=True)
class System:
    """A system: its title, origin and mechanism, and the variant that stands for it, or what that waits for.

    `listed` and `row` say which of LISTS names it and where; `form_of` is set for another form of a listed system (its
    size, or the form of its released code). `published_params` counts parameters with a head for 1000 classes, as
    printed in `published_by`. `deviates` says where released code and paper differ, or this variant and the system.
    """

    name: str
    title: str
    listed: str
    row: int
    mechanism: str
    evidence: str
    tier: int
    paper: str = ""
    code: str = ""
    axes: Mapping[str, Any] | None = field(default=None, hash=False)
    waits_for: str = ""
    deviates: str = ""
    form_of: str = ""
    published_params: int | None = None
    published_by: str = ""

    @cached_property
    def config(self) -> VariantConfig | None:
        """The variant that stands for the system, None where that waits for something."""
        return None if self.axes is None else VariantConfig.from_dict(self.axes)

    @property
    def waits(self) -> bool:
        """Whether the system is a network for which no variant can be given yet."""
        return self.axes is None and self.tier > 0

    @property
    def source(self) -> str:
        """Where the system comes from: the list and its row, the paper, its public code."""
        parts = [f"{LISTS[self.listed]}, {self.row}", self.paper, self.code and f"github.com/{self.code}"]
        return "; ".join(part for part in parts if part)
