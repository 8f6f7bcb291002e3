"""Tables of a report on one study, made from its evidence."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.across.standings import Standings, mean_costs
from analysis.records.schema import Record
from analysis.rendering.tables import Table
from analysis.report.evidence import Evidence, absent_cells
from analysis.tasks import QUADRATIC_KAPPA
from analysis.verdicts.levels import IN_GENERAL
from analysis.verdicts.verdict import corrected
from analysis.words import METRIC_NAMES, NOTHING, bounds, counted, listed, quantity, share

# Metrics shown on the page in addition to the study's own; the CSV has all.
SHOWN_METRICS = ("macro_auc_ovr", "macro_f1", "balanced_accuracy", "ece")
# The most variants that a table has columns for; its CSV has all.
COLUMN_VARIANTS = 6


def declared_contrasts(evidence: Evidence) -> Table:
    """The contrasts that were declared before the study ran, word for word."""
    columns = ["name", "baseline_label", "against_label", "metric", "margin", "family", "kind"]
    level = ["level"] if any("level" in contrast for contrast in evidence.contrasts) else []
    columns += level
    data = pd.DataFrame([[c.get(key) for key in columns] for c in evidence.contrasts], columns=columns)
    rows = [
        [*(str(row[k]) for k in columns[:4]), _margin(row["margin"]), *(str(row[k] or IN_GENERAL) for k in columns[5:])]
        for row in data.to_dict("records")
    ]
    return Table(
        "contrasts",
        "Declared contrasts",
        f"α = {evidence.manifest.get('alpha')} within each family, {corrected(evidence.manifest.get('correction'))}; "
        f"hash {evidence.manifest.get('contrasts_hash')}. Differences are against minus baseline.",
        ["contrast", "baseline", "against", "metric", "margin", "family", "kind", *level],
        rows,
        data,
        frozenset({0, 1, 2, 3, 5, 6, *([7] if level else [])}),
    )


def variant_standings(evidence: Evidence, places: Mapping[str, Standings], split: str) -> Table:
    """The table of variants: cost, cells, and every metric's mean with its interval. places: by metric."""
    done = evidence.done()
    costs = mean_costs(evidence.table, list(_COST_COLUMNS.values()), places[evidence.metrics[0]].datasets)
    counts = done.groupby("variant_id").size()
    shown = list(dict.fromkeys([*evidence.metrics[:2], *SHOWN_METRICS]))[: len(SHOWN_METRICS)]
    if QUADRATIC_KAPPA in places and QUADRATIC_KAPPA not in shown and places[QUADRATIC_KAPPA].means:
        shown.append(QUADRATIC_KAPPA)
    records, rows = [], []
    for variant_id, label in evidence.variants.items():
        cost = costs.loc[variant_id].to_dict() if variant_id in costs.index else {}
        row: dict[str, Any] = {"variant_id": variant_id, "variant": label, "cells": int(counts.get(variant_id, 0))}
        row |= {name: cost.get(key, math.nan) for name, key in _COST_COLUMNS.items()}
        text = [label, quantity(row["parameters"]), quantity(row["macs"]), str(row["cells"])]
        for metric, place in places.items():
            interval = place.intervals.get(variant_id)
            row[metric] = place.means.get(variant_id, math.nan)
            row |= {
                f"{metric}_low": interval.low if interval else None,
                f"{metric}_high": interval.high if interval else None,
            }
        for metric in shown:
            mean, interval = share(row[metric]), places[metric].intervals.get(variant_id)
            text.append(mean if interval is None or not interval.is_defined else f"{mean} {bounds(interval)}")
        records.append(row)
        rows.append(text)
    headers = [
        "variant",
        "parameters",
        "MACs",
        "cells",
        *(f"{METRIC_NAMES[m]} ({split})" for m in shown),
    ]
    return Table(
        "variants",
        "Variants",
        _standing_caption(evidence, places[evidence.metrics[0]], split),
        headers,
        rows,
        pd.DataFrame(records),
    )


def data_sets(evidence: Evidence) -> Table:
    """The table of data sets: images, classes and the number of test images of each class."""
    keys = ("modality", "image_size", "channels", "n_train", "n_val", "n_test")
    headers = ["modality", "pixels", "channels", "train", "validation", "test", "test images by class"]
    rows = []
    records: list[dict[str, Any]] = []
    shown = any(key != name for name, key in evidence.sources.items())
    for dataset in evidence.datasets:
        here = [r for r in evidence.records.values() if r["dataset"] == dataset]
        done = next((r for r in here if r["status"] == "done"), None)
        any_record: Mapping[str, Any] = done or (here[0] if here else {})
        row = {key: any_record.get(key) for key in keys}
        supports = {} if done is None else {c["class"]: c["support"] for c in done["test"]["per_class"]}
        by_class = json.dumps(supports, ensure_ascii=False)
        fingerprint = any_record.get("data_fingerprint")
        source = {"source": evidence.sources[dataset]} if shown else {}
        row = source | row
        records.append({"dataset": dataset, **row, "fingerprint": fingerprint, "test_images_by_class": by_class})
        text = [_text(value) for value in (dataset, *row.values())]
        rows.append([*text, ", ".join(f"{name} {count}" for name, count in supports.items()) or NOTHING])
    return Table(
        "datasets",
        "Data sets",
        f"Images of each split, and test images of each class (prevalence).{_told(evidence)}",
        ["data set", *(["source"] if shown else []), *headers],
        rows,
        pd.DataFrame(records),
        frozenset({0, 1, 2, 8} if shown else {0, 1, 7}),
    )


def _told(evidence: Evidence) -> str:
    shared = evidence.shared_sources
    return f" {shared[:1].upper()}{shared[1:]}." if shared else ""


def per_class(evidence: Evidence, variants: Sequence[str]) -> Table:
    """The table of classes: mean F1 over seeds with its range, a row per data set and class, a column per variant."""
    data = per_class_data(evidence.records.values(), evidence.variants)
    shown = list(variants[:COLUMN_VARIANTS])
    rows = []
    for (dataset, name), here in data.groupby(["dataset", "class"], sort=False):
        by_variant = here.set_index("variant_id")
        cells = []
        for variant_id in shown:
            if variant_id not in by_variant.index:
                cells.append(NOTHING)
                continue
            row = by_variant.loc[variant_id]
            spread = (
                ""
                if row["seeds"] < 2 or math.isnan(row["f1"])
                else f" [{share(row['f1_lowest'])}, {share(row['f1_highest'])}]"
            )
            cells.append(f"{share(row['f1'])}{spread}")
        rows.append([str(dataset), str(name), str(int(here["support"].max())), *cells])
    left_out = len(evidence.variants) - len(shown)
    return Table(
        "per_class",
        "F1 of each class",
        f"Mean over seeds on test (n = {_seeds(data)}) with the lowest and highest seed in brackets, which is a range "
        "and no interval; precision, recall and AUC are in the CSV."
        + (f" The CSV also has {counted(left_out, 'further variant')}." if left_out > 0 else ""),
        ["data set", "class", "test images", *(evidence.variants[v] for v in shown)],
        rows,
        data,
        frozenset({0, 1}),
    )


def per_class_data(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """Per-class test results, means over seeds and ranges of F1, one row per variant, data set and class."""
    names = ("precision", "recall", "f1", "auc")
    found = [
        (r["dataset"], row["class"], r["variant_id"], row["support"], *(row[name] for name in names))
        for r in records
        if r["status"] == "done"
        for row in r["test"]["per_class"]
    ]
    frame = pd.DataFrame(found, columns=["dataset", "class", "variant_id", "support", *names])
    frame = frame.astype(dict.fromkeys(names, "float64"))
    groups = frame.groupby(["dataset", "class", "variant_id"], sort=False)
    means = groups.agg(
        support=("support", "max"),
        seeds=("support", "size"),
        precision=("precision", "mean"),
        recall=("recall", "mean"),
        f1=("f1", "mean"),
        f1_lowest=("f1", "min"),
        f1_highest=("f1", "max"),
        auc=("auc", "mean"),
    ).reset_index()
    means.insert(3, "variant", means["variant_id"].map(labels))
    return means


def calibration(evidence: Evidence, variants: Sequence[str]) -> Table:
    """The table of calibration error, one row per data set, one column per variant: mean over seeds with its range."""
    done = evidence.done()
    groups = done.groupby(["dataset", "variant_id"], sort=False)
    data = groups.agg(
        seeds=("seed", "size"),
        ece=("test.ece", "mean"),
        ece_lowest=("test.ece", "min"),
        ece_highest=("test.ece", "max"),
        brier=("test.brier", "mean"),
    ).reset_index()
    data.insert(2, "variant", data["variant_id"].map(evidence.variants))
    by_key = data.set_index(["dataset", "variant_id"])
    shown = list(variants[:COLUMN_VARIANTS])
    rows = []
    for dataset in dict.fromkeys(data["dataset"]):
        cells = []
        for variant_id in shown:
            if (dataset, variant_id) not in by_key.index:
                cells.append(NOTHING)
                continue
            row = by_key.loc[(dataset, variant_id)]
            spread = f" [{share(row['ece_lowest'])}, {share(row['ece_highest'])}]" if row["seeds"] > 1 else ""
            cells.append(f"{share(row['ece'])}{spread} · {share(row['brier'])}")
        rows.append([str(dataset), *cells])
    return Table(
        "calibration",
        "Calibration error and Brier score",
        f"ECE (15 bins, biased upwards on few images), mean over seeds (n = {_seeds(data)}) with the lowest and "
        "highest seed in brackets, which is a range and no interval; then the mean Brier score. Test split, lower is "
        "better.",
        ["data set", *(evidence.variants[v] for v in shown)],
        rows,
        data,
    )


def cells_without_result(evidence: Evidence) -> Table:
    """The table of cells that failed, were stopped or never ran, and why; cells that differ by seed share a row."""
    data = absent_cells(evidence)
    # Cells that differ only by seed share a row, and so do the data sets that lack the same seeds.
    alike = data.groupby(["status", "reason", "variant", "dataset"], sort=False)["seed"].apply(tuple)
    merged: dict[tuple[str, str, str, tuple[int, ...]], list[str]] = {}
    for (status, reason, variant, dataset), seeds in alike.items():
        merged.setdefault((status, reason, variant, seeds), []).append(dataset)
    order = {"failed": 0, "stopped": 1, "missing": 2}
    rows = [
        [variant, ", ".join(datasets), ", ".join(map(str, seeds)), status, reason]
        for (status, reason, variant, seeds), datasets in sorted(merged.items(), key=lambda item: order[item[0][0]])
    ]
    unknown = len(evidence.table.attrs["missing"]) - int((data["status"] == "missing").sum())
    more = f" {counted(unknown, 'further cell')} of variants without any record." if unknown > 0 else ""
    return Table(
        "absent",
        "Cells without a result",
        f"{counted(len(data), 'cell')}, left out everywhere, nothing imputed.{more} The same command runs them again.",
        ["variant", "data sets", "seeds", "status", "why"],
        rows,
        data,
        frozenset({0, 1, 2, 3, 4}),
    )


def provenance(evidence: Evidence) -> Table:
    """The table of the commits, machines and sets of versions that finished cells ran on, one row per combination."""
    keys: dict[tuple[str, ...], int] = {}
    for record in evidence.records.values():
        if record["status"] == "done":
            key = (_text(record.get("commit")), _pairs(record.get("machine")), _pairs(record.get("versions")))
            keys[key] = keys.get(key, 0) + 1
    return Table(
        "provenance",
        "Where the results come from",
        "Each different commit, machine and set of versions, and how many finished cells ran on it.",
        ["commit", "machine", "versions", "cells"],
        [[*key, str(count)] for key, count in keys.items()],
        pd.DataFrame(
            [(*key, count) for key, count in keys.items()], columns=["commit", "machine", "versions", "cells"]
        ),
        frozenset({0, 1, 2}),
    )


_COST_COLUMNS = {
    "parameters": "cost.params",
    "macs": "cost.macs",
    "seconds_a_cell": "seconds",
    "images_per_second": "images_per_second",
}


def _standing_caption(evidence: Evidence, place: Standings, split: str) -> str:
    if not place.means:
        return "No data set has a result of every variant, so there are no means that can be compared."
    low, high = place.seeds
    seeds = counted(high, "seed") if low == high else f"{low} to {high} seeds"
    caption = f"Means on {split} over {listed(place.datasets, 12)}, {seeds} of each variant"
    defined = [interval for interval in place.intervals.values() if interval.is_defined]
    if defined:
        caption += f"; in brackets {defined[0].percent} intervals over {place.over}, n = {defined[0].n}"
    else:
        caption += "; one seed on one data set carries no interval"
    values = evidence.done().groupby("dataset")[f"{split}.{place.metric}"].count()
    undefined = [name for name in place.left_out_datasets if name in values and values[name] == 0]
    unfinished = [name for name in place.left_out_datasets if name not in undefined]
    if unfinished:
        caption += f". Left out, since no seed was finished there by every variant: {listed(unfinished)}"
    if undefined:
        metric = METRIC_NAMES[place.metric]
        caption += f". Left out, since {metric} is undefined on them (one class in {split}): {listed(undefined)}"
    if place.left_out_variants:
        have = "has" if len(place.left_out_variants) == 1 else "have"
        caption += f". {counted(len(place.left_out_variants), 'variant')} with gaps {have} no mean"
    return caption + "."


def _seeds(data: pd.DataFrame) -> str:
    """The number of seeds behind the means of a table, in words."""
    counts = sorted({int(n) for n in data["seeds"]}) or [0]
    return counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _margin(value: Any) -> str:
    return NOTHING if value is None else f"±{value:g}"


def _text(value: Any) -> str:
    return NOTHING if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (values or {}).items()) or NOTHING
