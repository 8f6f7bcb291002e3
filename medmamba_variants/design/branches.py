"""Branches as values: how a block's channels are divided, from what a person wrote to widths in channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.components import Mixer
from medmamba_variants.design.kinds import Given, Keys, Kind, Number, SettingError, checked_names
from medmamba_variants.hints import one_of, shown

Branch = tuple[float, "str | Given"]
Branches = tuple[Branch, ...]

# Shares are rounded to this many digits, so that 1 - 0.9 and 0.1 are one share and one id.
SHARE_DIGITS = 6
MAX_BRANCHES = 16
SHARE = Number(0.0, 1.0, digits=SHARE_DIGITS)
RULE = "must be a list of [share, operator] pairs, or one such list for each stage"


@dataclass(frozen=True)
class BranchLists(Kind):
    """Kind of the branches axis: (share of channels, operator) pairs with shares adding up to one, or a list per stage.

    Where two shares or more are all one, the branches run in parallel, each on every channel. An operator is a word, or
    {word: {axis: value}} where a branch has values of its own. A share of zero drops its branch.
    """

    mixers: Mapping[str, type[Mixer]]

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
            operator = self._operator(pair[1], (*path, index))
            if share > 0:
                pairs.append((share, operator))
        total = 1.0 if pairs and is_parallel([share for share, _ in pairs]) else sum(share for share, _ in pairs)
        # Thirds cannot be written exactly: the last digits may miss by one for each branch.
        if abs(total - 1) > 10**-SHARE_DIGITS * max(len(pairs), 1) + 1e-12:
            raise SettingError(path, f"shares must add up to 1, or all be 1 for branches in parallel, got {total:g}")
        if len(pairs) > MAX_BRANCHES:
            raise SettingError(path, f"must have at most {MAX_BRANCHES} branches, got {len(pairs)}")
        return tuple(pairs)

    def _operator(self, value: Any, path: Keys) -> str | Given:
        if isinstance(value, Given):
            value = {value.word: dict(value.values)}
        word, own = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, {})
        if not isinstance(word, str) or word not in self.mixers:
            raise SettingError(path, f"operator {one_of(str(word), self.mixers)}")
        declared = self.mixers[word].declared()
        checked_names(own, declared, (*path, word))
        parsed = {name: declared[name].kind.parse(item, (*path, word, name)) for name, item in own.items()}
        return Given(word, tuple(sorted(parsed.items()))) if parsed else word

    def schema(self) -> dict[str, Any]:
        own = {
            word: {
                "type": "object",
                "properties": {name: each.kind.schema() for name, each in mixer.declared().items()},
                "additionalProperties": False,
            }
            for word, mixer in self.mixers.items()
            if mixer.declared()
        }
        alone = {
            "type": "object",
            "properties": own,
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        }
        pair = {
            "type": "array",
            "prefixItems": [SHARE.schema(), {"anyOf": [{"enum": list(self.mixers)}, alone]}],
            "minItems": 2,
            "maxItems": 2,
        }
        pairs = {"type": "array", "items": pair, "minItems": 1}
        return {"anyOf": [pairs, {"type": "array", "items": pairs, "minItems": 1}]}

    def words(self) -> str:
        return f"pairs of share and {', '.join(self.mixers)}"

    def names(self) -> tuple[str, ...]:
        return tuple(self.mixers)


def is_parallel(shares: Sequence[float]) -> bool:
    """Whether every branch reads all channels."""
    return all(share == 1 for share in shares)


def has_twins(branches: Branches) -> bool:
    """Whether two branches have the same share and operator."""
    return len(set(branches)) < len(branches)


def word_of(operator: str | Given) -> str:
    """The word of an operator, which may carry values of its own."""
    return operator.word if isinstance(operator, Given) else operator


def is_per_stage(branches: Branches | tuple[Branches, ...]) -> bool:
    """Whether branches are given for each stage rather than once for all."""
    return isinstance(branches[0][0], tuple)


def branches_from_split_ratio(ratio: float | tuple[float, ...]) -> Branches | tuple[Branches, ...]:
    """The branches for a share of channels through ss2d; a zero share drops its branch."""
    if isinstance(ratio, tuple):
        return tuple(_two_branches(share) for share in ratio)
    return _two_branches(ratio)


def branch_widths(shares: Sequence[float], channels: int) -> tuple[int, ...]:
    """Channels of each branch by largest remainder: they add up to `channels`, ties go to the earlier branch."""
    exact = [share * channels for share in shares]
    # A share such as 0.333333 of 96 means 32: remainders due only to the rounding of shares do not count.
    floors = [math.floor(value + 1e-6 * channels) for value in exact]
    order = sorted(range(len(exact)), key=lambda index: floors[index] - exact[index])
    for index in order[: channels - sum(floors)]:
        floors[index] += 1
    return tuple(floors)


def _two_branches(ratio: float) -> Branches:
    pairs = ((round(1 - ratio, SHARE_DIGITS), "conv"), (ratio, "ss2d"))
    return tuple(pair for pair in pairs if pair[0] > 0)
