"""A study: one YAML file read, checked before anything runs, and frozen."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.design.axes import AXES, SUGAR
from medmamba_variants.design.kinds import parse_axis, shown, to_json
from medmamba_variants.hints import hint
from study.data.sources import OWN_FOLDER, SPEC_KEYS
from study.definition import GRID, Range, StrategyChoice, Study
from study.file.contrasts import parse_contrasts
from study.file.keys import STUDY, check, unknown_key
from study.file.text import Keys, StudyText, parse_scalar
from study.recipe import Recipe


def load_study(
    path: Path | str,
    *,
    datasets: str | Sequence[str] | None = None,
    data_root: Path | str | None = None,
    seeds: str | Sequence[int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Study:
    """The study of a YAML file, checked as a whole.

    The other arguments are command-line options and replace what the file says: names and seeds as `a,b` or as a list,
    `settings` as dotted keys with YAML values. Raises ValueError, one line: file and key path (or the option), what
    must hold there, what came.
    """
    overrides: list[tuple[str, str, Any]] = []
    for dotted, value in (settings or {}).items():
        option = f"--set {dotted}"
        overrides.append((dotted, option, parse_scalar(value, option)))
    if datasets is not None:
        names = _split(datasets) if isinstance(datasets, str) else list(datasets)
        overrides.append(("datasets", "--datasets", names))
    if data_root is not None:
        overrides.append(("source.root", "--data-root", str(data_root)))
    if seeds is not None:
        numbers = [parse_scalar(part, "--seeds") for part in _split(seeds)] if isinstance(seeds, str) else list(seeds)
        overrides.append(("seeds", "--seeds", numbers))
    text = StudyText(Path(path), overrides)
    check(STUDY, text.values, text)
    return _Reader(text).study()


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class _Reader:
    """Turns a study file whose keys and types are checked into a Study; the checks left need axes and variants."""

    def __init__(self, text: StudyText) -> None:
        self.text = text
        self.values = text.values
        self.base = PRESETS[self.values["base"]]
        self.base = self.point(self.values.get("variant", {}), ("variant",))

    def study(self) -> Study:
        strategy = self.strategy()
        axes = self.axes(strategy)
        named = self.named(strategy)
        grid = tuple(named.items()) if named else self.grid(axes) if strategy.name == GRID else ()
        for key in ("seeds", "datasets"):
            if not self.values[key]:
                raise ValueError(f"{self.text.place((key,))} must list at least one, got []: the study would be empty")
        declared = self.values.get("contrasts", [])
        if declared and strategy.name != GRID:
            raise ValueError(
                f"{self.text.place(('contrasts',))} must be left out where strategy.name is {strategy.name}, "
                f"got {len(declared)}: no variant of a search is known before it runs"
            )
        return Study(
            name=self.text.path.stem,
            question=" ".join(self.values["question"].split()),
            path=self.text.path.absolute(),
            text=self.text.text,
            base_name=self.values["base"],
            base=self.base,
            axes=axes,
            grid=grid,
            strategy=strategy,
            seeds=tuple(self.values["seeds"]),
            datasets=tuple(self.values["datasets"]),
            source=self.source(),
            recipe=self.recipe(),
            contrasts=parse_contrasts(declared, self.text, grid, named, self.point),
            alpha=float(self.values.get("alpha", 0.05)),
            correction=self.values.get("correction", "holm"),
        )

    def strategy(self) -> StrategyChoice:
        given = {**self.values.get("strategy", {"name": GRID})}
        path: Keys = ("strategy",)
        if given["name"] == GRID:
            for key in given:
                if key != "name":
                    place = self.text.place((*path, key))
                    raise ValueError(f"{place} must be left out where strategy.name is grid, got {given[key]}")
            return StrategyChoice()
        for key in ("trials", "objectives"):
            if not given.get(key):
                raise ValueError(
                    f"{self.text.place((*path, key))} must be given where strategy.name is {given['name']}, "
                    f"got {shown(given.get(key))}"
                )
        if "population" in given and given["name"] != "nsga2":
            raise ValueError(
                f"{self.text.place((*path, 'population'))} must be left out where strategy.name is {given['name']}, "
                f"got {given['population']}"
            )
        given["objectives"] = tuple(given["objectives"])
        if "max_macs" in given:
            given["max_macs"] = float(given["max_macs"])
        return StrategyChoice(**given)

    def axes(self, strategy: StrategyChoice) -> dict[str, tuple[Any, ...] | Range]:
        given = self.values.get("axes", {})
        has_axes, has_variants = "axes" in self.values, "variants" in self.values
        if has_axes and has_variants:
            raise ValueError(f"{self.text.place(('variants',))} must be left out where axes are given, got both")
        if not given and not has_variants:
            kind = "at least one axis" + ("" if strategy.name != GRID else " (or variants in its place)")
            raise ValueError(f"{self.text.place(('axes',))} must name {kind}, got nothing: the study would be empty")
        for name in given:
            if name in self.values.get("variant", {}):
                raise ValueError(
                    f"{self.text.place(('axes', name))} must not be set under variant too, "
                    f"got {self.values['variant'][name]} there"
                )
        if "split_ratio" in given and "branches" in given:
            raise ValueError(f"{self.text.place(('axes', 'split_ratio'))} must not stand beside branches, got both")
        return {name: self.axis(name, values, strategy) for name, values in given.items()}

    def axis(self, name: str, values: Any, strategy: StrategyChoice) -> tuple[Any, ...] | Range:
        path: Keys = ("axes", name)
        place = self.text.place(path)
        if isinstance(values, dict):
            return self.range(name, values, strategy)
        if not isinstance(values, list):
            kind = "a list of values" if strategy.name == GRID else "a list of values or a range {low, high}"
            raise ValueError(f"{place} must be {kind}, got {shown(values)}{hint(values)}")
        if not values:
            raise ValueError(f"{place} must list at least one value, got []: the study would be empty")
        parsed = tuple(self.value(name, value, (*path, index)) for index, value in enumerate(values))
        for index, value in enumerate(parsed):
            if value in parsed[:index]:
                raise ValueError(f"{place} must not repeat a value, got {shown(values[index])} twice")
        return parsed

    def range(self, name: str, values: Mapping[str, Any], strategy: StrategyChoice) -> Range:
        path: Keys = ("axes", name)
        place = self.text.place(path)
        axis = (AXES | SUGAR)[name]
        if strategy.name == GRID or axis.kind not in ("int", "float"):
            why = "in a grid" if strategy.name == GRID else "for this axis"
            raise ValueError(f"{place} must be a list of values {why}, got {shown(values)}")
        for key in values:
            if key not in ("low", "high", "log", "step"):
                raise unknown_key(self.text, (*path, key), ("low", "high", "log", "step"))
        for key in ("low", "high"):
            if key not in values:
                raise ValueError(f"{self.text.place((*path, key))} must be given, got nothing")
            number = self.value(name, values[key], (*path, key))
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"{self.text.place((*path, key))} must be a number, got {shown(number)}")
        low, high, log, step = values["low"], values["high"], values.get("log", False), values.get("step")
        if low >= high:
            raise ValueError(f"{self.text.place((*path, 'high'))} must be above low ({low}), got {high}")
        if not isinstance(log, bool):
            raise ValueError(f"{self.text.place((*path, 'log'))} must be true or false, got {shown(log)}")
        if log and low <= 0:
            raise ValueError(f"{self.text.place((*path, 'low'))} must be above 0 on a logarithmic scale, got {low}")
        if log and step is not None:
            raise ValueError(f"{self.text.place((*path, 'step'))} must be left out on a logarithmic scale, got {step}")
        whole = axis.kind == "int"
        if step is not None:
            kind = "a whole number" if whole else "a number"
            if isinstance(step, bool) or not isinstance(step, int if whole else int | float) or not step > 0:
                raise ValueError(
                    f"{self.text.place((*path, 'step'))} must be {kind} above 0, got {shown(step)}{hint(step)}"
                )
            steps = (high - low) / step
            if math.isinf(steps) or not math.isclose(steps, round(steps), abs_tol=1e-9) or round(steps) < 1:
                raise ValueError(
                    f"{self.text.place((*path, 'step'))} must lead from {low} to {high} in whole steps, got {step}"
                )
        return Range(low, high, log, step) if whole else Range(float(low), float(high), log, step and float(step))

    def named(self, strategy: StrategyChoice) -> dict[str, VariantConfig]:
        if "variants" not in self.values:
            return {}
        place = self.text.place(("variants",))
        if strategy.name != GRID:
            raise ValueError(f"{place} must be left out where strategy.name is {strategy.name}, got a list of variants")
        if not self.values["variants"]:
            raise ValueError(f"{place} must name at least one variant, got none: the study would be empty")
        named: dict[str, VariantConfig] = {}
        for name, values in self.values["variants"].items():
            path: Keys = ("variants", name)
            if not name.strip() or not name.isprintable():
                raise ValueError(f"{place} must have names of one line as keys, got {name!r}")
            if not isinstance(values, dict):
                raise ValueError(f"{self.text.place(path)} must be a mapping of axes to values, got {shown(values)}")
            for axis in values:
                if axis not in AXES and axis not in SUGAR:
                    raise unknown_key(self.text, (*path, axis), [*AXES, *SUGAR])
            variant = self.point(values, path)
            for earlier, known in named.items():
                if known == variant:
                    raise ValueError(
                        f"{self.text.place(path)} must differ from every other variant, got the same as {earlier}"
                    )
            named[name] = variant
        return named

    def grid(self, axes: Mapping[str, tuple[Any, ...] | Range]) -> tuple[tuple[str, VariantConfig], ...]:
        lists = {name: values for name, values in axes.items() if not isinstance(values, Range)}
        seen: dict[str, str] = {}
        grid = []
        for choice in itertools.product(*lists.values()):
            values = dict(zip(lists, choice))
            shape = ", ".join(f"{name}: {to_json(value)}" for name, value in values.items())
            variant = self.point(values, ("axes",), f" (at {shape})" if len(values) > 1 else "")
            if variant.variant_id in seen:
                raise ValueError(
                    f"{self.text.place(('axes',))} must give different variants, got one variant twice: "
                    f"{{{seen[variant.variant_id]}}} and {{{shape}}}"
                )
            seen[variant.variant_id] = shape
            grid.append((variant.label(self.base), variant))
        return tuple(grid)

    def value(self, name: str, value: Any, path: Keys) -> Any:
        """The canonical value of an axis; the error names the place in the file."""
        try:
            return parse_axis(name, value)
        except ValueError as error:
            raise self.error(error, {name: path}, value) from None

    def point(self, values: Mapping[str, Any], path: Keys, suffix: str = "") -> VariantConfig:
        """The variant that values of axes make of the base; the error names the place in the file."""
        for name, value in values.items():
            self.value(name, value, (*path, name))
        try:
            return VariantConfig.from_dict(values, base=self.base)
        except ValueError as error:
            places: dict[str, Keys] = {name: (*path, name) for name in values}
            raise self.error(error, places, None, path, suffix) from None

    def error(
        self, error: ValueError, places: Mapping[str, Keys], value: Any, otherwise: Keys = (), suffix: str = ""
    ) -> ValueError:
        """The error of an axis, its own name (the first word) replaced by the place where the value stands."""
        message = str(error)
        name, rest = re.match(r"(\w*)(.*)", message, re.DOTALL).groups()  # type: ignore[union-attr]
        if name not in places:
            return ValueError(f"{self.text.place(otherwise)}: {message}{suffix}")
        extra = hint(value) if isinstance(value, bool) and "(" not in rest else ""
        return ValueError(f"{self.text.place(places[name])}{rest}{extra}{suffix}")

    def source(self) -> dict[str, Any]:
        """Where data sets lie, folders absolute because workers change directory."""
        source = dict(self.values.get("source", {}))
        path: Keys = ("source",)
        kind = source.get("kind")
        for key in source:
            if kind is not None and key not in ("kind", *SPEC_KEYS[kind]):
                place = self.text.place((*path, key))
                raise ValueError(f"{place} must be left out where source.kind is {kind}, got {source[key]}")
        if kind in OWN_FOLDER and "root" not in source:
            raise ValueError(
                f"{self.text.place((*path, 'root'))} must be given where source.kind is {kind}, got nothing"
            )
        if "root" in source:
            root = source["root"]
            try:
                source["root"] = str(Path(root).expanduser().absolute())
            except RuntimeError as error:
                place = self.text.place((*path, "root"))
                raise ValueError(f"{place} must be a folder, got {root!r} ({error})") from None
        return source

    def recipe(self) -> Recipe:
        values = self.values.get("recipe", {})
        try:
            return Recipe.from_dict(values)
        except ValueError as error:
            key, rest = re.match(r"recipe\.(\w+)(.*)", str(error), re.DOTALL).groups()  # type: ignore[union-attr]
            extra = hint(values[key]) if isinstance(values[key], bool) else ""
            raise ValueError(f"{self.text.place(('recipe', key))}{rest}{extra}") from None
