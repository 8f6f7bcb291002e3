"""The self-test: goldens that can fail, simulations that find what is known, and what a person sees."""

import dataclasses
import json
import math
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design as Ledger
from ledger_fixture import write_ledger

from analysis.metrics import METRICS
from analysis.power import Spread, detectable_difference, detectable_effect
from analysis.records.ledger import load_ledger, load_manifest
from analysis.selftest.__main__ import _print_design, main
from analysis.selftest.goldens import DATA, Check, goldens
from analysis.selftest.simulation import (
    TRUTHS,
    Design,
    Rate,
    _made_up,
    design_of,
    simulate_cells,
    simulate_images,
    simulate_mixed,
)
from analysis.words import metric_name


def named(rates):
    return {rate.name.partition(":")[0].partition(" holds")[0]: rate for rate in rates}


def run(design, simulations, seed=0, kind=simulate_cells):
    return kind(design, rng=np.random.default_rng(seed), simulations=simulations)


def test_the_answers_of_others_are_ours():
    checks = list(goldens())
    assert len(checks) >= 20
    assert [check for check in checks if not check.holds] == []
    assert {check.source.partition(" ")[0].strip(",") for check in checks} == {"R", "Agresti", "Demšar", "Hollander"}


def test_a_wrong_answer_is_seen(tmp_path, capsys, monkeypatch):
    shutil.copytree(DATA, tmp_path / "data")
    path = tmp_path / "data" / "across_from_r.json"
    changed = json.loads(path.read_text())
    changed["friedman.chi2"] = [17.9]
    path.write_text(json.dumps(changed))
    assert [check.name for check in goldens(tmp_path / "data") if not check.holds] == ["Friedman χ²"]
    monkeypatch.setattr(goldens, "__defaults__", (tmp_path / "data",))
    assert main(["--simulations", "20"]) == 1
    out = capsys.readouterr().out
    assert "WRONG  Friedman χ²: 17.83193277 (R, friedman.test: 17.9, off by 0.07)" in out
    assert "1 not where they should be" in out
    path.unlink()
    assert main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_simulation_finds_the_known_rates():
    """Eight data sets × five seeds × 2000 images: t .039 to .047, signed-rank .028 to .036 (and a seed's noise)."""
    for interaction, pooled, one_seed in ((0.01, 0.28, 0.45), (0.0, 0.11, 0.25)):
        rates = run(Design(interaction_sd=interaction), 600)
        assert named(rates)["signed-rank test over data-set means"].value < 0.06
        assert named(rates)["Student's interval over data sets"].holds
        found = {rate.name: rate.value for rate in rates}
        assert found["not used: t over all cells as if they were independent"] == pytest.approx(pooled, abs=0.05)
        alone = found["not used: one seed on one data set, taken as a claim in general"]
        assert alone == pytest.approx(one_seed, abs=0.07)


@pytest.mark.parametrize("correction", ["holm", "bh", "none"])
def test_a_family_is_held_by_its_correction_and_by_nothing_else(correction):
    rates = run(Design(n_datasets=10, family_size=5, correction=correction), 300)
    family = next(rate for rate in rates if rate.name.startswith("any false claim"))
    if correction == "none":
        assert family.value > 0.08 and family.high is None
    else:
        assert family.holds and family.value < 0.08


def test_designs_without_several_data_sets_or_seeds_have_what_they_can():
    assert run(Design(n_datasets=1), 20) == []
    assert run(Design(n_datasets=1), 20, kind=simulate_mixed) == []
    names = [rate.name for rate in run(Design(n_seeds=1, n_images=200), 10, kind=simulate_images)]
    assert names == ["DeLong's interval of macro-AUC, two sets of weights, holds the truth"]
    with pytest.raises(ValueError, match="metric must be one of macro_auc_ovr, macro_f1, got 'mcc'"):
        run(Design(), 1, kind=partial(simulate_images, metric="mcc"))


@pytest.mark.parametrize("metric", TRUTHS)
def test_images_on_one_data_set_quickly(metric):
    rates = run(Design(n_seeds=3, n_images=200), 60, kind=partial(simulate_images, metric=metric))
    assert len(rates) == 3 and all(rate.holds for rate in rates)


@pytest.mark.parametrize("metric", TRUTHS)
def test_the_truth_of_a_seed_is_what_many_images_find(metric):
    pairing, skills = _made_up(Design(n_seeds=2, n_images=200_000, seed_sd=0.03), np.random.default_rng(0))
    for side, of_side in zip((pairing.baseline, pairing.against), skills):
        found = [METRICS[metric](pairing.labels, probabilities) for probabilities in side]
        assert found == pytest.approx(TRUTHS[metric](of_side), abs=0.004)


def test_the_mixed_models_interval_quickly():
    (rate,) = run(Design(n_datasets=5, n_seeds=2), 30, kind=simulate_mixed)
    assert rate.holds and rate.high is None and rate.name == "mixed model's interval holds the truth"


def test_too_narrow_an_interval_is_seen():
    assert not Rate("x", 0.80, 400, 0.93, 0.97).holds and not Rate("x", 0.999, 4000, 0.93, 0.97).holds
    assert not Rate("x", 0.12, 400, high=0.06).holds and Rate("x", 0.065, 400, high=0.06).holds
    assert Rate("x", 1.0, 20, 0.93, 0.97).holds, "twenty of twenty are no surprise"
    # Seeds matter more than the test images: images alone are no uncertainty over trainings.
    design = Design(n_images=5000, seed_sd=0.02, interaction_sd=0.0)
    one_seed = next(r for r in run(design, 200) if "one seed on one data set" in r.name)
    assert one_seed.value > 0.5


def test_a_study_gives_the_design_and_its_cells_the_variances(tmp_path):
    ledger = Ledger(images=50, seeds=(0, 1, 2), margin=0.03)
    store = write_ledger(tmp_path, ledger)
    manifest, table = load_manifest(store, ledger.name), load_ledger(store)
    design, basis = design_of(manifest, table)
    assert (design.n_datasets, design.n_seeds, design.n_images, design.margin) == (6, 3, 50, 0.03)
    assert (design.family_size, design.alpha, design.correction) == (2, 0.05, "holm")
    # Exploratory contrasts of a family are corrected apart, as in verdicts.
    kinds = [c | {"kind": "exploratory"} if i else c for i, c in enumerate(manifest["contrasts"])]
    assert design_of({**manifest, "contrasts": kinds}, table)[0].family_size == 1
    assert basis == "estimated from the finished cells of 3 variants"
    # Known spreads come out: seeds .03 √2 apart, images taken off.
    rng = np.random.default_rng(0)
    rows = table[table["dataset"].isin(["alpha", "beta"])].copy()
    many = []
    for dataset in range(30):
        shift = 0.02 * rng.standard_normal()
        for seed in range(20):
            for place, variant in enumerate(table["variant_id"].unique()):
                row = rows.iloc[0].copy()
                row["variant_id"], row["dataset"], row["seed"], row["cell_id"] = variant, f"d{dataset}", seed, "x"
                row["test.macro_auc_ovr"] = 0.8 + 0.03 * rng.standard_normal() + (shift if place != 1 else 0.0)
                many.append(row)
    known = pd.DataFrame(many)
    known["n_test"] = 10**9
    found, _ = design_of(manifest, known)
    assert found.seed_sd == pytest.approx(0.03, rel=0.1) and found.interaction_sd == pytest.approx(0.02, rel=0.35)

    few, basis = design_of(manifest, table[table["seed"] == 0])
    assert (
        basis == "assumed: one seed cannot tell the spread over seeds from that over data sets"
        and few.seed_sd == Design.seed_sd
    )
    _, basis = design_of(manifest, table[table["dataset"] == "alpha"])
    assert basis == "assumed: no two variants have finished on two data sets yet"
    none, basis = design_of({**manifest, "contrasts": []}, table)
    assert basis.startswith("assumed: the study declares no contrast") and none.n_datasets == 6


def test_what_a_person_sees(tmp_path, capsys):
    store = write_ledger(tmp_path, Ledger(images=40))
    assert main(["split_ratio", "--store", str(store), "--simulations", "60"]) == 0
    out = capsys.readouterr().out
    assert "  ok     DeLong paired_z: 0.5038553805 (R, pROC: 0.5038553805, off by" in out
    assert "simulated studies without a true difference: 6 data sets × 3 seeds × 40 test images, α = 0.05" in out
    assert "smallest p after correction in a family of 2: 0.0625; above α, so that no difference can be shown" in out
    assert "all is where it should be" in out
    assert main(["nothing", "--store", str(store)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["--simulations", "0"])


def test_a_design_that_can_show_something_says_from_which_size_on(capsys):
    assert main(["--simulations", "5"]) == 0
    out = capsys.readouterr().out
    assert "8 data sets × 5 seeds × 2000 test images" in out and "(assumed: no study was named)" in out
    effect = detectable_effect(8) * Design().difference_sd
    assert f"differences from about {effect:.4f} on would be found with 80 % power (signed-rank test at 0.05)" in out


@pytest.mark.parametrize("correction", ["holm", "bh", "none"])
def test_the_size_that_would_be_found_is_at_the_level_of_a_plan(correction, capsys):
    design = Design(family_size=3, correction=correction)
    _print_design(design, "made up")
    spread = Spread(design.difference_sd / math.sqrt(2), 0.0)
    effect = detectable_difference(spread, 8, 1, family_size=3, correction=correction)
    assert f"differences from about {effect:.4f} on would be found" in capsys.readouterr().out


def test_bad_designs_are_one_line():
    for change, message in (
        ({"n_seeds": 0}, "n_seeds must be at least 1, got 0"),
        ({"seed_sd": -1.0}, "seed_sd must be"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(Design(), **change)
    assert Check("a", "b", 1.0, 1.1, 0.2).holds and not Check("a", "b", float("nan"), 1.1, 0.2).holds


@pytest.mark.slow
@pytest.mark.timeout(36000)
def test_intervals_hold_93_to_97_percent_and_the_primary_test_keeps_its_level():
    for design in (Design(), Design(interaction_sd=0.0), Design(n_datasets=6, n_seeds=3, n_images=300)):
        rates = named(run(design, 6000))
        assert 0.93 <= rates["Student's interval over data sets"].value <= 0.97
        assert rates["signed-rank test over data-set means"].value <= 0.06
    rates = named(run(Design(), 1500, kind=simulate_mixed))
    assert 0.93 <= rates["mixed model's interval"].value <= 0.97
    for metric, of_weights in (("macro_auc_ovr", "DeLong's interval"), ("macro_f1", "paired bootstrap interval")):
        name = metric_name(metric)
        for design in (Design(), Design(n_seeds=3, n_images=300, seed_sd=0.02), Design(n_seeds=3, n_images=300)):
            rates = named(run(design, 1500, kind=partial(simulate_images, metric=metric)))
            for found in (f"two-level bootstrap of {name}, interval", f"{of_weights} of {name}, two sets of weights,"):
                assert 0.93 <= rates[found].value <= 0.97, (design, rates[found])
            assert rates[f"two-level bootstrap of {name}"].value <= 0.06
