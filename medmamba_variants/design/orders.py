"""Scan directions as values: a named set, or a list of directions in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.kinds import Keys, Kind, SettingError
from medmamba_variants.hints import one_of, shown
from medmamba_variants.scan.directions import DIRECTION_SETS, DIRECTIONS, LISTED_SETS, ORDERS


@dataclass(frozen=True)
class Directions(Kind):
    """Kind of scan directions: a set by name, or a list of directions; a list that equals a named set becomes its name.

    But where such lists had ids before the set had a name, the name becomes the list.
    """

    def parse(self, value: Any, path: Keys = ()) -> str | tuple[str, ...]:
        if isinstance(value, str):
            if value in DIRECTION_SETS:
                return DIRECTION_SETS[value] if value in LISTED_SETS else value
            if value not in DIRECTIONS:
                raise SettingError(path, one_of(value, (*DIRECTION_SETS, *DIRECTIONS)))
            value = (value,)
        if not isinstance(value, (list, tuple)) or not value:
            raise SettingError(
                path, f"must be a set ({', '.join(DIRECTION_SETS)}) or a list of directions, got {shown(value)}"
            )
        for name in value:
            if not isinstance(name, str) or name not in DIRECTIONS:
                raise SettingError(path, one_of(str(name), DIRECTIONS))
        if len(set(value)) != len(value):
            raise SettingError(path, f"must not repeat a direction, got {shown(value)}")
        for set_name, members in DIRECTION_SETS.items():
            if set(members) == set(value) and set_name not in LISTED_SETS:
                return set_name
        return tuple(name for name in DIRECTIONS if name in value)

    def takes_list(self, value: list[Any] | tuple[Any, ...]) -> bool:
        # One per stage is a list of set names or of lists.
        return not value or not all(
            isinstance(item, (list, tuple)) or (isinstance(item, str) and item in DIRECTION_SETS) for item in value
        )

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"enum": [*DIRECTION_SETS, *DIRECTIONS]},
                {"type": "array", "items": {"enum": list(DIRECTIONS)}, "minItems": 1, "uniqueItems": True},
            ]
        }

    def words(self) -> str:
        orders = ", ".join(ORDERS)
        return f"{', '.join(DIRECTION_SETS)}, or a list of {orders}, each also backwards, as in rows_reverse"

    def names(self) -> tuple[str, ...]:
        return tuple(DIRECTION_SETS)


def directions_of(scan_directions: str | tuple[str, ...]) -> tuple[str, ...]:
    """The direction names of a canonical scan_directions value."""
    return DIRECTION_SETS[scan_directions] if isinstance(scan_directions, str) else scan_directions
