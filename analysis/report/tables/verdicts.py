"""Tables of verdicts and of the differences behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.interval import Interval
from analysis.rendering.tables import Strong, Table
from analysis.verdicts.verdict import Verdict, corrected, stated
from analysis.words import NOTHING, bounds, metric_name, p_value, percent, share, signed


def verdict_table(verdicts: Sequence[Verdict], manifest: Mapping[str, Any]) -> Table:
    """The table of verdicts, one row per contrast: what was estimated, how certain it is, and the outcome."""
    records = [_record(verdict) for verdict in verdicts]
    rows = [
        [
            verdict.contrast.name,
            metric_name(verdict.contrast.metric),
            outcome(verdict),
            signed(stated(verdict)[0]),
            bounds(stated(verdict)[1], 4, sign=True),
            p_value(verdict.p_value),
            p_value(verdict.adjusted_p),
            _sizes(verdict),
            share(verdict.cost_ratio, 2),
            percent(verdict.false_claim_probability),
        ]
        for verdict in verdicts
    ]
    intervals = [stated(verdict)[1] for verdict in verdicts]
    overs = _overs([interval for interval in intervals if interval.is_defined], sizes=True)
    alone = "" if overs == "none" else ", each on its own"
    tests = sorted({v.test for v in verdicts if v.test})
    means = (
        "Over data sets, a difference and its interval are those of the test that decided: the signed-rank test's, the "
        "median of pairwise averages, or for an equivalence the mean. All means with Student's interval, which may "
        "hold 0 where that test, by ranks, finds a difference, are in the CSV. "
    )
    shared = any(v.n_sources < v.n_datasets for v in verdicts)
    caption = (
        f"Differences are against minus baseline on test. Intervals: {overs}{alone}. "
        f"{means if any(v.location for v in verdicts) else ''}"
        f"Tests: {'; '.join(tests) or 'none'}; within each family {corrected(manifest.get('correction'))}, "
        f"α = {manifest.get('alpha')}: where an adjusted p is above it, an interval without 0 is no claim. "
        f"n: {'data sets (sources)' if shared else 'data sets'} / seeds (of the data set that has fewest) / test "
        "images. MACs: against over baseline. "
        "Last column: the probability that claiming the better mean from these test images would be false, by images "
        "drawn anew alone: seeds and data sets are held fixed, so a small one does not make a verdict."
    )
    headers = [
        "contrast",
        "metric",
        "verdict",
        "difference",
        "interval",
        "p",
        "adjusted p",
        "n",
        "MACs ratio",
        "P(false claim)",
    ]
    return Table("verdicts", "Verdicts", caption, headers, rows, pd.DataFrame(records), frozenset({0, 1, 2}))


def difference_table(verdicts: Sequence[Verdict]) -> Table:
    """The table of paired differences with their intervals, one row per contrast and data set."""
    records, rows = [], []
    for verdict in verdicts:
        for row in verdict.per_dataset:
            records.append(
                {
                    "contrast": verdict.contrast.name,
                    "metric": verdict.contrast.metric,
                    "dataset": row.dataset,
                    "difference": row.difference,
                    "low": row.interval.low,
                    "high": row.interval.high,
                    "interval_over": row.interval.over,
                    "interval_level": row.interval.level,
                    "seeds": row.n_seeds,
                    "test_images": row.n_images,
                }
            )
            rows.append(
                [
                    verdict.contrast.name,
                    row.dataset,
                    signed(row.difference),
                    bounds(row.interval, 4, sign=True),
                    f"{row.n_seeds or NOTHING}",
                    f"{row.n_images:,}" if row.n_images else NOTHING,
                ]
            )
    overs = _overs([d.interval for v in verdicts for d in v.per_dataset if d.interval.is_defined])
    return Table(
        "differences",
        "Paired differences by data set",
        f"Against minus baseline on test, paired by seed and image. Intervals: {overs}; n in the last two columns.",
        ["contrast", "data set", "difference", "interval", "seeds", "test images"],
        rows,
        pd.DataFrame(records),
        frozenset({0, 1}),
    )


def stands_out(verdict: Verdict) -> bool:
    """Whether a declared contrast came to a conclusion."""
    return verdict.outcome != "inconclusive" and not verdict.exploratory


def outcome(verdict: Verdict) -> str:
    """The outcome's word, which stands out where a declared contrast came to a conclusion."""
    word = f"{verdict.outcome} (exploratory)" if verdict.exploratory else verdict.outcome
    return Strong(word) if stands_out(verdict) else word


def _units(verdict: Verdict) -> str:
    """The number of data sets, with that of their sources where it is smaller."""
    fewer = verdict.n_sources < verdict.n_datasets
    return f"{verdict.n_datasets} ({verdict.n_sources})" if fewer else f"{verdict.n_datasets}"


def _sizes(verdict: Verdict) -> str:
    """Data sets, seeds and test images behind a verdict; a dash where results were printed without them."""
    seeds, images = f"{verdict.n_seeds}", f"{verdict.n_images:,}"
    if verdict.n_datasets:
        seeds, images = (seeds if verdict.n_seeds else NOTHING), (images if verdict.n_images else NOTHING)
    return f"{_units(verdict)} / {seeds} / {images}"


def _overs(intervals: Sequence[Interval], *, sizes: bool = False) -> str:
    """What the intervals of a column are over, each kind once. sizes: with how many of those there were."""
    found = {f"{i.percent} over {i.over}{f' (n = {i.n})' if sizes else ''}" for i in intervals}
    return "; ".join(sorted(found, reverse=True)) or "none"


def _record(verdict: Verdict) -> dict[str, Any]:
    contrast, location = verdict.contrast, verdict.location
    return {
        "contrast": contrast.name,
        "baseline": contrast.baseline_label,
        "against": contrast.against_label,
        "metric": contrast.metric,
        "family": contrast.family,
        "margin": contrast.margin,
        "outcome": verdict.outcome,
        "exploratory": verdict.exploratory,
        "level": verdict.level,
        "estimate": verdict.estimate,
        "low": verdict.interval.low,
        "high": verdict.interval.high,
        "interval_over": verdict.interval.over,
        "interval_level": verdict.interval.level,
        "median_of_averages": location.estimate if location else None,
        "median_low": location.interval.low if location else None,
        "median_high": location.interval.high if location else None,
        "median_interval_level": location.interval.level if location else None,
        "p_value": verdict.p_value,
        "adjusted_p": verdict.adjusted_p,
        "equivalence_p": verdict.equivalence_p,
        "adjusted_equivalence_p": verdict.adjusted_equivalence_p,
        "equivalence_low": verdict.equivalence_interval.low,
        "equivalence_high": verdict.equivalence_interval.high,
        "equivalence_interval_level": verdict.equivalence_interval.level,
        "family_size": verdict.family_size,
        "rank_effect": verdict.rank_effect,
        "test": verdict.test,
        "datasets": verdict.n_datasets,
        "sources": verdict.n_sources,
        "seeds": verdict.n_seeds,
        "test_images": verdict.n_images,
        "macs_ratio": verdict.cost_ratio,
        "false_claim_probability": verdict.false_claim_probability,
        "sentence": verdict.sentence,
    }
