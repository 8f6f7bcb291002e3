"""The keys of a study file, declared once: from here follow its checks and its JSON schema."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.metrics import METRICS
from medmamba_variants.config import PRESETS
from medmamba_variants.design.axes import AXES, SUGAR
from medmamba_variants.design.kinds import shown
from medmamba_variants.hints import hint, unknown_name
from study.data.sources import SPEC_KEYS
from study.file.text import Keys, StudyText
from study.recipe import Recipe

STRATEGIES = ("grid", "random", "tpe", "nsga2")


OBJECTIVES = (*METRICS, "macs")


CORRECTIONS = ("holm", "bh", "none")


SOURCES = tuple(kind for kind in SPEC_KEYS if kind != "phantom")


LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Key:
    """What may stand at one place of a study file.

    `kind` is text, flag, whole, number, choice, list, mapping, or one whose values `reading` reads: point (axes and
    their values), axes (axes, values to try), variants (named points), recipe. Bounds are inclusive unless `open`.
    """

    kind: str
    meaning: str
    required: bool = False
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    open: bool = False
    items: Key | None = None
    keys: Mapping[str, Key] = field(default_factory=dict)


_POINT = Key("point", "axis: value; what is left out is as in the base")


_STRATEGY = {
    "name": Key("choice", "what to run next: all of the grid, or proposals by Optuna", True, STRATEGIES),
    "trials": Key("whole", "distinct variants to train (searches only)", low=1, high=1_000_000),
    "seed": Key("whole", "seed of the proposals (searches only)", low=0, high=LARGEST_SEED),
    "max_macs": Key("number", "variants above it are rejected before they train (searches only)", low=0, open=True),
    "objectives": Key(
        "list",
        "what a search optimises: validation metrics, and macs",
        items=Key("choice", "a metric, or macs", choices=OBJECTIVES),
    ),
    "population": Key("whole", "variants in a generation (nsga2 only)", low=2, high=10_000),
}


_CONTRAST = {
    "name": Key("text", "name of the contrast, once in the study", True),
    "baseline": Key("point", "the variant compared with: axis: value, or the name of one of variants", True),
    "against": Key("point", "the variant that may be better, written like baseline", True),
    "metric": Key("choice", "test metric that decides", True, tuple(METRICS)),
    "margin": Key("number", "differences below it count as equivalent", True, low=0, high=1, open=True),
    "family": Key("text", "contrasts of one family share the correction"),
    "kind": Key("choice", "confirmatory unless said otherwise", choices=("confirmatory", "exploratory")),
}


_SOURCE = {
    "kind": Key(
        "choice", "kind of all sets but the phantoms; without it what lies under root decides", choices=SOURCES
    ),
    "root": Key("text", "folder of the data, relative to the current one (--data-root replaces it)"),
    "size": Key("whole", "side of MedMNIST's images in pixels", low=8, high=1024),
    "download": Key("flag", "whether MedMNIST's files may be downloaded into root"),
    "image_size": Key("whole", "pixels a side that the images of a folder are read at", low=8, high=4096),
}


STUDY = Key(
    "mapping",
    "one question, and all it takes to answer it",
    keys={
        "question": Key("text", "what the study asks, one sentence", True),
        "base": Key("choice", "preset that every variant starts from", True, tuple(PRESETS)),
        "variant": Key("point", "axes set alike in every variant"),
        "axes": Key("axes", "axes under study: the values to try, or {low, high, log, step} for a search"),
        "variants": Key("variants", "in place of axes: name: {axis: value}"),
        "strategy": Key("mapping", "how variants are chosen; without it: grid", keys=_STRATEGY),
        "seeds": Key("list", "training seeds", True, items=Key("whole", "a training seed", low=0, high=LARGEST_SEED)),
        "datasets": Key("list", "names of data sets", True, items=Key("text", "a data set of the source")),
        "source": Key("mapping", "where data sets other than phantoms lie", keys=_SOURCE),
        "recipe": Key("recipe", "how variants are trained; what is left out is as in study.cells.Recipe"),
        "contrasts": Key(
            "list",
            "comparisons declared before anything runs",
            items=Key("mapping", "one comparison", keys=_CONTRAST),
        ),
        "alpha": Key("number", "error rate of a family of contrasts", low=0, high=0.5, open=True),
        "correction": Key("choice", "for several contrasts in a family", choices=CORRECTIONS),
    },
)


def check(key: Key, value: Any, text: StudyText, path: Keys = ()) -> None:
    """Raises ValueError, naming the place, where the value is not what the key allows; points and axes excepted."""
    place = text.place(path)
    if key.kind in ("mapping", "recipe", "point", "axes", "variants"):
        _check_mapping(key, value, text, path)
    elif key.kind == "list":
        if not isinstance(value, list):
            raise ValueError(f"{place} must be a list, got {shown(value)}")
        assert key.items is not None
        for index, item in enumerate(value):
            check(key.items, item, text, (*path, index))
        _refuse_repeats(value, place)
    elif key.kind == "flag":
        if not isinstance(value, bool):
            raise ValueError(f"{place} must be true or false, got {shown(value)}")
    elif key.kind == "text":
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{place} must be a text, got {shown(value)}{hint(value)}")
    elif key.kind == "choice":
        if value not in key.choices or not isinstance(value, str):
            if isinstance(value, str):
                raise ValueError(unknown_name(place, value, key.choices))
            raise ValueError(f"{place} must be one of {', '.join(key.choices)}; got {shown(value)}{hint(value)}")
    else:
        _check_number(key, value, place)


def unknown_key(text: StudyText, path: Keys, known: Iterable[str]) -> ValueError:
    """The error for a key (the last of `path`) that has no meaning where it stands."""
    name = path[-1] if isinstance(path[-1], str) else shown(path[-1])
    if isinstance(path[-1], bool):
        return ValueError(f"{text.place(path[:-1])} must have texts as keys, got {name}{hint(path[-1])}")
    return ValueError(unknown_name(text.place(path), name, known))


def _check_mapping(key: Key, value: Any, text: StudyText, path: Keys) -> None:
    place = text.place(path)
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be a mapping, got {shown(value)}{hint(value)}")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"{place} must have texts as keys, got {shown(name)}{hint(name)}")
    if key.kind == "recipe":
        known = [setting.name for setting in dataclasses.fields(Recipe)]
    elif key.kind == "mapping":
        known = list(key.keys)
    elif key.kind == "variants":
        return
    else:
        known = [*AXES, *SUGAR]
    for name in value:
        if name not in known:
            raise unknown_key(text, (*path, name), known)
    for name, child in key.keys.items():
        if name in value:
            # A contrast may name one of `variants` where a point is written out otherwise.
            if child.kind == "point" and "baseline" in key.keys and isinstance(value[name], str):
                continue
            check(child, value[name], text, (*path, name))
        elif child.required:
            raise ValueError(f"{text.place((*path, name))} must be given, got nothing ({child.meaning})")


def _check_number(key: Key, value: Any, place: str) -> None:
    rule = f"{place} must be {_number_rule(key)}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (key.kind == "whole" and not isinstance(value, int)):
        raise ValueError(f"{rule}, got {shown(value)}{hint(value)}")
    inside = key.low < value < key.high if key.open else key.low <= value <= key.high
    if not inside or not math.isfinite(value):
        raise ValueError(f"{rule}, got {value}")


def _number_rule(key: Key) -> str:
    kind = "a whole number" if key.kind == "whole" else "a number"
    if math.isinf(key.high):
        return f"{kind} {'above' if key.open else 'from'} {key.low:g}"
    return f"{kind} {'between' if key.open else 'from'} {key.low:g} {'and' if key.open else 'to'} {key.high:.10g}"


def _refuse_repeats(values: list[Any], place: str) -> None:
    for index, value in enumerate(values):
        if not isinstance(value, dict) and value in values[:index]:
            raise ValueError(f"{place} must not repeat a value, got {shown(value)} twice")
