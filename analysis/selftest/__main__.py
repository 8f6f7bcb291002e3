"""Checks of the statistics on this machine: `python -m analysis.selftest [STUDY] [--store DIR]`.

First the answers of R and of textbooks are recomputed. Then come simulated studies of the given study's size and
variance: how often a difference is claimed that is not there, and how often a 95 % interval holds the truth. Exit
status: 0 when all is as it should be, 1 when something is not, 2 when the study or an option is wrong.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.power import detectable_effect, smallest_adjusted_p
from analysis.rendering.arguments import whole
from analysis.selftest.goldens import Check, goldens
from analysis.selftest.simulation import (
    TRUTHS,
    Design,
    Rate,
    design_of,
    simulate_cells,
    simulate_images,
    simulate_mixed,
    simulate_these,
)

SIMULATIONS = 2000
# Bootstraps and mixed models take longer than tests of a few means.
SHARE_OF_SLOW = 0.2


def rates(design: Design, *, rng: np.random.Generator, simulations: int) -> list[Rate]:
    """Error rates and coverages of a design, all of them."""
    fewer = max(1, round(SHARE_OF_SLOW * simulations))
    found = simulate_cells(design, rng=rng, simulations=simulations)
    found += simulate_mixed(design, rng=rng, simulations=fewer)
    for metric in TRUTHS:
        found += simulate_images(design, rng=rng, simulations=fewer, metric=metric)
        if design.on_these:
            found += simulate_these(design, rng=rng, simulations=fewer, metric=metric)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
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
    from analysis.records.ledger import load_ledger, load_manifest

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
        f"\nsimulated studies without a true difference: {_data(design)} × {design.n_seeds} seeds × "
        f"{design.n_images} test images, α = {design.alpha:g}"
    )
    print(
        f"  standard deviations: over seeds {design.seed_sd:.4f}, of data set × variant {design.interaction_sd:.4f}, "
        f"by test images {design.image_sd:.4f} ({basis})"
    )
    if design.n_datasets > 1:
        reach = smallest_adjusted_p(design.n_datasets, design.family_size, design.correction)
        # As in a plan: that of a contrast whose family has no other difference.
        level = design.alpha / (1 if design.correction == "none" else design.family_size)
        effect = detectable_effect(design.n_datasets, level) * design.difference_sd
        how = f"80 % power (signed-rank test at {level:.3g})"
        found = f"differences from about {effect:.4f} on would be found with {how}"
        found = found if reach <= design.alpha else "above α, so that no difference can be shown, however large"
        print(f"  smallest p after correction in a family of {design.family_size}: {reach:.3g}; {found}")
    print("  wanted      found")


def _data(design: Design) -> str:
    if design.n_files is None:
        return f"{design.n_datasets} data sets"
    return f"{design.n_files} data sets of {design.n_datasets} sources"


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
    made.add_argument("--simulations", type=whole, default=SIMULATIONS, metavar="N", help=f"default: {SIMULATIONS}")
    made.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    return made


if __name__ == "__main__":
    sys.exit(main())
