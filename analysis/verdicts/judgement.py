"""The tests behind verdicts, one per level: over data sets, on one data set, of two sets of weights.

Each returns a `Judgement` of against − baseline, with an interval, the p value of no difference, and that of a
difference beyond the margin (two one-sided tests; 1 where no margin is declared).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.across.mean_tests import t_over_means, tost
from analysis.across.rank_tests import signed_rank
from analysis.distributions import t_quantile, t_tail
from analysis.interval import Interval
from analysis.paired.auc import delong
from analysis.paired.bootstrap import matched_difference, matched_two_level
from analysis.paired.models import Matched, matched
from analysis.records.predictions import Pairing

IN_GENERAL, THIS_DATA_SET, THESE_WEIGHTS = "in general", "this data set", "these weights"
LEVEL = 0.95
# Fixed for every study: a data set without any difference is evidence against one, so it keeps its rank (Pratt 1959).
ZEROS: Literal["wilcox", "pratt"] = "pratt"


@dataclass(frozen=True)
class Judgement:
    """The result of a test, with its level ("" where nothing could be tested; all numbers are then NaN).

    standard_error, df: of the t tests for equivalence, the normal distribution with infinitely many degrees of freedom.
    rank_effect: matched-pairs rank-biserial correlation over data sets, −1 … 1; NaN for a single one.
    """

    level: str
    interval: Interval
    p_value: float
    equivalence_p: float
    standard_error: float
    df: float
    rank_effect: float
    test: str

    def equivalence_interval(self, difference: float, alpha: float) -> Interval:
        """The interval of level 1 − 2α that lies within the margin where both one-sided tests have p ≤ α."""
        half = -t_quantile(alpha, self.df) * self.standard_error
        over, n = self.interval.over, self.interval.n
        return Interval(difference - half, difference + half, 1 - 2 * alpha, over, n)


def untested(over: str, n: int) -> Judgement:
    """The judgement where nothing could be tested; `over` and `n` say what there was."""
    nan = math.nan
    return Judgement("", Interval(nan, nan, LEVEL, over, n), nan, nan, nan, nan, nan, "")


def in_general(differences: Sequence[float] | np.ndarray, margin: float, over: str = "data sets") -> Judgement:
    """The judgement of paired differences, one per data set, seeds averaged: the uncertainty over data sets.

    over: what the differences are of, "sources" where files of one source were averaged.

    The exact signed-rank test decides on a difference; the interval is Student's for the mean, and two one-sided t
    tests compare the mean with the margin. Needs at least two data sets.
    """
    mean = t_over_means(differences, level=LEVEL)
    of_means = "data-set means" if over == "data sets" else "means of sources"
    ranks = signed_rank(differences, zeros=ZEROS)
    return Judgement(
        level=IN_GENERAL,
        interval=replace(mean.interval, over=over),
        p_value=ranks.p_value,
        equivalence_p=tost(differences, margin).p_value if margin > 0 else 1.0,
        standard_error=mean.standard_deviation / math.sqrt(mean.n),
        df=float(mean.df),
        rank_effect=ranks.effect,
        test=f"signed-rank test over {of_means} ({ranks.method}, zeros by Pratt)",
    )


def on_dataset(
    metric: str, margin: float, pairing: Pairing | Matched | None, *, rng: np.random.Generator | None, draws: int
) -> Judgement:
    """The judgement of two variants' predictions on one data set: over seeds and test images, or images with one seed.

    Several seeds: the two-level bootstrap, equivalence by its standard error with seeds − 1 degrees of freedom. One
    seed: DeLong for macro-AUC, else a paired bootstrap, equivalence by the normal distribution (DeLong's by t where
    images share groups). Images that share a group are drawn together. Without predictions, or without rng where
    something must be drawn, nothing is tested.
    """
    if pairing is None:
        return untested("test images", 0)
    images = matched(pairing)
    if images.n_seeds > 1:
        if rng is None:
            return untested("seeds and test images", images.n_seeds)
        levels = matched_two_level(metric, images, rng=rng, draws=draws, level=LEVEL)
        df, test = float(images.n_seeds - 1), f"two-level bootstrap over {levels.interval.over}"
        error = levels.standard_error
        beyond = _beyond(levels.difference, error, margin, df, images)
        return Judgement(THIS_DATA_SET, levels.interval, levels.p_value, beyond, error, df, math.nan, test)
    against, baseline = images.against[0].probabilities, images.baseline[0].probabilities
    if metric == "macro_auc_ovr":
        areas = delong(images.labels, against, baseline, groups=images.groups, level=LEVEL)
        df = math.inf if images.groups is None else float(areas.interval.n - 1)
        error = math.sqrt(areas.variance)
        beyond = _beyond(areas.difference, error, margin, df, images)
        return Judgement(THESE_WEIGHTS, areas.interval, areas.p_value, beyond, error, df, math.nan, "DeLong's test")
    if rng is None:
        return untested("test images", images.n_images)
    drawn = matched_difference(metric, images, rng=rng, draws=draws, level=LEVEL)
    error, df = drawn.standard_error, math.inf
    beyond = _beyond(drawn.difference, error, margin, df, images)
    test = f"paired bootstrap over {drawn.interval.over}"
    return Judgement(THESE_WEIGHTS, drawn.interval, drawn.p_value, beyond, error, df, math.nan, test)


def _beyond(difference: float, standard_error: float, margin: float, df: float, images: Matched) -> float:
    """The larger p of two one-sided tests of a difference against −margin and +margin.

    Never below (1 − margin)^images (groups, where given): models whose accuracies are a margin apart differ on that
    share of all images at least, and this is the probability that they agree on all of these. Without it, two models
    that agree on some forty images would have a standard error of 0 and be equivalent for certain.
    """
    if margin <= 0:
        return 1.0
    room = margin - abs(difference)
    if math.isnan(room) or math.isnan(standard_error):
        return math.nan
    units = images.n_images if images.groups is None else len(np.unique(images.groups))
    if standard_error == 0:
        p_value = 0.0 if room > 0 else 1.0
    else:
        p_value = t_tail(room / standard_error, df)
    return max(p_value, (1 - margin) ** units)
