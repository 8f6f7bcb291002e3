"""Weights inside what trainers wrap around them: a checkpoint's own keys, prefixes of parallel and compiled modules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

# Keys, or prefixes with a dot, under which trainers keep the weights of a network.
PLAIN = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params", "student")
ONLINE = ("online_model", "backbone", "encoder")
# Those of a moving average of the weights.
AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema", "shadow", "teacher")
WRAPPERS = (*PLAIN, *ONLINE)
# What DataParallel, DistributedDataParallel, torch's averages and torch.compile put in front of or into every name.
_LAYERS = ("module", "_orig_mod")
_DEEPEST = 6


@dataclass(frozen=True)
class Unwrapped:
    """Weights by name, as they came out of a checkpoint.

    `way` is the wrappers around them, outermost first; `also` other wrappers in which weights of these names lie.
    """

    weights: dict[str, Any]
    way: tuple[str, ...]
    also: tuple[str, ...]


def unwrap(given: object, names: Collection[str], ema: bool = False) -> Unwrapped | None:
    """The weights among whose names are some of `names`, out of any nesting of wrappers; None where there are none.

    `given` is a state dict, a mapping around one, or a module. Where a checkpoint has the weights and their moving
    average, `ema` takes the average; where it has only one of them, it is that. Raises ValueError for a name that is
    there twice, with `module.` and without.
    """
    return _unwrap(given, frozenset(names), ema, _DEEPEST)


def _unwrap(given: object, names: frozenset[str], ema: bool, depth: int) -> Unwrapped | None:
    if isinstance(given, nn.Module):
        return _unwrap(given.state_dict(), names, ema, depth)
    if not isinstance(given, Mapping) or depth == 0:
        return None
    if any(name.split(".")[0] in _LAYERS for name in names) and not names.isdisjoint(given):
        # A network that calls a part of its own so.
        return Unwrapped(dict(given), (), ())
    plain = _without_layers(given)
    if not names.isdisjoint(plain):
        return Unwrapped(plain, (), ())
    found = []
    for word in (*AVERAGES, *WRAPPERS) if ema else (*WRAPPERS, *AVERAGES):
        inside = _inside(plain, word)
        below = None if inside is None else _unwrap(inside, names, ema, depth - 1)
        if below is not None:
            found.append(Unwrapped(below.weights, (word, *below.way), below.also))
    if not found:
        return None
    first, others = found[0], tuple(".".join(other.way) for other in found[1:])
    return Unwrapped(first.weights, first.way, (*first.also, *others))


def _without_layers(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same values by names without `module.` in front and `_orig_mod.` anywhere."""
    found: dict[str, Any] = {}
    twice = []
    for name, value in given.items():
        parts = str(name).split(".")
        while len(parts) > 1 and parts[0] in _LAYERS:
            parts = parts[1:]
        short = ".".join([*(part for part in parts[:-1] if part != "_orig_mod"), parts[-1]])
        if short in found:
            twice.append(short)
        found[short] = value
    if twice:
        raise ValueError(
            f"the state dict must hold every parameter once, with module. or without; twice there is {some(twice)}"
        )
    return found


def _inside(given: Mapping[str, Any], word: str) -> object:
    """What lies under a key, or under every name that begins with it and a dot; None where nothing does."""
    if word in given:
        return given[word]
    inside = {name.removeprefix(f"{word}."): value for name, value in given.items() if name.startswith(f"{word}.")}
    return inside or None


def some(names: Collection[str]) -> str:
    """The first three names, and how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest
