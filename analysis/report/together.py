"""Several studies of one store on one page: the contrasts of each as on its own page, and all variants side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from analysis.across.standings import standings
from analysis.hashes import content_hash
from analysis.metrics import METRICS
from analysis.records.ledger import read_records
from analysis.records.places import ledger_folder
from analysis.records.schema import STATUSES
from analysis.records.sources import SOURCE_KEYS
from analysis.rendering.html import Html, note, paragraph
from analysis.report.drawing import Draw, draw_and_clear
from analysis.report.evidence import Evidence, load_evidence
from analysis.report.section import Part
from analysis.report.sections import claims, grounds
from analysis.report.write import SEED, Report, default_folder, set_aside, shared_parts, write_page
from analysis.verdicts.decisions import decide_all
from analysis.verdicts.verdict import Verdict
from analysis.words import listed

SIDE_BY_SIDE = (
    "What follows shows the variants of all of these studies together. No study declared a comparison with another's "
    "variants, so such a comparison is exploratory."
)


def write_together(
    store: Path | str, studies: Sequence[str], out: Path | str | None = None, *, draw: Draw = draw_and_clear
) -> Report:
    """Writes one page over several studies, by name or hash, into `out` (by default `<store>/reports/A_and_B`).

    Verdicts are those of each study's own page, to the last bit. Raises ValueError, one line, for an unknown study, a
    study named twice, and studies that differ in what makes results comparable: recipe, data or numerics version.
    """
    reading = read_records(ledger_folder(store))
    found = _told_apart([load_evidence(store, study, reading=reading) for study in studies])
    both = combined(found)
    with threadpool_limits(1), set_aside():
        own, verdicts, warnings = [], [], []
        for place, evidence in enumerate(found):
            parts, decided, problem = _own(evidence, place, draw)
            own.append(parts)
            verdicts += decided
            warnings += [f"no verdicts of {evidence.name}: {problem}"] if problem else []
        split = "validation" if both.is_search else "test"
        places = {name: standings(both.table, name, list(both.variants), split=split) for name in METRICS}
        rng = np.random.default_rng(SEED)
        results = claims.results(both, verdicts, split)
        made = [
            *(part for parts in own for part in parts[:3]),
            replace(results, blocks=(note(SIDE_BY_SIDE), *results.blocks)),
            claims.cost(both, places, split, rng=rng, draw=draw),
            *shared_parts(both, draw),
            *(part for parts in own for part in parts[3:]),
            grounds.limits(both),
        ]
    folder = Path(out) if out is not None else default_folder(store, both)
    page = write_page(folder, f"{both.name}: report", f"Report on {both.name}", _header(both, found, verdicts), made)
    return Report(page, folder, tuple(verdicts), tuple(warnings))


def _told_apart(studies: Sequence[Evidence]) -> list[Evidence]:
    """Studies whose names differ: that of one which shares it is followed by the start of its hash."""
    names = [study.name for study in studies]
    named = [f"{study.name} {study.manifest['study_hash'][:6]}" for study in studies]
    return [
        study if names.count(study.name) == 1 else replace(study, manifest={**study.manifest, "name": name})
        for study, name in zip(studies, named)
    ]


def combined(studies: Sequence[Evidence]) -> Evidence:
    """The evidence of several studies as that of one: a cell that is in several of them counts once.

    A label that stands for different variants is followed by the study's name. Raises ValueError where results cannot
    be compared.
    """
    if len({study.manifest["study_hash"] for study in studies}) < len(studies):
        raise ValueError(f"studies must differ from each other, got {listed([study.name for study in studies])}")
    for other in studies[1:]:
        difference = difference_between(studies[0], other)
        if difference:
            raise ValueError(f"studies on one page must share recipe, data and numerics version, got {difference}")
    tables = [study.table.dropna(axis=1, how="all") for study in studies]
    table = pd.concat(tables, ignore_index=True).drop_duplicates("cell_id", ignore_index=True)
    for name, kind in {name: kind for study in studies for name, kind in study.table.dtypes.items()}.items():
        if name not in table:
            # Empty everywhere, as it was in each.
            table[name] = pd.Series(index=table.index, dtype=kind if kind.kind == "f" else object)
    counts = table["status"].value_counts()
    first = studies[0].table.attrs
    table.attrs = {
        **{status: int(counts.get(status, 0)) for status in STATUSES},
        "torn": first["torn"],
        "errors": {key: value for study in studies for key, value in study.table.attrs["errors"].items()},
        "missing": sorted({cell for study in studies for cell in study.table.attrs["missing"]}),
        "folder": first["folder"],
    }
    variants = _labels(studies)
    table["variant_label"] = [variants[v] for v in table["variant_id"]]
    manifest = _manifest(studies, variants)
    baselines = [contrast["baseline"] for contrast in manifest["contrasts"]]
    return Evidence(
        folder=studies[0].folder,
        told=studies[0].told,
        manifest=manifest,
        table=table,
        records={key: record for study in studies for key, record in study.records.items()},
        variants=variants,
        datasets=tuple(dict.fromkeys(name for study in studies for name in study.datasets)),
        seeds=tuple(dict.fromkeys(seed for study in studies for seed in study.seeds)),
        baseline=max(baselines, key=baselines.count) if baselines else studies[0].baseline,
        metrics=tuple(dict.fromkeys(metric for study in studies for metric in study.metrics)),
    )


def difference_between(one: Evidence, other: Evidence) -> str:
    """What makes the results of two studies incomparable, in words; empty where nothing does."""
    recipes = (one.manifest.get("recipe") or {}, other.manifest.get("recipe") or {})
    for key in dict.fromkeys([*recipes[0], *recipes[1]]):
        values = [recipe.get(key) for recipe in recipes]
        if values[0] != values[1]:
            return f"recipe.{key} {values[0]} in {one.name}, {values[1]} in {other.name}"
    done = one.done(), other.done()
    versions = [sorted({int(version) for version in table["numerics_version"]}) for table in done]
    if all(versions) and versions[0] != versions[1]:
        shown = [", ".join(map(str, found)) for found in versions]
        return f"numerics version {shown[0]} in {one.name}, {shown[1]} in {other.name}"
    prints = [dict(zip(table["dataset"], table["fingerprint"])) for table in done]
    for dataset in prints[0]:
        if dataset in prints[1] and prints[0][dataset] != prints[1][dataset]:
            return (
                f"{dataset} with the content {prints[0][dataset]} in {one.name}, {prints[1][dataset]} in {other.name}"
            )
    return ""


def _labels(studies: Sequence[Evidence]) -> dict[str, str]:
    """Labels by variant, that of the first study which has it; different variants of one label are told apart."""
    found: dict[str, tuple[str, str]] = {}
    for study in studies:
        for variant_id, label in study.variants.items():
            found.setdefault(variant_id, (label, study.name))
    labels = [label for label, _ in found.values()]
    return {v: label if labels.count(label) == 1 else f"{label} ({study})" for v, (label, study) in found.items()}


def _manifest(studies: Sequence[Evidence], variants: Mapping[str, str]) -> dict[str, Any]:
    """What the studies asked, as one manifest, of which the shared sections read."""
    manifests = [study.manifest for study in studies]
    merged: dict[str, dict[str, Any]] = {
        key: {name: value for manifest in manifests for name, value in (manifest.get(key) or {}).items()}
        for key in (SOURCE_KEYS, "sources", "audits", "meanings")
    }
    searches = [m["strategy"] for m in manifests if (m.get("strategy") or {}).get("name", "grid") != "grid"]
    cells = [manifest.get("cell_ids") or study.table["cell_id"] for manifest, study in zip(manifests, studies)]
    return {
        **manifests[0],
        **merged,
        "name": " and ".join(study.name for study in studies),
        "study_hash": content_hash([manifest["study_hash"] for manifest in manifests]),
        "variants": dict(variants),
        "contrasts": [contrast for manifest in manifests for contrast in manifest.get("contrasts") or ()],
        "alpha": min(float(manifest.get("alpha") or 0.05) for manifest in manifests),
        "strategy": searches[0] if searches else manifests[0].get("strategy") or {},
        "cell_ids": list(dict.fromkeys(cell for of_study in cells for cell in of_study)),
    }


def _own(evidence: Evidence, place: int, draw: Draw) -> tuple[list[Part], list[Verdict], str | None]:
    """The sections that stand for a single study, under names of their own, its verdicts, and why there are none."""
    problem = None
    verdicts: list[Verdict] = []
    try:
        verdicts = decide_all(
            evidence.table,
            evidence.manifest,
            evidence.folder,
            rng=np.random.default_rng(SEED),
            records=evidence.told,
        )
    except ValueError as refused:
        problem = str(refused)
    shown = [verdict for verdict in verdicts if verdict.per_dataset][: claims.DRAWN_CONTRASTS]
    forests = [claims.forest(verdict, 100 * (place + 1) + k, draw) for k, verdict in enumerate(shown, start=1)]
    parts = [
        claims.question(evidence),
        claims.verdict_section(evidence, verdicts, problem),
        claims.differences(evidence, verdicts, forests),
        grounds.race(evidence),
        grounds.budgets(evidence),
        grounds.cells(evidence),
        grounds.provenance(evidence),
    ]
    return [_renamed(part, evidence.name, place) for part in parts if part is not None], verdicts, problem


def _renamed(part: Part, study: str, place: int) -> Part:
    """A section under the name of its study, so that ids and files differ from those of another's."""
    shown, folded = (
        tuple(replace(table, name=f"{table.name}_{place + 1}", title=f"{table.title}, {study}") for table in tables)
        for tables in (part.open_tables, part.folded_tables)
    )
    named = replace(part, name=f"{part.name}-{place + 1}", title=f"{part.title}: {study}")
    return replace(named, open_tables=shown, folded_tables=folded)


def _header(both: Evidence, studies: Sequence[Evidence], verdicts: Sequence[Verdict]) -> Html:
    asked = [f"{study.name}: {study.manifest.get('question') or 'no question stated'}" for study in studies]
    head = claims.header(replace(both, manifest={**both.manifest, "question": " · ".join(asked)}), verdicts)
    said = []
    for key in ("seeds", "datasets"):
        values = [getattr(study, key) for study in studies]
        if any(set(value) != set(values[0]) for value in values[1:]):
            noun = "data sets" if key == "datasets" else key
            each = "; ".join(f"{s.name}: {', '.join(map(str, v))}" for s, v in zip(studies, values))
            said.append(f"The studies have different {noun} ({each}): variants are compared on those that they share.")
    alphas = {study.name: study.manifest.get("alpha") for study in studies}
    if len(set(alphas.values())) > 1:
        said.append(f"α is {listed([f'{alpha} in {name}' for name, alpha in alphas.items()])}.")
    return Html(head + "".join(paragraph(text) for text in said))
