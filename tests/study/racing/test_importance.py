"""Importance of axes: against the variance of a function that is known, and which trials count."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from study.strategies.importance import axis_importance, feasible

CHOICES = CategoricalDistribution(["a", "b", "c", "d"])
EFFECTS = {"x": [0.0, 1.0, 2.0, 3.0], "y": [0.0, 0.5, 1.0, 1.5], "z": [0.0, 0.0, 0.0, 0.0]}


def trial(x, y, z, excess=None, state=TrialState.COMPLETE, extra=None):
    params = {"x": CHOICES.choices[x], "y": CHOICES.choices[y], "z": CHOICES.choices[z]} | (extra or {})
    value = EFFECTS["x"][x] + EFFECTS["y"][y] + EFFECTS["z"][z]
    return create_trial(
        state=state,
        values=[1.0, value] if state == TrialState.COMPLETE else None,
        params=params,
        distributions=dict.fromkeys(params, CHOICES),
        system_attrs={} if excess is None else {"constraints:max_macs": excess},
    )


@pytest.fixture(scope="module")
def grid():
    return [trial(x, y, z) for x in range(4) for y in range(4) for z in range(4)]


def test_shares_are_those_of_an_additive_function(grid):
    found = axis_importance(grid, 1, np.random.default_rng(0), draws=4)
    assert [one.axis for one in found] == ["x", "y", "z"]
    # Variances of the effects are as 4 to 1 to 0; trees that split the larger one first leave some of the smaller.
    assert [one.share for one in found] == pytest.approx([0.8, 0.2, 0.0], abs=0.1)
    assert all(0 <= one.low <= one.share + 0.05 and one.share - 0.05 <= one.high <= 1 for one in found)
    assert found[0].low < found[0].high
    assert axis_importance(grid, 0, np.random.default_rng(0)) == []


def test_only_feasible_trials_with_objectives_count(grid):
    bad = [trial(0, 3, 3, excess=0.5), trial(0, 2, 2, state=TrialState.PRUNED)]
    assert feasible([*bad, *grid, grid[0]]) == grid
    assert axis_importance(grid[:9], 1, np.random.default_rng(0)) == []
    kept = [trial(x, y, 0, excess=-0.5) for x in range(4) for y in range(4)]
    assert feasible(kept) == kept


def test_an_axis_that_some_variants_lack_is_left_out(grid):
    some = [trial(x, y, 0, extra={"w": "a" if x < 2 else "b"} if y else None) for x in range(4) for y in range(4)]
    assert [one.axis for one in axis_importance(some, 1, np.random.default_rng(0), draws=2)] == ["x", "y"]
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
