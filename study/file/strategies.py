"""Reader of a study file's strategy: which keys belong to it, and what they are where the file leaves them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.metrics import METRICS
from medmamba_variants.design.kinds import SettingError
from medmamba_variants.hints import shown
from study.declaration.definition import GRID, StrategyChoice
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
    if "max_macs" in given:
        given["max_macs"] = float(given["max_macs"])
    return StrategyChoice(name, settings=settings, **given)


def _refuse(given: Mapping[str, Any], known: tuple[str, ...], name: str) -> None:
    for key, value in given.items():
        if key not in known:
            raise SettingError(("strategy", key), f"must be left out where strategy.name is {name}, got {value}")
