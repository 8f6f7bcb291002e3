"""Samplers of Optuna by name: a sampler is one entry, with its own settings and the function that makes it.

Optuna is imported where a sampler is made, so that reading a study file stays instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medmamba_variants.design.kinds import Setting, whole

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Sampler:
    """A sampler of variants: `make(seed, settings)` is Optuna's object for one trial, `settings` its own keys."""

    make: Callable[[int, Mapping[str, Any]], BaseSampler]
    settings: Mapping[str, Setting] = field(default_factory=dict)


def _random(seed: int, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _tpe(seed: int, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _nsga2(seed: int, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=settings["population"])


SAMPLERS: dict[str, Sampler] = {
    "random": Sampler(_random),
    "tpe": Sampler(_tpe),
    "nsga2": Sampler(_nsga2, {"population": Setting(whole(2, 10_000), "variants in a generation", default=16)}),
}


def sampler_settings() -> dict[str, Setting]:
    """The settings of all samplers, as a study file may give them; each meaning says whose it is."""
    owners: dict[str, list[str]] = {}
    for name, sampler in SAMPLERS.items():
        for key in sampler.settings:
            owners.setdefault(key, []).append(name)
    return {
        key: Setting(
            SAMPLERS[names[0]].settings[key].kind,
            f"{SAMPLERS[names[0]].settings[key].meaning} ({' and '.join(names)} only)",
        )
        for key, names in owners.items()
    }
