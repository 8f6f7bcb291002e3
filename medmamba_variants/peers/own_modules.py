"""Networks of one's own by dotted path, as networks of a study: `{module: "my_package.net:Net", width: 32}`.

The class is called with the number of classes and of input channels, under the names that its signature has for them,
and with the settings. The text of its module, and of the modules of the same package that it imports, is part of the
network's id: an edited network is another one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medmamba_variants.design.kinds import Keys, SettingError, to_json
from medmamba_variants.hints import one_line, one_of, shown
from medmamba_variants.peers.identity import Settings, canonical_settings, hashed, in_words, plain

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
CLASSES = ("num_classes", "n_classes", "classes")
CHANNELS = ("in_channels", "in_chans", "in_ch")
SIZES = ("image_size", "img_size")


@dataclass(frozen=True)
class ModuleNetwork:
    """A network of one's own: `module` "package.file:Class", its settings, and a hash of its source."""

    module: str
    settings: Settings
    source: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Keys = ()) -> ModuleNetwork:
        """The network that `{module: PATH, SETTING: …}` names; `source` only in records, where it is kept as it is.

        Raises SettingError below `path` for what cannot be imported, a class without a place for the number of
        classes, and settings that it does not take.
        """
        rest = {key: value for key, value in values.items() if key not in ("module", "source")}
        dotted = values["module"]
        if not isinstance(dotted, str) or not PATH.fullmatch(dotted):
            raise SettingError((*path, "module"), f"must be package.file:Class, got {shown(dotted)}")
        settings = canonical_settings(rest, path)
        if "source" in values:
            return cls(dotted, settings, str(values["source"]))
        try:
            owner = _class(dotted)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise SettingError((*path, "module"), f"must be importable, got {dotted} ({one_line(error)})") from None
        parameters = inspect.signature(owner).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        known = [name for name in parameters if name not in (*CLASSES, *CHANNELS, *SIZES)]
        if not any(name in parameters for name in CLASSES):
            raise SettingError((*path, "module"), f"must take one of {', '.join(CLASSES)}, got {', '.join(parameters)}")
        for key in rest:
            if key not in known and not takes_all:
                raise SettingError((*path, key), f"must be a setting of {dotted}: {one_of(key, known)}")
        made = cls(dotted, settings, source_hash(dotted.partition(":")[0]))
        try:
            with torch.device("meta"):
                network = made.build(num_classes=2, in_channels=3, image_size=(64, 64))
        except Exception as error:  # Somebody's constructor may raise anything.
            raise SettingError(path, f"must be settings that {dotted} takes, got {one_line(error)}") from None
        if not isinstance(network, nn.Module):
            raise SettingError((*path, "module"), f"must make a torch.nn.Module, got {type(network).__name__}")
        return made

    @cached_property
    def variant_id(self) -> str:
        """Twelve hexadecimal digits that name the network: a hash of its path, settings and source."""
        return hashed(self.diff())

    def diff(self, other: object = None) -> dict[str, Any]:
        """Path, settings and source hash as plain JSON values, from which `from_dict` makes the network."""
        return {"module": self.module, **{name: to_json(value) for name, value in self.settings}, "source": self.source}

    def to_dict(self) -> dict[str, Any]:
        """The values of `diff`."""
        return self.diff()

    def label(self, base: object = None) -> str:
        """A short text for a network without a name in the study, such as `module=net:Net width=32`."""
        return in_words({key: value for key, value in self.diff().items() if key != "source"})

    def changed(self, settings: Mapping[str, Any]) -> ModuleNetwork:
        """The network with other values of some settings. Raises SettingError as `from_dict` does."""
        values = {**self.diff(), **settings}
        return ModuleNetwork.from_dict({key: value for key, value in values.items() if key != "source"})

    def widths(self, names: Sequence[str]) -> tuple[str, int | tuple[int, ...]] | None:
        """The first of some names among the settings or the defaults of the class, with its value; None without one."""
        given = dict(self.settings)
        parameters = inspect.signature(_class(self.module)).parameters
        for name in names:
            value = given.get(name, parameters[name].default if name in parameters else None)
            if isinstance(value, int) and not isinstance(value, bool):
                return name, value
            if isinstance(value, list | tuple) and value and all(type(width) is int for width in value):
                return name, tuple(value)
        return None

    def build(self, *, num_classes: int, in_channels: int, image_size: tuple[int, int] | None) -> nn.Module:
        """The network, freshly initialised by its own constructor. image_size: (height, width), if it asks for it.

        Raises ValueError where the source is no longer the one in the id, or the class has no place for the channels.
        """
        here = source_hash(self.module.partition(":")[0])
        if here != self.source:
            raise ValueError(
                f"{self.module} must have the source {self.source}, got {here}: it changed since the study was read"
            )
        owner = _class(self.module)
        parameters = inspect.signature(owner).parameters
        given: dict[str, Any] = {name: plain(value) for name, value in self.settings}
        given[next(name for name in CLASSES if name in parameters)] = num_classes
        channels = next((name for name in CHANNELS if name in parameters), None)
        if channels is not None:
            given[channels] = in_channels
        elif in_channels != 3:
            raise ValueError(f"{self.module} must take one of {', '.join(CHANNELS)}, got {in_channels} channels")
        size = next((name for name in SIZES if name in parameters), None)
        if size is not None and image_size is not None:
            height, width = image_size
            given[size] = height if height == width else (height, width)
        network: nn.Module = owner(**given)
        return network

    def needs(self, problem: Exception, *, image_size: tuple[int, int], in_channels: int) -> ValueError:
        """The error for images on which the network fails."""
        height, width = image_size
        return ValueError(f"{self.module} must take images of {in_channels}×{height}×{width}, got {one_line(problem)}")


def source_hash(module: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a module's text and of those of its package that it imports."""
    texts = {name: path.read_bytes() for name, path in _sources(module)}
    digest = hashlib.sha256()
    for name in sorted(texts):
        digest.update(f"|{name}|".encode() + texts[name])
    return digest.hexdigest()[:12]


def _sources(module: str) -> Iterator[tuple[str, Path]]:
    top, waiting, seen = module.partition(".")[0], [module], {module}
    while waiting:
        name = waiting.pop()
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None or not found.origin.endswith(".py"):
            continue
        path = Path(found.origin)
        yield name, path
        for other in _imported(path.read_text(), name if found.submodule_search_locations else name.rpartition(".")[0]):
            if other.partition(".")[0] == top and other not in seen and _exists(other):
                seen.add(other)
                waiting.append(other)


def _imported(text: str, package: str) -> Iterator[str]:
    """Names of modules that a source text imports, and of what it takes from them, which may be modules too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parts, *([node.module] if node.module else [])])
            if origin:
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _class(dotted: str) -> Any:
    name, _, attribute = dotted.partition(":")
    # `python -m` looks in the current folder; a worker of another process may not.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return getattr(importlib.import_module(name), attribute)
