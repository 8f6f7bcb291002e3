"""The tests behind verdicts, one per level: over data sets, on several that are fixed, on one, of two sets of weights.

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
from analysis.paired.concordance import no_event_bound, ranking_bound
from analysis.paired.levels import Parts, stratified
from analysis.paired.models import Matched, matched
from analysis.records.predictions import Pairing
from analysis.verdicts.levels import IN_GENERAL as IN_GENERAL
from analysis.verdicts.levels import THESE_DATA_SETS as THESE_DATA_SETS
from analysis.verdicts.levels import THESE_WEIGHTS as THESE_WEIGHTS
from analysis.verdicts.levels import THIS_DATA_SET as THIS_DATA_SET

LEVEL = 0.95
# Fixed for every study: a data set without any difference is evidence against one, so it keeps its rank (Pratt 1959).
ZEROS: Literal["wilcox", "pratt"] = "pratt"


@dataclass(frozen=True)
class Judgement:
    """The result of a test, with its level ("" where nothing could be tested; all numbers are then NaN).

    standard_error, df: of the t tests for equivalence, the normal distribution with infinitely many degrees of freedom.
    rank_effect: matched-pairs rank-biserial correlation over data sets, −1 … 1; NaN for a single one. floor, floor_df:
    a second standard error that no interval for equivalence may be narrower than. parts: of a single data set with
    several seeds, the variances of its difference. note: what a reader must know of the interval.
    """

    level: str
    interval: Interval
    p_value: float
    equivalence_p: float
    standard_error: float
    df: float
    rank_effect: float
    test: str
    floor: float = 0.0
    floor_df: float = math.inf
    parts: Parts | None = None
    note: str = ""

    def equivalence_interval(self, difference: float, alpha: float) -> Interval:
        """The interval of level 1 − 2α that lies within the margin where both one-sided tests have p ≤ α."""
        half = -t_quantile(alpha, self.df) * self.standard_error
        if self.floor > 0:
            half = max(half, -t_quantile(alpha, self.floor_df) * self.floor)
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


def on_these(
    differences: Sequence[float],
    judgements: Sequence[Judgement],
    weights: Sequence[float],
    sources: Sequence[int],
    margin: float,
) -> Judgement:
    """The judgement of the mean difference on data sets that are fixed: over their seeds and test images.

    differences, judgements: of each data set, the latter by `on_dataset`; weights: what each counts, adding up to 1;
    sources: a number for each one's source. `analysis.paired.levels.stratified` has the estimate and its two standard
    errors: p and interval are the more cautious ones of a t test over seeds and images, and one over images alone. The
    p of equivalence is never below the probability that models a margin apart agree on every image: the largest over
    all ways in which that mean can come about on one data set. Untested where a data set has a single seed or no
    predictions.
    """
    over = next((j.interval.over for j in judgements if j.parts is not None), "seeds and test images")
    parts = [judgement.parts for judgement in judgements if judgement.parts is not None]
    n_seeds = min((part.df + 1 for part in parts), default=0)
    if len(parts) < len(judgements):
        return untested(over, n_seeds)
    found = stratified(differences, parts, weights, sources)
    value, half = found.difference, found.half_width((1 - LEVEL) / 2)
    beyond = 1.0
    if margin > 0:
        agree = max((1 - min(1.0, margin / weight)) ** part.units for weight, part in zip(weights, parts))
        beyond = max(found.p_beyond(margin - abs(value)), agree)
    df = "∞" if math.isinf(found.df) else f"{found.df:.1f}"
    return Judgement(
        level=THESE_DATA_SETS,
        interval=Interval(value - half, value + half, LEVEL, over, n_seeds),
        p_value=min(1.0, 2 * found.p_beyond(abs(value))),
        equivalence_p=beyond,
        standard_error=found.error,
        df=found.df,
        rank_effect=math.nan,
        test=f"stratified t test over {over} of the data sets at hand ({df} degrees of freedom)",
        floor=found.floor,
        floor_df=found.floor_df,
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
        judged = Judgement(THIS_DATA_SET, levels.interval, levels.p_value, beyond, error, df, math.nan, test)
        return replace(judged, parts=levels.parts, note=_without_width(metric, levels.interval, images))
    against, baseline = images.against[0].probabilities, images.baseline[0].probabilities
    if metric == "macro_auc_ovr":
        areas = delong(images.labels, against, baseline, groups=images.groups, level=LEVEL)
        df = math.inf if images.groups is None else float(areas.interval.n - 1)
        error = math.sqrt(areas.variance)
        beyond = _beyond(areas.difference, error, margin, df, images)
        judged = Judgement(THESE_WEIGHTS, areas.interval, areas.p_value, beyond, error, df, math.nan, "DeLong's test")
        return replace(judged, note=_without_width(metric, areas.interval, images))
    if rng is None:
        return untested("test images", images.n_images)
    drawn = matched_difference(metric, images, rng=rng, draws=draws, level=LEVEL)
    error, df = drawn.standard_error, math.inf
    beyond = _beyond(drawn.difference, error, margin, df, images)
    test = f"paired bootstrap over {drawn.interval.over}"
    judged = Judgement(THESE_WEIGHTS, drawn.interval, drawn.p_value, beyond, error, df, math.nan, test)
    return replace(judged, note=_without_width(metric, drawn.interval, images))


def _without_width(metric: str, interval: Interval, images: Matched) -> str:
    """What an interval without width hides, in words; empty for any other."""
    if not interval.is_defined or interval.low != interval.high:
        return ""
    flaw = "has no width, which is a flaw of the method and no certainty"
    pairs = list(zip(images.against, images.baseline))
    if metric == "macro_auc_ovr":
        # Of two classes the second column is the ranking.
        first = 1 if images.models[0].classes == 2 and images.labels.ndim == 1 else 0
        scores = [(a.probabilities[:, first:], b.probabilities[:, first:]) for a, b in pairs]
        bound = ranking_bound(images.labels, scores, images.codes)
        if bound is None:
            return flaw
        what, of = f"neither is ahead by more than {bound.value:.3f}", "disjoint pairs of them"
    else:
        if not all(np.array_equal(against.predicted, baseline.predicted) for against, baseline in pairs):
            return flaw
        bound = no_event_bound(images.n_images if images.codes is None else int(images.codes.max()) + 1)
        unit = "test images" if images.codes is None else "groups of them"
        what, of = f"they treat at most {100 * bound.value:.1f} % of {unit} differently", "that they treat alike"
    confidence = f"with {100 * bound.level:g} % confidence"
    return f"{flaw}; {confidence} {what} on test images like these (exact one-sided bound, from {bound.trials} {of})"


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
