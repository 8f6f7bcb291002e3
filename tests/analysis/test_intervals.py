import math

import pytest

from analysis.interval import Interval


def test_an_interval_says_what_it_is_over():
    interval = Interval(-0.0123, 0.045, 0.95, "test images", 624)
    assert str(interval) == "[-0.0123, 0.0450] (95 % over test images, n = 624)"
    assert -0.0123 in interval and 0.0 in interval and 0.0451 not in interval
    assert interval.is_defined


def test_an_undefined_interval_holds_nothing():
    interval = Interval(math.nan, math.nan, 0.9, "seeds", 1)
    assert str(interval) == "no interval (90 % over seeds, n = 1)"
    assert 0.0 not in interval and not interval.is_defined


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 1.0, 95, "seeds", 3), "level must be between 0 and 1, got 95"),
        ((0.2, 0.1, 0.95, "seeds", 3), "low must not be above high, got 0.2 and 0.1"),
        ((0.1, 0.2, 0.95, "seeds", -1), "n must not be negative, got -1"),
    ],
)
def test_bad_intervals(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Interval(*values)
