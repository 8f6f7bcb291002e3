"""Strict reader of a YAML file, with the places in it for error messages."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from medmamba_variants.design.kinds import Keys, SettingError, dotted_path
from medmamba_variants.hints import did_you_mean

# Longer numbers have no counterpart among floats.
LONGEST_NUMBER = 300


class _StrictLoader(yaml.SafeLoader):
    """The safe loader without YAML's silent surprises: the last of two equal keys wins, and 010 is read as 8."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node as a dict; raises where a key occurs twice."""
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = key_node.value if isinstance(key_node, yaml.ScalarNode) else None, key_node.start_mark.line + 1
            if key in seen:
                raise ValueError(f"{key} must stand once in its mapping, got it on lines {seen[key]} and {line}")
            if key is not None:
                seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """The integer of a node; raises where YAML 1.1 would read octal, binary or base 60."""
        text = str(node.value)
        digits = text.lstrip("+-").replace("_", "")
        if len(digits) > LONGEST_NUMBER:
            line = node.start_mark.line + 1
            raise ValueError(f"line {line} must hold a number of at most {LONGEST_NUMBER} digits, got {len(digits)}")
        number = super().construct_yaml_int(node)
        if str(abs(number)) != digits:
            line = node.start_mark.line + 1
            raise ValueError(f"line {line} must hold a plain decimal number, got {text} (which YAML reads as {number})")
        return number


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


class StudyText:
    """The content of a study file, with command-line overrides applied.

    `values` is the mapping to check; `place(keys)` says in a message where a value came from.
    """

    def __init__(self, path: Path, overrides: Sequence[tuple[str, str, Any]]) -> None:
        """Reads `path`; each of `overrides` is (dotted key, the option that sets it, the value). Raises ValueError."""
        _refuse_twice(overrides)
        self.path = path
        self.overrides = tuple(overrides)
        self.text = _read(path)
        self.values: dict[str, Any] = _parse_mapping(self.text, str(path))
        self._origins: dict[Keys, str] = {}
        for dotted, option, value in overrides:
            *made, keys = _put(self.values, dotted, option, value)
            self._origins |= {parent: f"--set {dotted_path(parent)}" for parent in made}
            self._origins[keys] = option

    def place(self, keys: Keys) -> str:
        """The place of a value: `file: key.path`, or the option that set it."""
        for length in range(len(keys), 0, -1):
            option = self._origins.get(keys[:length])
            if option is not None:
                return option + dotted_path(keys[length:], follows=True)
        return f"{self.path}: {dotted_path(keys)}" if keys else f"{self.path}:"

    def located(self, error: SettingError) -> ValueError:
        """The error about a value, with the place of the value added."""
        return ValueError(f"{self.place(error.path)}{'' if error.problem.startswith(':') else ' '}{error.problem}")


def parse_scalar(text: str, option: str) -> Any:
    """The value of a command-line option, read like the same text in a study file."""
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{option} must be a YAML value, got {text!r} ({_one_line(error)})") from None
    except RecursionError:
        raise ValueError(f"{option} must be a YAML value, got one nested too deeply") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [other.name for other in path.parent.glob("*.y*ml")]
        hint = did_you_mean(path.name, beside, shown=path.with_name)
        raise ValueError(f"{path}: must be a study file, got nothing there{hint and f'; {hint}'}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise ValueError(f"{path}: must be a readable study file, got {reason}") from None


def _parse_mapping(text: str, file: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, _StrictLoader)
        # Finds an alias inside its own anchor, since a later walk through the values would never end, and text that no
        # file can hold: half of a surrogate pair.
        json.dumps(values, default=str, skipkeys=True, ensure_ascii=False).encode()
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: must be YAML, got {_one_line(error)}") from None
    except RecursionError:
        raise ValueError(f"{file}: must be YAML, got values nested too deeply") from None
    except ValueError as error:
        circular = str(error) == "Circular reference detected"
        reason = "must be a finite text, got an alias inside its own anchor" if circular else error
        raise ValueError(f"{file}: {reason}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: must be a mapping of keys such as question and axes, got {_type_name(values)}")
    return values


def _refuse_twice(overrides: Sequence[tuple[str, str, Any]]) -> None:
    """Raises ValueError where one option would silently replace the value of another."""
    for index, (later, option, _) in enumerate(overrides):
        for earlier, other, value in overrides[:index]:
            within = later.startswith(f"{earlier}.") and _holds(value, later.removeprefix(f"{earlier}.").split("."))
            if within or f"{earlier}.".startswith(f"{later}."):
                key = later if within else earlier
                raise ValueError(f"{key} must be set once, got it from {other} and from {option}")


def _holds(value: Any, names: list[str]) -> bool:
    for name in names:
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return False
    return True


def _put(values: dict[str, Any], dotted: str, option: str, value: Any) -> list[Keys]:
    """Sets the value at a dotted key, in which a number is a place in a list; returns the paths that are new.

    Missing mappings on the way are made.
    """
    *parents, last = dotted.split(".")
    if not all((*parents, last)):
        raise ValueError(f"{option} must name a key such as recipe.epochs, got {dotted!r}")
    node: Any = values
    path: Keys = ()
    made: list[Keys] = []
    for name in parents:
        key = _key_in(node, name, option)
        path = (*path, key)
        if isinstance(node, dict) and key not in node:
            node[key] = {}
            made.append(path)
        node = node[key]
    key = _key_in(node, last, option)
    node[key] = value
    return [*made, (*path, key)]


def _key_in(node: Any, name: str, option: str) -> Any:
    if isinstance(node, dict):
        return name
    if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
        return int(name)
    kind = f"a list of {len(node)}" if isinstance(node, list) else _type_name(node)
    raise ValueError(f"{option} must lead to a key of the study, got {name!r} inside {kind}")


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        # For a second document the problem is only half a sentence.
        problem = f"{error.context}, {error.problem}" if str(error.problem).startswith("but ") else error.problem
        return f"{problem} on line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def _type_name(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "a text", type(None): "nothing"}.get(type(value), repr(value))
