import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ledger_fixture import as_table
from scipy import stats

import analysis.across
from analysis.across.mixed import mixed_model
from analysis.across.reml import fit_variances
from analysis.selftest.goldens import DATA

ANSWERS = json.loads((DATA / "across_from_r.json").read_text(encoding="utf-8"))


def simulate(shape, spreads, seed=0):
    """Values (data sets, variants, seeds) with standard deviations of data set, × variant, seed and residual."""
    rng, (d, v, s) = np.random.default_rng(seed), shape
    shapes = [(d, 1, 1), (d, v, 1), (d, 1, s), (d, v, s)]
    return 80.0 + sum(rng.normal(0, spread, part) for spread, part in zip(spreads, shapes))


def test_the_model_is_lme4s():
    model = mixed_model(ANSWERS["scores.rows_are_datasets"])
    coefficients = [model.intercept, *model.effects]
    assert [c.estimate for c in coefficients] == pytest.approx(
        ANSWERS["lmer.score_on_variant_random_dataset.coef"], abs=1e-9
    )
    assert [c.standard_error for c in coefficients] == pytest.approx(ANSWERS["lmer.se"], abs=1e-9)
    assert model.variance_dataset == pytest.approx(ANSWERS["lmer.var_dataset"][0], abs=1e-9)
    assert model.variance_residual == pytest.approx(ANSWERS["lmer.var_residual"][0], abs=1e-9)
    # One seed: an interaction cannot be told from the residual.
    assert model.variance_dataset_variant is None and model.variance_seed is None
    assert model.converged and model.notes == ()
    assert (model.n_datasets, model.n_seeds, model.n_cells, model.n_left_out) == (12, 1, 60, 0)
    first = model.effects[0]
    assert first.p_value == pytest.approx(2 * stats.t.sf(abs(first.estimate / first.standard_error), 11))
    assert (first.df, first.interval.over, first.interval.n) == (11, "data sets", 12)
    assert analysis.across.mixed_model is mixed_model


def test_the_model_is_that_of_statsmodels_where_it_converges():
    from statsmodels.regression.mixed_linear_model import MixedLM

    values = simulate((7, 3, 4), (3.0, 1.0, 0.8, 0.6), seed=2)
    values[1, 2, 3] = values[4, 0, 0] = math.nan
    table = as_table(values)
    model = mixed_model(table, "macro_f1")
    done = table[table["status"] == "done"].rename(columns={"test.macro_f1": "y", "variant_id": "v"})
    random = {"seed": "0 + C(seed)", "variant": "0 + C(v)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MixedLM.from_formula("y ~ C(v)", done, groups="dataset", vc_formula=random, re_formula="1").fit()
    assert theirs.converged and model.converged
    assert model.log_likelihood == pytest.approx(theirs.llf, abs=1e-6)
    assert [e.estimate for e in model.effects] == pytest.approx(theirs.fe_params.iloc[1:].tolist(), abs=1e-4)
    assert model.variance_dataset == pytest.approx(theirs.cov_re.iloc[0, 0], rel=1e-3)
    assert [model.variance_seed, model.variance_dataset_variant] == pytest.approx(theirs.vcomp.tolist(), rel=1e-3)
    assert model.variance_residual == pytest.approx(theirs.scale, rel=1e-3)
    assert model.n_left_out == 2


@pytest.mark.parametrize("seed", range(6))
def test_two_variants_without_gaps_are_the_paired_t_test(seed):
    values = simulate((6, 2, 3), (5.0, 1.5, 0.5, 0.3), seed)
    effect = mixed_model(as_table(values), "macro_f1").effects[0]
    paired = (values[:, 1] - values[:, 0]).mean(axis=1)
    theirs = stats.ttest_1samp(paired, 0.0)
    assert effect.estimate == pytest.approx(paired.mean(), abs=1e-9)
    assert effect.t == pytest.approx(theirs.statistic, rel=1e-5) and effect.p_value == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval(0.95)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((low, high), rel=1e-5)


def test_leaving_out_the_interaction_would_shrink_the_error():
    values = simulate((8, 2, 5), (3.0, 1.0, 0.0, 0.5), 1)
    whole = mixed_model(as_table(values), "macro_f1").effects[0].standard_error
    d, v, s = (index.ravel() for index in np.indices(values.shape))
    fixed = np.column_stack([np.ones(d.size), v == 1]).astype(float)
    # Every cell a seed of its own and none repeated: only the data sets stay random.
    blind = fit_variances(values.ravel(), fixed, d, v * 5 + s, np.zeros_like(s))
    assert blind.variances[1] is None
    assert math.sqrt(blind.covariance[1, 1]) < 0.6 * whole


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_at_its_maximum_also_where_variances_are_zero(seed):
    rng = np.random.default_rng(seed)
    spreads = [*rng.choice([0.0, 0.5, 3.0, 30.0], 3), 1.0]
    values = simulate((5, 3, 3), spreads, seed)
    values[rng.random(values.shape) < 0.15] = math.nan
    keep = ~np.isnan(values)
    d, v, s = (index[keep] for index in np.indices(values.shape))
    fixed = np.column_stack([np.ones(d.size), v == 1, v == 2]).astype(float)
    fit = fit_variances(values[keep], fixed, d, v, s)
    assert fit.converged

    def log_likelihood(variances):
        parts = [d[:, None] == d, v[:, None] == v, s[:, None] == s]
        covariance = np.eye(d.size) * variances[3]
        covariance += variances[0] * parts[0] + variances[1] * (parts[0] & parts[1])
        covariance += variances[2] * (parts[0] & parts[2])
        inverse = np.linalg.inv(covariance)
        information = fixed.T @ inverse @ fixed
        left = values[keep] - fixed @ np.linalg.solve(information, fixed.T @ inverse @ values[keep])
        determinants = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1]
        return -(determinants + left @ inverse @ left + (d.size - 3) * math.log(2 * math.pi)) / 2

    found = np.array([*fit.variances, fit.residual])
    best = log_likelihood(found)
    assert best == pytest.approx(fit.log_likelihood, abs=1e-6)
    for index in range(4):
        for step in (0.03, 0.3):
            for moved in (found[index] * (1 + step), found[index] * (1 - step), found[index] + step * 0.1):
                other = found.copy()
                other[index] = moved
                assert log_likelihood(other) < best + 1e-6


def test_a_variance_of_zero_is_said():
    model = mixed_model(as_table(simulate((8, 5, 5), (5, 0, 0, 0.6), 1)), "macro_f1")
    assert (model.variance_dataset_variant, model.variance_seed) == (0.0, 0.0) and model.converged
    assert model.notes == (
        "the variance of data set × variant is estimated as zero",
        "the variance of seed is estimated as zero",
    )


def test_differences_between_any_two():
    table = as_table(simulate((6, 4, 2), (3.0, 1.0, 0.3, 0.3)))
    model, turned = mixed_model(table, "macro_f1"), mixed_model(table, "macro_f1", reference="v2")
    assert model.reference == "v0" and turned.reference == "v2"
    assert [e.name for e in turned.effects] == ["v0", "v1", "v3"]
    between, direct = model.difference("v2", "v3"), turned.effects[2]
    assert between.estimate == pytest.approx(direct.estimate, abs=1e-9)
    assert between.standard_error == pytest.approx(direct.standard_error, rel=1e-6)
    assert model.difference("v0", "v1").p_value == pytest.approx(model.effects[0].p_value)
    assert model.difference("v1", "v0").estimate == -model.effects[0].estimate
    same = model.difference("v1", "v1")
    assert (same.estimate, same.p_value) == (0.0, 1.0)
    narrow = model.difference("v0", "v1", level=0.5).interval
    assert narrow.level == 0.5 and narrow.high < model.effects[0].interval.high


def with_macs(values, doublings):
    table = as_table(values)
    return table.assign(**{"cost.macs": 2.0 ** (20 + doublings.ravel())})


def test_a_variant_on_few_data_sets_has_their_degrees_of_freedom():
    values = simulate((8, 3, 2), (3.0, 1.0, 0.0, 0.6), seed=3)
    values[2:, 1] = math.nan
    values[1:, 2] = math.nan
    model = mixed_model(as_table(values), "macro_f1")
    few, one = model.effects
    assert (model.datasets_of, model.intercept.df) == ({"v0": 8, "v1": 2, "v2": 1}, 7)
    assert (few.df, few.interval.n) == (1, 2)
    assert few.interval.high - few.estimate == pytest.approx(few.standard_error * stats.t.ppf(0.975, 1))
    assert model.difference("v0", "v1") == replace(few, name="v1 − v0")
    # A single data set says nothing of how much data sets differ.
    for effect in (one, model.difference("v1", "v2")):
        assert (effect.df, effect.p_value, effect.interval.is_defined, effect.interval.n) == (0, 1.0, False, 1)


def test_gain_per_doubling_of_macs_and_differences_at_equal_macs():
    values = simulate((8, 3, 2), (3.0, 0.0, 0.0, 0.05), 3)
    doublings = np.random.default_rng(0).normal(0, 1, (8, 3, 1)) + np.array([0, 1, 2])[None, :, None]
    # Larger images on harder data sets: no gain of cost.
    doublings = doublings - values.mean(axis=(1, 2), keepdims=True)
    values = (
        values + 0.7 * (doublings - doublings.mean(axis=(1, 2), keepdims=True)) + np.array([0, 0.4, 0])[None, :, None]
    )
    table = with_macs(values, np.broadcast_to(doublings, values.shape))
    model = mixed_model(table, "macro_f1")
    assert model.macs is not None and model.macs_left_out is None
    assert model.macs.estimate == pytest.approx(0.7, abs=0.05) and model.macs.interval.low > 0.6
    assert [e.estimate for e in model.effects] == pytest.approx([0.4, 0.0], abs=0.1)
    whole = mixed_model(table, "macro_f1", macs=False)
    assert whole.macs is None and whole.macs_left_out == "not asked for"
    assert [e.estimate for e in whole.effects] == pytest.approx([0.4 + 0.7, 1.4], abs=0.6)
    assert whole.effects[1].estimate > 0.7
    assert len(model.covariance) == 4 and model.difference("v1", "v2").estimate == pytest.approx(-0.4, abs=0.1)


def test_macs_that_variants_determine_are_left_out_with_the_reason():
    values = simulate((5, 3, 2), (3.0, 1.0, 0.0, 0.5))
    doublings = np.broadcast_to(np.array([0.0, 1.0, 3.0])[None, :, None], values.shape)
    model = mixed_model(with_macs(values, doublings), "macro_f1")
    assert model.macs is None and model.macs_left_out == "variants determine their MACs"
    assert [e.estimate for e in model.effects] == [
        e.estimate for e in mixed_model(as_table(values), "macro_f1").effects
    ]
    same = mixed_model(with_macs(values, 0 * doublings), "macro_f1")
    assert same.macs_left_out == "all variants have the same MACs"
    assert mixed_model(as_table(values), "macro_f1").macs_left_out == "the table has no cost.macs"
    table = with_macs(values, doublings)
    table.loc[0, "cost.macs"] = math.nan
    assert mixed_model(table, "macro_f1").macs_left_out == "MACs are not known of every cell"


@pytest.mark.parametrize("missing", [[(0, 2)], [(0, 2), (1, 0)], [(0, 2), (1, 2), (2, 0)]])
def test_a_missing_variant_does_not_make_macs_its_own(missing):
    values = simulate((8, 3, 5), (5.0, 1.0, 0.0, 0.6), 2)
    # Images of three sizes: variants differ by the same factor on each data set.
    doublings = 3.0 * np.arange(3)[None, :, None] + (np.arange(8) % 3)[:, None, None] + np.zeros(values.shape)
    for place in missing:
        values[place] = math.nan
    model = mixed_model(with_macs(values, doublings), "macro_f1")
    assert model.macs is None and model.macs_left_out == "variants determine their MACs"
    plain = mixed_model(as_table(values), "macro_f1")
    assert [e.estimate for e in model.effects] == [e.estimate for e in plain.effects]


def test_a_missing_variant_moves_no_other_cell_along_macs():
    values = simulate((8, 3, 2), (3.0, 0.0, 0.0, 0.05), 3)
    doublings = np.random.default_rng(0).normal(0, 0.8, (8, 3, 1)) + np.array([0, 3, 6])[None, :, None]
    values = values + 0.7 * (doublings - doublings.mean(axis=1, keepdims=True))
    table = with_macs(values, np.broadcast_to(doublings, values.shape))
    whole = mixed_model(table, "macro_f1")
    table.loc[(table["variant_id"] == "v2") & (table["dataset"] == "d0"), "status"] = "failed"
    model = mixed_model(table, "macro_f1")
    assert whole.macs is not None and model.macs is not None
    assert model.macs.estimate == pytest.approx(0.7, abs=0.05)
    # The reference at equal MACs: a mean without the dearest variant would lie one and a half doublings off.
    assert model.variance_dataset == pytest.approx(whole.variance_dataset, rel=0.02)
    assert model.intercept.estimate == pytest.approx(whole.intercept.estimate, abs=0.1)


def test_scale_and_origin_change_nothing():
    values = simulate((6, 3, 3), (3.0, 1.0, 0.5, 0.5))
    plain = mixed_model(as_table(values), "macro_f1")
    moved = mixed_model(as_table((values - 80) / 100), "macro_f1")
    assert moved.effects[0].t == pytest.approx(plain.effects[0].t, rel=1e-6)
    assert moved.variance_residual == pytest.approx(plain.variance_residual / 1e4, rel=1e-5)


def test_identical_variants():
    values = simulate((5, 1, 3), (3.0, 0.0, 1.0, 0.5))
    model = mixed_model(as_table(np.repeat(values, 2, axis=1)), "macro_f1")
    effect = model.effects[0]
    assert (effect.estimate, effect.standard_error, effect.p_value) == (0.0, 0.0, 1.0)
    assert model.variance_residual == 0.0 and model.variance_dataset > 0 and model.converged
    assert "the variance of the residual is estimated as zero" in model.notes
    assert model.intercept.estimate == pytest.approx(values.mean())
    # Beside a third variant that differs.
    three = np.concatenate([values, values, simulate((5, 1, 3), (3.0, 0.0, 1.0, 0.5), 4)], axis=1)
    first = mixed_model(as_table(three), "macro_f1").effects[0]
    assert first.estimate == pytest.approx(0.0, abs=1e-9) and first.p_value == pytest.approx(1.0)


def test_a_constant_difference_is_the_limit():
    values = np.repeat(simulate((5, 1, 2), (3.0, 0.0, 1.0, 0.5)), 2, axis=1)
    values[:, 1] += 0.25
    effect = mixed_model(as_table(values), "macro_f1").effects[0]
    assert effect.estimate == pytest.approx(0.25, abs=1e-9) and (effect.standard_error, effect.p_value) == (0.0, 0.0)


def test_seeds_that_make_no_difference_count_as_one():
    values = simulate((6, 3, 1), (3.0, 1.0, 0.0, 0.0))
    model = mixed_model(as_table(np.repeat(values, 4, axis=2)), "macro_f1")
    one = mixed_model(as_table(values), "macro_f1")
    assert [e.standard_error for e in model.effects] == pytest.approx([e.standard_error for e in one.effects])
    assert model.variance_dataset_variant == pytest.approx(one.variance_residual)
    assert (model.variance_seed, model.variance_residual) == (0.0, 0.0)


def test_a_constant_metric():
    model = mixed_model(np.full((4, 3), 0.5))
    assert [e.p_value for e in model.effects] == [1.0, 1.0] and model.intercept.estimate == 0.5


def test_no_convergence_is_a_field_and_no_warning():
    # Data set × variant and seeds add up without a residual: the likelihood has no maximum.
    model = mixed_model(as_table(simulate((8, 3, 5), (5.0, 1.0, 0.5, 0.0), 3)), "macro_f1")
    assert not model.converged and "did not converge" in model.notes[-1]
    assert all("\n" not in note for note in model.notes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed_model([[0.1], [0.2]]), "at least two variants with a finished cell, got 1"),
        (lambda: mixed_model([[0.1, 0.2]]), "at least two data sets with a finished cell, got 1"),
        (lambda: mixed_model(np.zeros((0, 2))), "at least two variants with a finished cell, got 0"),
        (lambda: mixed_model([[0.1, math.nan], [math.nan, 0.2]]), "more finished cells than coefficients, got 2 for 2"),
        (lambda: mixed_model(as_table(np.ones((2, 2, 1)))), "metric must be named"),
        (lambda: mixed_model(np.eye(3), reference="v9"), "reference must be one of 0, 1, 2, got 'v9'"),
        (lambda: mixed_model(np.eye(3)).difference("0", "7"), r"those of the model \(0, 1, 2\), got '7'"),
    ],
)
def test_bad_tables_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
