"""The confidence interval of an estimate: its ends, its level, and what it is an interval over."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.distributions import normal_tail, t_quantile


@dataclass(frozen=True)
class Interval:
    """A confidence interval, with its level and the uncertainty that it captures.

    over: what would be drawn anew, such as "test images", "groups of test images", "seeds and test images" or "data
    sets"; whatever it does not name is held fixed. n: how many of those there were (of the first, where two are
    named). level: such as 0.95. low and high are NaN where the design gives no interval (one seed, one data set).
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

    @property
    def percent(self) -> str:
        """The level as a reader sees it, such as 95 %."""
        return f"{100 * self.level:g} %"

    def basis(self, noun: str = "") -> str:
        """Level, unit and n in words, such as 95 % over data sets, n = 8; `noun` follows the level."""
        return f"{' '.join(filter(None, (self.percent, noun)))} over {self.over}, n = {self.n}"

    def __str__(self) -> str:
        where = self.basis()
        if not self.is_defined:
            return f"no interval ({where})"
        return f"[{self.low:.4f}, {self.high:.4f}] ({where})"


def expanded_percentiles(values: np.ndarray, level: float, over: str, n: int) -> Interval:
    """An interval from bootstrap draws of n units: percentiles, moved outwards to make up for few units.

    Plain percentiles of n units are too narrow, by √((n − 1) / n) and by the normal's quantile in the place of t's; the
    expanded percentile interval (Hesterberg 2015, section 5) mends both. Undefined with one unit, where nothing can be
    drawn anew, and where a draw is undefined; and with fewer units than can reach the level, five for .95: a draw of
    one and the same unit is then likelier than the tail, and the range of all draws would hold the truth in 50, 75 and
    88 % of samples of two, three and four.
    """
    if n < 2 or np.isnan(values).any():
        return Interval(math.nan, math.nan, level, over, n)
    reach = math.sqrt(n / (n - 1)) * -t_quantile((1 - level) / 2, n - 1)
    tail = normal_tail(reach)
    if float(n) ** -n > tail:
        return Interval(math.nan, math.nan, level, over, n)
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), level, over, n)


def check_generator(rng: object) -> None:
    """Raises ValueError, one line, unless rng is a numpy Generator: a seed or None would hide where draws come from."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng must be a numpy Generator such as np.random.default_rng(0), got {type(rng).__name__}")
