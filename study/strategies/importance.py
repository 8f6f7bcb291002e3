"""Importance of a search's axes, with intervals over resamples of its trials.

The question answered: of the variance of an objective over the whole space, as a random forest sees it, which share
goes with an axis alone, averaged over all others (functional ANOVA, Hutter et al. 2014, by Optuna)? Optuna's default
asks another, what sets the best tenth of the trials apart, and counts those that never trained. Only trials with
objectives count here, once each variant. An axis that some of them lack cannot be judged beside the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import optuna

# Trees of a forest; forests, each fitted to the trials drawn anew with replacement.
TREES = 16
DRAWS = 20
# With fewer trials a forest sees next to nothing.
FEWEST_TRIALS = 10


@dataclass(frozen=True)
class Importance:
    """An axis's share of an objective's variance, and where 95 % of it lie over resamples of the trials."""

    axis: str
    share: float
    low: float
    high: float


def axis_importance(
    trials: Sequence[optuna.trial.FrozenTrial], place: int, rng: np.random.Generator, draws: int = DRAWS
) -> list[Importance]:
    """The importance of each axis that all trials choose for their objective at `place`, the largest first.

    Trials without objectives, or beyond a constraint, are left out. Empty where fewer than ten remain, where no axis is
    in all of them, or where all are equally good. The interval captures which variants were tried, not the noise of
    their own training.
    """
    known = feasible(trials)
    if len(known) < FEWEST_TRIALS:
        return []
    axes = sorted(set.intersection(*(set(trial.params) for trial in known)))
    axes = [name for name in axes if len({trial.params[name] for trial in known}) > 1]
    if not axes or len({trial.values[place] for trial in known}) < 2:
        return []
    whole = _shares(known, axes, place)
    drawn = []
    for _ in range(draws):
        sample = [known[i] for i in rng.integers(0, len(known), len(known))]
        if len({trial.values[place] for trial in sample}) > 1:
            drawn.append([_shares(sample, axes, place)[name] for name in axes])
    lows, highs = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    found = [Importance(name, whole[name], float(low), float(high)) for name, low, high in zip(axes, lows, highs)]
    return sorted(found, key=lambda one: -one.share)


def feasible(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """The trials with objectives that keep to every constraint, the first of each variant."""
    first: dict[str, optuna.trial.FrozenTrial] = {}
    for trial in trials:
        if trial.values is not None and all(excess <= 0 for excess in trial.constraints.values()):
            first.setdefault(str(sorted(trial.params.items())), trial)
    return list(first.values())


def _shares(trials: Sequence[optuna.trial.FrozenTrial], axes: Sequence[str], place: int) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for trial in trials:
            copy = optuna.trial.create_trial(
                value=trial.values[place],
                params={name: trial.params[name] for name in axes},
                distributions={name: trial.distributions[name] for name in axes},
            )
            study.add_trial(copy)
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=0)
        found = evaluator.evaluate(study, params=list(axes))
        return {name: float(share) for name, share in found.items()}
    finally:
        optuna.logging.set_verbosity(verbosity)
