"""The gain at the end of a learning curve."""

import math

import pytest

from analysis.records.curves import late_gain


def record(values, metric="macro_auc_ovr"):
    return {"curves": [{"epoch": epoch, f"val_{metric}": value} for epoch, value in enumerate(values)]}


@pytest.mark.parametrize(
    ("values", "gain"),
    [
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.85, 0.95], 0.05),
        ([0.5, 0.9, 0.7, 0.8, 0.6], 0.0),
        ([0.5, None, 0.7], 0.2),
        # Seven epochs: a fifth is one.
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8], 0.2),
    ],
)
def test_the_best_of_the_last_fifth_is_held_against_the_best_before(values, gain):
    assert late_gain(record(values), "macro_auc_ovr") == pytest.approx(gain)


def test_of_a_loss_the_lowest_is_best():
    assert late_gain(record([1.0, 0.8, 0.9, 0.8, 0.5], "brier"), "brier") == pytest.approx(0.3)


@pytest.mark.parametrize("values", [[], [0.5], [None, None, 0.5]])
def test_without_epochs_before_there_is_none(values):
    assert math.isnan(late_gain(record(values), "macro_auc_ovr"))
