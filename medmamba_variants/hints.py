"""Hints in error messages: what came, the nearest known name, what to write instead."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any


def did_you_mean(
    name: object,
    known: Iterable[str],
    count: int = 1,
    otherwise: str = "",
    shown: Callable[[str], object] = str,
) -> str:
    """The hint "did you mean A or B?" with at most `count` known names that come close, as `shown`, or `otherwise`."""
    close = difflib.get_close_matches(str(name), list(known), n=count)
    return f"did you mean {' or '.join(str(shown(one)) for one in close)}?" if close else otherwise


def one_of(value: Any, known: Iterable[str | int]) -> str:
    """The message for a value that is not one of the known literals: what must hold, what came, the nearest name."""
    names = [str(name) for name in known]
    rule = f"must be one of {', '.join(names)}; got"
    if not isinstance(value, str):
        return f"{rule} {shown(value)}{hint(value)}"
    meant = did_you_mean(value, names)
    return f"{rule} {value!r}{meant and f' ({meant})'}"


def shown(value: Any) -> str:
    """A value as an error message shows it, with its type where the type matters."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f"the string {value!r}"
    if value is None:
        return "nothing"
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, dict):
        return f"the mapping {value}"
    return str(value)


def one_line(error: BaseException) -> str:
    """An error of somebody else's code as a message shows it: its class and its text, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


BOOLEAN_HINT = " (YAML reads yes, no, on and off as true and false: put a text in quotes)"


def hint(value: Any) -> str:
    """What to write instead of a value that YAML 1.1 does not read as most people expect; else nothing."""
    if isinstance(value, bool):
        return BOOLEAN_HINT
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        if math.isfinite(number):
            return f" (write {_yaml_number(number)})"
    return ""


def _yaml_number(number: float) -> str:
    """A number in the form that YAML 1.1 reads as one: with a point and a signed exponent."""
    if number == 0 or 1e-3 <= abs(number) < 1e6:
        return str(int(number)) if number.is_integer() else repr(number)
    mantissa, _, exponent = f"{number:.15e}".partition("e")
    mantissa = mantissa.rstrip("0")
    return f"{mantissa}{'0' if mantissa.endswith('.') else ''}e{int(exponent):+d}"
