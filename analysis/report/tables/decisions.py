"""Tables of what single test images say: instability between seeds, the worst class, calibration by frequency."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.rendering.tables import Table
from analysis.report.decisions import Decisions
from analysis.report.evidence import Evidence
from analysis.report.tables.study import COLUMN_VARIANTS
from analysis.words import NOTHING, bounds, counted, percent, share, signed

Found = Mapping[tuple[str, str], Decisions]


def instability_table(evidence: Evidence, variants: Sequence[str], found: Found) -> Table:
    """How often an image's decision flips between seeds: a row per data set, a column per variant."""
    records, cells = [], {}
    for (variant, dataset), decisions in found.items():
        one = decisions.instability()
        if one is None:
            continue
        cells[variant, dataset] = f"{share(one.share)} {bounds(one.interval)} · {percent(one.unsettled)}"
        records.append(
            {
                **_named(evidence, variant, dataset),
                "seeds": one.n_seeds,
                "disagreement": one.share,
                "low": one.interval.low,
                "high": one.interval.high,
                "interval_over": one.interval.over,
                "unsettled": one.unsettled,
            }
        )
    caption = (
        f"The share of pairs of seeds that decide differently on a test image, mean over images ({_seeds(records)}), "
        "with its 95 % interval over test images (groups, where images share one), seeds held fixed; then the percent "
        "of images on which not all seeds agree. A metric can stay where it is while decisions flip."
    )
    return _table("instability", "Instability between seeds", caption, evidence, variants, cells, records)


def worst_class_table(evidence: Evidence, variants: Sequence[str], found: Found) -> Table:
    """The lowest recall of a class: a row per data set, a column per variant."""
    records, cells = [], {}
    for (variant, dataset), decisions in found.items():
        one = decisions.worst_class()
        if one is None:
            continue
        name = _class_names(evidence, dataset, decisions)[one.label]
        cells[variant, dataset] = f"{share(one.recall)} {bounds(one.interval)} · {name}"
        records.append(
            {
                **_named(evidence, variant, dataset),
                "seeds": len(decisions.predicted),
                "class": name,
                "test_images": one.n_images,
                "recall": one.recall,
                "low": one.interval.low,
                "high": one.interval.high,
                "interval_over": one.interval.over,
                "n": one.interval.n,
            }
        )
    caption = (
        f"The lowest recall of any class with test images, mean over seeds ({_seeds(records)}), and the class. The "
        "95 % interval is over test images (groups, where images share one), seeds held fixed, and for the lowest "
        "recall, whichever class has it: Wilson's of all classes, by Bonferroni. The lowest of several is unlucky, so "
        "the number itself is too low. n of each class is in the CSV and under data sets."
    )
    return _table("worst_class", "Recall of the worst class", caption, evidence, variants, cells, records)


def frequency_table(evidence: Evidence, variants: Sequence[str], found: Found) -> Table:
    """Calibration class by class, the most frequent first: a row per data set and class, a column per variant."""
    records: list[dict[str, Any]] = []
    rows: dict[tuple[str, int], list[str]] = {}
    cells: dict[tuple[str, str, int], str] = {}
    for (variant, dataset), decisions in found.items():
        one = decisions.by_class()
        if one is None:
            continue
        names = _class_names(evidence, dataset, decisions)
        for label in sorted(range(len(names)), key=lambda k: (-one.frequency[k], k)):
            rows.setdefault((dataset, label), [dataset, names[label], percent(float(one.frequency[label]))])
            cells[variant, dataset, label] = f"{signed(float(one.bias[label]), 3)} · {share(float(one.error[label]))}"
            records.append(
                {
                    **_named(evidence, variant, dataset),
                    "seeds": len(decisions.predicted),
                    "class": names[label],
                    "frequency": one.frequency[label],
                    "bias": one.bias[label],
                    "calibration_error": one.error[label],
                }
            )
    shown = _shown(variants)
    body = [[*head, *(cells.get((v, *key), NOTHING) for v in shown)] for key, head in rows.items()]
    caption = (
        "Mean probability of a class minus its frequency on test, above zero where it is promised too often; then its "
        f"calibration error in ten bins, biased upwards on few images. Means over seeds ({_seeds(records)}), without "
        "an interval. The most frequent class of a data set stands first: rare classes are often promised too rarely."
    )
    headers = ["data set", "class", "frequency", *(evidence.variants[v] for v in shown)]
    title = "Calibration by class frequency"
    return Table("class_calibration", title, caption, headers, body, pd.DataFrame(records), frozenset({0, 1}))


def _table(
    name: str,
    title: str,
    caption: str,
    evidence: Evidence,
    variants: Sequence[str],
    cells: Mapping[tuple[str, str], str],
    records: Sequence[Mapping[str, Any]],
) -> Table:
    shown = _shown(variants)
    datasets = [name for name in evidence.datasets if any((v, name) in cells for v in shown)]
    rows = [[dataset, *(cells.get((v, dataset), NOTHING) for v in shown)] for dataset in datasets]
    more = len(variants) - len(shown)
    if more > 0:
        caption += f" The CSV also has {counted(more, 'further variant')}."
    return Table(
        name, title, caption, ["data set", *(evidence.variants[v] for v in shown)], rows, pd.DataFrame(records)
    )


def _shown(variants: Sequence[str]) -> list[str]:
    return list(variants[:COLUMN_VARIANTS])


def _named(evidence: Evidence, variant: str, dataset: str) -> dict[str, str]:
    return {"dataset": dataset, "variant_id": variant, "variant": evidence.variants[variant]}


def _class_names(evidence: Evidence, dataset: str, decisions: Decisions) -> list[str]:
    names = evidence.classes(dataset)
    return names if len(names) == decisions.n_classes else [str(k) for k in range(decisions.n_classes)]


def _seeds(records: Sequence[Mapping[str, Any]]) -> str:
    counts = sorted({int(record["seeds"]) for record in records}) or [0]
    few = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return f"n = {few}"
