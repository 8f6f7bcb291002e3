"""Values of axes: from what a person wrote to the one canonical form that ids are made of, or a one-line error."""

from __future__ import annotations

import math
from typing import Any

from medmamba_variants.design.axes import Axis, Branch, Branches, find_axis
from medmamba_variants.hints import unknown_name
from medmamba_variants.scan.directions import DIRECTION_SETS, DIRECTIONS

# Shares are kept to this many digits, so that 1 - 0.9 and 0.1 are one share and one id.
SHARE_DIGITS = 6
MAX_BRANCHES = 16


def parse_axis(name: str, value: Any, where: str = "") -> Any:
    """The canonical value of an axis: floats are floats, lists are tuples, equal designs are equal values.

    `where` (a file and key path) opens the message of the ValueError that a bad value raises.
    """
    axis = find_axis(name, where)
    try:
        if name == "split_ratio":
            return _split_ratio(axis, value)
        return _PARSERS[axis.kind](axis, value)
    except ValueError as error:
        raise ValueError(f"{_prefix(where)}{error}") from None


def branches_from_split_ratio(ratio: float | tuple[float, ...]) -> Branches | tuple[Branches, ...]:
    """The branches that a share of channels through ss2d stands for; a zero share drops its branch."""
    if isinstance(ratio, tuple):
        return tuple(_two_branches(share) for share in ratio)
    return _two_branches(ratio)


def shown(value: Any) -> str:
    """A value as an error message shows it: with its type where the type is the point."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f"the string {value!r}"
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple)):
        return str(to_json(value))
    if isinstance(value, dict):
        return f"the mapping {value}"
    return str(value)


def short(value: Any) -> str:
    """A plain JSON value as labels and tables write it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{','.join(short(item) for item in value)}]"
    return str(value)


def to_json(value: Any) -> Any:
    """A canonical value as plain JSON: tuples become lists."""
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


def _number(label: str, value: Any, low: float | None, high: float | None) -> float:
    bounds = _bounds_text(low, high)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        hint = ""
        if isinstance(value, str) and _is_number_text(value):
            hint = f" (write {float(value)!r})"
        raise ValueError(f"{label} must be a number{bounds}, got {shown(value)}{hint}")
    # + 0.0 turns -0.0 into 0.0, which would otherwise hash differently.
    number = _float(value) + 0.0
    if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{label} must be a number{bounds}, got {value}")
    return number


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def _whole(label: str, value: Any, low: float | None, high: float | None, words: tuple[str | int, ...] = ()) -> int:
    rule = f"{label} must be a whole number{_bounds_text(low, high)}{''.join(f' or {word}' for word in words)}"
    if isinstance(value, bool) or not isinstance(value, int):
        hint = f" (write {int(value)})" if isinstance(value, float) and value.is_integer() else ""
        raise ValueError(f"{rule}, got {shown(value)}{hint}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{rule}, got {value}")
    return value


def _bounds_text(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f" from {low:g} to {high:g}"


def _is_number_text(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _parse_int(axis: Axis, value: Any) -> int | str:
    if isinstance(value, str) and value in axis.choices:
        return value
    return _whole(axis.name, value, axis.low, axis.high, axis.choices)


def _parse_float(axis: Axis, value: Any) -> float:
    return _number(axis.name, value, axis.low, axis.high)


def _parse_choice(axis: Axis, value: Any) -> str | int:
    # `True == 1` in Python, so types are compared too.
    for choice in axis.choices:
        if type(value) is type(choice) and value == choice:
            return choice
    names = [str(choice) for choice in axis.choices]
    if isinstance(value, str):
        raise ValueError(unknown_name(axis.name, value, names))
    raise ValueError(f"{axis.name} must be one of {', '.join(names)}; got {shown(value)}")


def _parse_ints(axis: Axis, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{axis.name} must be a list of whole numbers, one for each stage, got {shown(value)}")
    return tuple(_whole(f"{axis.name}[{index}]", item, axis.low, axis.high) for index, item in enumerate(value))


def _parse_directions(axis: Axis, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        if value in DIRECTION_SETS:
            return value
        if value not in DIRECTIONS:
            raise ValueError(unknown_name(axis.name, value, (*DIRECTION_SETS, *DIRECTIONS)))
        value = (value,)
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(
            f"{axis.name} must be a set ({', '.join(DIRECTION_SETS)}) or a list of directions, got {shown(value)}"
        )
    for name in value:
        if not isinstance(name, str) or name not in DIRECTIONS:
            raise ValueError(unknown_name(axis.name, name, DIRECTIONS))
    if len(set(value)) != len(value):
        raise ValueError(f"{axis.name} must not repeat a direction, got {shown(value)}")
    for set_name, members in DIRECTION_SETS.items():
        if set(members) == set(value):
            return set_name
    return tuple(name for name in DIRECTIONS if name in value)


def _parse_branches(axis: Axis, value: Any) -> Branches | tuple[Branches, ...]:
    rule = f"{axis.name} must be a list of [share, operator] pairs, or one such list for each stage"
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{rule}, got {shown(value)}")
    first = value[0]
    if isinstance(first, (list, tuple)) and first and isinstance(first[0], (list, tuple)):
        return tuple(_parse_stage(axis, f"{axis.name}[{index}]", rule, stage) for index, stage in enumerate(value))
    return _parse_stage(axis, axis.name, rule, value)


def _parse_stage(axis: Axis, label: str, rule: str, value: Any) -> Branches:
    pairs: list[Branch] = []
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{rule}, got {shown(value)}")
    for index, pair in enumerate(value):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"{rule}, got {shown(pair)}")
        share = round(_number(f"{label}[{index}] share", pair[0], 0.0, 1.0), SHARE_DIGITS)
        if pair[1] not in axis.choices:
            raise ValueError(unknown_name(f"{label}[{index}] operator", pair[1], [str(name) for name in axis.choices]))
        if share > 0:
            pairs.append((share, pair[1]))
    total = sum(share for share, _ in pairs)
    # Thirds cannot be written exactly: the last digits may miss by one for each branch.
    if abs(total - 1) > 10**-SHARE_DIGITS * max(len(pairs), 1) + 1e-12:
        raise ValueError(f"{label} shares must add up to 1, got {total:g}")
    if len(pairs) > MAX_BRANCHES:
        raise ValueError(f"{label} must have at most {MAX_BRANCHES} branches, got {len(pairs)}")
    return tuple(pairs)


def _split_ratio(axis: Axis, value: Any) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("split_ratio must be a number from 0 to 1 or a list of them, one for each stage, got []")
        return tuple(
            round(_number(f"split_ratio[{index}]", item, axis.low, axis.high), SHARE_DIGITS)
            for index, item in enumerate(value)
        )
    return round(_number("split_ratio", value, axis.low, axis.high), SHARE_DIGITS)


def _two_branches(ratio: float) -> Branches:
    pairs = ((round(1 - ratio, SHARE_DIGITS), "conv"), (ratio, "ss2d"))
    return tuple(pair for pair in pairs if pair[0] > 0)


_PARSERS = {
    "int": _parse_int,
    "float": _parse_float,
    "choice": _parse_choice,
    "ints": _parse_ints,
    "branches": _parse_branches,
    "directions": _parse_directions,
}
