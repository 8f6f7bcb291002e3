"""Verdicts over folds of one data set: never a claim on data sets in general, and never as if folds were data sets."""

import math
from collections.abc import Sequence

import numpy as np

from analysis.across.resplits import corrected_t
from analysis.records.sources import folds_alone
from analysis.verdicts.judgement import LEVEL, Judgement
from analysis.verdicts.levels import OVER_FOLDS
from analysis.verdicts.pairs import PairedCells


def are_folds(pairs: Sequence[PairedCells]) -> bool:
    """Whether the pairs are of several folds of one data set, whose sizes their records tell."""
    known = all(pair.n_train > 0 and pair.n_test > 0 for pair in pairs)
    return len(pairs) > 1 and known and folds_alone([pair.dataset for pair in pairs]) is not None


def over_folds(pairs: Sequence[PairedCells], margin: float) -> Judgement:
    """The judgement of paired differences, one a fold, seeds averaged: training and test images drawn anew."""
    ratio = float(np.mean([pair.n_test / pair.n_train for pair in pairs]))
    found = corrected_t([pair.difference for pair in pairs], ratio, margin=margin, level=LEVEL)
    return Judgement(
        level=OVER_FOLDS,
        interval=found.interval,
        p_value=found.p_value,
        equivalence_p=found.equivalence_p,
        standard_error=found.standard_error,
        df=float(found.df),
        rank_effect=math.nan,
        test=(
            f"corrected resampled t test over {found.n} folds (Nadeau and Bengio 2003; {ratio:.2g} test images for "
            f"each training image, {found.df} degrees of freedom)"
        ),
        note="",
    )


def note_on_folds(pairs: Sequence[PairedCells]) -> str:
    """What a reader must know of folds, in words."""
    base = folds_alone([pair.dataset for pair in pairs])
    return (
        f"the {len(pairs)} folds of {base} share training images: they are one source and no independent data sets, so "
        "the test widens their spread by what they share, and the claim is about this source alone"
    )
