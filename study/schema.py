"""The keys of a study file, declared once: from here follow its checks, and `search_spaces/schema.json` for editors.

`make schema` writes the latter anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from medmamba_variants.config import axis_schema
from medmamba_variants.design.axes import AXES, SUGAR
from study.file.keys import STUDY, Key
from study.recipe import Recipe
from study.telling.progress import say


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a study file: for completion in editors; the checks in Python say more."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MedMamba study",
        **_schema(STUDY),
        "$defs": {
            **{name: axis_schema(name) for name in (*AXES, *SUGAR)},
            "point": {
                "type": "object",
                "properties": {name: {"$ref": f"#/$defs/{name}"} for name in (*AXES, *SUGAR)},
                "additionalProperties": False,
            },
        },
    }


def _schema(key: Key) -> dict[str, Any]:
    described = {"description": key.meaning}
    if key.kind == "mapping":
        return described | {
            "type": "object",
            "properties": {name: _schema(child) for name, child in key.keys.items()},
            "required": [name for name, child in key.keys.items() if child.required],
            "additionalProperties": False,
        }
    if key.kind == "list":
        assert key.items is not None
        return described | {"type": "array", "items": _schema(key.items)}
    if key.kind == "choice":
        return described | {"enum": list(key.choices)}
    if key.kind == "flag":
        return described | {"type": "boolean"}
    if key.kind in ("whole", "number"):
        low, high = ("exclusiveMinimum", "exclusiveMaximum") if key.open else ("minimum", "maximum")
        bounds = {name: bound for name, bound in ((low, key.low), (high, key.high)) if math.isfinite(bound)}
        return described | {"type": "integer" if key.kind == "whole" else "number"} | bounds
    if key.kind == "recipe":
        return described | {
            "type": "object",
            "properties": {setting.name: _recipe_schema(setting) for setting in dataclasses.fields(Recipe)},
            "additionalProperties": False,
        }
    if key.kind == "axes":
        return described | {
            "type": "object",
            "properties": {name: _axis_values_schema(name) for name in (*AXES, *SUGAR)},
            "additionalProperties": False,
        }
    if key.kind == "variants":
        return described | {"type": "object", "additionalProperties": {"$ref": "#/$defs/point"}}
    if key.kind == "point":
        point = {"$ref": "#/$defs/point"}
        return described | ({"anyOf": [point, {"type": "string"}]} if key.required else point)
    return described | {"type": "string"}


def _axis_values_schema(name: str) -> dict[str, Any]:
    axis = (AXES | SUGAR)[name]
    values = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "minItems": 1}
    if axis.kind not in ("int", "float"):
        return {"description": axis.meaning, **values}
    number = {"type": "integer" if axis.kind == "int" else "number", "minimum": axis.low, "maximum": axis.high}
    bounds = {
        "type": "object",
        "properties": {"low": number, "high": number, "log": {"type": "boolean"}, "step": {"type": "number"}},
        "required": ["low", "high"],
        "additionalProperties": False,
    }
    return {"description": axis.meaning, "anyOf": [values, bounds]}


def _recipe_schema(setting: dataclasses.Field[Any]) -> dict[str, Any]:
    limits = setting.metadata
    schema: dict[str, Any] = {"description": limits["meaning"], "default": setting.default}
    types = str(setting.type)
    if "choices" in limits:
        return schema | {"enum": list(limits["choices"])}
    if types == "bool":
        return schema | {"type": "boolean"}
    name = "integer" if types.startswith("int") else "number"
    schema["type"] = [name, "null"] if "None" in types else name
    return schema | {"minimum": limits["low"], "maximum": limits["high"]}


def main() -> None:
    """Writes the schema to the file that the command line names, or prints it."""
    parser = argparse.ArgumentParser(prog="python -m study.schema", description="The JSON schema of study files.")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="where to write it (left out: print it)")
    file = parser.parse_args().file
    text = json.dumps(json_schema(), indent=1)
    if file is None:
        say(text)
    else:
        file.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
