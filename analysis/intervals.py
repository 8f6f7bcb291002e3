"""The interval that every estimate of `analysis` carries: its ends, its level, and what it is an interval over."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A confidence interval that says which uncertainty it holds.

    over: what would be drawn anew, such as "test images", "image groups", "seeds and test images" or "data sets";
    whatever it does not name is held fixed. n: how many of it there were, of the first named where two are.
    level: such as 0.95. low and high are NaN where the design gives no interval (one seed, one data set).
    """

    low: float
    high: float
    level: float
    over: str
    n: int

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level must be between 0 and 1, got {self.level}")
        if self.low > self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        if self.n < 0:
            raise ValueError(f"n must not be negative, got {self.n}")

    @property
    def is_defined(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __contains__(self, value: float) -> bool:
        """Whether a value lies inside, ends included; never where the interval is undefined."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        where = f"{100 * self.level:g} % over {self.over}, n = {self.n}"
        if not self.is_defined:
            return f"no interval ({where})"
        return f"[{self.low:.4f}, {self.high:.4f}] ({where})"
