"""Closing lines of a study: means with intervals, failures, verdicts, and where everything lies."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.across.summaries import METRICS_SUMMARISED, summary
from analysis.report.evidence import Evidence, load_evidence
from analysis.verdicts.decisions import decide_all
from analysis.verdicts.verdict import Verdict
from analysis.words import LONGEST_REASON, METRIC_NAMES, counted, ends, quantity, share, shortened
from medmamba_variants.hints import one_line
from medmamba_variants.networks import read_network
from study.declaration.definition import Study
from study.store.database import absolute_uri, default_uri
from study.store.ledger import Ledger
from study.store.tracking import VariantSummary
from study.strategies.importance import Importance
from study.telling.progress import describe_failure
from study.telling.terminal import columns

FAILURES_LISTED = 20

INTERVAL_MEANINGS = {
    "data sets": "t over the means of {n_datasets} data sets (seeds averaged): where the mean over such data sets may "
    "lie; wide because data sets differ in difficulty, so it does not compare variants",
    "sources": "t over the means of {n_sources} sources of {n_datasets} data sets (seeds and files averaged): where "
    "the mean over such sources may lie; wide because they differ in difficulty, so it does not compare variants",
    "seeds": "t over {n_seeds} seeds on one data set, its test images held fixed: where another training may end",
    "none": "one seed on one data set carries no interval",
}


@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a study: verdicts on the declared contrasts as lines, and the report's page, if any."""

    lines: list[str] = field(default_factory=list)
    page: Path | None = None


def conclude(study: Study, evidence: Evidence, store: Path, report: bool) -> Conclusion:
    """Decides on the contrasts of a study, and writes its report if requested.

    Whatever goes wrong is reported in one line: the cells are done and recorded, and their exit status stands.
    """
    if not report:
        return Conclusion(_verdicts_alone(evidence))
    try:
        # Late: it draws, and a launch that never gets here need not load what that takes.
        from analysis.report.write import write_report

        written = write_report(store, study.study_hash, evidence=evidence)
    except Exception as error:
        again = f"python -m analysis.report {study.study_hash} --store {shlex.quote(str(store))}"
        warning = f"warning: the report was not written ({_reason(error)}); once that is mended: {again}"
        return Conclusion([*_verdicts_alone(evidence), warning])
    warnings = [f"warning: {warning}" for warning in written.warnings]
    return Conclusion([*verdict_lines(written.verdicts), *warnings], written.page)


def _verdicts_alone(evidence: Evidence) -> list[str]:
    try:
        rng, records = np.random.default_rng(0), evidence.told
        return verdict_lines(decide_all(evidence.table, evidence.manifest, evidence.folder, rng=rng, records=records))
    except Exception as error:
        return [f"warning: no verdicts ({_reason(error)})"]


def _reason(error: Exception) -> str:
    return shortened(one_line(error), LONGEST_REASON)


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """One line per contrast, then reasons for exploratory claims and other notes, once each."""
    if not verdicts:
        return []
    lines = ["", "contrasts (against minus baseline, test split; 95 % intervals):"]
    lines += [f"  {verdict.line}" for verdict in verdicts]
    told: dict[str, list[str]] = {}
    for verdict in verdicts:
        for text in [*(f"exploratory: {reason}" for reason in verdict.reasons), *verdict.notes]:
            told.setdefault(text, []).append(verdict.contrast.name)
    for text, names in told.items():
        lines.append(f"  {text}" if len(names) == len(verdicts) else f"  {text} ({', '.join(names)})")
    return lines


def gather(study: Study, ledger: Ledger) -> Evidence:
    """The evidence of a study in its ledger, for all closing lines. The study's manifest must already be written.

    Raises ValueError when there is no record of the study.
    """
    return load_evidence(ledger.folder, study.study_hash, reading=ledger.reading())


def summarise(study: Study, evidence: Evidence) -> pd.DataFrame:
    """The summary of a study, one row per variant."""
    table = summary(evidence.table)
    # Cells end in any order; a grid's variants are shown in the file's.
    order = [variant.variant_id for _, variant in study.variants()]
    return table.sort_values("variant_id", key=lambda ids: ids.map(order.index), kind="stable") if order else table


def for_tracking(table: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> list[VariantSummary]:
    """The rows of `summarise` for MLflow."""
    variants = {record["variant_id"]: record["variant"] for record in records.values()}
    numbers = {name: name for name in ("n_datasets", "n_seeds", "n_cells", "n_excluded", "params", "macs")}
    for name in METRICS_SUMMARISED:
        # Prefixes, since MLflow's columns are narrow, and "avg" since they are in alphabetical order.
        numbers |= {f"avg.{name}": name, f"low.{name}": f"{name}_low", f"high.{name}": f"{name}_high"}
    return [
        VariantSummary(
            variant_id=row["variant_id"],
            label=row["variant_label"],
            variant=variants[row["variant_id"]],
            numbers={name: None if pd.isna(row[key]) else float(row[key]) for name, key in numbers.items()},
            interval_over=row["interval_over"],
        )
        for row in table.to_dict("records")
    ]


def table_lines(table: pd.DataFrame) -> list[str]:
    """The summary as lines of an aligned table, with the meaning of its intervals."""
    head = ["variant"]
    for name in METRICS_SUMMARISED:
        head += [METRIC_NAMES[name], "95 % interval"]
    head += ["parameters", "MACs", "cells"]
    rows = []
    for row in table.to_dict("records"):
        cells = [row["variant_label"]]
        for name in METRICS_SUMMARISED:
            cells += [share(row[name]), ends(row[f"{name}_low"], row[f"{name}_high"])]
        excluded = f" of {row['n_cells'] + row['n_excluded']}" if row["n_excluded"] else ""
        rows.append([*cells, quantity(row["params"]), quantity(row["macs"]), f"{row['n_cells']}{excluded}"])
    lines = columns(head, rows, right=(1, 3, 5, 6, 7))
    return [*lines, *_meanings(table)]


def failure_lines(study: Study, records: Mapping[str, Mapping[str, Any]], cell_ids: list[str]) -> list[str]:
    """One line for each of some cells that failed."""
    failed = [records[cell_id] for cell_id in cell_ids if records.get(cell_id, {}).get("status") == "failed"]
    if not failed:
        return []
    lines = [f"{counted(len(failed), 'cell')} failed; the same command runs them again:"]
    for record in failed[:FAILURES_LISTED]:
        label = study.label(read_network(record["variant"]))
        lines.append(f"  {describe_failure(label, dict(record))}")
    if len(failed) > FAILURES_LISTED:
        lines.append(f"  and {len(failed) - FAILURES_LISTED} more, with tracebacks in the ledger")
    return lines


def front_lines(front: list[tuple[str, dict[str, float]]]) -> list[str]:
    """Lines on the variants of a search that no other beats, with their objectives."""
    if not front:
        return []
    names = list(front[0][1])
    ordered = sorted(front, key=lambda item: item[1].get("macs", 0.0))
    rows = [
        [label, *(quantity(values[name]) if name == "macs" else share(values[name]) for name in names)]
        for label, values in ordered
    ]
    head = [
        "no other variant beats",
        *(f"validation {METRIC_NAMES[name]}" if name != "macs" else "MACs" for name in names),
    ]
    return ["", *columns(head, rows, right=range(1, len(head)))]


def importance_lines(found: Mapping[str, Sequence[Importance]]) -> list[str]:
    """Lines on which axes of a search mattered, a table a metric; none where too few variants tell."""
    lines = []
    for name, axes in found.items():
        if axes:
            rows = [(one.axis, share(one.share, 2), ends(one.low, one.high, 2)) for one in axes]
            title = f"axis, for validation {METRIC_NAMES[name]}"
            lines += ["", *columns((title, "share of variance", "95 % interval"), rows, right=(1, 2))]
    if lines:
        lines.append("shares of the variance over the whole space that go with an axis alone (fANOVA of the variants")
        lines.append(
            "that trained; intervals over resamples of them); axes without effect in some variants are left out"
        )
    return lines


def place_lines(
    store: Path, ledger: Ledger, page: Path | None, tracking_uri: str | None, default_store: Path
) -> list[str]:
    """Lines on where the results lie and how to look at them."""
    lines = [f"ledger  {ledger.records_path}", f"store   {store}"]
    if page is not None:
        lines.append(f"report  {page}")
    if tracking_uri is None:
        return lines
    if absolute_uri(tracking_uri) == default_uri(store):
        option = "" if store.absolute() == default_store.absolute() else f" --store {shlex.quote(str(store))}"
        return [*lines, f"look    python -m study.ui{option}"]
    return [*lines, f"MLflow  {tracking_uri}"]


def _meanings(table: pd.DataFrame) -> list[str]:
    """The meaning of the intervals, once for each kind that occurs."""
    lines = []
    for kind, rows in table.groupby("interval_over", sort=False):
        most = {name: int(rows[name].max()) for name in ("n_datasets", "n_sources", "n_seeds")}
        lines.append(f"test split; intervals: {INTERVAL_MEANINGS[str(kind)].format(**most)}")
    return lines
