"""The page of a comparison: results of others by the tests, figures and sentences of a study's page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.across.multiplicity import Correction
from analysis.across.rank_tests import critical_difference, friedman
from analysis.compare.cases import write_cases
from analysis.compare.results import Results
from analysis.hashes import content_hash, declaration_hash
from analysis.metrics import LOWER_IS_BETTER
from analysis.power import smallest_adjusted_p
from analysis.records.origins import source_key
from analysis.records.sources import SOURCE_KEYS, counted_units, unit_noun
from analysis.rendering.html import Html, definitions, element, note, paragraph
from analysis.rendering.marks import DRAWN_VARIANTS, marks
from analysis.report.drawing import Draw, draw_and_clear
from analysis.report.evidence import Evidence
from analysis.report.section import Part, make_part
from analysis.report.sections import claims, grounds
from analysis.report.tables.results import results_table
from analysis.report.write import SEED, set_aside, write_page
from analysis.verdicts.decisions import decide_all
from analysis.verdicts.verdict import Verdict
from analysis.words import counted, listed, metric_name, p_value, share

DIFFER, ALIKE = "The methods do not all rank alike", "That all rank alike is not refuted"
DECLARED = "The comparison was declared before its results were known, according to {}: nothing here proves it."
UNDECLARED = "All of it is exploratory: nothing says that the question was put before results were known (--declared)."
OF_OTHERS = (
    "Whether the methods had the same training data, recipe, tuning and test split is not in the files: a difference "
    "may come from those, and costs are not known."
)


@dataclass(frozen=True)
class Asked:
    """What a comparison asks: all methods against `baseline` (None: nothing), how far apart is alike, and how strictly.

    declared: where the question was put down before the results were known; "" where nowhere. sources: the collection
    of data sets that come from one, which count once.
    """

    name: str
    baseline: str | None = None
    margin: float = 0.0
    alpha: float = 0.05
    correction: Correction = "holm"
    declared: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A written comparison: its page, the verdicts, sentences on ranks, and the files with a metric of every case."""

    page: Path
    verdicts: tuple[Verdict, ...]
    ranks: tuple[str, ...]
    cases: tuple[Path, ...]


def compare(
    results: Results,
    asked: Asked,
    out: Path,
    *,
    rng: np.random.Generator | None = None,
    draw: Draw = draw_and_clear,
) -> Comparison:
    """Writes the page of a comparison into `out`, with its tables, figures and cases beside it. draw: what draws them.

    Raises ValueError, one line, for a baseline that is no method, a source of no data set, and fewer than two methods.
    """
    methods = results.methods
    if len(methods) < 2:
        raise ValueError(f"a comparison must have two methods at least, got {listed(methods) or 'none'}")
    if asked.baseline is not None and asked.baseline not in methods:
        raise ValueError(f"--baseline must be one of {', '.join(methods)}, got {asked.baseline!r}")
    strangers = [name for name in asked.sources if name not in results.datasets]
    if strangers:
        raise ValueError(f"--source must name some of {', '.join(results.datasets)}, got {strangers[0]!r}")
    rng = rng or np.random.default_rng(SEED)
    with threadpool_limits(1), set_aside(), _as_ledger(results) as folder:
        evidence = evidence_of(results, asked, folder)
        verdicts = decide_all(evidence.table, evidence.manifest, folder, rng=rng)
        said = rank_sentences(evidence)
        parts = [
            _carried(results, evidence, asked),
            _verdicts(evidence, verdicts),
            _values(evidence, verdicts),
            _differences(evidence, verdicts, draw),
            _ranks(evidence, said, draw),
            *(_grounds(evidence, draw) if results.predictions else ()),
        ]
        page = write_page(
            out, f"{asked.name}: comparison", f"Comparison of {listed(methods)}", _header(evidence, verdicts), parts
        )
    cells = {
        (row["variant_id"], row["dataset"], row["seed"]): results.predictions[row["cell_id"]]
        for row in results.table.to_dict("records")
        if row["cell_id"] in results.predictions
    }
    return Comparison(page, tuple(verdicts), tuple(said), tuple(write_cases(out, cells) if cells else ()))


def evidence_of(results: Results, asked: Asked, folder: Path) -> Evidence:
    """Results as the evidence of a study that asked this. folder: a ledger with the predictions, if there are any."""
    contrasts = _contrasts(results, asked)
    declared = declaration_hash(contrasts, asked.alpha, asked.correction) if asked.declared else None
    # What nobody names is what is known of MedMNIST's sets, else a source of its own.
    sources = {name: asked.sources.get(name, source_key(name)) for name in results.datasets}
    keys = [sources[name] for name in results.table["dataset"]]
    table = results.table.assign(contrasts_hash=declared, source_key=keys)
    table.attrs = results.table.attrs
    manifest: dict[str, Any] = {
        "name": asked.name,
        "study_hash": content_hash([asked.name, results.methods, results.datasets]),
        "contrasts_hash": declared,
        "contrasts": contrasts,
        "alpha": asked.alpha,
        "correction": asked.correction,
        SOURCE_KEYS: sources,
    }
    return Evidence(
        folder=folder,
        told=(),
        manifest=manifest,
        table=table,
        records=dict(results.records),
        variants={method: method for method in results.methods},
        datasets=tuple(results.datasets),
        seeds=tuple(sorted(set(table["seed"]))),
        baseline=asked.baseline,
        metrics=results.metrics,
    )


def rank_sentences(evidence: Evidence) -> list[str]:
    """Friedman's test and Nemenyi's critical difference of each metric, in sentences; none for fewer than three."""
    n_datasets = evidence.table["dataset"].nunique()
    if len(evidence.variants) < 3 or n_datasets < 2:
        return []
    said = []
    alpha = float(evidence.manifest["alpha"])
    for metric in evidence.metrics:
        higher = metric not in LOWER_IS_BETTER
        try:
            tied, plain = (
                friedman(evidence.table, metric=metric, higher_is_better=higher, correct_ties=ties)
                for ties in (True, False)
            )
        except ValueError as problem:
            said.append(f"No ranks of {metric_name(metric)}: {problem}.")
            continue
        nemenyi = critical_difference(
            evidence.table, metric=metric, alpha=alpha, method="nemenyi", higher_is_better=higher
        )
        p = p_value(tied.p_value_f)
        uncorrected = f" ({plain.chi2:.2f} and {plain.statistic_f:.2f} without correction for ties)"
        said.append(
            f"{metric_name(metric)}: Friedman χ² = {tied.chi2:.2f}, Iman and Davenport's F({tied.df[0]}, {tied.df[1]}) "
            f"= {tied.statistic_f:.2f}{uncorrected}, p {p if p.startswith('<') else f'= {p}'}, over "
            f"{counted(tied.n, nemenyi.over)}{_incomplete(tied.n_incomplete)}. "
            f"{DIFFER if tied.p_value_f <= alpha else ALIKE} at α = {alpha:g}. "
            f"Nemenyi's critical difference of mean ranks: {share(nemenyi.difference, 2)}."
        )
    return said


@contextmanager
def _as_ledger(results: Results) -> Iterator[Path]:
    """A folder in the shape of a ledger, with the predictions: what reads those of a study reads these."""
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        (folder / "records.jsonl").touch()
        (folder / "probabilities").mkdir()
        for cell_id, found in results.predictions.items():
            arrays: dict[str, Any] = {"probabilities": found.probabilities, "labels": found.labels, "ids": found.ids}
            if found.groups is not None:
                arrays["groups"] = found.groups
            named = {f"test_{key}": value for key, value in arrays.items()}
            np.savez(folder / "probabilities" / f"{cell_id}.npz", **named)
        yield folder


def _contrasts(results: Results, asked: Asked) -> list[dict[str, Any]]:
    if asked.baseline is None:
        return []
    several = len(results.metrics) > 1
    return [
        {
            "name": f"{method} ({metric_name(metric)})" if several else method,
            "baseline": asked.baseline,
            "against": method,
            "metric": metric,
            "margin": asked.margin,
            "family": metric,
            "kind": "confirmatory",
        }
        for metric in results.metrics
        for method in results.methods
        if method != asked.baseline
    ]


def _header(evidence: Evidence, verdicts: Sequence[Verdict]) -> Html:
    outcomes = [v.outcome if not v.exploratory else f"{v.outcome} (exploratory)" for v in verdicts]
    items = {
        "verdicts": ", ".join(f"{outcomes.count(word)} {word}" for word in dict.fromkeys(outcomes)) or "none",
        "methods": f"{len(evidence.variants):,}",
        "data sets": f"{len(evidence.datasets):,}",
        "results": f"{len(evidence.table):,}",
        "baseline": evidence.baseline or "none",
    }
    question = f"How do {listed(list(evidence.variants.values()))} compare, by their published results?"
    return element(
        "header",
        {},
        element("p", {"class": "eyebrow"}, "Comparison"),
        element("h1", {}, evidence.name),
        element("p", {"class": "question"}, question),
        definitions(items),
    )


def _carried(results: Results, evidence: Evidence, asked: Asked) -> Part:
    items = element("ul", {"class": "plain"}, *[element("li", {}, text) for text in carried(results, evidence, asked)])
    return make_part("carried", "What such results can claim", [items])


def carried(results: Results, evidence: Evidence, asked: Asked) -> list[str]:
    """Which claims the data can carry, and which they cannot, in sentences."""
    n, per_method = evidence.n_sources, evidence.table.groupby(["variant_id", "dataset"]).size().max()
    shown, noun = counted_units(len(results.datasets), n), unit_noun(results.datasets, evidence.sources)
    said = []
    if n > 1:
        said.append(
            f"In general, on data sets like these ({shown}): the signed-rank test over {noun}s, seeds averaged."
        )
        family = max(1, len(results.methods) - 1)
        reach = smallest_adjusted_p(n, family, asked.correction)
        if asked.baseline is not None and reach > asked.alpha:
            said.append(
                f"With {shown} and {counted(family, 'contrast')} a metric the smallest adjusted p is {reach:.3g}: no "
                f"difference in general can be shown at α = {asked.alpha:g}."
            )
    if evidence.shared_sources:
        said.append(f"{evidence.shared_sources[:1].upper()}{evidence.shared_sources[1:]}.")
    if results.predictions:
        one = "of these weights, test images drawn anew" if per_method == 1 else "seeds and test images drawn anew"
        said.append(
            f"On a single data set: {one}. Nothing of that carries over to other data"
            f"{' or seeds' if per_method == 1 else ''}."
        )
    else:
        said.append(
            "Nothing about a single data set: there is no image to draw anew, so no interval, no calibration, and no "
            "probability of a false claim."
        )
    said += [DECLARED.format(asked.declared) if asked.declared else UNDECLARED, OF_OTHERS]
    if asked.margin == 0 and asked.baseline is not None:
        said.append("No margin was named (--margin), so nothing can be found equivalent.")
    return [*said, *results.told]


def _verdicts(evidence: Evidence, verdicts: Sequence[Verdict]) -> Part:
    if verdicts:
        return claims.verdict_section(evidence, verdicts, None)
    text = "No contrast: --baseline NAME compares all other methods with one. Below are their values and ranks."
    return make_part("verdicts", "Verdicts", [note(text)])


def _values(evidence: Evidence, verdicts: Sequence[Verdict]) -> Part:
    tables = [
        results_table(evidence.table, metric, evidence.variants, verdicts, evidence.baseline, noun="method")
        for metric in evidence.metrics
    ]
    return make_part("results", "Results", [], tables=tables)


def _differences(evidence: Evidence, verdicts: Sequence[Verdict], draw: Draw) -> Part:
    shown = [verdict for verdict in verdicts if verdict.per_dataset][: claims.DRAWN_CONTRASTS]
    forests = [claims.forest(verdict, place, draw) for place, verdict in enumerate(shown, start=1)]
    return claims.differences(evidence, verdicts, forests)


def _ranks(evidence: Evidence, said: Sequence[str], draw: Draw) -> Part:
    part = claims.ranks(evidence, draw=draw)
    return replace(part, blocks=(*[paragraph(text) for text in said], *part.blocks))


def _grounds(evidence: Evidence, draw: Draw) -> list[Part]:
    drawn = evidence.chosen(DRAWN_VARIANTS)
    styles = marks(drawn, evidence.baseline)
    return [
        grounds.classes(evidence, drawn),
        *grounds.predictions(evidence, drawn, styles, draw=draw),
        grounds.data(evidence),
    ]


def _incomplete(count: int) -> str:
    return f" ({count} left out for a gap)" if count else ""
