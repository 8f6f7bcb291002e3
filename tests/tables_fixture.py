"""Small tidy tables with known differences, and a contrast that is declared on them."""

import pandas as pd

from analysis.verdicts.declared import Contrast

HASH = "c0ffee00c0ffee00"
ABOVE = (0.05, 0.04, 0.06, 0.03, 0.07, 0.045, 0.055, 0.035)


def contrast(**changes):
    values = {"name": "b against a", "baseline": "a", "against": "b", "metric": "macro_f1", "margin": 0.02}
    return Contrast(**values | {"contrasts_hash": HASH} | changes)


def table_of(differences, *, seeds=2, metric="macro_f1", contrasts_hash=HASH, noise=0.0):
    """A tidy table of variants a and b whose metric differs by these numbers, one a data set, averaged over seeds."""
    rows = []
    for place, difference in enumerate(differences):
        for seed in range(seeds):
            for variant, value in (("a", 0.7), ("b", 0.7 + difference + noise * (seed - (seeds - 1) / 2))):
                row = {"variant_id": variant, "dataset": f"d{place}", "seed": seed, "status": "done"}
                row |= {"cell_id": f"{variant}{place}{seed}", "contrasts_hash": contrasts_hash, "n_test": 100}
                rows.append(row | {f"test.{metric}": value, "cost.macs": 3e6 if variant == "b" else 2e6})
    return pd.DataFrame(rows)
