"""Answers of R and of textbooks, recomputed and compared with what they print."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Check:
    """A number checked against a published one: `source` says whose, `tolerance` how far off it may be."""

    name: str
    source: str
    value: float
    expected: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the number agrees with the expected one."""
        return abs(self.value - self.expected) <= self.tolerance


def goldens(folder: Path = DATA) -> Iterator[Check]:
    """Checks of every answer of R and textbooks that ships with the package. Raises ValueError where none ships."""
    for name in ("across_from_r.json", "paired_from_r.json", "demsar_table6.csv"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: must be there (run from a clone of the repository), got no such file")
    across = json.loads((folder / "across_from_r.json").read_text(encoding="utf-8"))
    paired = json.loads((folder / "paired_from_r.json").read_text(encoding="utf-8"))
    yield from _delong(paired)
    yield from _mcnemar(paired)
    yield from _ranks(across, folder / "demsar_table6.csv")
    yield from _adjusted(across)
    yield from _mixed(across)


def _delong(golden: dict[str, list[float]]) -> Iterator[Check]:
    from analysis.paired.auc import delong

    labels = np.array(golden["delong.y"], dtype=np.int64)
    a, b = (np.array(golden[f"delong.score_{side}"], dtype=np.float64) for side in "ab")
    found = delong(labels, a, b)
    values = {
        "auc_a": found.auc_a,
        "auc_b": found.auc_b,
        "paired_z": found.z,
        "paired_p": found.p_value,
        "var_a": found.variance_a,
        "cov_ab": found.covariance,
    }
    for name, value in values.items():
        yield Check(f"DeLong {name}", "R, pROC", value, golden[f"delong.{name}"][0], 1e-9)
    for end, expected in zip(("low", "high"), golden["delong.auc_a_ci95"]):
        yield Check(f"DeLong interval, {end}", "R, pROC", getattr(found.interval_a, end), expected, 1e-9)


def _mcnemar(golden: dict[str, list[float]]) -> Iterator[Check]:
    from analysis.paired.accuracy import mcnemar_counts

    found = mcnemar_counts(*(int(count) for count in golden["mcnemar_exact.b_c"]))
    yield Check("McNemar exact p", "R, binom.test", found.p_value, golden["mcnemar_exact.p"][0], 1e-12)
    found = mcnemar_counts(*(int(count) for count in golden["agresti.changed"]))
    yield Check("McNemar statistic", "Agresti 1990", found.z**2, golden["agresti.chi2"][0], 5e-5)


def _ranks(golden: dict[str, list[list[float]]], demsar: Path) -> Iterator[Check]:
    from analysis.across.rank_tests import friedman, signed_rank

    scores = np.array(golden["scores.rows_are_datasets"])
    exact = signed_rank(scores[:, 3] - scores[:, 0])
    pratt = signed_rank(scores[:, 3] - scores[:, 1], zeros="pratt")
    source = "R, exactRankTests and coin"
    yield Check("signed-rank V", source, exact.positive, _number(golden["wilcoxon_exact_4_vs_1.V"]), 0.0)
    yield Check("signed-rank exact p", source, exact.p_value, _number(golden["wilcoxon_exact_4_vs_1.p"]), 1e-12)
    yield Check(
        "signed-rank exact p, Pratt", source, pratt.p_value, _number(golden["wilcoxon_pratt_exact_4_vs_2.p"]), 1e-12
    )
    ranks = friedman(scores)
    yield Check("Friedman χ²", "R, friedman.test", ranks.chi2, _number(golden["friedman.chi2"]), 1e-9)
    yield Check("Friedman p", "R, friedman.test", ranks.p_value, _number(golden["friedman.p"]), 1e-12)
    lines = [line for line in demsar.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    table = np.array([row[1:] for row in list(csv.reader(lines))[1:]], dtype=np.float64)
    uncorrected = friedman(table, correct_ties=False)
    yield Check("Friedman χ² without ties", "Demšar 2006, table 6", uncorrected.chi2, 9.28, 0.005)
    yield Check("Iman–Davenport F", "Demšar 2006, table 6", uncorrected.statistic_f, 3.69, 0.005)
    # Depression scores before and after therapy.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    therapy = signed_rank(before - after, alternative="greater")
    yield Check("signed-rank V", "Hollander and Wolfe 1973", therapy.positive, 40.0, 0.0)
    yield Check("signed-rank one-sided p", "Hollander and Wolfe 1973", therapy.p_value, 0.01953125, 0.0)


def _adjusted(golden: dict[str, list[float]]) -> Iterator[Check]:
    from analysis.across.multiplicity import Correction, adjust

    methods: tuple[tuple[Correction, str], ...] = (("holm", "Holm"), ("bh", "Benjamini–Hochberg"))
    for method, name in methods:
        expected = golden[f"adjust.{method}"]
        worst = max(abs(a - b) for a, b in zip(adjust(golden["adjust.p"], method), expected, strict=True))
        yield Check(f"{name}, largest error of ten p values", "R, p.adjust", worst, 0.0, 1e-12)


def _mixed(golden: dict[str, list[float]]) -> Iterator[Check]:
    from analysis.across.mixed import mixed_model

    found = mixed_model(np.array(golden["scores.rows_are_datasets"]), macs=False)
    estimates = [found.intercept, *found.effects]
    for name, key in (("estimates", "lmer.score_on_variant_random_dataset.coef"), ("standard_errors", "lmer.se")):
        worst = max(abs(getattr(e, name.removesuffix("s")) - x) for e, x in zip(estimates, golden[key], strict=True))
        yield Check(f"mixed model, largest error of {name.replace('_', ' ')}", "R, lme4", worst, 0.0, 1e-4)


def _number(value: list[float] | list[list[float]]) -> float:
    (number,) = value
    assert isinstance(number, int | float)
    return float(number)
