"""Checks of the statistics on this machine: `python -m analysis.selftest [STUDY] [--store DIR]`.

First the answers of R and of textbooks, anew. Then made-up studies of the given study's size and variance: how often a
difference is claimed that is not there, and how often a 95 % interval holds the truth. Exit status: 0 all is where it
should be, 1 something is not, 2 the study or an option is wrong.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.power import detectable_effect, smallest_adjusted_p
from analysis.simulation import TRUTHS, Design, Rate, design_of, simulate_cells, simulate_images, simulate_mixed

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
SIMULATIONS = 2000
# Bootstraps and mixed models take longer than tests of a few means.
SHARE_OF_SLOW = 0.2


@dataclass(frozen=True)
class Check:
    """One number against what others print: `source` says who, `tolerance` how far off it may be."""

    name: str
    source: str
    value: float
    expected: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the number is the expected one."""
        return abs(self.value - self.expected) <= self.tolerance


def goldens(folder: Path = DATA) -> Iterator[Check]:
    """Every published or foreign answer that ships with the tests. Raises ValueError where they do not ship."""
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
    from analysis.paired import delong

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
    from analysis.paired import mcnemar_counts

    found = mcnemar_counts(*(int(count) for count in golden["mcnemar_exact.b_c"]))
    yield Check("McNemar exact p", "R, binom.test", found.p_value, golden["mcnemar_exact.p"][0], 1e-12)
    found = mcnemar_counts(*(int(count) for count in golden["agresti.changed"]))
    yield Check("McNemar statistic", "Agresti 1990", found.z**2, golden["agresti.chi2"][0], 5e-5)


def _ranks(golden: dict[str, list[list[float]]], demsar: Path) -> Iterator[Check]:
    from analysis.ranks import friedman, signed_rank

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
    from analysis.multiplicity import Correction, adjust

    methods: tuple[tuple[Correction, str], ...] = (("holm", "Holm"), ("bh", "Benjamini–Hochberg"))
    for method, name in methods:
        expected = golden[f"adjust.{method}"]
        worst = max(abs(a - b) for a, b in zip(adjust(golden["adjust.p"], method), expected, strict=True))
        yield Check(f"{name}, largest error of ten p values", "R, p.adjust", worst, 0.0, 1e-12)


def _mixed(golden: dict[str, list[float]]) -> Iterator[Check]:
    from analysis.mixed import mixed_model

    found = mixed_model(np.array(golden["scores.rows_are_datasets"]), macs=False)
    estimates = [found.intercept, *found.effects]
    for name, key in (("estimates", "lmer.score_on_variant_random_dataset.coef"), ("standard_errors", "lmer.se")):
        worst = max(abs(getattr(e, name.removesuffix("s")) - x) for e, x in zip(estimates, golden[key], strict=True))
        yield Check(f"mixed model, largest error of {name.replace('_', ' ')}", "R, lme4", worst, 0.0, 1e-4)


def _number(value: list[float] | list[list[float]]) -> float:
    (number,) = value
    assert isinstance(number, int | float)
    return float(number)


def rates(design: Design, *, rng: np.random.Generator, simulations: int) -> list[Rate]:
    """All error rates and coverages of a design."""
    fewer = max(1, round(SHARE_OF_SLOW * simulations))
    found = simulate_cells(design, rng=rng, simulations=simulations)
    found += simulate_mixed(design, rng=rng, simulations=fewer)
    for metric in TRUTHS:
        found += simulate_images(design, rng=rng, simulations=fewer, metric=metric)
    return found


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    try:
        design, basis = _design(options.study, options.store)
        checks = list(goldens())
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    _print_checks(checks)
    _print_design(design, basis)
    begun = time.perf_counter()
    found = rates(design, rng=np.random.default_rng(options.seed), simulations=options.simulations)
    for rate in found:
        print(f"  {_wanted(rate)}  {100 * rate.value:5.1f} % ± {100 * rate.error:.1f}  {rate.name}")
    items: list[Check | Rate] = [*checks, *found]
    failures = [item for item in items if not item.holds]
    verdict = "all is where it should be" if not failures else f"{len(failures)} not where they should be"
    print(f"\n{verdict} ({time.perf_counter() - begun:.0f} s of simulation; ± is its standard error)")
    return 1 if failures else 0


def _design(study: str | None, store: Path) -> tuple[Design, str]:
    if study is None:
        return Design(), "assumed: no study was named"
    from analysis.records import load_ledger, load_manifest

    manifest = load_manifest(store, study)
    return design_of(manifest, load_ledger(store, study=manifest["study_hash"]))


def _print_checks(checks: Sequence[Check]) -> None:
    print(f"{len(checks)} answers of others:")
    for check in checks:
        mark = "ok   " if check.holds else "WRONG"
        off = abs(check.value - check.expected)
        print(f"  {mark}  {check.name}: {check.value:.10g} ({check.source}: {check.expected:.10g}, off by {off:.1g})")


def _print_design(design: Design, basis: str) -> None:
    print(
        f"\nmade-up studies without a true difference: {design.n_datasets} data sets × {design.n_seeds} seeds × "
        f"{design.n_images} test images, α = {design.alpha:g}"
    )
    print(
        f"  standard deviations: over seeds {design.seed_sd:.4f}, of data set × variant {design.interaction_sd:.4f}, "
        f"by test images {design.image_sd:.4f} ({basis})"
    )
    if design.n_datasets > 1:
        reach = smallest_adjusted_p(design.n_datasets, design.family_size, design.correction)
        # As a plan has it: that of a contrast whose family has no other difference.
        level = design.alpha / (1 if design.correction == "none" else design.family_size)
        effect = detectable_effect(design.n_datasets, level) * design.difference_sd
        how = f"80 % power (signed-rank test at {level:.3g})"
        found = f"differences from about {effect:.4f} on would be found with {how}"
        found = found if reach <= design.alpha else "above α, so that no difference can be shown, however large"
        print(f"  smallest p after correction in a family of {design.family_size}: {reach:.3g}; {found}")
    print("  wanted      found")


def _wanted(rate: Rate) -> str:
    low, high = (None if end is None else f"{100 * end:g}" for end in (rate.low, rate.high))
    if low and high:
        text = f"{low}–{high} %"
    elif low or high:
        text = f"≥ {low} %" if low else f"≤ {high} %"
    else:
        text = "(told)"
    return f"{' ' if rate.holds else '!'} {text:<8}"


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m analysis.selftest", description=__doc__)
    made.add_argument("study", metavar="STUDY", nargs="?", help="name or hash of a study in the store")
    made.add_argument("--store", type=Path, default=Path("mlruns"), metavar="DIR", help="default: mlruns")
    made.add_argument("--simulations", type=_whole, default=SIMULATIONS, metavar="N", help=f"default: {SIMULATIONS}")
    made.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    return made


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
