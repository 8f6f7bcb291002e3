"""Kinds of settings: what a value may be, declared once, for axes, recipes, study files and phantoms alike.

From a kind follow the canonical value or a one-line error, the JSON schema for editors, the wording in tables, and what
Optuna may draw. An error has its key path as data (`SettingError.path`), so that the reader of a file can say where
the value stands. This module imports no torch, so that reading a study file stays instant.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medmamba_variants.hints import hint, one_of, shown

Key = str | int
UNSET: Any = object()
Keys = tuple[Key, ...]


class SettingError(ValueError):
    """Error of a wrong setting, one line: its key path, what must hold and what came."""

    def __init__(self, path: Keys, problem: str) -> None:
        super().__init__(f"{dotted_path(path)} {problem}".lstrip())
        self.path = path
        self.problem = problem

    def below(self, path: Keys) -> SettingError:
        """The error with a key path put before its own."""
        return SettingError((*path, *self.path), self.problem)


def dotted_path(keys: Keys, follows: bool = False) -> str:
    """A key path as people write it: axes.split_ratio[1]."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text if follows else text.removeprefix(".")


class Kind(ABC):
    """A kind of setting: which values are allowed."""

    @abstractmethod
    def parse(self, value: Any, path: Keys = ()) -> Any:
        """The canonical value, equal for equal settings. Raises SettingError at `path` or below it."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The JSON schema (draft 2020-12) of a value."""

    def words(self) -> str:
        """The allowed values, as worded in a table."""
        return ""

    def names(self) -> tuple[str | int, ...]:
        """The literals among the values, for tests and tables that enumerate them."""
        return ()

    def takes_list(self, value: list[Any] | tuple[Any, ...]) -> bool:
        """Whether a list is one value of this kind, rather than one value per stage."""
        return False


@dataclass(frozen=True)
class Flag(Kind):
    """A boolean, true or false."""

    def parse(self, value: Any, path: Keys = ()) -> bool:
        if not isinstance(value, bool):
            raise SettingError(path, f"must be true or false, got {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def words(self) -> str:
        return "true, false"


@dataclass(frozen=True)
class Text(Kind):
    """Text that is not blank."""

    def parse(self, value: Any, path: Keys = ()) -> str:
        if not isinstance(value, str) or not value.strip():
            raise SettingError(path, f"must be a text, got {shown(value)}{hint(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True)
class Choice(Kind):
    """One of some literals."""

    options: tuple[str | int, ...]

    def parse(self, value: Any, path: Keys = ()) -> Any:
        for option in self.options:
            # `True == 1` in Python, so types are compared too.
            if type(value) is type(option) and value == option:
                return option
        raise SettingError(path, one_of(value, self.options))

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.options)}

    def words(self) -> str:
        return ", ".join(str(option) for option in self.options)

    def names(self) -> tuple[str | int, ...]:
        return self.options


@dataclass(frozen=True)
class Number(Kind):
    """A number from low to high, both included, or strictly between them if `open`; or one of some words, or null.

    `whole`: a whole number, which 16.0 is not. `digits`: decimals to which values are rounded.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    open: bool = False
    nothing: bool = False
    alternatives: tuple[str, ...] = ()
    digits: int | None = None

    def parse(self, value: Any, path: Keys = ()) -> Any:
        if (value is None and self.nothing) or (isinstance(value, str) and value in self.alternatives):
            return value
        fits = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not fits:
            raise SettingError(path, f"must be {self.rule()}, got {shown(value)}{self._hint(value)}")
        try:
            # + 0.0 turns -0.0 into 0.0, which would otherwise hash differently.
            number = value if self.whole else float(value) + 0.0
        except OverflowError:  # A whole number of more than 308 digits.
            number = math.inf
        inside = self.low < number < self.high if self.open else self.low <= number <= self.high
        if not inside or not math.isfinite(number):
            raise SettingError(path, f"must be {self.rule()}, got {value}")
        return number if self.digits is None else round(number, self.digits)

    def rule(self) -> str:
        """What must hold, as worded in a message."""
        text = "a whole number" if self.whole else "a number"
        bounds = self._bounds(" between {} and {}" if self.open else " from {} to {}")
        if math.isinf(self.high) and not math.isinf(self.low):
            bounds = f" {'above' if self.open else 'from'} {_plain(self.low)}"
        return text + bounds + "".join(f" or {word}" for word in (*self.alternatives, *["null"] * self.nothing))

    def schema(self) -> dict[str, Any]:
        low, high = ("exclusiveMinimum", "exclusiveMaximum") if self.open else ("minimum", "maximum")
        bounds = {name: bound for name, bound in ((low, self.low), (high, self.high)) if math.isfinite(bound)}
        kind = "integer" if self.whole else "number"
        number = {"type": [kind, "null"] if self.nothing else kind, **bounds}
        return {"anyOf": [number, {"enum": list(self.alternatives)}]} if self.alternatives else number

    def words(self) -> str:
        return ", ".join(text for text in (*self.alternatives, self._bounds("{} to {}")) if text)

    def names(self) -> tuple[str | int, ...]:
        return self.alternatives

    def distribution(self, low: float, high: float, log: bool, step: float | None) -> tuple[str, dict[str, Any]]:
        """Optuna's distribution over a range of such numbers: the name of its class, and its arguments."""
        if self.whole:
            return "IntDistribution", {"low": int(low), "high": int(high), "log": log, "step": int(step or 1)}
        return "FloatDistribution", {"low": low, "high": high, "log": log, "step": step}

    def _bounds(self, form: str) -> str:
        return "" if math.isinf(self.low) or math.isinf(self.high) else form.format(_plain(self.low), _plain(self.high))

    def _hint(self, value: Any) -> str:
        if not self.whole or isinstance(value, bool):
            return hint(value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            return ""
        # 2.5 is no help where a whole number is needed.
        return f" (write {int(number)})" if number.is_integer() else ""


def whole(low: float, high: float, **more: Any) -> Number:
    """A whole number from low to high."""
    return Number(low, high, whole=True, **more)


@dataclass(frozen=True)
class Listed(Kind):
    """A list of values of one kind, kept as a tuple.

    `rule` words in messages what must hold. `filled`: not empty; `distinct`: no value twice.
    """

    item: Kind
    rule: str = "a list"
    filled: bool = False
    distinct: bool = False

    def parse(self, value: Any, path: Keys = ()) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or (self.filled and not value):
            raise SettingError(path, f"must be {self.rule}, got {shown(value)}{hint(value)}")
        parsed = tuple(self.item.parse(item, (*path, index)) for index, item in enumerate(value))
        if self.distinct:
            refuse_repeats(parsed, value, path)
        return parsed

    def schema(self) -> dict[str, Any]:
        more = {"minItems": 1} if self.filled else {}
        return {"type": "array", "items": self.item.schema(), **more}

    def words(self) -> str:
        return f"list, each {self.item.words()}"


@dataclass(frozen=True)
class OrEach(Kind):
    """One value for all, or a list of one for each stage."""

    item: Kind

    def parse(self, value: Any, path: Keys = ()) -> Any:
        if not self.is_each(value):
            return self.item.parse(value, path)
        if not value:
            rule = self.item.rule() if isinstance(self.item, Number) else self.item.words()
            raise SettingError(path, f"must be {rule} or a list of them, one for each stage, got []")
        return tuple(self.item.parse(item, (*path, index)) for index, item in enumerate(value))

    def is_each(self, value: Any) -> bool:
        """Whether a value is a list with one entry per stage."""
        return isinstance(value, (list, tuple)) and not self.item.takes_list(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.item.schema(), {"type": "array", "items": self.item.schema(), "minItems": 1}]}

    def words(self) -> str:
        return self.item.words()

    def names(self) -> tuple[str | int, ...]:
        return self.item.names()


@dataclass(frozen=True)
class Setting:
    """A named setting: its kind, its meaning, whether it is required, and its default (`UNSET`: none)."""

    kind: Kind
    meaning: str
    required: bool = False
    default: Any = UNSET

    def schema(self) -> dict[str, Any]:
        """The JSON schema of the setting's value, with meaning and default."""
        default = {} if self.default is UNSET else {"default": self.default}
        return {"description": self.meaning, **default, **self.kind.schema()}


@dataclass(frozen=True)
class Mapped(Kind):
    """A mapping whose keys are declared, each with its setting; values keep the order in which they were written."""

    settings: Mapping[str, Setting] = field(default_factory=dict)

    def parse(self, value: Any, path: Keys = ()) -> dict[str, Any]:
        checked_names(value, self.settings, path)
        for name in self._required():
            if name not in value:
                raise SettingError((*path, name), f"must be given, got nothing ({self.settings[name].meaning})")
        return {name: self.settings[name].kind.parse(item, (*path, name)) for name, item in value.items()}

    def schema(self) -> dict[str, Any]:
        required = {"required": self._required()} if self._required() else {}
        properties = {name: setting.schema() for name, setting in self.settings.items()}
        return {"type": "object", "properties": properties, **required, "additionalProperties": False}

    def _required(self) -> list[str]:
        return [name for name, setting in self.settings.items() if setting.required]


def checked_names(value: Any, known: Iterable[str] | None, path: Keys) -> None:
    """Raises SettingError for what is not a mapping with text keys, and for keys not among `known` (None: any)."""
    if not isinstance(value, Mapping):
        raise SettingError(path, f"must be a mapping, got {shown(value)}{hint(value)}")
    for name in value:
        if not isinstance(name, str):
            raise SettingError(path, f"must have texts as keys, got {shown(name)}{hint(name)}")
        if known is not None and name not in known:
            raise SettingError((*path, name), one_of(name, known))


def refuse_repeats(parsed: Iterable[Any], written: Iterable[Any], path: Keys) -> None:
    """Raises SettingError where two canonical values are equal; the message shows the second as it was written."""
    earlier: list[Any] = []
    for value, text in zip(parsed, written, strict=True):
        if value in earlier:
            raise SettingError(path, f"must not repeat a value, got {shown(text)} twice")
        earlier.append(value)


@dataclass(frozen=True)
class Given:
    """A choice by its word, with its own values of axes, not shared with its siblings."""

    word: str
    values: tuple[tuple[str, Any], ...]


def to_json(value: Any) -> Any:
    """A canonical value as plain JSON: tuples become lists, a choice with values of its own becomes a mapping."""
    if isinstance(value, Given):
        return {value.word: {name: to_json(own) for name, own in value.values}}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def short(value: Any) -> str:
    """A plain JSON value in the short form of labels and tables."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{','.join(short(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{short(item)}' for name, item in value.items())}}}"
    return str(value)


def _plain(bound: float) -> str:
    return f"{int(bound)}" if float(bound).is_integer() else f"{bound:g}"
