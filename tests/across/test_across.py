import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.across import summary


def make_table(cells):
    """A ledger's table with the columns that summary reads, from (variant, dataset, seed, macro_f1) and changes."""
    rows = []
    for variant, dataset, seed, value, *changes in cells:
        row = {
            "variant_id": variant,
            "variant_label": f"label {variant}",
            "recipe_id": "r0",
            "dataset": dataset,
            "seed": seed,
            "status": "done",
            "test.macro_f1": value,
            "test.macro_auc_ovr": value + 0.1,
            "cost.params": 100.0 if dataset == "a" else 200.0,
            "cost.macs": 1000.0,
        }
        rows.append(row | (changes[0] if changes else {}))
    return pd.DataFrame(rows)


def test_summary_averages_seeds_first_and_takes_t_over_data_sets():
    # Five seeds on one data set count as much as one seed on another.
    cells = [("v", "a", s, 0.6 + 0.01 * s) for s in range(5)] + [("v", "b", 0, 0.7), ("v", "c", 0, 0.8)]
    row = summary(make_table(cells)).iloc[0]
    means = np.array([0.62, 0.7, 0.8])
    assert row["macro_f1"] == pytest.approx(means.mean())
    assert row["macro_auc_ovr"] == pytest.approx(means.mean() + 0.1)
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert (row["macro_f1_low"], row["macro_f1_high"]) == pytest.approx((low, high))
    assert row["interval_over"] == "data sets"
    assert row[["n_datasets", "n_seeds", "n_cells", "n_excluded"]].tolist() == [3, 5, 7, 0]
    assert row["params"] == pytest.approx(500 / 3) and row["macs"] == 1000
    assert row["variant_label"] == "label v"


def test_one_data_set_gives_an_interval_over_seeds():
    values = np.array([0.6, 0.62, 0.67])
    row = summary(make_table([("v", "a", s, v) for s, v in enumerate(values)])).iloc[0]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (row["macro_f1_low"], row["macro_f1_high"]) == pytest.approx((low, high))
    assert row[["interval_over", "n_datasets", "n_seeds"]].tolist() == ["seeds", 1, 3]


def test_one_cell_gives_no_interval():
    row = summary(make_table([("v", "a", 0, 0.6)])).iloc[0]
    assert row["macro_f1"] == 0.6 and row["interval_over"] == "none"
    assert math.isnan(row["macro_f1_low"]) and math.isnan(row["macro_auc_ovr_high"])


def test_intervals_stay_where_metrics_live():
    row = summary(make_table([("v", "a", 0, 0.2), ("v", "b", 0, 0.85)])).iloc[0]
    assert (row["macro_f1_low"], row["macro_f1_high"]) == (0.0, 1.0)


def test_confidence_widens_the_interval():
    table = make_table([("v", d, 0, v) for d, v in zip("abcd", (0.6, 0.61, 0.63, 0.6))])
    narrow, wide = summary(table, confidence=0.5).iloc[0], summary(table).iloc[0]
    assert wide["macro_f1_low"] < narrow["macro_f1_low"] < narrow["macro_f1_high"] < wide["macro_f1_high"]


def test_failed_stopped_and_undefined_cells_are_counted_and_left_out():
    nothing = {"test.macro_f1": math.nan, "test.macro_auc_ovr": math.nan, "cost.params": math.nan}
    cells = [
        ("v", "a", 0, 0.6),
        ("v", "a", 1, 0.0, nothing | {"status": "failed"}),
        ("v", "b", 0, 0.0, nothing | {"status": "stopped"}),
        ("v", "b", 1, 0.9, {"test.macro_auc_ovr": math.nan}),
        ("w", "a", 0, 0.0, nothing | {"status": "failed"}),
        # A record that failed after it had numbers must not count either.
        ("v", "a", 2, 0.1, {"status": "failed"}),
    ]
    table = summary(make_table(cells))
    assert table["variant_id"].tolist() == ["v", "w"]
    assert table["macro_f1"][0] == 0.6 and math.isnan(table["macro_f1"][1])
    assert table["n_cells"].tolist() == [1, 0] and table["n_excluded"].tolist() == [4, 1]
    assert table["interval_over"].tolist() == ["none", "none"]


def test_two_recipes_of_one_variant_are_refused():
    table = make_table([("v", "a", 0, 0.6), ("v", "a", 0, 0.7, {"recipe_id": "r1"})])
    with pytest.raises(ValueError, match=r"one cell on a \(seed 0\), got recipes r0, r1; select one"):
        summary(table)
