"""What peers share as values: settings in canonical form, their hash, their label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from medmamba_variants.design.kinds import Keys, SettingError, short, to_json
from medmamba_variants.hints import shown

Settings = tuple[tuple[str, Any], ...]


def canonical_settings(values: Mapping[str, Any], path: Keys) -> Settings:
    """Settings sorted by name, lists as tuples. Raises SettingError for what is not a plain value of YAML."""
    return tuple((name, _canonical(values[name], (*path, name))) for name in sorted(values))


def _canonical(value: Any, path: Keys) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_canonical(item, (*path, index)) for index, item in enumerate(value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SettingError(path, f"must be a number, a text, true, false, null or a list of these, got {shown(value)}")


def plain(value: Any) -> Any:
    """A setting as a network's class takes it: lists again, as YAML had them."""
    return list(value) if isinstance(value, tuple) else value


def hashed(values: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name a network: a hash of its plain JSON values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def in_words(values: Mapping[str, Any]) -> str:
    """Settings as a short text, such as `timm=resnet18 stem=small`."""
    return " ".join(f"{name}={short(to_json(value))}" for name, value in values.items())
