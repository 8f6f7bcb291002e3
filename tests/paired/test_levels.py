"""The mean of differences on fixed data sets: known answers, and its rates of error with few seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.paired.bootstrap import two_level_bootstrap
from analysis.paired.levels import Parts, stratified, student_parts

INF = math.inf


def part(seeds, df=2, shared=0.0, images=0.0, images_df=INF, units=100):
    return Parts(seeds, df, shared, images, images_df, units)


def test_two_data_sets_without_image_noise_are_welchs_test():
    a, b = np.array([0.01, 0.03, 0.02]), np.array([0.05, 0.01, 0.02, 0.06])
    found = stratified(
        [a.mean(), -b.mean()], [part(x.var(ddof=1) / len(x), len(x) - 1) for x in (a, b)], [0.5, 0.5], [0, 1]
    )
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert found.df == pytest.approx(welch.df)
    assert found.difference / found.error == pytest.approx(welch.statistic)
    assert 2 * found.p_beyond(abs(found.difference)) == pytest.approx(welch.pvalue)
    low, high = welch.confidence_interval()
    assert 2 * found.half_width(0.025) == pytest.approx((high - low) / 2)


def test_one_data_set_is_students_test():
    x = np.array([0.01, 0.03, 0.025])
    found = stratified([x.mean()], [part(x.var(ddof=1) / 3)], [1.0], [0])
    assert 2 * found.p_beyond(x.mean()) == pytest.approx(stats.ttest_1samp(x, 0).pvalue)


def test_the_interval_is_never_narrower_than_over_images():
    found = stratified([0.02, 0.02], [part(1e-12, 2, 0.0, 4e-4)] * 2, [0.5, 0.5], [0, 1])
    assert found.half_width(0.025) == pytest.approx(stats.norm.isf(0.025) * math.sqrt(2e-4))
    assert found.p_beyond(0.02) == pytest.approx(stats.norm.sf(0.02 / math.sqrt(2e-4)))
    few = stratified([0.02, 0.02], [part(1e-12, 2, 0.0, 4e-4, 4)] * 2, [0.5, 0.5], [0, 1])
    assert few.floor_df == pytest.approx(8) and few.half_width(0.025) > found.half_width(0.025)


def test_files_of_one_source_may_share_their_images():
    apart, together = (
        stratified([0.0, 0.0], [part(0.0, 2, 1e-4, 1e-4)] * 2, [0.5, 0.5], sources) for sources in ([0, 1], [7, 7])
    )
    assert together.error == pytest.approx(0.01) and apart.error == pytest.approx(0.01 / math.sqrt(2))
    assert together.floor == pytest.approx(0.01)


def test_no_uncertainty_at_all():
    found = stratified([0.0], [part(0.0)], [1.0], [0])
    assert found.p_beyond(0.0) == 1.0 and found.p_beyond(0.1) == 0.0 and found.half_width(0.025) == 0.0


def test_parts_tell_what_images_do_to_all_seeds_from_what_they_do_to_each():
    rng = np.random.default_rng(0)
    shared, own = 0.02 * rng.standard_normal((20_000, 1)), 0.03 * rng.standard_normal((20_000, 4))
    means, parts = student_parts(np.array([0.1, 0.2, 0.1, 0.3]), shared + own, 50, INF)
    assert parts.shared == pytest.approx(0.02**2, rel=0.1) and parts.images == pytest.approx(means.var())
    assert parts.images == pytest.approx(0.02**2 + 0.03**2 / 4, rel=0.1)
    assert parts.seeds == pytest.approx(np.var([0.1, 0.2, 0.1, 0.3], ddof=1) / 4) and (parts.df, parts.units) == (3, 50)


# Variance between seeds, of images on each seed alone, and on all alike; how much larger on the second data set.
SETTINGS = [(1, 0, 0, 1), (1, 0.3, 0.3, 1), (1, 0.3, 0.3, 9), (0.25, 1, 0, 1), (0, 1, 0.5, 1), (1, 0, 0, 9)]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("n_datasets", [2, 4])
def test_three_seeds_on_fixed_data_sets_claim_falsely_no_more_often_than_alpha(setting, n_datasets):
    """At most .06 where there is no difference, and where there is one of just the margin, for equivalence."""
    seed, own, shared, larger = setting
    rng, n, seeds = np.random.default_rng(0), 2000, 3
    scale = np.array([1.0] + [float(larger)] * (n_datasets - 1))
    noise = rng.standard_normal((n, n_datasets, seeds)) * math.sqrt(seed + own)
    noise += rng.standard_normal((n, n_datasets, 1)) * math.sqrt(shared)
    values = noise * np.sqrt(scale)[:, None]
    weights, sources = [1 / n_datasets] * n_datasets, range(n_datasets)
    claims = covers = equal = 0
    for study in values:
        parts = [
            part(x.var(ddof=1) / seeds, seeds - 1, shared * s, (shared + own / seeds) * s) for x, s in zip(study, scale)
        ]
        found = stratified(study.mean(axis=1), parts, weights, sources)
        claims += 2 * found.p_beyond(abs(found.difference)) <= 0.05
        covers += abs(found.difference) <= found.half_width(0.025)
        # A margin of three standard errors, and a truth upon it.
        margin = 3 * math.sqrt(sum((seed / seeds + own / seeds + shared) * s for s in scale)) / n_datasets
        equal += found.p_beyond(margin - abs(found.difference + margin)) <= 0.05
    assert claims / n <= 0.06 and covers == n - claims and equal / n <= 0.06


def test_seeds_that_agree_by_chance_make_no_narrow_interval():
    """Three seeds alike to the third digit: by their spread alone the interval would be a tenth of that over images."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    b = np.where(rng.random((3, 60)) < 0.75, labels, 1 - labels).astype(float)
    a = b.copy()
    # Each seed of a errs on as many images fewer, on others each time.
    for seed in range(3):
        wrong = np.flatnonzero(b[seed] != labels)
        a[seed, wrong[:2]] = labels[wrong[:2]]
    groups = np.arange(60) // 3
    for grouped in (None, groups):
        both = two_level_bootstrap("accuracy", labels, a, b, groups=grouped, rng=np.random.default_rng(0), draws=2000)
        assert np.ptp(both.seed_differences) < 1e-12
        alone = math.sqrt(both.parts.images)
        assert both.standard_error >= alone > 0 and both.interval.high - both.interval.low > 3 * alone
