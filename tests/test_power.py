import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.across import signed_rank
from analysis.power import (
    datasets_needed,
    detectable_effect,
    paired_t_power,
    smallest_adjusted_p,
    smallest_p_signed_rank,
)

ROOT = Path(__file__).resolve().parent.parent


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


@pytest.mark.parametrize("n", [3, 5, 10, 40])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_and_effect_are_those_of_statsmodels(n, alpha):
    from statsmodels.stats.power import TTestPower

    theirs = TTestPower()
    for effect in (0.0, 0.4, 1.0):
        assert paired_t_power(effect, n, alpha) == pytest.approx(theirs.power(effect, n, alpha), abs=1e-8)
    effect = detectable_effect(n, alpha, 0.8)
    assert paired_t_power(effect, n, alpha) == pytest.approx(0.8, abs=1e-9)


def test_detectable_effects_of_small_designs():
    assert [round(detectable_effect(n), 2) for n in (3, 5, 10)] == [3.26, 1.68, 1.00]
    # Far out on the left scipy's noncentral t is NaN: two data sets must still have an answer.
    assert detectable_effect(2) == pytest.approx(11.55, abs=0.01)


def test_data_sets_needed_have_the_power_and_one_fewer_has_not():
    for effect in (0.3, 0.5, 1.0):
        n = datasets_needed(effect, family_size=4)
        assert paired_t_power(effect, n, 0.05 / 4) >= 0.8 > paired_t_power(effect, n - 1, 0.05 / 4)
    assert datasets_needed(1.0) == 10


def test_a_huge_effect_still_needs_the_floor():
    assert datasets_needed(50.0) == 6
    assert datasets_needed(50.0, family_size=10) == 9
    assert datasets_needed(50.0, family_size=10, correction="none") == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smallest_p_signed_rank(0), "n_datasets must be a whole number of at least 1, got 0"),
        (lambda: smallest_p_signed_rank(2.5), "got 2.5"),
        (lambda: smallest_adjusted_p(3, 0), "family_size must be a whole number of at least 1, got 0"),
        (lambda: smallest_adjusted_p(3, 2, "sidak"), "one of holm, bh, none, got 'sidak'"),
        (lambda: detectable_effect(1), "n must be a whole number of at least 2, got 1"),
        (lambda: detectable_effect(5, alpha=0.0), "alpha must be between 0 and 1, got 0.0"),
        (lambda: detectable_effect(5, power=1.0), "power must be between 0 and 1, got 1.0"),
        (lambda: detectable_effect(5, 0.3, 0.2), "power must be above alpha"),
        (lambda: datasets_needed(0.0), "effect must be a finite number above 0, got 0.0"),
        (lambda: datasets_needed(0.001), "large enough for 100000 data sets to find it, got 0.001"),
    ],
)
def test_bad_designs_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_analysis_reads_records_only():
    forbidden = {"torch", "torchmetrics", "ray", "mlflow", "optuna", "study", "medmamba_variants"}
    modules = sorted((ROOT / "analysis").glob("*.py"))
    assert {"metrics.py", "records.py", "across.py", "power.py"} <= {path.name for path in modules}
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path.name
    imports = ", ".join(f"analysis.{path.stem}" for path in modules if path.stem != "__init__")
    code = f"import sys, {imports}; print(sorted({forbidden!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_the_floor_needs_no_scipy():
    # A dry run asks for it and must answer at once.
    code = "import sys, analysis.power as p; p.smallest_adjusted_p(6, 3); print('scipy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "False"
