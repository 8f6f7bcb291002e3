"""Contrasts over folds of one data set: a corrected test, words that say so, and never a claim in general."""

import numpy as np
import pandas as pd
import pytest
from tables_fixture import contrast, table_of

from analysis.across.resplits import corrected_t
from analysis.records.sources import folds_alone
from analysis.verdicts.decisions import decide
from analysis.verdicts.levels import OVER_FOLDS, THESE_DATA_SETS

DIFFERENCES = (0.05, 0.04, 0.06, 0.03, 0.07)


def folds(differences=DIFFERENCES, base="busi", n_train=300):
    table = table_of(differences)
    names = {f"d{place}": f"{base}@fold{place + 1}" for place in range(len(differences))}
    return table.assign(dataset=table["dataset"].map(names), source_key=base, n_train=n_train)


def test_folds_of_one_data_set_are_tested_as_such():
    found = decide(folds(), contrast(level=THESE_DATA_SETS))
    expected = corrected_t(DIFFERENCES, 100 / 300, margin=0.02)
    assert (found.level, found.n_datasets, found.n_sources) == (OVER_FOLDS, 5, 1)
    assert found.p_value == pytest.approx(expected.p_value)
    assert found.equivalence_p == pytest.approx(expected.equivalence_p)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.interval.low, expected.interval.high))
    assert found.outcome == "superior" and not any("takes 3 seeds" in reason for reason in found.reasons)
    for words in (
        "is better than a in macro-F1 on busi split anew, which says nothing of other data sets",
        "corrected resampled t test over 5 folds (Nadeau and Bengio 2003; 0.33 test images for each training image, 4 ",
        "5 folds of one source, 2 seeds",
        "The 5 folds of busi share training images: they are one source and no independent data sets",
    ):
        assert words in found.sentence, found.sentence


def test_folds_never_make_a_claim_in_general():
    found = decide(folds(), contrast())
    assert found.level == OVER_FOLDS and found.exploratory
    assert any("cannot reach" in reason and "5 data sets of 1 source" in reason for reason in found.reasons)


def test_too_few_folds_are_exploratory():
    found = decide(folds(DIFFERENCES[:2]), contrast(level=THESE_DATA_SETS))
    assert found.exploratory and "a claim over folds takes 3 of them, got 2" in found.reasons


def test_folds_beside_another_source_are_averaged_and_count_once():
    both = pd.concat([folds(), folds((0.02,) * 5, base="mri").assign(seed=lambda t: t["seed"])])
    both["cell_id"] = [f"c{place}" for place in range(len(both))]
    found = decide(both, contrast())
    assert found.level == "in general" and found.n_sources == 2
    assert found.estimate == pytest.approx((np.mean(DIFFERENCES) + 0.02) / 2)


def test_names_of_folds():
    assert folds_alone(["a@fold1", "a@fold12"]) == "a"
    assert folds_alone(["a@fold1", "b@fold2"]) is None and folds_alone(["a@fold1", "a"]) is None
