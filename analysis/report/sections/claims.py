"""Sections of a report on what was asked and the outcome."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.across.rank_tests import critical_difference
from analysis.across.standings import Standings, mean_costs
from analysis.metrics import LOWER_IS_BETTER
from analysis.records.sources import counted_units, files_by_source
from analysis.rendering.html import Html, definitions, element, folded, note, paragraph, strong
from analysis.report import cost as fronts
from analysis.report.drawing import Coming, Draw, draw_here
from analysis.report.evidence import Evidence
from analysis.report.section import Part, make_part
from analysis.report.sections.baseline import baselines
from analysis.report.tables import study as study_tables
from analysis.report.tables.results import results_table
from analysis.report.tables.verdicts import difference_table, stands_out, verdict_table
from analysis.verdicts.verdict import Verdict, lead, pieces
from analysis.words import bounds, counted, metric_name, signed

DRAWN_CONTRASTS = 16
# Conclusions that the head of the page spells out.
ANSWERS = 5
RANKED_VARIANTS = 12
SIGNS = {"superior": "▲", "inferior": "▼", "equivalent": "=", "inconclusive": "?"}
KEY = (
    "▲ superior and ▼ inferior: the p value of a difference, after correction, is at most α, and the mean points that "
    "way. Nothing else decides this. The margin does not: a superior variant need not be better by more than the "
    "margin, and whether its gain matters is for the reader to say, from the estimate and its interval.",
    "= equivalent: this is what the margin decides, and it comes first. Two one-sided tests show that the difference "
    "lies within the declared margin; so does the interval given, whose level is 1 − 2α. ? inconclusive: neither could "
    "be shown, which does not mean that there is no difference. An exploratory verdict is no claim, whatever it says. "
    "Beside each claim stands one estimate, that of the test which decided; all others are behind a click.",
)
NOT_DECLARED = "This study declared no contrasts, so it makes no claims: everything on this page is exploratory."
SEARCHED = (
    "The search chose its variants by these validation results, so the best of them look better than they are. "
    "A claim needs a contrast that is declared before fresh seeds are run."
)


def header(evidence: Evidence, verdicts: Sequence[Verdict]) -> Html:
    """The page's head: the question, the outcome, and how complete the evidence is."""
    manifest = evidence.manifest
    done, total = int(evidence.table.attrs["done"]), asked_cells(evidence)
    counts = {outcome: sum(v.outcome == outcome and not v.exploratory for v in verdicts) for outcome in SIGNS}
    # Whatever their outcome, they are not claims.
    counts["exploratory"] = sum(v.exploratory for v in verdicts)
    items = {
        "verdicts": ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "none",
        "cells finished": f"{done:,} of {total:,}",
        "without a result": ", ".join(_states(evidence, total)) or "none",
        "variants": f"{len(evidence.variants):,}",
        "data sets": _of_sources(evidence),
        "seeds": f"{len(evidence.seeds):,}",
        "study hash": str(manifest["study_hash"]),
    }
    blocks: list[str] = [
        element("p", {"class": "eyebrow"}, "Study"),
        element("h1", {}, evidence.name),
        element("p", {"class": "question"}, str(manifest.get("question") or "This study states no question.")),
        *answer(evidence, verdicts),
        definitions(items),
    ]
    if done < total:
        text = (
            f"This study is not complete: {counted(total - done, 'cell')} of {total:,} without a result. What follows "
            "holds for the finished ones, nothing is imputed, and verdicts may change."
        )
        blocks.append(note(text))
    return element("header", {}, *blocks)


def answer(evidence: Evidence, verdicts: Sequence[Verdict]) -> list[Html]:
    """What the declared contrasts say, in a sentence each, at which cost; none where there are no verdicts."""
    decided = [verdict for verdict in verdicts if stands_out(verdict)]
    if not verdicts:
        return []
    if not decided:
        text = "No declared contrast has come to a conclusion: nothing on this page is a claim."
        return [element("p", {"class": "answer"}, text)]
    said = []
    for verdict in decided[:ANSWERS]:
        ratio = verdict.cost_ratio
        cost = "" if math.isnan(ratio) else f"; {verdict.contrast.against_label} takes {ratio:.2f} × the MACs"
        said.append(element("li", {}, f"{pieces(verdict)[0]}{cost}."))
    more = len(verdicts) - len(said)
    if more:
        rest = len(decided) - len(said)
        further = f"{counted(rest, 'further conclusion')}; " if rest else ""
        still = counted(len(verdicts) - len(decided), "contrast")
        said.append(element("li", {}, f"{further}{still} without a conclusion that is a claim."))
    return [element("ul", {"class": "plain answer"}, *said)]


def _of_sources(evidence: Evidence) -> str:
    n, n_sources = len(evidence.datasets), evidence.n_sources
    return f"{n:,}" if n_sources == n else f"{n:,} of {counted(n_sources, 'source')}"


def asked_cells(evidence: Evidence) -> int:
    """The number of cells that the study asked for."""
    listed_cells = evidence.manifest.get("cell_ids")
    return len(listed_cells) if listed_cells else len(evidence.variants) * len(evidence.datasets) * len(evidence.seeds)


def question(evidence: Evidence) -> Part:
    """The section on what was asked: hypothesis and controls, strategy, axes, seeds, data sets and contrasts."""
    manifest = evidence.manifest
    meanings = manifest.get("meanings") or {}
    axes = {
        name: f"{json.dumps(values, ensure_ascii=False)}{f' – {meanings[name]}' if name in meanings else ''}"
        for name, values in (manifest.get("axes") or {}).items()
    }
    items = {
        # What an author wrote for readers, where there is any.
        **{key: str(manifest[key]) for key in ("hypothesis", "controls", "caveat") if manifest.get(key)},
        "strategy": str((manifest.get("strategy") or {}).get("name", "grid")),
        "base": str(manifest.get("base_name") or "–"),
        **{f"axis {name}": values for name, values in axes.items()},
        "seeds": ", ".join(map(str, evidence.seeds)),
        "data sets": ", ".join(evidence.datasets),
    }
    blocks: list[str] = [definitions(items, wide=True)]
    if evidence.shared_sources:
        blocks.append(note(f"{evidence.shared_sources[:1].upper()}{evidence.shared_sources[1:]}."))
    blocks += baselines(evidence)
    if evidence.contrasts:
        text = "These comparisons stood in the study's file before it ran; every record carries their hash."
        blocks.append(paragraph(text))
    else:
        blocks.append(note(NOT_DECLARED))
    tables = [study_tables.declared_contrasts(evidence)] if evidence.contrasts else []
    return make_part("question", "Question and contrasts", blocks, tables=tables)


def verdict_section(evidence: Evidence, verdicts: Sequence[Verdict], problem: str | None) -> Part:
    """The section of verdicts: each contrast's in sentences, then the numbers. problem: why there are none."""
    blocks: list[str] = []
    if problem:
        blocks.append(note(f"No verdicts: {problem}."))
    elif not verdicts:
        blocks.append(note(f"No verdicts. {NOT_DECLARED}"))
    if verdicts:
        blocks += [paragraph(text) for text in KEY]
        blocks.append(element("ol", {"class": "verdicts"}, *[_verdict_item(verdict) for verdict in verdicts]))
    tables = [verdict_table(verdicts, evidence.manifest)] if verdicts else []
    return make_part("verdicts", "Verdicts", blocks, folded_tables=tables)


def results(evidence: Evidence, verdicts: Sequence[Verdict], split: str) -> Part:
    """The section with the table that papers print, one for each of the study's first metrics, of a split."""
    if not len(evidence.done()):
        return make_part("results", "Results", [note("No table of results: no cell has finished.")])
    tables = [
        results_table(evidence.table, metric, evidence.variants, verdicts, evidence.baseline, split=split)
        for metric in evidence.metrics[:2]
    ]
    return make_part("results", "Results", [], tables=tables[:1], folded_tables=tables[1:])


def cost(
    evidence: Evidence,
    places: Mapping[str, Standings],
    split: str,
    *,
    rng: np.random.Generator | None = None,
    draw: Draw = draw_here,
) -> Part:
    """The section on cost: metric against MACs, certainty of the front, variants' means. places: by metric, of `split`.

    rng: for the probabilities; by default one of a fixed seed, so that the same records give the same numbers.
    draw: what draws the figures.
    """
    rng = rng or np.random.default_rng(0)
    blocks: list[str] = [note(SEARCHED)] if evidence.is_search else []
    drawings, outlooks = [], []
    for metric in evidence.metrics[:2]:
        place = places[metric]
        if not place.means:
            finished = "no data set has a seed that every variant finished"
            why = finished if len(evidence.done()) else "no cell has finished"
            blocks.append(note(f"No figure of {metric_name(metric)}: {why}."))
            continue
        front: list[str] = []
        try:
            outlooks.append(fronts.outlook(evidence.table, place, evidence.baseline, rng))
            front = outlooks[-1].ids
        except ValueError as problem:
            blocks.append(note(f"No front of {metric_name(metric)}: {problem}."))
        means = mean_costs(evidence.table, ["cost.macs", "cost.params"], place.datasets)
        costs = {str(v): (float(macs), float(params)) for v, macs, params in means.itertuples(name=None)}
        named = (evidence.variants, evidence.baseline, split)
        drawings.append(draw("claims.metric_against_cost", place, costs, front, *named))
    if drawings:
        blocks.append(
            paragraph(
                "A bubble's area is the number of parameters; the hatched one is the baseline. Filled bubbles, joined "
                "by the dashed line, are the Pareto front of the means: no other variant has both fewer MACs and a "
                "better mean. Whiskers, and brackets in the table, show how well each mean is placed among the others: "
                "of several data sets, what one adds to all variants alike is taken out first. They are no tests: "
                "verdicts say what differs."
            )
        )
    tables = [study_tables.variant_standings(evidence, places, split)]
    if outlooks:
        said = [element("li", {}, fronts.sentences(outlook, evidence.baseline)) for outlook in outlooks]
        blocks.append(element("ul", {"class": "plain"}, *said))
        tables += [fronts.front_table(outlooks), fronts.gain_table(outlooks)]
    return make_part("cost", "Metric against cost", blocks, drawings, tables)


def forest(verdict: Verdict, place: int, draw: Draw = draw_here) -> Coming:
    """The figure of a contrast's paired differences, the place-th of a page. draw: what draws it."""
    # Without its mixed model, which no figure shows: whoever draws has no library of tables.
    return draw("claims.forest", replace(verdict, mixed=None), f"difference_{place:02d}")


def differences(evidence: Evidence, verdicts: Sequence[Verdict], drawings: Sequence[Coming] | None = None) -> Part:
    """Each contrast's paired differences, data set by data set. drawings: their figures, by default drawn now."""
    shown = [verdict for verdict in verdicts if verdict.per_dataset]
    if drawings is None:
        drawings = [forest(verdict, place) for place, verdict in enumerate(shown[:DRAWN_CONTRASTS], start=1)]
    if not shown:
        why = "no contrast has a data set and seed on which both variants finished"
        return make_part(
            "differences",
            "Paired differences",
            [note(f"No paired differences: {why if evidence.contrasts else 'the study declared no contrasts'}.")],
        )
    blocks: list[str] = [
        paragraph(
            "Against minus baseline on test, paired by seed and image: a point for each data set, at its right how "
            "many seeds × test images it rests on. Diamonds are over all data sets"
            f"{', those of one source averaged' if evidence.shared_sources else ''}. Grey: the declared margin, "
            "inside which a difference does not matter."
        )
    ]
    if len(shown) > DRAWN_CONTRASTS:
        blocks.append(note(f"The first {DRAWN_CONTRASTS} of {counted(len(shown), 'contrast')} are drawn."))
    return make_part("differences", "Paired differences", blocks, drawings, folded_tables=[difference_table(shown)])


def ranks(evidence: Evidence, *, draw: Draw = draw_here) -> Part:
    """Critical-difference diagrams of the study's metrics. draw: what draws them."""
    ids = evidence.chosen(RANKED_VARIANTS)
    # Including unfinished cells: the data sets that they leave without a result are counted.
    cells = evidence.table[evidence.table["variant_id"].isin(ids)]
    finished = cells.loc[cells["status"] == "done", "dataset"].unique()
    n_datasets = len(files_by_source(finished, evidence.sources))
    blocks: list[str] = []
    drawings = []
    if n_datasets < 2 or len(ids) < 3:
        found = f"{counted(len(ids), 'variant')} on {counted_units(len(finished), n_datasets)}"
        text = f"No ranks: they need finished cells of three variants on two data sets, there are {found}."
        return make_part("ranks", "Ranks over data sets", [note(text)])
    alpha = float(evidence.manifest.get("alpha") or 0.05)
    for metric in evidence.metrics[:2]:
        try:
            result = critical_difference(
                cells, metric=metric, alpha=alpha, higher_is_better=metric not in LOWER_IS_BETTER
            )
        except ValueError as problem:
            blocks.append(note(f"No ranks of {metric_name(metric)}: {problem}."))
            continue
        drawings.append(draw("claims.critical_difference", result, evidence.variants, metric))
    if drawings:
        text = "All pairs of variants, whether declared or not: an exploratory view beside the verdicts."
        blocks.insert(0, paragraph(text))
    if len(evidence.variants) > len(ids):
        total = counted(len(evidence.variants), "variant")
        blocks.append(note(f"Ranked: {len(ids)} of {total}, those compared and the best on validation."))
    return make_part("ranks", "Ranks over data sets", blocks, drawings)


def _verdict_item(verdict: Verdict) -> Html:
    outcome = strong(verdict.outcome) if stands_out(verdict) else verdict.outcome
    # The claim leads, one estimate follows in smaller print, and the rest is a click away.
    claim, _, _ = pieces(verdict)
    more = folded("All estimates and tests, probability of a false claim, what to know", paragraph(_all(verdict)))
    tag = [element("span", {"class": "tag"}, "exploratory")] if verdict.exploratory else []
    return element(
        "li",
        {},
        element("span", {"class": "sign", "aria-hidden": "true"}, SIGNS[verdict.outcome]),
        element("span", {"class": "outcome"}, verdict.contrast.name, ": ", outcome, *tag),
        element("span", {"class": "claim"}, f"{claim}. "),
        element("span", {"class": "numbers"}, f"{lead(verdict)}."),
        more,
    )


def _all(verdict: Verdict) -> str:
    """Every estimate and test of a verdict, and what else to know, in sentences."""
    _, numbers, rest = pieces(verdict)
    mean = ""
    if verdict.location is not None and verdict.interval.is_defined:
        basis = verdict.interval.basis("Student's interval")
        mean = f" Mean: {signed(verdict.estimate)} {bounds(verdict.interval, 4, sign=True)} ({basis})."
    return f"{numbers}.{mean} {rest}".strip()


def _states(evidence: Evidence, total: int) -> list[str]:
    counts = {state: int(evidence.table.attrs[state]) for state in ("failed", "stopped")}
    counts["not run"] = total - int(evidence.table.attrs["done"]) - sum(counts.values())
    return [f"{count:,} {state}" for state, count in counts.items() if count > 0]
