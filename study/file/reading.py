"""Reader of study files: one YAML file, checked before anything runs, and frozen."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.metrics import METRICS
from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.design.axes import AXES, SUGAR
from medmamba_variants.design.kinds import Keys, SettingError, checked_names, refuse_repeats, to_json
from medmamba_variants.hints import hint, one_of, shown
from medmamba_variants.networks import Network, is_peer, read_network, without_weights
from medmamba_variants.peers.pretrained import KEYS as WEIGHT_KEYS
from medmamba_variants.peers.pretrained import read_pretrained
from study.data.names import fold_names, fold_of
from study.data.readers import PHANTOM_PREFIX, READERS
from study.declaration.definition import GRID, Range, StrategyChoice, Study, Tuning
from study.declaration.recipe import Recipe
from study.file.contrasts import parse_contrasts, read_side
from study.file.elsewhere import SHARED, added, variants_elsewhere
from study.file.keys import RANGE, STUDY, RecipeAxes
from study.file.matching import match_variants
from study.file.strategies import read_strategy
from study.file.text import StudyText, parse_scalar

# The seed of a tuning's trials where the file names none.
TUNING_SEED = 10_000
# Chooses a recipe where epochs are chosen by the loss, or not at all.
DEFAULT_TUNING_METRIC = "macro_auc_ovr"


def load_study(
    path: Path | str,
    *,
    datasets: str | Sequence[str] | None = None,
    data_root: Path | str | None = None,
    seeds: str | Sequence[int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Study:
    """The study in a YAML file, checked as a whole.

    The other arguments are command-line options, which override the file: names and seeds as `a,b` or as a list,
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
    try:
        STUDY.parse(text.values)
        return _Reader(text).study()
    except SettingError as error:
        raise text.located(error) from None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class _Reader:
    """Turns a study file with checked keys and types into a Study; the remaining checks need axes and variants."""

    def __init__(self, text: StudyText) -> None:
        self.text = text
        self.values = text.values
        self.base = PRESETS[self.values["base"]]
        self.base = self.point(self.values.get("variant", {}), ("variant",))

    def study(self) -> Study:
        strategy = self.strategy()
        axes = self.axes(strategy)
        named = self.named(strategy)
        grid = tuple(named.items()) if named else self.grid(axes) if strategy.is_grid else ()
        recipe = self.recipe()
        scaled: dict[str, Network] = {}
        matched = None
        if "match" in self.values:
            after, matched = self.matched(dict(grid), named, recipe)
            scaled = {network.variant_id: after[label] for label, network in grid}
            grid = tuple(after.items())
        for key in ("seeds", "datasets"):
            if not self.values[key]:
                raise SettingError((key,), "must list at least one, got []: the study would be empty")
        declared = self.values.get("contrasts", [])
        if declared and strategy.name != GRID:
            why = "no variant of a search is known before it runs"
            if strategy.is_grid:
                why = "who is left of a race is chosen by its results, so only fresh seeds can confirm"
            raise SettingError(
                ("contrasts",), f"must be left out where strategy.name is {strategy.name}, got {len(declared)}: {why}"
            )
        elsewhere = self.elsewhere(declared)
        grid = added(grid, declared, elsewhere)
        return Study(
            name=self.text.path.stem,
            question=self.words("question"),
            path=self.text.path.absolute(),
            text=self.text.text,
            base_name=self.values["base"],
            base=self.base,
            axes=axes,
            grid=grid,
            strategy=strategy,
            seeds=tuple(self.values["seeds"]),
            datasets=self.datasets(),
            source=self.source(),
            own_sources=self.own_sources(),
            recipe=recipe,
            contrasts=parse_contrasts(declared, grid, named, self.point, scaled, elsewhere),
            alpha=float(self.values.get("alpha", 0.05)),
            correction=self.values.get("correction", "holm"),
            hypothesis=self.words("hypothesis"),
            controls=self.words("controls"),
            caveat=self.words("caveat"),
            matched=matched,
            tuning=self.tuning(strategy, recipe),
        )

    def matched(
        self, grid: Mapping[str, Network], named: Mapping[str, Network], recipe: Recipe
    ) -> tuple[dict[str, Network], dict[str, Any]]:
        """The variants by label, scaled in width to the cost of one of them, and an account of it."""
        given, path = self.values["match"], ("match",)
        asked = [measure for measure in ("macs", "params") if measure in given]
        if len(asked) != 1:
            raise SettingError(path, f"must have one of macs and params, got {' and '.join(asked) or 'neither'}")
        if not grid:
            raise SettingError(path, "must go with strategy.name: grid, got a search, whose variants are not known yet")
        (measure,) = asked
        side = read_side(given[measure], (*path, measure), named, self.point)
        baseline = next((label for label, network in grid.items() if network == side), None)
        if baseline is None:
            raise SettingError(
                (*path, measure), f"must be a variant of the study ({', '.join(grid)}), got {given[measure]}"
            )
        return match_variants(given, grid, baseline, measure, recipe, path)

    def tuning(self, strategy: StrategyChoice, recipe: Recipe) -> Tuning | None:
        """The recipes from which every variant gets its own; None where the file tunes nothing."""
        path: Keys = ("recipe_axes",)
        if "recipe_axes" not in self.values:
            for key in ("tuning_seeds", "tuning_datasets"):
                if key in self.values:
                    raise SettingError((key,), "must go with recipe_axes, got no recipe_axes")
            return None
        if strategy.name != GRID:
            what = "a race" if strategy.is_grid else "a search"
            raise SettingError(path, f"must be left out where strategy.name is {strategy.name}, got {what}")
        given = RecipeAxes().parse(self.values["recipe_axes"], path)
        for name, values in given.items():
            if name in self.values.get("recipe", {}):
                raise SettingError((*path, name), "must not be set under recipe too, got both")
            if not values:
                raise SettingError((*path, name), "must list at least one value, got []")
        recipes = tuple(
            dataclasses.replace(recipe, **dict(zip(given, values))) for values in itertools.product(*given.values())
        )
        if len(recipes) < 2:
            raise SettingError(path, "must make at least two recipes, got one: nothing would be tuned")
        seeds = tuple(self.values.get("tuning_seeds", (TUNING_SEED,)))
        both = [seed for seed in seeds if seed in self.values["seeds"]]
        if both or not seeds:
            came = f"{both[0]} in both" if both else "none"
            raise SettingError(("tuning_seeds",), f"must be seeds that are not among seeds, got {came}")
        metric = recipe.select_on if recipe.select_on in METRICS else DEFAULT_TUNING_METRIC
        names = tuple(self.values.get("tuning_datasets", self.values["datasets"]))
        absent = [name for name in names if name not in self.values["datasets"]]
        if absent or not names:
            raise SettingError(("tuning_datasets",), f"must be some of datasets, got {absent[0] if absent else 'none'}")
        some = () if names == tuple(self.values["datasets"]) else names
        return Tuning({name: tuple(values) for name, values in given.items()}, recipes, seeds, metric, some)

    def elsewhere(self, declared: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], tuple[str, Network]]:
        """The variants of other studies that contrasts name."""
        own = {
            "recipe": self.recipe(),
            "tuned": "recipe_axes" in self.values,
            "source": self.source(),
            **{k: self.values[k] for k in ("datasets", "seeds")},
        }
        return variants_elsewhere(declared, self.text.path.absolute(), own, self.other)

    def other(self, path: Path) -> Study:
        """Another study, with this one's options for what cells are, and without its own contrasts."""
        options = [one for one in self.text.overrides if one[0].split(".")[0] in SHARED]
        text = StudyText(path, [*options, ("contrasts", "contrasts", [])])
        try:
            STUDY.parse(text.values)
            return _Reader(text).study()
        except SettingError as error:
            raise text.located(error) from None

    def words(self, key: str) -> str:
        """The text under a key as one line, empty where the file leaves it out."""
        return " ".join(self.values.get(key, "").split())

    def strategy(self) -> StrategyChoice:
        select_on = self.values.get("recipe", {}).get("select_on", Recipe().select_on)
        return read_strategy(self.values.get("strategy", {"name": GRID}), select_on)

    def axes(self, strategy: StrategyChoice) -> dict[str, tuple[Any, ...] | Range]:
        given = self.values.get("axes", {})
        has_axes, has_variants = "axes" in self.values, "variants" in self.values
        if has_axes and has_variants:
            raise SettingError(("variants",), "must be left out where axes are given, got both")
        if not given and not has_variants:
            kind = "at least one axis" + ("" if not strategy.is_grid else " (or variants in its place)")
            raise SettingError(("axes",), f"must name {kind}, got nothing: the study would be empty")
        for name in given:
            if name in self.values.get("variant", {}):
                raise SettingError(
                    ("axes", name), f"must not be set under variant too, got {self.values['variant'][name]} there"
                )
        if "split_ratio" in given and "branches" in given:
            raise SettingError(("axes", "split_ratio"), "must not stand beside branches, got both")
        return {name: self.axis(name, values, strategy) for name, values in given.items()}

    def axis(self, name: str, values: Any, strategy: StrategyChoice) -> tuple[Any, ...] | Range:
        path: Keys = ("axes", name)
        if isinstance(values, dict):
            return self.range(name, values, strategy)
        if not isinstance(values, list):
            kind = "a list of values" if strategy.is_grid else "a list of values or a range {low, high}"
            raise SettingError(path, f"must be {kind}, got {shown(values)}{hint(values)}")
        if not values:
            raise SettingError(path, "must list at least one value, got []: the study would be empty")
        parsed = tuple(self.value(name, value, (*path, index)) for index, value in enumerate(values))
        refuse_repeats(parsed, values, path)
        return parsed

    def range(self, name: str, values: Mapping[str, Any], strategy: StrategyChoice) -> Range:
        path: Keys = ("axes", name)
        kind = (AXES | SUGAR)[name].number
        if strategy.is_grid or kind is None:
            why = "in a grid" if strategy.is_grid else "for this axis"
            raise SettingError(path, f"must be a list of values {why}, got {shown(values)}")
        for key in values:
            if key not in RANGE:
                raise SettingError((*path, key), one_of(key, RANGE))
        for key in ("low", "high"):
            if key not in values:
                raise SettingError((*path, key), "must be given, got nothing")
            number = self.value(name, values[key], (*path, key))
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise SettingError((*path, key), f"must be a number, got {shown(number)}")
        low, high, log, step = values["low"], values["high"], values.get("log", False), values.get("step")
        if low >= high:
            raise SettingError((*path, "high"), f"must be above low ({low}), got {high}")
        if not isinstance(log, bool):
            raise SettingError((*path, "log"), f"must be true or false, got {shown(log)}")
        if log and low <= 0:
            raise SettingError((*path, "low"), f"must be above 0 on a logarithmic scale, got {low}")
        if log and step is not None:
            raise SettingError((*path, "step"), f"must be left out on a logarithmic scale, got {step}")
        whole = kind.whole
        if step is not None:
            rule = "a whole number above 0" if whole else "a number above 0"
            if isinstance(step, bool) or not isinstance(step, int if whole else int | float) or not step > 0:
                raise SettingError((*path, "step"), f"must be {rule}, got {shown(step)}{hint(step)}")
            steps = (high - low) / step
            if math.isinf(steps) or not math.isclose(steps, round(steps), abs_tol=1e-9) or round(steps) < 1:
                raise SettingError((*path, "step"), f"must lead from {low} to {high} in whole steps, got {step}")
        return Range(low, high, log, step) if whole else Range(float(low), float(high), log, step and float(step))

    def named(self, strategy: StrategyChoice) -> dict[str, Network]:
        if "variants" not in self.values:
            return {}
        path: Keys = ("variants",)
        if not strategy.is_grid:
            raise SettingError(path, f"must be left out where strategy.name is {strategy.name}, got a list of variants")
        if not self.values["variants"]:
            raise SettingError(path, "must name at least one variant, got none: the study would be empty")
        named: dict[str, Network] = {}
        for name, values in self.values["variants"].items():
            below: Keys = ("variants", name)
            if not name.strip() or not name.isprintable():
                raise SettingError(path, f"must have names of one line as keys, got {name!r}")
            if not isinstance(values, dict):
                raise SettingError(below, f"must be a mapping of axes to values, got {shown(values)}")
            plain = {key: value for key, value in values.items() if "weights" not in values or key not in WEIGHT_KEYS}
            if is_peer(plain):
                variant: Network = read_network(plain, below)
            else:
                checked_names(plain, (*AXES, *SUGAR), below)
                variant = self.point(plain, below)
            if "weights" in values:
                variant = read_pretrained(without_weights(variant), values, below)
            for earlier, known in named.items():
                if known == variant:
                    raise SettingError(below, f"must differ from every other variant, got the same as {earlier}")
            named[name] = variant
        return named

    def grid(self, axes: Mapping[str, tuple[Any, ...] | Range]) -> tuple[tuple[str, Network], ...]:
        lists = {name: values for name, values in axes.items() if not isinstance(values, Range)}
        seen: dict[str, str] = {}
        grid = []
        for choice in itertools.product(*lists.values()):
            values = dict(zip(lists, choice))
            shape = ", ".join(f"{name}: {to_json(value)}" for name, value in values.items())
            variant = self.point(values, ("axes",), f" (at {shape})" if len(values) > 1 else "")
            if variant.variant_id in seen:
                raise SettingError(
                    ("axes",),
                    f"must give different variants, got one variant twice: "
                    f"{{{seen[variant.variant_id]}}} and {{{shape}}}",
                )
            seen[variant.variant_id] = shape
            grid.append((variant.label(self.base), variant))
        return tuple(grid)

    def value(self, name: str, value: Any, path: Keys) -> Any:
        """The canonical value of an axis; errors name the place in the file."""
        return (AXES | SUGAR)[name].kind.parse(value, path)

    def point(self, values: Mapping[str, Any], path: Keys, suffix: str = "") -> VariantConfig:
        """The variant made of the base and values of axes; errors name the place in the file."""
        for name, value in values.items():
            self.value(name, value, (*path, name))
        try:
            return VariantConfig.from_dict(values, base=self.base)
        except SettingError as error:
            if error.path and error.path[0] in values:
                raise SettingError((*path, *error.path), f"{error.problem}{suffix}") from None
            raise SettingError(path, f": {error}{suffix}") from None

    def source(self) -> dict[str, Any]:
        """The source settings, with absolute folders because workers change directory."""
        source = dict(self.values.get("source", {}))
        path: Keys = ("source",)
        kind = source.get("kind")
        for key in source:
            if kind is not None and key not in ("kind", *READERS[kind].keys):
                raise SettingError((*path, key), f"must be left out where source.kind is {kind}, got {source[key]}")
        if kind is not None and READERS[kind].folder == "required" and "root" not in source:
            raise SettingError((*path, "root"), f"must be given where source.kind is {kind}, got nothing")
        for key in ("root", "cache"):
            if key not in source:
                continue
            try:
                source[key] = str(Path(source[key]).expanduser().absolute())
            except RuntimeError as error:
                raise SettingError((*path, key), f"must be a folder, got {source[key]!r} ({error})") from None
        return source

    def datasets(self) -> tuple[str, ...]:
        """The names of the data sets, each that lies in files as its folds where the source declares any."""
        return tuple(fold for name in self.values["datasets"] for fold in self.folds(name))

    def folds(self, name: str) -> list[str]:
        folds = self.values.get("source", {}).get("folds")
        built_in = folds is None or name.startswith(PHANTOM_PREFIX) or fold_of(name)[1] is not None
        return [name] if built_in else fold_names(name, folds)

    def own_sources(self) -> dict[str, str]:
        """The sources that the file names, of its own data sets."""
        given = dict(self.values.get("sources", {}))
        checked_names(given, self.values["datasets"], ("sources",))
        return {fold: key for name, key in given.items() for fold in self.folds(name)}

    def recipe(self) -> Recipe:
        return Recipe.from_dict(self.values.get("recipe", {}))
