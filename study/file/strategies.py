"""Reader of a study file's strategy: which keys belong to it, and what they are where the file leaves them out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.metrics import METRICS
from medmamba_variants.config import PRESETS
from medmamba_variants.design.axes import AXES, SUGAR
from medmamba_variants.design.kinds import Keys, SettingError
from medmamba_variants.hints import shown
from study.declaration.definition import GRID, Range, StrategyChoice
from study.declaration.racing import RACING
from study.declaration.racing import SETTINGS as RACE_SETTINGS
from study.strategies.samplers import SAMPLERS, sampler_settings

# Compares variants where epochs are chosen by the loss, or not at all.
DEFAULT_RACING_METRIC = "macro_auc_ovr"


def read_strategy(values: Mapping[str, Any], select_on: str) -> StrategyChoice:
    """The strategy in a file; its keys and their kinds are checked already. select_on: what picks an epoch.

    Raises SettingError for a key that the strategy lacks or does not know.
    """
    given = {**values}
    name = given.pop("name")
    if name == GRID:
        _refuse(given, (), name)
        return StrategyChoice()
    if name == RACING:
        _refuse(given, ("seed", *RACE_SETTINGS), name)
        metric = select_on if select_on in METRICS else DEFAULT_RACING_METRIC
        settings = {"alpha": RACE_SETTINGS["alpha"].default, "metric": metric}
        settings |= {key: given[key] for key in RACE_SETTINGS if key in given}
        settings["alpha"] = float(settings["alpha"])
        return StrategyChoice(name, seed=given.get("seed", 0), settings=settings)
    for key in ("trials", "objectives"):
        if not given.get(key):
            raise SettingError(
                ("strategy", key), f"must be given where strategy.name is {name}, got {shown(given.get(key))}"
            )
    settings = {key: setting.default for key, setting in SAMPLERS[name].settings.items()}
    others = [key for key in (*sampler_settings(), *RACE_SETTINGS) if key not in settings]
    _refuse({key: given[key] for key in others if key in given}, (), name)
    settings |= {key: given.pop(key) for key in settings if key in given}
    given["objectives"] = tuple(given["objectives"])
    given.pop("start", None)
    if "max_macs" in given:
        given["max_macs"] = float(given["max_macs"])
    return StrategyChoice(name, settings=settings, **given)


def read_start(
    start: Sequence[str | Mapping[str, Any]], axes: Mapping[str, tuple[Any, ...] | Range]
) -> tuple[Mapping[str, Any], ...]:
    """The points that a search of these axes starts from, in the axes' canonical values.

    Of a preset what is among the values searched, the rest being left to the sampler. Raises SettingError for a point
    that sets another axis, or an axis to another value, and for a preset of which nothing is left.
    """
    points: list[Mapping[str, Any]] = []
    for place, given in enumerate(start):
        path: Keys = ("strategy", "start", place)
        if isinstance(given, str):
            preset = PRESETS[given]
            point = {name: getattr(preset, name) for name in axes}
            point = {name: value for name, value in point.items() if _is_searched(value, axes[name])}
            if not point:
                raise SettingError(
                    path, f"must have a value that is searched on some axis, got {given}, which has none"
                )
        else:
            point = {}
            for name, value in given.items():
                if name not in axes:
                    raise SettingError((*path, name), f"must be one of axes ({', '.join(axes)}), got another")
                point[name] = (AXES | SUGAR)[name].kind.parse(value, (*path, name))
                if not _is_searched(point[name], axes[name]):
                    raise SettingError((*path, name), f"must be a value that axes.{name} searches, got {shown(value)}")
        points.append(point)
    return tuple(points)


def _is_searched(value: Any, values: tuple[Any, ...] | Range) -> bool:
    """Whether a search may propose a value of an axis."""
    if not isinstance(values, Range):
        return value in values
    if isinstance(value, bool) or not isinstance(value, int | float) or not values.low <= value <= values.high:
        return False
    steps = 0.0 if values.step is None else (value - values.low) / values.step
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def _refuse(given: Mapping[str, Any], known: tuple[str, ...], name: str) -> None:
    for key, value in given.items():
        if key not in known:
            raise SettingError(("strategy", key), f"must be left out where strategy.name is {name}, got {value}")
