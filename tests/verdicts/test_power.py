import ast
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.across import mixed_model, signed_rank
from analysis.power import (
    Spread,
    datasets_for_difference,
    datasets_needed,
    detectable_difference,
    detectable_effect,
    pilot_spread,
    seeds_for_difference,
    signed_rank_power,
    smallest_adjusted_p,
    smallest_p_signed_rank,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("n", range(1, 12))
def test_the_floor_is_the_test_of_one_sided_differences(n):
    assert smallest_p_signed_rank(n) == signed_rank(np.arange(1, n + 1)).p_value


def test_floors_that_everyone_should_know():
    assert [smallest_p_signed_rank(n) for n in (1, 3, 4, 5, 6)] == [1.0, 0.25, 0.125, 0.0625, 0.03125]
    # Three or five data sets never reach .05; ten contrasts under Holm need nine.
    assert smallest_adjusted_p(8, 10, "holm") > 0.05 > smallest_adjusted_p(9, 10, "holm")


def test_corrections_of_the_floor():
    floor = smallest_p_signed_rank(6)
    assert smallest_adjusted_p(6, 4) == smallest_adjusted_p(6, 4, "holm") == 4 * floor
    assert smallest_adjusted_p(6, 4, "bh") == smallest_adjusted_p(6, 4, "none") == smallest_adjusted_p(6) == floor
    assert smallest_adjusted_p(3, 10, "holm") == 1.0


@pytest.mark.parametrize("correction", ["holm", "bh"])
def test_adjusted_floors_are_those_of_statsmodels(correction):
    from statsmodels.stats.multitest import multipletests

    method = {"holm": "holm", "bh": "fdr_bh"}[correction]
    adjusted = multipletests([smallest_p_signed_rank(9)] * 5, method=method)[1]
    assert smallest_adjusted_p(9, 5, correction) == pytest.approx(adjusted.min(), abs=1e-15)


@pytest.mark.parametrize(("n", "family"), [(6, 1), (8, 4), (8, 6), (9, 10), (12, 1), (10, 10), (20, 4), (30, 4)])
def test_a_detectable_effect_is_found_with_its_power_by_the_test_that_decides(n, family):
    effect = detectable_effect(n, 0.05 / family)
    assert signed_rank_power(effect, n, 0.05 / family) == pytest.approx(0.8, abs=1e-3)
    draws = np.random.default_rng(7).normal(effect, 1.0, (2000, n))
    p_values = np.array([signed_rank(one, zeros="pratt").p_value for one in draws])
    # Three standard errors of both simulations.
    assert np.mean(p_values <= 0.05 / family) == pytest.approx(0.8, abs=0.028)


@pytest.mark.parametrize(("n", "family"), [(6, 1), (8, 4), (8, 6), (9, 10)])
def test_where_all_signs_must_agree_the_power_is_that_of_signs(n, family):
    from scipy.stats import norm

    for effect in (0.5, 1.5, 2.0):
        power = signed_rank_power(effect, n, 0.05 / family)
        assert power == pytest.approx(norm.cdf(effect) ** n, abs=0.01)
    assert detectable_effect(n, 0.05 / family) == pytest.approx(norm.ppf(0.8 ** (1 / n)), abs=0.03)


@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_the_power_on_many_data_sets_is_statsmodels_t_test_with_fewer(alpha):
    from statsmodels.stats.power import TTestPower

    for effect in (0.2, 0.4, 1.0):
        expected = TTestPower().power(effect, 40 * 3 / math.pi, alpha / 2, alternative="larger")
        assert signed_rank_power(effect, 40, alpha) == pytest.approx(expected, abs=1e-6)
    # It takes over from the simulation without a step.
    simulated, beyond = (detectable_effect(n, alpha) * math.sqrt(n) for n in (20, 21))
    assert beyond == pytest.approx(simulated, rel=0.02)


def test_detectable_effects_of_small_designs():
    assert [round(detectable_effect(n), 1) for n in (6, 8, 10)] == [1.8, 1.3, 1.0]
    # Two to five data sets never reach .05, however large the difference.
    assert [detectable_effect(n) for n in (2, 3, 5)] == [math.inf] * 3


def test_data_sets_needed_have_the_power_and_one_fewer_has_not():
    for effect in (0.3, 0.5, 1.0, 1.5):
        n = datasets_needed(effect, family_size=4)
        assert signed_rank_power(effect, n, 0.05 / 4) >= 0.8 > signed_rank_power(effect, n - 1, 0.05 / 4)
    assert datasets_needed(0.96) == 12


def test_a_huge_effect_still_needs_the_floor():
    assert datasets_needed(50.0) == 6
    assert datasets_needed(50.0, family_size=10) == 9
    assert datasets_needed(50.0, family_size=10, correction="none") == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smallest_p_signed_rank(0), "n_datasets must be a whole number of at least 1, got 0"),
        (lambda: smallest_p_signed_rank(2.5), "got 2.5"),
        (lambda: datasets_needed(0.5, family_size=0), "family_size must be a whole number of at least 1, got 0"),
        (lambda: smallest_adjusted_p(3, 0), "family_size must be a whole number of at least 1, got 0"),
        (lambda: smallest_adjusted_p(3, 2, "sidak"), "one of holm, bh, none, got 'sidak'"),
        (lambda: detectable_effect(1), "n must be a whole number of at least 2, got 1"),
        (lambda: detectable_effect(5, alpha=0.0), "alpha must be between 0 and 1, got 0.0"),
        (lambda: detectable_effect(5, power=1.0), "power must be between 0 and 1, got 1.0"),
        (lambda: detectable_effect(5, 0.3, 0.2), "power must be above alpha"),
        (lambda: datasets_needed(0.0), "effect must be a finite number above 0, got 0.0"),
        (lambda: Spread(-0.1, 0.0), "dataset_variant must be a finite number of at least 0, got -0.1"),
        (lambda: Spread(0.1, math.nan), "residual must be a finite number of at least 0, got nan"),
        (lambda: Spread(0.1, 0.1).of_difference(0), "n_seeds must be a whole number of at least 1, got 0"),
        (
            lambda: datasets_for_difference(0.0, Spread(0.1, 0.1), 3),
            "difference must be a finite number above 0, got 0.0",
        ),
        (lambda: seeds_for_difference(math.nan, Spread(0.1, 0.1), 3), "difference must be a finite number above 0"),
        (lambda: pilot_spread(pilot((1, 3, 2), (1, 1, 1, 1)), "macro_f1"), "got 3 variants on 1 data sets"),
        (lambda: pilot_spread(pilot((3, 1, 2), (1, 1, 1, 1)), "macro_f1"), "got 1 variants on 3 data sets"),
        (lambda: pilot_spread(pilot((3, 2, 2), (1, 1, 1, 1)), "macro_f1", variants=["7"]), "got none of 7"),
        (lambda: datasets_needed(0.001), "large enough for 100000 data sets to find it, got 0.001"),
    ],
)
def test_bad_designs_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def pilot(shape, spreads, seed=0):
    """A ledger's table of data sets × variants × seeds with spreads of data set, × variant, seed and residual."""
    rng, (d, v, s) = np.random.default_rng(seed), shape
    shapes = [(d, 1, 1), (d, v, 1), (d, 1, s), (d, v, s)]
    values = sum(rng.normal(0, spread, part) for spread, part in zip(spreads, shapes))
    datasets, variants, seeds = (index.ravel() for index in np.indices(values.shape))
    columns = {"variant_id": variants.astype(str), "dataset": datasets.astype(str), "seed": seeds}
    return pd.DataFrame(columns | {"status": "done", "test.macro_f1": values.ravel()})


def test_a_pilots_spread_is_that_of_the_mixed_model():
    table = pilot((7, 4, 5), (0.1, 0.02, 0.05, 0.01))
    spread, model = pilot_spread(table, "macro_f1"), mixed_model(table, "macro_f1")
    assert spread.dataset_variant == pytest.approx(math.sqrt(model.variance_dataset_variant), rel=1e-4)
    assert spread.residual == pytest.approx(math.sqrt(model.variance_residual), rel=1e-4)
    assert (spread.n_datasets, spread.n_variants, spread.n_seeds, spread.separated) == (7, 4, 5, True)
    two = pilot_spread(table, "macro_f1", variants=["1", "3"])
    assert two.n_variants == 2 and two.residual != spread.residual


def test_a_pilots_spread_finds_the_truth_despite_gaps():
    table = pilot((200, 3, 4), (0.1, 0.02, 0.05, 0.01), 1)
    table = table[np.random.default_rng(2).random(len(table)) < 0.8]
    spread = pilot_spread(table, "macro_f1")
    assert spread.dataset_variant == pytest.approx(0.02, rel=0.15)
    assert spread.residual == pytest.approx(0.01, rel=0.1)


def test_the_spread_of_a_difference_is_what_one_sees():
    table = pilot((400, 2, 3), (0.1, 0.02, 0.05, 0.03), 3)
    means = table.groupby(["dataset", "variant_id"])["test.macro_f1"].mean().unstack()
    assert Spread(0.02, 0.03).of_difference(3) == pytest.approx((means["1"] - means["0"]).std(), rel=0.1)


def test_degenerate_pilots():
    one_seed = pilot_spread(pilot((6, 3, 1), (0.1, 0.02, 0.0, 0.01)), "macro_f1")
    assert one_seed.residual == 0.0 and one_seed.dataset_variant > 0 and not one_seed.separated
    # More seeds are not hoped for.
    assert one_seed.of_difference(1) == one_seed.of_difference(10)
    same = pilot((4, 1, 3), (0.1, 0.0, 0.02, 0.02))
    spread = pilot_spread(pd.concat([same, same.assign(variant_id="1")]), "macro_f1")
    assert (spread.dataset_variant, spread.residual) == (0.0, 0.0)
    # Where seeds explain all, nothing is left for data set × variant, and no square root of a negative number.
    table = pilot((3, 2, 2), (0.1, 0.0, 0.0, 0.05), 4)
    assert (
        min(pilot_spread(pilot((3, 2, 2), (0.1, 0.0, 0.0, 0.05), s), "macro_f1").dataset_variant for s in range(6)) == 0
    )
    table.loc[0, "test.macro_f1"] = math.nan
    assert pilot_spread(table, "macro_f1").n_seeds == 2


def test_detectable_differences_have_the_power():
    spread = Spread(0.01, 0.006)
    found = detectable_difference(spread, 10, 5, family_size=2)
    assert signed_rank_power(found / spread.of_difference(5), 10, 0.025) == pytest.approx(0.8, abs=1e-3)
    assert (
        found < detectable_difference(spread, 10, 1, family_size=2) < detectable_difference(spread, 8, 1, family_size=2)
    )
    assert detectable_difference(spread, 10, 5) == detectable_difference(
        spread, 10, 5, family_size=4, correction="none"
    )
    # What cannot reach α finds nothing, however large.
    assert detectable_difference(spread, 5, 100) == math.inf
    assert detectable_difference(spread, 8, 5, family_size=10) == math.inf
    # Benjamini–Hochberg: not without others of the family.
    assert detectable_difference(spread, 6, 5, family_size=4, correction="bh") == math.inf
    assert detectable_difference(Spread(0.0, 0.0), 8, 1) == 0.0


def test_data_sets_and_seeds_for_a_difference_suffice_and_one_fewer_does_not():
    spread = Spread(0.006, 0.02)
    n = datasets_for_difference(0.012, spread, 3, family_size=2)
    assert detectable_difference(spread, n, 3, family_size=2) <= 0.012
    assert detectable_difference(spread, n - 1, 3, family_size=2) > 0.012
    seeds = seeds_for_difference(0.012, spread, 12, family_size=2)
    assert seeds > 1
    assert detectable_difference(spread, 12, seeds, family_size=2) <= 0.012
    assert detectable_difference(spread, 12, seeds - 1, family_size=2) > 0.012


def test_an_exact_hit_asks_for_no_further_seed():
    spread = Spread(0.006, 0.02)
    for n in (1, 2, 7, 10):
        assert seeds_for_difference(detectable_difference(spread, 9, n), spread, 9) == n


def test_no_number_of_seeds_replaces_data_sets():
    assert seeds_for_difference(0.005, Spread(0.01, 0.001), 8) is None
    assert seeds_for_difference(10.0, Spread(0.01, 0.001), 5) is None
    assert seeds_for_difference(0.001, Spread(0.0, 0.0), 8) == 1
    assert datasets_for_difference(0.001, Spread(0.0, 0.0), 1) == 6


def test_analysis_reads_records_only():
    forbidden = {"torch", "torchmetrics", "ray", "mlflow", "optuna", "study", "medmamba_variants"}
    modules = sorted((ROOT / "analysis").rglob("*.py"))
    assert {"metrics.py", "ledger.py", "mixed.py", "power.py"} <= {path.name for path in modules}
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path.name
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in modules if path.stem != "__init__"]
    imports = ", ".join(".".join(names) for names in parts)
    code = f"import sys, {imports}; print(sorted({forbidden!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_the_floor_needs_no_scipy():
    # A dry run asks for it and must answer at once.
    code = "import sys, analysis.power as p; p.smallest_adjusted_p(6, 3); print('scipy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "False"
