import json
import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from analysis.across.multiplicity import CORRECTIONS, adjust
from analysis.power import CORRECTIONS as PLANNED
from analysis.selftest.goldens import DATA

ANSWERS = json.loads((DATA / "across_from_r.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", ["holm", "bh"])
def test_adjusted_p_values_are_rs(method):
    assert adjust(ANSWERS["adjust.p"], method) == pytest.approx(ANSWERS[f"adjust.{method}"], abs=1e-12)


@pytest.mark.parametrize("method", ["holm", "bh"])
def test_the_order_given_is_kept(method):
    order = np.random.default_rng(0).permutation(10)
    shuffled = adjust(np.array(ANSWERS["adjust.p"])[order], method)
    assert shuffled == pytest.approx(np.array(ANSWERS[f"adjust.{method}"])[order], abs=1e-12)


@pytest.mark.parametrize(("method", "theirs"), [("holm", "holm"), ("bh", "fdr_bh")])
def test_adjusted_p_values_are_those_of_statsmodels_to_the_last_bit(method, theirs):
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 24, 60):
        # Every other family has ties.
        for values in (rng.random(size) ** 3, rng.integers(0, 5, size) / 40):
            assert adjust(values, method) == tuple(multipletests(values, method=theirs)[1])


def test_corrections_are_those_one_can_plan_with():
    assert CORRECTIONS == PLANNED
    assert adjust([0.2, 0.01], "none") == (0.2, 0.01)


def test_a_contrast_that_could_not_be_tested_still_counts():
    holm = adjust([0.01, math.nan, 0.03], "holm")
    assert holm[0] == pytest.approx(0.03) and math.isnan(holm[1]) and holm[2] == pytest.approx(0.06)
    assert adjust([0.01, math.nan, 0.03], "bh")[0] == pytest.approx(0.03)


def test_small_families():
    for method in CORRECTIONS:
        assert adjust([], method) == () and adjust([0.04], method) == (0.04,)
        assert adjust([1.0, 1.0], method) == (1.0, 1.0) and adjust([0.0, 0.0], method) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("p_values", "method", "message"),
    [
        ([0.1], "sidak", "one of holm, bh, none, got 'sidak'"),
        ([1.2], "holm", "between 0 and 1, got 1.2"),
        ([-0.1], "none", "between 0 and 1, got -0.1"),
        ([[0.1]], "bh", r"one-dimensional, got shape \(1, 1\)"),
    ],
)
def test_bad_p_values_are_one_line(p_values, method, message):
    with pytest.raises(ValueError, match=message) as caught:
        adjust(p_values, method)
    assert "\n" not in str(caught.value)
