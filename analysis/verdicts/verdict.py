"""A verdict as a value, and its wording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from analysis.across.rank_tests import Location
from analysis.interval import Interval
from analysis.records.sources import counted_units, folds_alone
from analysis.verdicts.declared import Contrast
from analysis.verdicts.levels import IN_GENERAL, OVER_FOLDS, THESE_DATA_SETS, THIS_DATA_SET
from analysis.words import bounds, counted, listed, metric_name, p_value, percent, signed

if TYPE_CHECKING:
    from analysis.across.mixed import FixedEffect

Outcome = Literal["superior", "inferior", "equivalent", "inconclusive"]


@dataclass(frozen=True)
class DatasetDifference:
    """against − baseline on one data set, its paired seeds averaged. `interval.over` says what was drawn anew."""

    dataset: str
    difference: float
    interval: Interval
    n_seeds: int
    n_images: int


@dataclass(frozen=True)
class Verdict:
    """The outcome of a contrast and the numbers behind it, NaN where the design or missing data give none.

    estimate: against − baseline, the mean over data sets of means over seeds; negative is better for metrics where less
    is better. n_sources: how many sources the data sets are of, whose files are averaged and count once. level: in
    general, these data sets, this data set, these weights, or "" where nothing is paired. p_value: of no difference;
    equivalence_p: of a difference beyond the margin; adjusted_…: within the family of `family_size` contrasts.
    equivalence_interval: of the estimate, of level 1 − 2α; it lies within the margin where equivalence is found, which
    the 95 % interval need not. n_seeds: paired seeds of the data set that has fewest. n_images: test images, all data
    sets together. cost_ratio: MACs of against over baseline. rank_effect: matched-pairs rank-biserial correlation over
    data sets, −1 … 1. false_claim_probability: see `analysis.paired.false_claim`; over images only. exploratory: for
    the `reasons` given. notes: what else a reader must know. mixed: the difference by the mixed model of all cells, for
    comparison in general; it decides nothing. location: in general, the median of the pairwise averages of data-set
    means with the interval of level 1 − α that the signed-rank test accepts: unlike the mean's, it excludes 0 where
    that test finds a difference (except that ties may leave an end at 0).
    """

    contrast: Contrast
    outcome: Outcome
    level: str
    estimate: float
    interval: Interval
    p_value: float
    adjusted_p: float
    equivalence_p: float
    adjusted_equivalence_p: float
    equivalence_interval: Interval
    n_datasets: int
    n_seeds: int
    n_images: int
    cost_ratio: float
    rank_effect: float
    false_claim_probability: float
    test: str
    exploratory: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    per_dataset: tuple[DatasetDifference, ...]
    mixed: FixedEffect | None
    location: Location | None
    alpha: float
    correction: str
    family_size: int
    n_sources: int

    @property
    def sentence(self) -> str:
        """The verdict for a reader, each number with its uncertainty."""
        return sentence(self)

    @property
    def line(self) -> str:
        """The verdict in one line, for a terminal."""
        return line(self)


if TYPE_CHECKING:
    from analysis.interval import Interval

CORRECTIONS = {"holm": "Holm", "bh": "Benjamini–Hochberg"}


def corrected(correction: str | None) -> str:
    """How the p values of a family are corrected, in words: "corrected by Holm", or "not corrected"."""
    return f"corrected by {CORRECTIONS[correction]}" if correction in CORRECTIONS else "not corrected"


def sentence(verdict: Verdict) -> str:
    """The outcome of a contrast and how certain it is, in a few sentences for a reviewer."""
    claim, numbers, rest = pieces(verdict)
    return f"{claim}: {numbers}. {rest}".strip()


def pieces(verdict: Verdict) -> tuple[str, str, str]:
    """The claim and its numbers, both without full stops, and any remaining remarks as whole sentences."""
    if not verdict.level and math.isnan(verdict.estimate):
        claim = f"{_sides(verdict)} cannot be compared"
        return claim, "no seed of any data set has a result of both", _joined([_rest(verdict)])
    parts = []
    if not math.isnan(verdict.cost_ratio):
        parts.append(f"{verdict.contrast.against_label} takes {_ratio(verdict.cost_ratio)} the MACs")
    if not math.isnan(verdict.false_claim_probability):
        parts.append(
            f"Claiming from these test images that the better mean is better would be false with probability "
            f"{percent(verdict.false_claim_probability)} (test images drawn anew; seeds and data sets held fixed)"
        )
    rest = _joined([*parts, _rest(verdict)])
    return _claim(verdict), f"{_estimate(verdict)}; {_tests(verdict)}", rest


def lead(verdict: Verdict) -> str:
    """The one estimate that a reader needs, with the p value that decided and the cost, without a full stop."""
    if math.isnan(verdict.estimate):
        return "no seed of any data set has a result of both"
    estimate, interval, _ = stated(verdict)
    shown = f"{bounds(interval, 4, sign=True)} ({interval.percent} interval" if interval.is_defined else "(no interval"
    parts = [f"{signed(estimate)} {shown}; {_sizes(verdict)})"]
    equivalent = verdict.outcome == "equivalent"
    p = verdict.adjusted_equivalence_p if equivalent else verdict.adjusted_p
    if math.isnan(p):
        parts.append("nothing could be tested")
    else:
        alone = verdict.correction == "none" or verdict.family_size == 1
        after = "" if alone else f" after {CORRECTIONS[verdict.correction]} over {verdict.family_size}"
        parts.append(f"{'of a difference beyond the margin, ' if equivalent else ''}p {_p(p)}{after}")
    if not math.isnan(verdict.cost_ratio):
        parts.append(f"{_ratio(verdict.cost_ratio)} the MACs")
    return ", ".join(parts)


def line(verdict: Verdict) -> str:
    """A verdict in one line: name, outcome, estimate with interval, p values, sizes, cost."""
    contrast = verdict.contrast
    outcome = f"{verdict.outcome} (exploratory)" if verdict.exploratory else verdict.outcome
    if math.isnan(verdict.estimate):
        return f"{contrast.name}: {outcome}; no seed of any data set has a result of both variants"
    estimate, interval, what = stated(verdict)
    over = f" {bounds(interval, sign=True)} over {interval.over}" if interval.is_defined else ""
    over += f" ({what})" if what else ""
    parts = [f"{contrast.name}: {outcome}; {metric_name(contrast.metric)} {signed(estimate, 3)}{over}"]
    if not math.isnan(verdict.p_value):
        parts.append(f"p {_p(verdict.p_value)}{_adjusted(verdict, verdict.adjusted_p)}")
    parts.append(_sizes(verdict))
    if not math.isnan(verdict.cost_ratio):
        parts.append(f"{_ratio(verdict.cost_ratio)} the MACs")
    return ", ".join(parts)


def _claim(verdict: Verdict) -> str:
    contrast, metric = verdict.contrast, metric_name(verdict.contrast.metric)
    where = _where(verdict)
    baseline, against = contrast.baseline_label, contrast.against_label
    if verdict.outcome in ("superior", "inferior"):
        word = "better" if verdict.outcome == "superior" else "worse"
        return f"{against} is {word} than {baseline} in {metric} {where}"
    if verdict.outcome == "equivalent":
        claim = (
            f"{against} and {baseline} are equivalent in {metric} {where}, within the margin of ±{contrast.margin:g}"
        )
        shows = verdict.adjusted_p <= verdict.alpha
        return f"{claim} (a difference shows, and is too small to count)" if shows else claim
    return f"Whether {against} or {baseline} is better in {metric} {where} remains open"


def _where(verdict: Verdict) -> str:
    if verdict.level == IN_GENERAL:
        return "on data sets like these"
    names = listed([part.dataset for part in verdict.per_dataset])
    if verdict.level == THESE_DATA_SETS:
        return f"on the data sets {names}, which says nothing of others"
    if verdict.level == OVER_FOLDS:
        base = folds_alone([part.dataset for part in verdict.per_dataset])
        return f"on {base} split anew, which says nothing of other data sets"
    if verdict.level == THIS_DATA_SET:
        return f"on {names}, which says nothing of other data sets"
    if verdict.level:
        return f"for these two sets of weights on {names}, which says nothing of other seeds or data sets"
    return f"on {names}"


def stated(verdict: Verdict) -> tuple[float, Interval, str]:
    """The estimate and interval of the test that decided, and what the estimate is where it is not a mean.

    Where equivalence is claimed, one-sided t tests of the mean have decided; else, in general, the signed-rank test
    has.
    """
    location = verdict.location
    if verdict.outcome == "equivalent":
        return verdict.estimate, verdict.equivalence_interval, ""
    if location is None or not location.interval.is_defined:
        return verdict.estimate, verdict.interval, ""
    return location.estimate, location.interval, "median of pairwise averages"


def _estimate(verdict: Verdict) -> str:
    estimate, interval, what = stated(verdict)
    if not interval.is_defined:
        return f"{signed(estimate)} without an interval ({_sizes(verdict)})"
    means = "data-set means" if verdict.n_sources == verdict.n_datasets else "means of sources"
    if what:
        how = f"{what} of {means}"
    else:
        how = f"t over {means}" if verdict.level == IN_GENERAL else f"over {interval.over}"
    shown = f"{signed(estimate)} {bounds(interval, 4, sign=True)}"
    return f"{shown} ({interval.percent} interval, {how}; {_sizes(verdict)})"


def _tests(verdict: Verdict) -> str:
    if math.isnan(verdict.p_value):
        return "nothing could be tested"
    parts = [f"{verdict.test}: p {_p(verdict.p_value)}{_adjusted(verdict, verdict.adjusted_p)}"]
    if verdict.contrast.margin > 0 and not math.isnan(verdict.equivalence_p):
        within = f"equivalence within ±{verdict.contrast.margin:g}: p {_p(verdict.equivalence_p)}"
        parts.append(within + _adjusted(verdict, verdict.adjusted_equivalence_p))
    if verdict.mixed is not None:
        mixed = verdict.mixed
        level = f"{mixed.interval.percent} over {mixed.interval.over}"
        parts.append(
            f"mixed model of all cells: {signed(mixed.estimate)} {bounds(mixed.interval, 4, sign=True)} ({level})"
        )
    return "; ".join(parts)


def _adjusted(verdict: Verdict, p: float) -> str:
    if verdict.correction == "none" or verdict.family_size == 1 or math.isnan(p):
        return ""
    return f" ({p_value(p)} after {CORRECTIONS[verdict.correction]} over {verdict.family_size})"


def _sizes(verdict: Verdict) -> str:
    seeds = {part.n_seeds for part in verdict.per_dataset}
    shown = counted(min(seeds), "seed") if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"
    if seeds == {0}:
        shown = "means as printed"
    images = f", {counted(verdict.n_images, 'test image')}" if verdict.n_images else ""
    if verdict.level == OVER_FOLDS:
        return f"{counted(verdict.n_datasets, 'fold')} of one source, {shown}{images}"
    return f"{counted_units(verdict.n_datasets, verdict.n_sources)}, {shown}{images}"


def _rest(verdict: Verdict) -> str:
    parts = []
    if verdict.reasons:
        parts.append(f"Exploratory: {'; '.join(verdict.reasons)}")
    parts += [note[:1].upper() + note[1:] for note in verdict.notes]
    return _joined(parts).removesuffix(".")


def _sides(verdict: Verdict) -> str:
    return f"{verdict.contrast.against_label} and {verdict.contrast.baseline_label}"


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _ratio(value: float) -> str:
    return f"{value:.2f} ×"


def _joined(sentences: list[str]) -> str:
    return " ".join(f"{text}." for text in sentences if text)
