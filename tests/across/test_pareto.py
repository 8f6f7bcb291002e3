import math

import numpy as np
import pytest
from ledger_fixture import as_table
from scipy import stats

from analysis.across.pareto import best_under_budget, gain_per_doubling, iso_cost, pareto_front


def rng(seed=0):
    return np.random.default_rng(seed)


def make_table(values, costs, metric="macro_f1"):
    """A ledger's table of values (data sets, variants, seeds), NaN where failed, with MACs by variant or data set."""
    macs = np.broadcast_to(np.asarray(costs, dtype=float), values.shape[:2])[:, :, None]
    return as_table(values, metric).assign(**{"cost.macs": np.where(np.isnan(values), math.nan, macs).ravel()})


def simulate(means, n_datasets=6, n_seeds=3, spread=0.01, seed=0):
    generator, means = rng(seed), np.asarray(means, dtype=float)
    shared = generator.normal(0, 0.2, (n_datasets, 1, 1))
    return means[None, :, None] + shared + generator.normal(0, spread, (n_datasets, len(means), n_seeds))


COSTS = [1e6, 2e6, 2e6, 4e6, 8e6]
MEANS = [0.60, 0.70, 0.65, 0.69, 0.80]


def test_the_front_of_clear_cut_variants():
    front = pareto_front(make_table(simulate(MEANS, spread=0.001), COSTS), "macro_f1", rng=rng(), draws=200)
    assert [point.variant_id for point in front.points] == ["v0", "v1", "v2", "v3", "v4"]
    assert [point.on_front for point in front.points] == [True, True, False, False, True]
    assert [point.p_front for point in front.points] == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert [point.cost for point in front.points] == COSTS and front.points[2].label == "label 2"
    assert (front.n_datasets, front.n_seeds, front.draws, front.left_out) == (6, 3, 200, ())


def test_points_carry_students_interval_over_data_sets():
    values = simulate(MEANS)
    point = pareto_front(make_table(values, COSTS), "macro_f1", rng=rng(), draws=10).points[0]
    means = values[:, 0].mean(axis=1)
    low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert (point.value, point.interval.low, point.interval.high) == pytest.approx((means.mean(), low, high))
    assert (point.interval.over, point.interval.n) == ("data sets", 6)


def test_the_hypervolume_is_a_sum_of_rectangles():
    # Over log2 cost: .1 above the reference for one doubling, .2 for two, up to the largest cost.
    values = np.array([[[0.60], [0.70], [0.65], [0.69], [0.80]]])
    table = make_table(values, COSTS)
    front = pareto_front(table, "macro_f1", rng=rng(), draws=5, reference=(8e6, 0.5))
    assert front.hypervolume == pytest.approx(0.1 * 1 + 0.2 * 2)
    further = pareto_front(table, "macro_f1", rng=rng(), draws=5, reference=(16e6, 0.5))
    assert further.hypervolume == pytest.approx(0.1 * 1 + 0.2 * 2 + 0.3)
    # By default the dearest cost and the worst mean; what lies below or beyond the reference adds nothing.
    default = pareto_front(table, "macro_f1", rng=rng(), draws=5)
    assert default.reference == (8e6, 0.6) and default.hypervolume == pytest.approx(0.1 * 2)
    assert pareto_front(table, "macro_f1", rng=rng(), draws=5, reference=(2e6, 0.65)).hypervolume == 0.0


def test_the_probabilities_are_those_of_a_plain_loop():
    values = simulate([0.60, 0.61, 0.615], n_datasets=5, n_seeds=4, spread=0.03, seed=2)
    costs = [1e6, 2e6, 3e6]
    front = pareto_front(make_table(values, costs), "macro_f1", rng=rng(1), draws=6000, reference=(6e6, 0.3))
    choice = best_under_budget(make_table(values, costs), "macro_f1", 2.5e6, rng=rng(2), draws=6000)
    generator, on_front, best, volumes = rng(3), np.zeros(3), np.zeros(2), []
    for _ in range(3000):
        means = np.mean(
            [values[d][:, generator.integers(0, 4, 4)].mean(axis=1) for d in generator.integers(0, 5, 5)], 0
        )
        on_front += [all(means[i] > means[j] for j in range(i)) for i in range(3)]
        best[means[:2].argmax()] += 1
        tops = np.maximum.accumulate(means)
        volumes.append(((tops - 0.3) * np.log2([2, 1.5, 2])).sum())
    assert [point.p_front for point in front.points] == pytest.approx(on_front / 3000, abs=0.04)
    assert 0.05 < on_front[1] / 3000 < 0.999 and 0.05 < best[0] / 3000 < 0.95
    assert list(choice.probabilities.values()) == pytest.approx(best / 3000, abs=0.04)
    centre = 2 * front.hypervolume - np.mean(volumes)
    half = math.sqrt(5 / 4) * stats.t.isf(0.025, 4) * np.std(volumes)
    ends = (max(0.0, centre - half), centre + half)
    assert (front.hypervolume_interval.low, front.hypervolume_interval.high) == pytest.approx(ends, abs=0.06)
    assert (front.hypervolume_interval.over, front.hypervolume_interval.n) == ("data sets and seeds", 5)
    assert front.hypervolume_interval.low < front.hypervolume < front.hypervolume_interval.high


def test_the_hypervolume_of_tied_variants_is_not_held_to_be_larger_than_it_is():
    generator, inside, above = rng(11), 0, 0
    for _ in range(200):
        # Each variant suits a data set or does not; none is better in general.
        values = 0.8 + generator.normal(0, 0.01, (8, 5, 1)) + generator.normal(0, 0.006, (8, 5, 3))
        table = make_table(values, [1e6, 2e6, 4e6, 8e6, 16e6])
        front = pareto_front(table, "macro_f1", rng=generator, draws=200, reference=(32e6, 0.75))
        inside += 0.05 * 5 in front.hypervolume_interval
        above += front.hypervolume > 0.05 * 5
    # Three standard errors of a share of .95 in 200; percentiles of the draws hold it in some 70 %.
    assert inside / 200 > 0.95 - 0.047
    assert above / 200 > 0.8


def test_what_variants_share_cancels():
    # Data sets of very different difficulty, and seeds of very different luck, that all variants share.
    values = np.array([0.0, 0.01])[None, :, None] + rng().normal(0, 0.3, (6, 1, 4))
    front = pareto_front(make_table(values, [1e6, 2e6]), "macro_f1", rng=rng(), draws=300)
    assert [point.p_front for point in front.points] == [1.0, 1.0]
    assert front.points[0].interval.high - front.points[0].interval.low > 0.1


def test_identical_variants_share_front_and_choice():
    values = np.repeat(simulate([0.6]), 2, axis=1)
    front = pareto_front(make_table(values, [1e6, 1e6]), "macro_f1", rng=rng(), draws=100)
    assert [(point.on_front, point.p_front) for point in front.points] == [(True, 1.0)] * 2
    choice = best_under_budget(make_table(values, [1e6, 1e6]), "macro_f1", 1e6, rng=rng(), draws=100)
    assert choice.probabilities == {"v0": 0.5, "v1": 0.5} and choice.variant_id == "v0"
    # At a higher cost the same metric is off the front, and the cheaper one is chosen.
    dearer = make_table(values, [2e6, 1e6])
    front = pareto_front(dearer, "macro_f1", rng=rng(), draws=100)
    assert [(point.variant_id, point.p_front) for point in front.points] == [("v1", 1.0), ("v0", 0.0)]
    assert best_under_budget(dearer, "macro_f1", 3e6, rng=rng(), draws=10).variant_id == "v1"


def test_the_best_within_a_budget():
    table = make_table(simulate(MEANS, spread=0.001), COSTS)
    cheap, rich = (best_under_budget(table, "macro_f1", b, rng=rng(), draws=100) for b in (1.5e6, 1e9))
    assert (cheap.variant_id, cheap.probability, cheap.label) == ("v0", 1.0, "label 0")
    assert (rich.variant_id, rich.probability, sum(rich.probabilities.values())) == ("v4", 1.0, 1.0)
    assert list(cheap.probabilities) == ["v0"] and cheap.interval.over == "data sets"
    with pytest.raises(ValueError, match=r"cheapest variant, which costs 1e\+06, got 100"):
        best_under_budget(table, "macro_f1", 100.0, rng=rng())


def test_errors_are_better_when_lower():
    values = 1 - simulate(MEANS, spread=0.001)
    front = pareto_front(make_table(values, COSTS, "brier"), "brier", rng=rng(), draws=50)
    assert [point.on_front for point in front.points] == [True, True, False, False, True]
    assert front.points[0].value == pytest.approx(values[:, 0].mean()) and front.hypervolume > 0
    assert front.reference[1] == pytest.approx(values[:, 0].mean())
    assert best_under_budget(make_table(values, COSTS, "brier"), "brier", 1e9, rng=rng(), draws=9).variant_id == "v4"
    gain = gain_per_doubling(make_table(values, COSTS, "brier"), "brier")
    assert gain.estimate == pytest.approx(-gain_per_doubling(make_table(1 - values, COSTS), "macro_f1").estimate)


def test_costs_may_be_measured():
    table = make_table(simulate(MEANS, spread=0.001), COSTS)
    latency = {"v0": 3.0, "v1": 2.0, "v2": 1.0, "v3": 5.0, "v4": 4.0}
    front = pareto_front(table, "macro_f1", rng=rng(), draws=20, cost=latency)
    assert [point.variant_id for point in front.points if point.on_front] == ["v2", "v1", "v4"]
    assert front.points[0].cost == 1.0


def test_gain_per_doubling_is_a_t_over_slopes():
    values = simulate([0.6, 0.65, 0.7, 0.72], spread=0.02, seed=4)
    costs = 1e6 * np.array([1, 2, 4, 8]) * np.linspace(1, 3, 6)[:, None]
    gain = gain_per_doubling(make_table(values, costs), "macro_f1")
    slopes = [stats.linregress([0, 1, 2, 3], row.mean(axis=1)).slope for row in values]
    theirs = stats.ttest_1samp(slopes, 0.0)
    assert gain.estimate == pytest.approx(np.mean(slopes)) and gain.p_value == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval(0.95)
    assert (gain.interval.low, gain.interval.high) == pytest.approx((low, high))
    assert list(gain.by_dataset.values()) == pytest.approx(slopes) and gain.interval.over == "data sets"
    two = gain_per_doubling(make_table(values, costs), "macro_f1", variants=["v0", "v2"])
    assert two.estimate == pytest.approx((values[:, 2] - values[:, 0]).mean() / 2)


def test_the_gain_interval_covers_the_slope():
    inside = 0
    for seed in range(100):
        values = simulate([0.6, 0.62, 0.64], n_datasets=5, n_seeds=2, spread=0.02, seed=seed)
        interval = gain_per_doubling(make_table(values, [1e6, 2e6, 4e6]), "macro_f1").interval
        inside += interval.low <= 0.02 <= interval.high
    # Three standard errors of a share of .95 in 100.
    assert inside / 100 == pytest.approx(0.95, abs=0.065)


def test_iso_cost_compares_curves_where_both_exist():
    # Baseline .5 + .1 x over x = log2(MACs / 1e6) from 0 to 2; against .6 + .05 x at 1 and 3: they meet from 1 to 2.
    values = np.tile(np.array([0.5, 0.6, 0.7, 0.65, 0.75])[None, :, None], (3, 1, 2))
    shift = np.array([0.0, 0.01, 0.02])
    values[:, 3:] += shift[:, None, None]
    table = make_table(values, 1e6 * np.array([1, 2, 4, 2, 8]))
    found = iso_cost(table, "macro_f1", ["v0", "v1", "v2"], ["v3", "v4"])
    assert list(found.by_dataset.values()) == pytest.approx(0.65 + 0.025 - 0.65 + shift)
    assert found.p_value == pytest.approx(stats.ttest_1samp(0.025 + shift, 0.0).pvalue)
    at = iso_cost(table, "macro_f1", ["v0", "v1", "v2"], ["v3", "v4"], at=4e6)
    assert at.by_dataset["d0"] == pytest.approx(0.0, abs=1e-9)
    assert at.estimate == pytest.approx(0.01)
    # A cost that lies near one end weighs by the doublings around it: gaps 0, .1, 0 at 0, .5 and 3 doublings.
    uneven = make_table(
        np.tile(np.array([0.5, 0.6, 0.5, 0.5, 0.5])[None, :, None], (3, 1, 2)), 2 ** np.array([0, 0.5, 3, 0, 3])
    )
    assert iso_cost(uneven, "macro_f1", ["v3", "v4"], ["v0", "v1", "v2"]).estimate == pytest.approx(0.05)
    # Against one variant: the other family's curve at its cost.
    assert iso_cost(table, "macro_f1", ["v0", "v2"], "v3").by_dataset["d0"] == pytest.approx(0.65 - 0.6)
    turned = iso_cost(table, "macro_f1", ["v3", "v4"], ["v0", "v1", "v2"])
    assert turned.estimate == pytest.approx(-found.estimate)


def test_variants_made_to_cost_the_same_are_compared_as_they_are():
    values = simulate([0.6, 0.63], seed=1)
    table = make_table(values, [1e6, 1.015e6])
    found = iso_cost(table, "macro_f1", "v0", "v1")
    assert found.estimate == pytest.approx((values[:, 1] - values[:, 0]).mean())
    with pytest.raises(ValueError, match=r"must meet in cost, got 1e\+06 to 1e\+06, 1.015e\+06 to"):
        iso_cost(table, "macro_f1", "v0", "v1", tolerance=0.01)


def test_failed_cells_take_their_seed_or_data_set_out():
    values = simulate(MEANS)
    values[0, 1, 2] = math.nan
    values[3, 0] = math.nan
    front = pareto_front(make_table(values, COSTS), "macro_f1", rng=rng(), draws=100)
    assert front.left_out == ("d3",) and front.n_datasets == 5
    kept = [values[d, 2, :2].mean() if d == 0 else values[d, 2].mean() for d in (0, 1, 2, 4, 5)]
    assert next(p for p in front.points if p.variant_id == "v2").value == pytest.approx(np.mean(kept))


def test_one_data_set_speaks_of_seeds():
    table = make_table(simulate(MEANS, n_datasets=1, n_seeds=5), COSTS)
    front = pareto_front(table, "macro_f1", rng=rng(), draws=100)
    assert front.hypervolume_interval.over == "seeds" and front.points[0].interval.over == "seeds"
    assert front.points[0].interval.n == 5
    gain = gain_per_doubling(table, "macro_f1")
    assert gain.interval.over == "seeds" and gain.interval.is_defined and 0 < gain.p_value < 1


def test_one_cell_a_variant_leaves_nothing_to_draw():
    table = make_table(simulate(MEANS, n_datasets=1, n_seeds=1, spread=0.0), COSTS)
    front = pareto_front(table, "macro_f1", rng=rng(), draws=20)
    assert not front.hypervolume_interval.is_defined and not front.points[0].interval.is_defined
    assert {point.p_front for point in front.points} == {0.0, 1.0}
    gain = gain_per_doubling(table, "macro_f1")
    assert gain.p_value == 1.0 and not gain.interval.is_defined
    one = pareto_front(table[table["variant_id"] == "v3"], "macro_f1", rng=rng(), draws=20)
    assert (one.hypervolume, one.points[0].p_front, len(one.points)) == (0.0, 1.0, 1)


def test_one_seed_draws_data_sets_alone():
    front = pareto_front(make_table(simulate(MEANS, n_seeds=1), COSTS), "macro_f1", rng=rng(), draws=50)
    assert front.hypervolume_interval.over == "data sets" and front.n_seeds == 1


@pytest.mark.parametrize("what", ["front", "budget"])
def test_draws_come_from_rng_alone(what):
    table = make_table(simulate([0.60, 0.61, 0.605], spread=0.03), [1e6, 2e6, 3e6])

    def answer(seed):
        if what == "front":
            return pareto_front(table, "macro_f1", rng=rng(seed), draws=40).hypervolume_interval
        return best_under_budget(table, "macro_f1", 1e9, rng=rng(seed), draws=40).probability

    np.random.seed(1)
    first = answer(3)
    np.random.seed(2)
    assert answer(3) == first
    assert len({answer(seed) for seed in range(12)}) > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: pareto_front(t, "macro_f1", rng=rng(), cost="joules"), r"table's \(macs\), got 'joules'"),
        (lambda t: pareto_front(t, "macro_f1", rng=rng(), cost={"v0": 1.0}), "every variant, got none for v1, v2"),
        (
            lambda t: pareto_front(t, "macro_f1", rng=rng(), cost={"v0": 1.0, "v1": 0.0, "v2": 1.0}),
            "finite and above 0, got 0.0 of v1 on d0",
        ),
        (lambda t: pareto_front(t, "macro_f1", rng=rng(), draws=0), "draws must be at least 1, got 0"),
        (lambda t: pareto_front(t, "macro_f1", rng=rng(), reference=(0.0, 0.5)), "a positive cost and a finite metric"),
        (lambda t: pareto_front(t, "nonsense", rng=rng()), "metric must be one of macro_f1, got 'nonsense'"),
        (lambda t: pareto_front(t[:0], "macro_f1", rng=rng()), "share a finished seed on some data set, got none"),
        (lambda t: gain_per_doubling(t, "macro_f1", variants=["v0"]), "must differ in cost, got 1e"),
        (lambda t: gain_per_doubling(t, "macro_f1", variants=["v9"]), "those of the table, got v9"),
        (lambda t: iso_cost(t, "macro_f1", [], "v0"), "at least one variant each, got none"),
        (lambda t: iso_cost(t, "macro_f1", ["v0", "v2"], "v1", at=9e6), r"families have variants \(1e\+06 to 4e\+06"),
    ],
)
def test_bad_input_is_one_line(call, message):
    table = make_table(simulate([0.6, 0.65, 0.7]), [1e6, 2e6, 4e6])
    with pytest.raises(ValueError, match=message) as caught:
        call(table)
    assert "\n" not in str(caught.value)


def test_a_variant_without_a_finished_cell():
    values = simulate([0.6, 0.65, 0.7])
    values[:, 1] = math.nan
    table = make_table(values, [1e6, 2e6, 4e6])
    front = pareto_front(table, "macro_f1", rng=rng(), draws=10)
    assert [point.variant_id for point in front.points] == ["v0", "v2"]
    with pytest.raises(ValueError, match="must have a finished cell, got none of v1"):
        iso_cost(table, "macro_f1", "v0", "v1")
