"""Samplers of Optuna by name: a sampler is one entry, with its own settings and the function that makes it.

Optuna is imported where a sampler is made, so that reading a study file stays instant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medmamba_variants.design.kinds import Setting, whole

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Draw:
    """What a trial's draws depend on: its own seed, its number, the search's seed, and the names of the axes."""

    seed: int
    number: int
    search_seed: int
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Sampler:
    """A sampler of variants: `make(draw, settings)` is Optuna's object for one trial, `settings` its own keys.

    stuck_after: the number of proposals in a row without a new variant after which the next is drawn at random, for
    samplers that would propose the same again; None for others.
    """

    make: Callable[[Draw, Mapping[str, Any]], BaseSampler]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    stuck_after: int | None = None


def _random(draw: Draw, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=draw.seed)


def _tpe(draw: Draw, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=draw.seed)


def _nsga2(draw: Draw, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=draw.seed, population_size=settings["population"])


def _nsga3(draw: Draw, settings: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import NSGAIIISampler

    return NSGAIIISampler(seed=draw.seed, population_size=settings["population"])


def _gp(draw: Draw, settings: Mapping[str, Any]) -> BaseSampler:
    """Gaussian processes of the objectives and of max_macs; axes that are not alive everywhere are drawn by TPE."""
    from optuna.samplers import GPSampler, TPESampler

    return GPSampler(
        seed=draw.seed,
        independent_sampler=TPESampler(seed=draw.seed),
        n_startup_trials=settings["startup"],
        warn_independent_sampling=False,
    )


def _quasi_random(draw: Draw, settings: Mapping[str, Any]) -> BaseSampler:
    """Scrambled Sobol points (Owen 1998), a dimension an axis; Optuna's own leaves out every list of choices."""
    from optuna.samplers import BaseSampler as Base
    from scipy.stats import qmc

    points = qmc.Sobol(len(draw.axes), scramble=True, rng=np.random.default_rng(draw.search_seed))
    if draw.number:
        points.fast_forward(draw.number)
    point = points.random(1)[0]

    class QuasiRandom(Base):
        """A sampler whose draws are the coordinates of one point of the unit cube."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return _stretched(float(point[draw.axes.index(param_name)]), param_distribution)

    return QuasiRandom()


def _stretched(share: float, distribution: Any) -> Any:
    """The value of a distribution at a share in [0, 1) of it, on its scale."""
    if hasattr(distribution, "choices"):
        return distribution.choices[int(share * len(distribution.choices))]
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        value = low + step * int(share * (round((high - low) / step) + 1))
        return int(value) if isinstance(low, int) else float(value)
    if isinstance(low, int):  # whole numbers on a logarithmic scale: each the width that rounds to it
        value = math.exp(math.log(low - 0.5) + share * (math.log(high + 0.5) - math.log(low - 0.5)))
        return min(high, max(low, round(value)))
    if distribution.log:
        return min(high, max(low, math.exp(math.log(low) + share * (math.log(high) - math.log(low)))))
    return low + share * (high - low)


POPULATION = {"population": Setting(whole(2, 10_000), "variants in a generation", default=16)}
SAMPLERS: dict[str, Sampler] = {
    "random": Sampler(_random),
    "quasi_random": Sampler(_quasi_random),
    "tpe": Sampler(_tpe),
    "gp": Sampler(_gp, {"startup": Setting(whole(1, 10_000), "variants at random first", default=10)}, stuck_after=5),
    "nsga2": Sampler(_nsga2, POPULATION),
    "nsga3": Sampler(_nsga3, POPULATION),
}


def sampler_settings() -> dict[str, Setting]:
    """The settings of all samplers, as a study file may give them; each meaning says whose it is."""
    owners: dict[str, list[str]] = {}
    for name, sampler in SAMPLERS.items():
        for key in sampler.settings:
            owners.setdefault(key, []).append(name)
    for key, names in owners.items():
        kinds = [SAMPLERS[name].settings[key].kind for name in names]
        assert all(kind == kinds[0] for kind in kinds), (
            f"{key} must mean one thing, got another in {' and '.join(names)}"
        )
    return {
        key: Setting(
            SAMPLERS[names[0]].settings[key].kind,
            f"{SAMPLERS[names[0]].settings[key].meaning} ({' and '.join(names)} only)",
        )
        for key, names in owners.items()
    }
