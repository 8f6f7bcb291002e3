import math

import numpy as np
import pandas as pd
import pytest

from analysis.records.table import as_matrix, finished_cells, metric_column, paired_seeds


def make_table(cells):
    """A ledger's table from (variant, data set, seed, macro_f1) and changes."""
    rows = []
    for variant, dataset, seed, value, *changes in cells:
        row = {"variant_id": variant, "dataset": dataset, "seed": seed, "status": "done", "test.macro_f1": value}
        rows.append(row | (changes[0] if changes else {}))
    return pd.DataFrame(rows)


@pytest.fixture
def table():
    cells = [
        ("x", "a", 0, 0.5),
        ("x", "a", 1, 0.6),
        ("y", "a", 1, 0.7),
        ("y", "a", 0, 0.65),
        ("x", "b", 0, 0.8),
        ("y", "b", 0, 0.7),
        # No partner: seed 1 of x on b, seed 2 of y on b failed.
        ("x", "b", 1, 0.99),
        ("y", "b", 2, 0.1, {"status": "failed"}),
        # No pair at all on c; nothing finished on d.
        ("x", "c", 0, 0.9),
        ("y", "c", 1, 0.8),
        ("x", "d", 0, math.nan),
    ]
    return make_table(cells)


def test_means_of_shared_seeds_make_the_matrix(table):
    values, n_incomplete = as_matrix(table, "macro_f1")
    assert values.index.tolist() == ["a", "b"] and values.columns.tolist() == ["x", "y"]
    # x's seed 1 on b has no partner.
    assert values.to_numpy().tolist() == [pytest.approx([0.55, 0.675]), [0.8, 0.7]]
    # Neither c, whose seeds meet nowhere, nor d, where nothing finished.
    assert n_incomplete == 2


def test_seeds_that_all_variants_share(table):
    found = paired_seeds(table, "macro_f1")
    assert list(found) == ["a", "b"] and found["a"].index.tolist() == [0, 1]
    # In seed order, though y's came the other way round.
    assert found["a"]["y"].tolist() == [0.65, 0.7]


def test_what_is_not_finished_is_counted(table):
    cells = finished_cells(table, "macro_f1")
    assert len(cells) == 9 and cells.attrs["left_out"] == 2
    assert np.isfinite(cells["value"]).all()


def test_a_frame_without_status_and_seed_will_do():
    plain = pd.DataFrame({"variant_id": ["x", "y"], "dataset": ["a", "a"], "score": [0.1, 0.3]})
    assert as_matrix(plain, "score")[0].to_numpy().tolist() == [[0.1, 0.3]]
    assert metric_column(plain, "score") == "score"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: as_matrix(t, "accuracy"), "metric must be one of macro_f1, got 'accuracy'"),
        (lambda t: finished_cells(t.drop(columns="dataset"), "macro_f1"), "the columns variant_id and dataset, got"),
        (lambda t: finished_cells(pd.concat([t, t]), "macro_f1"), r"got two of x on a \(seed 0\); select one recipe"),
        (
            lambda t: as_matrix(t[t["dataset"] == "c"], "macro_f1"),
            "share a finished seed on some data set, got none",
        ),
        (lambda t: paired_seeds(t[t["status"] == "failed"], "macro_f1"), "got none of 0 cells"),
    ],
)
def test_bad_tables_are_one_line(table, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(table)
    assert "\n" not in str(caught.value)
