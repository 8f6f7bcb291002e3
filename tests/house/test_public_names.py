"""Names that scripts outside of this project call: they stay, and so do their parameters."""

import inspect

import numpy as np
import pandas as pd
import pytest

from analysis.across import friedman, mixed_model, signed_rank
from analysis.paired import bootstrap_difference, delong
from analysis.verdicts import decide

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 2
A, B = RNG.random((2, 40))


@pytest.mark.parametrize(
    ("function", "leading", "by_name"),
    [
        (delong, ["labels", "probabilities_a", "probabilities_b"], []),
        (bootstrap_difference, ["metric", "labels", "a", "b"], ["groups", "rng"]),
        (signed_rank, ["differences"], ["zeros"]),
        (friedman, ["table"], []),
        (mixed_model, ["table"], []),
        (decide, ["table", "contrast"], []),
    ],
)
def test_parameters_keep_their_names_and_places(function, leading, by_name):
    parameters = inspect.signature(function).parameters
    assert list(parameters)[: len(leading)] == leading and set(by_name) <= set(parameters)
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required - {"rng"} == set(leading)


def test_delong_takes_one_column_two_or_a_column_a_class():
    one, two = delong(LABELS, A, B), delong(LABELS, np.stack([1 - A, A], axis=1), np.stack([1 - B, B], axis=1))
    assert one == two
    three = delong(np.arange(40) % 3, *RNG.dirichlet(np.ones(3), (2, 40)))
    for found in (one, three):
        assert found.difference == found.auc_a - found.auc_b
        assert found.interval.low < found.difference < found.interval.high
        assert found.variance > 0 and found.z == pytest.approx(found.difference / found.variance**0.5)
        assert 0 < found.p_value <= 1


def test_the_others_run_on_what_their_names_promise():
    drawn = bootstrap_difference("macro_f1", LABELS, A, B, groups=np.arange(40) // 2, rng=RNG, draws=50)
    assert drawn.interval.over == "groups of test images"
    differences = [0.2, -0.1, 0.0, 0.3, 0.4, 0.1]
    assert signed_rank(differences, zeros="wilcox").n == signed_rank(differences, zeros="pratt").n == 5
    values = pd.DataFrame(RNG.random((6, 3)), columns=["x", "y", "z"])
    assert friedman(values).df == (2, 10)
    assert [effect.name for effect in mixed_model(values).effects] == ["y", "z"]
    rows = [(v, f"d{i}", 0, value) for i, row in values.iterrows() for v, value in row.items()]
    table = pd.DataFrame(rows, columns=["variant_id", "dataset", "seed", "test.macro_f1"]).assign(status="done")
    verdict = decide(table, {"name": "y or x", "baseline": "x", "against": "y", "metric": "macro_f1", "margin": 0.01})
    assert verdict.outcome in ("superior", "inferior", "equivalent", "inconclusive") and verdict.exploratory
