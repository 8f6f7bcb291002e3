"""Keys of a study file, declared once: the checks and the schema for completion in editors follow from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from analysis.metrics import METRICS
from analysis.verdicts.levels import DECLARED_LEVELS
from medmamba_variants.config import PRESETS, axis_schema
from medmamba_variants.design.axes import AXES, SUGAR
from medmamba_variants.design.kinds import (
    Choice,
    Keys,
    Kind,
    Listed,
    Mapped,
    Number,
    Setting,
    SettingError,
    Text,
    checked_names,
    whole,
)
from medmamba_variants.peers.pretrained import FEATURES
from study.data.readers import FILE_KINDS, file_settings
from study.declaration.racing import RACING
from study.declaration.racing import SETTINGS as RACE_SETTINGS
from study.declaration.recipe import RECIPE
from study.file.elsewhere import NAMES, is_elsewhere
from study.strategies.samplers import SAMPLERS, sampler_settings

OBJECTIVES = (*METRICS, "macs")
CORRECTIONS = ("holm", "bh", "none")
SEED = whole(0, 2**32 - 1)
RANGE = ("low", "high", "log", "step")


ELSEWHERE = {
    "type": "object",
    "description": "a variant of another study with the same recipe, data and seeds",
    "properties": {
        "study": {"type": "string", "description": "its file, or its name where that lies beside this one"},
        "variant": {"type": "string", "description": "the variant's label there"},
    },
    "required": list(NAMES),
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Point(Kind):
    """Axes and their values, others being as in the base; or, where `named`, a variant's name or one elsewhere.

    The values are read once the base is known.
    """

    named: bool = False

    def parse(self, value: Any, path: Keys = ()) -> Any:
        if not (self.named and (isinstance(value, str) or is_elsewhere(value))):
            checked_names(value, (*AXES, *SUGAR), path)
        return value

    def schema(self) -> dict[str, Any]:
        point = {"$ref": "#/$defs/point"}
        return {"anyOf": [point, {"type": "string"}, ELSEWHERE]} if self.named else point


@dataclass(frozen=True)
class Axes(Kind):
    """Axes, each with the values to try or the range to search, which are read once the strategy is known."""

    def parse(self, value: Any, path: Keys = ()) -> Any:
        checked_names(value, (*AXES, *SUGAR), path)
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: _values_schema(name) for name in (*AXES, *SUGAR)},
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Variants(Kind):
    """Points, or networks by other people, by the names that the study file gives them."""

    def parse(self, value: Any, path: Keys = ()) -> Any:
        checked_names(value, None, path)
        return value

    def schema(self) -> dict[str, Any]:
        either = [{"$ref": "#/$defs/point"}, {"$ref": "#/$defs/timm"}, {"$ref": "#/$defs/module"}]
        either.append({"$ref": "#/$defs/pretrained"})
        return {"type": "object", "additionalProperties": {"anyOf": either}}


# Further keys are settings of timm's class or of one's own.
PEERS = {
    "timm": {
        "type": "object",
        "description": "a classifier of timm by name, with settings of its class",
        "properties": {
            "timm": {"type": "string", "description": "its name, such as resnet18 or mambaout_femto"},
            "stem": {
                "enum": ["timm", "small"],
                "description": "small: for ResNets on images of at most 64 pixels",
            },
        },
        "required": ["timm"],
    },
    "module": {
        "type": "object",
        "description": "a module of one's own by dotted path, with settings of its class",
        "properties": {"module": {"type": "string", "description": "package.file:Class"}},
        "required": ["module"],
    },
    "pretrained": {
        "type": "object",
        "description": "any of the others that starts from weights",
        "properties": {
            "weights": {"type": "string", "description": "a checkpoint, an exported file, or timm for timm's own"},
            "features": {"enum": list(FEATURES), "description": "frozen: only the last layer trains"},
        },
        "required": ["weights"],
    },
}


@dataclass(frozen=True)
class Sources(Kind):
    """Keys of collections by data set."""

    def parse(self, value: Any, path: Keys = ()) -> Any:
        checked_names(value, None, path)
        for name, key in value.items():
            if not isinstance(key, str) or not key.strip():
                raise SettingError((*path, name), f"must be the key of a collection, got {key!r}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}


STRATEGY = {
    "name": Setting(
        Choice(("grid", RACING, *SAMPLERS)),
        "what to run next: all of the grid, a race between its variants, or proposals by Optuna",
        required=True,
    ),
    "trials": Setting(whole(1, 1_000_000), "distinct variants to train (searches only)"),
    "seed": Setting(SEED, "seed of the proposals, or of a race's order (searches and racing only)"),
    "max_macs": Setting(Number(low=0, open=True), "variants above it are rejected before they train (searches only)"),
    "objectives": Setting(
        Listed(Choice(OBJECTIVES), distinct=True), "what a search optimises: validation metrics, and macs"
    ),
    **sampler_settings(),
    **{key: replace(known, meaning=f"{known.meaning} (racing only)") for key, known in RACE_SETTINGS.items()},
}

CONTRAST = {
    "name": Setting(Text(), "name of the contrast, once in the study", required=True),
    "baseline": Setting(
        Point(named=True), "the variant compared with: axis: value, or the name of one of variants", required=True
    ),
    "against": Setting(Point(named=True), "the variant that may be better, written like baseline", required=True),
    "metric": Setting(Choice(tuple(METRICS)), "test metric that decides", required=True),
    "margin": Setting(Number(0, 1, open=True), "differences below it count as equivalent", required=True),
    "family": Setting(Text(), "contrasts of one family share the correction"),
    "kind": Setting(Choice(("confirmatory", "exploratory")), "confirmatory unless said otherwise"),
    "level": Setting(
        Choice(DECLARED_LEVELS),
        "what it is about: data sets in general, drawn anew (the default), or these data sets, fixed, with seeds and "
        "test images drawn anew",
    ),
}

# What would make networks of a variant differ in cost, or name a setting twice.
NOT_TUNED = ("image_size", "max_image_size", "epochs", "image_budget")
TUNED = {name: setting for name, setting in RECIPE.items() if name not in NOT_TUNED}


@dataclass(frozen=True)
class RecipeAxes(Kind):
    """Settings of the recipe, each with the values to try."""

    def parse(self, value: Any, path: Keys = ()) -> Any:
        checked_names(value, TUNED, path)
        return {
            name: Listed(TUNED[name].kind, distinct=True).parse(given, (*path, name)) for name, given in value.items()
        }

    def schema(self) -> dict[str, Any]:
        lists = {
            name: {"type": "array", "items": setting.kind.schema(), "minItems": 1, "description": setting.meaning}
            for name, setting in TUNED.items()
        }
        return {"type": "object", "properties": lists, "additionalProperties": False}


MATCH = {
    "macs": Setting(Point(named=True), "the variant whose multiply-adds all others get, by their widths"),
    "params": Setting(Point(named=True), "the variant whose number of parameters all others get, by their widths"),
    "tolerance": Setting(Number(0, 0.5, open=True), "the share by which costs may still differ (0.02)"),
    "image_size": Setting(
        whole(8, 4096), "pixels a side of the images that costs are counted for (as in the recipe, else 64)"
    ),
}

SOURCE = {
    "kind": Setting(Choice(FILE_KINDS), "kind of all sets but the phantoms; without it what lies under root decides"),
    "root": Setting(Text(), "folder of the data, relative to the current one (--data-root replaces it)"),
    **file_settings(),
}

STUDY = Mapped(
    {
        "question": Setting(Text(), "what the study asks, one sentence", required=True),
        "hypothesis": Setting(Text(), "what it expects, such that its runs could refute it"),
        "controls": Setting(Text(), "arms that tell the effect asked about from what comes with it"),
        "caveat": Setting(Text(), "what its outcome would not show"),
        "base": Setting(Choice(tuple(PRESETS)), "preset that every variant starts from", required=True),
        "variant": Setting(Point(), "axes set alike in every variant"),
        "axes": Setting(Axes(), "axes under study: the values to try, or {low, high, log, step} for a search"),
        "variants": Setting(Variants(), "in place of axes: name: {axis: value}, {timm: NAME, …} or {module: PATH, …}"),
        "match": Setting(Mapped(MATCH), "equal budgets: widths of all variants are scaled to the cost of one"),
        "strategy": Setting(Mapped(STRATEGY), "how variants are chosen; without it: grid"),
        "seeds": Setting(Listed(SEED, distinct=True), "training seeds", required=True),
        "datasets": Setting(Listed(Text(), distinct=True), "names of data sets", required=True),
        "source": Setting(Mapped(SOURCE), "where data sets other than phantoms lie"),
        "sources": Setting(Sources(), "data set: key of the collection it comes from; sets of one key count once"),
        "recipe": Setting(Mapped(RECIPE), "how variants are trained; what is left out is as in study.Recipe"),
        "recipe_axes": Setting(
            RecipeAxes(), "settings of the recipe to tune: every variant gets the best on validation"
        ),
        "tuning_seeds": Setting(Listed(SEED, distinct=True), "seeds of the tuning's trials, none of seeds (10000)"),
        "tuning_datasets": Setting(Listed(Text(), distinct=True), "data sets of the tuning's trials (all of datasets)"),
        "contrasts": Setting(Listed(Mapped(CONTRAST)), "comparisons declared before anything runs"),
        "alpha": Setting(Number(0, 0.5, open=True), "error rate of a family of contrasts"),
        "correction": Setting(Choice(CORRECTIONS), "for several contrasts in a family"),
    }
)


def study_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a study file: for completion in editors; the checks in Python say more."""
    points = {name: {"$ref": f"#/$defs/{name}"} for name in (*AXES, *SUGAR)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MedMamba study",
        "description": "one question, and all it takes to answer it",
        **STUDY.schema(),
        "$defs": {
            **{name: axis_schema(name) for name in (*AXES, *SUGAR)},
            "point": {"type": "object", "properties": points, "additionalProperties": False},
            **PEERS,
        },
    }


def _values_schema(name: str) -> dict[str, Any]:
    axis = (AXES | SUGAR)[name]
    values = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "minItems": 1}
    number = axis.number
    if number is None:
        return {"description": axis.meaning, **values}
    bound = {"type": "integer" if number.whole else "number", "minimum": number.low, "maximum": number.high}
    bounds = {
        "type": "object",
        "properties": {"low": bound, "high": bound, "log": {"type": "boolean"}, "step": {"type": "number"}},
        "required": ["low", "high"],
        "additionalProperties": False,
    }
    return {"description": axis.meaning, "anyOf": [values, bounds]}
