"""What a study says about cost in numbers: which variants are on the front or best within a budget, how surely.

The numbers are those of `analysis.across.pareto`, for variants and data sets whose means are shown. None is declared
before a study runs, so all of it is exploratory.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.across.pareto import Cells, Choice, CostEffect, Front, best_under_budget, gain_per_doubling, pareto_front
from analysis.across.standings import Standings
from analysis.rendering.tables import Table
from analysis.words import METRIC_NAMES, NOTHING, bounds, counted, listed, metric_name, percent, quantity, share, signed

# A probability from this many draws is accurate to a percent or two.
DRAWS = 2000
# Beyond this many budgets only those of the front and the baseline are examined.
BUDGETS = 12


@dataclass(frozen=True)
class Outlook:
    """A metric against MACs: the front, the best variant within a budget, and the gain per doubling.

    within: by variant id, the best that a budget of this variant's MACs allows; of variants on the front, the baseline,
    the dearest one, and others where they are few. gain: None where their MACs span no doubling.
    """

    metric: str
    front: Front
    within: dict[str, Choice]
    gain: CostEffect | None

    @property
    def ids(self) -> list[str]:
        """Variants on the front of the means, cheapest first."""
        return [point.variant_id for point in self.front.points if point.on_front]

    @property
    def is_drawn(self) -> bool:
        """Whether there was anything to draw anew; else probabilities say nothing."""
        return self.front.hypervolume_interval.is_defined


def outlook(
    table: pd.DataFrame, place: Standings, baseline: str | None, rng: np.random.Generator, draws: int = DRAWS
) -> Outlook:
    """The outlook on a metric against MACs, for the variants and data sets of its standings.

    Raises ValueError, one line, where variants share no finished seed on any data set.
    """
    kept = table["variant_id"].isin(list(place.means)) & table["dataset"].isin(place.datasets)
    metric = f"{place.split}.{place.metric}"
    here = table.loc[kept, ["variant_id", "variant_label", "dataset", "seed", "status", "cost.macs", metric]]
    # The displayed split takes the place where those functions look for their metric.
    here = here.rename(columns={metric: f"test.{place.metric}"})
    cells = Cells(here, place.metric, "macs")
    front = pareto_front(cells, place.metric, rng=rng, draws=draws)
    costs = {point.variant_id: point.cost for point in front.points}
    asked = [p for p in front.points if len(costs) <= BUDGETS or p.on_front or p.variant_id == baseline]
    budgets = dict.fromkeys([*(point.cost for point in asked), max(costs.values())])
    best = {b: best_under_budget(cells, place.metric, b, rng=rng, draws=draws) for b in budgets}
    within = {variant_id: best[cost] for variant_id, cost in costs.items() if cost in best}
    # What a doubling gains can be told where there is one.
    spans = max(costs.values()) >= 2 * min(costs.values())
    gain = None
    if spans:
        with suppress(ValueError):
            gain = gain_per_doubling(cells, place.metric)
    return Outlook(place.metric, front, within, gain)


def sentences(outlook: Outlook, baseline: str | None) -> str:
    """The outlook in words. baseline: its id."""
    front, drawn = outlook.front, outlook.is_drawn
    on_front = [point for point in front.points if point.on_front]
    chances = [percent(point.p_front) for point in on_front]
    chances[0] += " of the draws"
    names = [f"{point.label} (in {chance})" if drawn else point.label for point, chance in zip(on_front, chances)]
    said = [f"{metric_name(outlook.metric)}: on the front {'is' if len(names) == 1 else 'are'} {listed(names)}"]
    dearest = front.points[-1]
    # A baseline that is itself the dearest is mentioned once.
    for budget, where in {baseline: "Within the MACs of {}", dearest.variant_id: "At any cost"}.items():
        point = next((p for p in front.points if p.variant_id == budget), None)
        if point is None or (point is not dearest and point.cost == dearest.cost):
            continue
        choice = outlook.within[point.variant_id]
        if len(choice.probabilities) == 1:
            said.append(f"No other variant takes as few MACs as {point.label}, {quantity(point.cost)}")
            continue
        probability = f", and has it in {percent(choice.probability)} of the draws" if drawn else ""
        limit = where.format(f"{point.label}, {quantity(point.cost)}")
        said.append(f"{limit}, {choice.label} has the best mean{probability}")
    if drawn:
        interval = front.hypervolume_interval
        said.append(
            f"The front's hypervolume is {share(front.hypervolume, 4)} {bounds(interval, 4)} "
            f"({interval.basis('interval')}, less the bias of a best mean)"
        )
    span = dearest.cost / front.points[0].cost
    if outlook.gain is None:
        all_alike = "All variants take the same MACs, so there is no gain per doubling"
        apart = f"The dearest variant takes {span:.2f} × the MACs of the cheapest: too close to speak of a doubling"
        said.append(all_alike if span == 1 else apart)
    else:
        gain = outlook.gain
        uncertain = "without an interval"
        if gain.interval.is_defined:
            uncertain = f"{bounds(gain.interval, 4, sign=True)} ({_interval(gain)})"
        said.append(f"As MACs double from variant to variant it changes by {signed(gain.estimate)} {uncertain}")
    return ". ".join(said) + "."


def front_table(outlooks: Sequence[Outlook]) -> Table:
    """A row per variant: its MACs and, for each metric, the probability of being on the front and what its MACs buy."""
    costs = {(point.variant_id, point.label): point.cost for o in outlooks for point in o.front.points}
    rows, records = [], []
    for variant_id, label in sorted(costs, key=costs.__getitem__):
        text = [label, quantity(costs[variant_id, label])]
        for o in outlooks:
            point = next((p for p in o.front.points if p.variant_id == variant_id), None)
            if point is None:
                text += [NOTHING, NOTHING]
                continue
            choice = o.within.get(variant_id)
            text.append(_with("yes" if point.on_front else "no", point.p_front, o))
            text.append(NOTHING if choice is None else _with(choice.label, choice.probability, o))
            records.append(
                {
                    "variant_id": variant_id,
                    "variant": label,
                    "metric": o.metric,
                    "macs": point.cost,
                    "mean": point.value,
                    "low": point.interval.low,
                    "high": point.interval.high,
                    "interval_over": point.interval.over,
                    "on_front": point.on_front,
                    "p_on_front": point.p_front if o.is_drawn else None,
                    "best_within_its_macs": choice.label if choice else "",
                    "p_best": choice.probability if choice and o.is_drawn else None,
                }
            )
        rows.append(text)
    front = outlooks[0].front
    caption = (
        "Whether a mean is on the front (no variant of at most its MACs does as well), and which is the best that its "
    )
    caption += "MACs allow. "
    if any(o.is_drawn for o in outlooks):
        caption += (
            f"Percent: in how many of {front.draws:,} draws of {front.over} and seeds (n = {front.n_datasets} "
            f"{front.over}, up to {counted(front.n_seeds, 'seed')}) this is so; MACs are exact, and images are not "
            "drawn anew. "
        )
    else:
        caption += "One cell a variant leaves nothing to draw anew, so there are no probabilities. "
    caption += "Exploratory: none of this was declared, and the best of many means looks better than it is."
    headers = ["variant", "MACs"]
    for o in outlooks:
        headers += [f"on the front ({METRIC_NAMES[o.metric]})", f"best within its MACs ({METRIC_NAMES[o.metric]})"]
    return Table("front", "Front, and best within a budget", caption, headers, rows, pd.DataFrame(records))


def gain_table(outlooks: Sequence[Outlook]) -> Table:
    """One row per metric: gain per doubling of MACs, and the front's hypervolume, with intervals."""
    rows, records = [], []
    for o in outlooks:
        gain, volume = o.gain, o.front.hypervolume_interval
        rows.append(
            [
                metric_name(o.metric),
                NOTHING if gain is None else signed(gain.estimate),
                NOTHING if gain is None else bounds(gain.interval, 4, sign=True),
                share(o.front.hypervolume, 4),
                bounds(volume, 4),
                str(volume.n),
            ]
        )
        records.append(
            {
                "metric": o.metric,
                "gain_per_doubling": None if gain is None else gain.estimate,
                "gain_low": None if gain is None else gain.interval.low,
                "gain_high": None if gain is None else gain.interval.high,
                "gain_interval_over": "" if gain is None else gain.interval.over,
                "hypervolume": o.front.hypervolume,
                "hypervolume_low": volume.low,
                "hypervolume_high": volume.high,
                "hypervolume_interval_over": volume.over,
                "reference_macs": o.front.reference[0],
                "reference_metric": o.front.reference[1],
                "n": volume.n,
            }
        )
    gains = sorted({_interval(o.gain) for o in outlooks if o.gain is not None and o.gain.interval.is_defined})
    volumes = sorted({o.front.hypervolume_interval.over for o in outlooks if o.is_drawn})
    caption = (
        f"Gain: slope of the variants' means over log2 MACs ({'; '.join(gains) or 'no interval'}). Hypervolume: the "
        "area between the front and the worst mean, in metric × doublings of MACs up to the dearest variant "
        f"({'95 % interval, bootstrap of ' + '; '.join(volumes) if volumes else 'no interval'}). "
    )
    if volumes:
        caption += "The best of several means is lucky, so it is too large; its interval has that bias taken out. "
    caption += "Variants differ in more than their MACs, so neither is an effect of MACs alone."
    headers = ["metric", "gain per doubling", "interval", "hypervolume", "interval of it", "n"]
    return Table("gains", "Gain per doubling of MACs, and hypervolume", caption, headers, rows, pd.DataFrame(records))


def _with(text: str, probability: float, outlook: Outlook) -> str:
    """A statement with its probability, where there is one."""
    return f"{text} · {percent(probability)}" if outlook.is_drawn else text


def _interval(effect: CostEffect) -> str:
    return effect.interval.basis("interval, t")
