"""Table of a race: which variant was dropped, after how many blocks, and how far behind the leader."""

import pandas as pd

from analysis.rendering.tables import Table
from analysis.report.evidence import Evidence
from analysis.words import METRIC_NAMES, p_value, signed

COLUMNS = ["variant_id", "variant", "blocks", "leader", "difference", "p_value", "level"]


def dropped(evidence: Evidence) -> Table:
    """The variants that a race dropped, in the order in which it did."""
    found = evidence.manifest["racing"]
    data = pd.DataFrame(found["dropped"], columns=COLUMNS)
    rows = [
        [
            row["variant"],
            f"{row['blocks']} of {len(found['blocks'])}",
            row["leader"],
            signed(row["difference"]),
            p_value(row["p_value"]),
            f"{row['level']:.2g}",
        ]
        for row in data.to_dict("records")
    ]
    return Table(
        "dropped",
        "Dropped variants",
        f"Differences are in mean validation {METRIC_NAMES[found['metric']]} over the blocks run by then, variant "
        "minus leader; p is one-sided, and the level what was spent at that look on one variant.",
        ["variant", "after blocks", "leader then", "difference", "p", "level"],
        rows,
        data,
        frozenset({0, 2}),
    )
