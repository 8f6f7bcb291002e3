"""Tables of equal budgets: how variants were scaled to equal cost, and which recipe each was given by its tuning."""

import json
import math
from typing import Any

import pandas as pd

from analysis.rendering.tables import Table
from analysis.report.evidence import Evidence
from analysis.words import METRIC_NAMES, NOTHING, counted, quantity, share

MEASURE_NAMES = {"macs": "MACs", "params": "parameters"}


def matched(evidence: Evidence) -> Table:
    """The variants before and after their widths were scaled to the cost of one of them."""
    found = evidence.manifest["matched"]
    data = pd.DataFrame(found["variants"])
    rows = [
        [
            row["label"],
            share(row["factor"], 2),
            *(quantity(row[f"{measure}_{when}"]) for measure in MEASURE_NAMES for when in ("before", "after")),
        ]
        for row in data.to_dict("records")
    ]
    heads = [f"{name}, {when}" for name in MEASURE_NAMES.values() for when in ("as given", "matched")]
    data["before"] = [json.dumps(value, ensure_ascii=False) for value in data["before"]]
    side = found["image_size"]
    return Table(
        "matched",
        "Variants at equal cost",
        f"Widths were scaled to the {MEASURE_NAMES[found['measure']]} of {found['baseline']}, to within "
        f"{share(100 * found['tolerance'], 1)} %, counted for images of {side} × {side} pixels with three channels and "
        "two classes. Elsewhere on this page costs are means over the study's data sets.",
        ["variant", "width", *heads],
        rows,
        data,
    )


def tuned(evidence: Evidence) -> Table:
    """The recipes that were tried for each variant, with their validation metric, and the one chosen."""
    found = evidence.manifest["tuning"]
    labels, rows, records = evidence.variants, [], []
    for variant_id, choice in found["choices"].items():
        label = labels.get(variant_id, (evidence.manifest.get("variants") or {}).get(variant_id, variant_id))
        scores = {_settings(tried): score for tried, score in zip(found["tried"], choice["scores"])}
        best = _settings(choice["recipe"])
        rows.append([label, best, *(NOTHING if score is None else share(score) for score in scores.values())])
        records += [
            {
                "variant_id": variant_id,
                "variant": label,
                **tried,
                "score": math.nan if score is None else score,
                "chosen": tried == choice["recipe"],
            }
            for tried, score in zip(found["tried"], choice["scores"])
        ]
    metric = METRIC_NAMES[found["metric"]]
    seeds = f"{'seed' if len(found['seeds']) == 1 else 'seeds'} {', '.join(map(str, found['seeds']))}"
    names = ", ".join(found["datasets"]) if "datasets" in found else "the data sets"
    return Table(
        "tuned",
        "Recipes by tuning",
        f"Mean validation {metric} of each recipe tried, over {names} and {seeds}; every variant had the same "
        f"{len(found['tried'])} recipes. The best was then run afresh with the study's own seeds, and those cells "
        f"alone are judged.{_at_an_end(found)}",
        ["variant", "chosen", *(_settings(tried) for tried in found["tried"])],
        rows,
        pd.DataFrame(records),
        frozenset({0, 1}),
    )


def _at_an_end(found: dict[str, Any]) -> str:
    """A sentence on variants whose best value is the first or last of those tried: beyond it may lie a better one."""
    numbers = {name: values for name, values in found["axes"].items() if all(type(v) in (int, float) for v in values)}
    ends = {name: (min(values), max(values)) for name, values in numbers.items() if len(values) > 1}
    chosen = [choice["recipe"] for choice in found["choices"].values()]
    count = sum(any(recipe[name] in ends[name] for name in ends) for recipe in chosen)
    if not count:
        return ""
    return f" {count} of {counted(len(chosen), 'variant')} chose an end of a range: beyond it may lie a better value."


def _settings(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
