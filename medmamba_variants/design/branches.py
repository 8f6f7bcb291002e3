"""How a block's channels are shared out: branches as values, from what a person wrote to the widths in channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.kinds import Keys, Kind, Number, SettingError
from medmamba_variants.hints import one_of, shown

Branch = tuple[float, str]
Branches = tuple[Branch, ...]

# Shares are kept to this many digits, so that 1 - 0.9 and 0.1 are one share and one id.
SHARE_DIGITS = 6
MAX_BRANCHES = 16
SHARE = Number(0.0, 1.0, digits=SHARE_DIGITS)
RULE = "must be a list of [share, operator] pairs, or one such list for each stage"


@dataclass(frozen=True)
class BranchLists(Kind):
    """A list of (share of channels, operator) pairs whose shares add up to one, or one such list for each stage.

    A share of zero drops its branch.
    """

    operators: tuple[str, ...]

    def parse(self, value: Any, path: Keys = ()) -> Branches | tuple[Branches, ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise SettingError(path, f"{RULE}, got {shown(value)}")
        first = value[0]
        if isinstance(first, (list, tuple)) and first and isinstance(first[0], (list, tuple)):
            return tuple(self._stage(stage, (*path, index), path) for index, stage in enumerate(value))
        return self._stage(value, path, path)

    def _stage(self, value: Any, path: Keys, whole: Keys) -> Branches:
        pairs: list[Branch] = []
        if not isinstance(value, (list, tuple)):
            raise SettingError(whole, f"{RULE}, got {shown(value)}")
        for index, pair in enumerate(value):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise SettingError(whole, f"{RULE}, got {shown(pair)}")
            try:
                share = SHARE.parse(pair[0], (*path, index))
            except SettingError as error:
                raise SettingError(error.path, f"share {error.problem}") from None
            if pair[1] not in self.operators:
                raise SettingError((*path, index), f"operator {one_of(str(pair[1]), self.operators)}")
            if share > 0:
                pairs.append((share, pair[1]))
        total = sum(share for share, _ in pairs)
        # Thirds cannot be written exactly: the last digits may miss by one for each branch.
        if abs(total - 1) > 10**-SHARE_DIGITS * max(len(pairs), 1) + 1e-12:
            raise SettingError(path, f"shares must add up to 1, got {total:g}")
        if len(pairs) > MAX_BRANCHES:
            raise SettingError(path, f"must have at most {MAX_BRANCHES} branches, got {len(pairs)}")
        return tuple(pairs)

    def schema(self) -> dict[str, Any]:
        pair = {
            "type": "array",
            "prefixItems": [SHARE.schema(), {"enum": list(self.operators)}],
            "minItems": 2,
            "maxItems": 2,
        }
        pairs = {"type": "array", "items": pair, "minItems": 1}
        return {"anyOf": [pairs, {"type": "array", "items": pairs, "minItems": 1}]}

    def words(self) -> str:
        return f"pairs of share and {', '.join(self.operators)}"

    def names(self) -> tuple[str, ...]:
        return self.operators


def is_per_stage(branches: Branches | tuple[Branches, ...]) -> bool:
    """Whether branches are given for each stage rather than once for all."""
    return isinstance(branches[0][0], tuple)


def branches_from_split_ratio(ratio: float | tuple[float, ...]) -> Branches | tuple[Branches, ...]:
    """The branches that a share of channels through ss2d stands for; a zero share drops its branch."""
    if isinstance(ratio, tuple):
        return tuple(_two_branches(share) for share in ratio)
    return _two_branches(ratio)


def branch_widths(branches: Branches, channels: int) -> tuple[int, ...]:
    """Channels of each branch by largest remainder: they add up to `channels`, ties go to the earlier branch."""
    exact = [share * channels for share, _ in branches]
    # A share such as 0.333333 of 96 means 32: remainders that only the rounding of shares makes are none.
    floors = [math.floor(value + 1e-6 * channels) for value in exact]
    order = sorted(range(len(exact)), key=lambda index: floors[index] - exact[index])
    for index in order[: channels - sum(floors)]:
        floors[index] += 1
    return tuple(floors)


def _two_branches(ratio: float) -> Branches:
    pairs = ((round(1 - ratio, SHARE_DIGITS), "conv"), (ratio, "ss2d"))
    return tuple(pair for pair in pairs if pair[0] > 0)
