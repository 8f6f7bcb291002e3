import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk

from analysis import metrics
from analysis.paired import (
    bootstrap_difference,
    bootstrap_metric,
    delong,
    randomisation_difference,
    resampling,
    two_level_bootstrap,
)
from analysis.paired.resampling import TABLE_METRICS, drawn_swaps, drawn_units

FAST = ["macro_auc_ovr", *TABLE_METRICS]


def draw(seed, images, classes, ties=False):
    """Labels with every class present and two models' probabilities; in tenths, so that many tie, with ties."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    if ties:
        return labels, *(rng.multinomial(10, np.full(classes, 1 / classes), (2, images)) / 10)
    scores = rng.standard_normal((images, classes)) + 0.8 * np.eye(classes)[labels]
    scores = np.exp(scores + 0.5 * rng.standard_normal((2, images, classes)))
    return labels, *(scores / scores.sum(axis=2, keepdims=True))


def by_scikit_learn(metric, labels, probabilities):
    """One metric by scikit-learn, over the classes that the labels have."""
    if metric == "macro_auc_ovr":
        present = np.unique(labels)
        return np.mean([sk.roc_auc_score(labels == k, probabilities[:, k]) for k in present])
    predicted = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "macro_f1": lambda: sk.f1_score(labels, predicted, average="macro"),
            "balanced_accuracy": lambda: sk.balanced_accuracy_score(labels, predicted),
            "accuracy": lambda: sk.accuracy_score(labels, predicted),
            "mcc": lambda: sk.matthews_corrcoef(labels, predicted),
        }[metric]()


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("images", "classes"), [(80, 2), (90, 5)])
@pytest.mark.parametrize("metric", FAST)
def test_bootstrap_is_the_scikit_learn_loop_on_the_same_draws(metric, images, classes, ties):
    labels, a, b = draw(images, images, classes, ties)
    result = bootstrap_difference(metric, labels, a, b, rng=rng(), draws=40, level=0.8)
    indices = np.concatenate(list(drawn_units(rng(), images, 40)))
    loop = np.array(
        [by_scikit_learn(metric, labels[i], a[i]) - by_scikit_learn(metric, labels[i], b[i]) for i in indices]
    )
    assert indices.shape == (40, images)
    assert result.difference == pytest.approx(
        by_scikit_learn(metric, labels, a) - by_scikit_learn(metric, labels, b), abs=1e-12
    )
    assert (result.interval.low, result.interval.high) == pytest.approx(np.quantile(loop, [0.1, 0.9]), abs=1e-12)
    assert result.standard_error == pytest.approx(loop.std(ddof=1), abs=1e-12)
    expected = min(1.0, 2 * (1 + min((loop <= 1e-12).sum(), (loop >= -1e-12).sum())) / 41)
    assert result.p_value == pytest.approx(expected, abs=1e-12)
    assert (result.interval.over, result.interval.n, result.interval.level) == ("test images", images, 0.8)
    assert (result.draws, result.undefined_draws) == (40, 0)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("images", "classes", "ties"), [(7, 2, True), (40, 6, True), (120, 3, False)])
@pytest.mark.parametrize("metric", FAST)
def test_the_fast_path_is_the_slow_path_to_the_last_bit(metric, images, classes, ties, grouped):
    labels, a, b = draw(images, images, classes, ties)
    groups = rng(1).integers(0, images // 2, images) if grouped else None
    slow = metrics.METRICS[metric]
    for function, options in (
        (bootstrap_difference, {"groups": groups, "draws": 100}),
        (randomisation_difference, {"groups": groups, "draws": 45}),
    ):
        assert repr(function(metric, labels, a, b, rng=rng(2), **options)) == repr(
            function(slow, labels, a, b, rng=rng(2), **options)
        )
    pairs = np.stack([a, b, a, b]), np.stack([b, b, a, a])
    assert repr(two_level_bootstrap(metric, labels, *pairs, groups=groups, rng=rng(3), draws=40)) == repr(
        two_level_bootstrap(slow, labels, *pairs, groups=groups, rng=rng(3), draws=40)
    )


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", FAST)
def test_wide_counts_give_the_same_numbers(metric, grouped, monkeypatch):
    labels, a, b = draw(3, 90, 4, ties=True)
    groups = np.arange(90) // 3 if grouped else None
    narrow, wide = (), ()
    for function in (bootstrap_difference, randomisation_difference):
        narrow += (function(metric, labels, a, b, groups=groups, rng=rng(), draws=70),)
    # As if weights could add up to more than 16 bits hold.
    monkeypatch.setattr(resampling, "WIDE_FROM", 1)
    for function in (bootstrap_difference, randomisation_difference):
        wide += (function(metric, labels, a, b, groups=groups, rng=rng(), draws=70),)
    assert narrow == wide


def test_how_draws_are_dealt_out_makes_no_difference(monkeypatch):
    whole = np.concatenate(list(drawn_units(rng(), 40, 100)))
    monkeypatch.setattr(resampling, "BLOCK", 1)
    blocks = list(drawn_units(rng(), 40, 100))
    assert len(blocks) == 4 and whole.shape == (100, 40)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_groups_are_drawn_whole():
    labels, a, b = draw(0, 60, 3)
    groups = np.array([f"patient {i}" for i in rng(1).integers(0, 17, 60)])
    seen = []

    def first_image(labels, probabilities):
        seen.append(probabilities[:, 0])
        return metrics.accuracy(labels, probabilities)

    result = bootstrap_difference(first_image, labels, a, b, groups=groups, rng=rng(), draws=50)
    n_groups = len(set(groups))
    assert (result.interval.over, result.interval.n) == ("groups of test images", n_groups)
    sizes = {name: (groups == name).sum() for name in groups}
    for sample in seen[2::2]:
        times = np.array([(sample == value).sum() for value in a[:, 0]])
        by_group = {name: set(times[groups == name]) for name in groups}
        assert all(len(counts) == 1 for counts in by_group.values())
        assert sum(counts.pop() for counts in by_group.values()) == n_groups
    assert len({len(sample) for sample in seen}) > 1 and max(sizes.values()) > 1


def test_equal_models_on_few_groups_are_rejected_as_rarely_as_they_should_be():
    generator, groups = rng(), np.repeat(np.arange(10), 5)
    labels = np.arange(50) % 2
    rejected, inside, simulations = 0, 0, 400
    for _ in range(simulations):
        # A group is hard or easy for each model, on all of its images.
        scores = 2.4 * (labels - 0.5) + generator.normal(0, 0.8, (2, 10))[:, groups] + generator.normal(size=(2, 50))
        a, b = 1 / (1 + np.exp(-scores))
        found = bootstrap_difference("macro_f1", labels, a, b, groups=groups, rng=generator, draws=400)
        rejected += found.p_value <= 0.05
        inside += 0.0 in found.interval
    # Plain percentiles reject 11 % and hold 89 %.
    assert rejected / simulations <= 0.075 and inside / simulations >= 0.925
    for grouped, defined in ((groups % 5, True), (groups % 4, False)):
        found = bootstrap_difference("macro_f1", labels, a, b, groups=grouped, rng=generator, draws=50)
        alone = bootstrap_metric("macro_f1", labels, a, groups=grouped, rng=generator, draws=50)
        first, seed = bootstrap_difference("macro_f1", labels, a, b, groups=grouped, rng=rng(), draws=50), rng()
        one_seed = two_level_bootstrap("macro_f1", labels, a[None], b[None], groups=grouped, rng=seed, draws=50)
        assert (str(one_seed.interval), one_seed.p_value) == (str(first.interval), first.p_value)
        assert found.interval.is_defined == alone.interval.is_defined == defined and 0 < found.p_value <= 1


def test_images_of_one_group_are_less_evidence_than_as_many_images():
    labels, a, b = draw(1, 100, 3)
    copies = [np.repeat(x, 4, axis=0) for x in (labels, a, b, np.arange(100))]
    once = bootstrap_difference("macro_f1", labels, a, b, rng=rng(), draws=3000)
    alone = bootstrap_difference("macro_f1", *copies[:3], rng=rng(), draws=3000)
    grouped = bootstrap_difference("macro_f1", *copies[:3], groups=copies[3], rng=rng(), draws=3000)
    assert grouped.standard_error == pytest.approx(once.standard_error, rel=1e-9)
    assert alone.standard_error == pytest.approx(once.standard_error / 2, rel=0.08)


@pytest.mark.parametrize("metric", FAST)
def test_randomisation_is_the_scikit_learn_loop_on_the_same_exchanges(metric):
    labels, a, b = draw(4, 60, 4)
    result = randomisation_difference(metric, labels, a, b, rng=rng(5), draws=40)
    observed = by_scikit_learn(metric, labels, a) - by_scikit_learn(metric, labels, b)
    extreme = 0
    for swap in np.concatenate(list(drawn_swaps(rng(5), 60, 40))):
        one, other = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
        difference = by_scikit_learn(metric, labels, one) - by_scikit_learn(metric, labels, other)
        extreme += abs(difference) >= abs(observed) - 1e-12
    assert 0 < extreme < 40
    assert result.p_value == pytest.approx((1 + extreme) / 41, abs=1e-12)
    assert result.difference == pytest.approx(observed, abs=1e-12)


def test_bootstrap_randomisation_and_delong_agree_on_many_images():
    labels, a, b = draw(6, 400, 3)
    exact = delong(labels, a, b)
    bootstrap = bootstrap_difference("macro_auc_ovr", labels, a, b, rng=rng(), draws=4000)
    randomised = randomisation_difference("macro_auc_ovr", labels, a, b, rng=rng(), draws=4000)
    assert bootstrap.difference == randomised.difference == exact.difference
    assert bootstrap.interval.low == pytest.approx(exact.interval.low, abs=0.1 * math.sqrt(exact.variance))
    assert bootstrap.interval.high == pytest.approx(exact.interval.high, abs=0.1 * math.sqrt(exact.variance))
    assert bootstrap.p_value == pytest.approx(exact.p_value, abs=0.05)
    assert randomised.p_value == pytest.approx(exact.p_value, abs=0.05)


def test_one_models_interval():
    labels, a, _ = draw(7, 80, 3)
    result = bootstrap_metric("macro_f1", labels, a, rng=rng(), draws=200, level=0.9)
    indices = np.concatenate(list(drawn_units(rng(), 80, 200)))
    loop = [metrics.macro_f1(labels[i], a[i]) for i in indices]
    assert result.value == metrics.macro_f1(labels, a)
    assert (result.interval.low, result.interval.high) == tuple(np.quantile(loop, [(1 - 0.9) / 2, (1 + 0.9) / 2]))
    assert result.undefined_draws == 0 and result.interval.n == 80


def make_seeds(seed, seeds, images, seed_spread=0.0):
    """Labels and pairs of models (seeds, images) of probabilities; seed_spread is the spread of their skill."""
    generator = rng(seed)
    labels = generator.integers(0, 2, images)
    skill = 0.7 + seed_spread * generator.standard_normal((2, seeds, 1))
    right = generator.random((2, seeds, images)) < skill
    a, b = np.where(right, 0.2 + 0.6 * labels, 0.8 - 0.6 * labels)
    return labels, a, b


def test_two_levels_resampled_are_the_loop_on_the_same_draws():
    labels, a, b = make_seeds(0, 4, 50)
    result = two_level_bootstrap("macro_f1", labels, a, b, rng=rng(), draws=64, seeds="resampled")
    generator = rng()
    images = list(np.concatenate(list(drawn_units(generator, 50, 64))))
    drawn = []
    for times, i in zip(generator.multinomial(4, np.full(4, 0.25), size=64), images):
        chosen = np.repeat(np.arange(4), times)
        f1 = metrics.macro_f1
        drawn.append(np.mean([f1(labels[i], a[s][i]) - f1(labels[i], b[s][i]) for s in chosen]))
    assert (result.interval.low, result.interval.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)
    assert result.difference == pytest.approx(np.mean(result.seed_differences), abs=1e-15)
    assert result.seed_differences[2] == metrics.macro_f1(labels, a[2]) - metrics.macro_f1(labels, b[2])
    assert (result.interval.over, result.interval.n) == ("seeds and test images", 4)
    assert (result.n_seeds, result.n_images, result.draws) == (4, 50, 64)


@pytest.mark.parametrize("seeds", ["student", "resampled"])
def test_one_seed_is_the_bootstrap_over_images_and_says_so(seeds):
    labels, a, b = make_seeds(1, 1, 60)
    result = two_level_bootstrap("macro_f1", labels, a, b, rng=rng(), draws=100, seeds=seeds)
    alone = bootstrap_difference("macro_f1", labels, a[0], b[0], rng=rng(), draws=100)
    assert (result.interval, result.p_value) == (alone.interval, alone.p_value)
    assert result.interval.over == "test images" and result.interval.n == 60


def test_seeds_without_image_noise_are_a_t_test():
    # All images of a class are alike, so that image draws that keep the classes' shares move nothing.
    labels = np.repeat([0, 1], 2000)
    a, b = np.empty((2, 3, 4000))
    b[:] = np.where(np.arange(4000) % 10 < 5, labels, 1 - labels)
    for seed, hits in enumerate((6, 7, 9)):
        a[seed] = np.where(np.arange(4000) % 10 < hits, labels, 1 - labels)
    result = two_level_bootstrap("accuracy", labels, a, b, rng=rng(), draws=20_000)
    differences = np.array(result.seed_differences)
    np.testing.assert_allclose(differences, [0.1, 0.2, 0.4], atol=1e-12)
    half = 4.302652729749464 * differences.std(ddof=1) / math.sqrt(3)
    assert result.interval.high - result.difference == pytest.approx(half, rel=0.06)
    assert result.standard_error == pytest.approx(differences.std(ddof=1) / math.sqrt(3), rel=0.02)


def test_intervals_over_few_seeds_hold_their_level():
    held = {"student": 0, "resampled": 0}
    apart = {"student": 0, "resampled": 0}
    for trial in range(100):
        for kind in held:
            # Skill differs between seeds by far more than 2000 images' noise; then not at all.
            spread = make_seeds(trial, 3, 2000, seed_spread=0.05)
            result = two_level_bootstrap("accuracy", *spread, rng=rng(trial), draws=400, seeds=kind)
            held[kind] += 0.0 in result.interval
            result = two_level_bootstrap("accuracy", *make_seeds(trial, 5, 200), rng=rng(trial), draws=400, seeds=kind)
            apart[kind] += 0.0 in result.interval
    # 100 trials: standard error .02 at .95.
    assert held["student"] >= 0.90 * 100 and held["resampled"] <= 0.85 * 100
    assert 0.90 * 100 <= apart["student"] <= 0.99 * 100 and apart["resampled"] >= 0.985 * 100


@pytest.mark.parametrize("seeds", ["student", "resampled"])
@pytest.mark.parametrize("metric", ["macro_f1", "macro_auc_ovr", metrics.brier])
def test_identical_predictions(metric, seeds):
    labels, a, _ = draw(8, 40, 3)
    for result in (
        bootstrap_difference(metric, labels, a, a, rng=rng(), draws=40),
        two_level_bootstrap(metric, labels, [a, a], [a, a], rng=rng(), draws=40, seeds=seeds),
    ):
        assert (result.difference, result.p_value, result.interval.low, result.interval.high) == (0.0, 1.0, 0.0, 0.0)
    randomised = randomisation_difference(metric, labels, a, a, rng=rng(), draws=40)
    assert (randomised.difference, randomised.p_value) == (0.0, 1.0)


def test_a_missing_class_takes_no_part():
    labels, a, b = draw(9, 80, 4)
    keep = labels != 1
    for metric in ("macro_auc_ovr", "macro_f1", "balanced_accuracy"):
        result = bootstrap_difference(metric, labels[keep], a[keep], b[keep], rng=rng(), draws=50)
        assert math.isfinite(result.interval.low) and result.undefined_draws == 0
        assert result.value_a == metrics.METRICS[metric](labels[keep], a[keep])


def test_resamples_without_an_auc_are_counted():
    labels = np.array([0, 0, 0, 1])
    a, b = np.array([0.1, 0.6, 0.3, 0.5]), np.array([0.2, 0.1, 0.6, 0.9])
    result = bootstrap_difference("macro_auc_ovr", labels, a, b, rng=rng(), draws=2000)
    # No image of class 1, or no other: (3/4)^4 + (1/4)^4.
    assert result.undefined_draws / 2000 == pytest.approx(0.32, abs=0.04)
    assert result.interval.is_defined


@pytest.mark.parametrize("metric", ["macro_f1", "macro_auc_ovr", metrics.macro_f1])
def test_one_image_or_one_group_has_no_interval(metric):
    a, b = np.array([0.9]), np.array([0.2])
    result = bootstrap_difference(metric, np.array([1]), a, b, rng=rng(), draws=30)
    assert math.isnan(result.p_value) and not result.interval.is_defined and result.interval.n == 1
    assert math.isnan(result.standard_error)
    expected = math.nan if metric == "macro_auc_ovr" else 1.0
    p_value = randomisation_difference(metric, np.array([1]), a, b, rng=rng(), draws=30).p_value
    assert p_value == pytest.approx(expected, nan_ok=True)
    labels, a, b = draw(10, 20, 3)
    one_group = bootstrap_difference(metric, labels, a, b, groups=np.zeros(20, int), rng=rng(), draws=30)
    assert math.isfinite(one_group.difference) and math.isnan(one_group.p_value)
    two = two_level_bootstrap(metric, labels, [a, b], [b, b], groups=np.zeros(20, int), rng=rng(), draws=30)
    assert math.isnan(two.p_value) and not two.interval.is_defined


def test_one_class_has_an_f1_and_no_auc():
    labels, a, b = np.ones(9, int), *rng().random((2, 9))
    result = bootstrap_difference("macro_auc_ovr", labels, a, b, rng=rng(), draws=30)
    assert math.isnan(result.difference) and math.isnan(result.p_value) and result.undefined_draws == 30
    assert math.isnan(randomisation_difference("macro_auc_ovr", labels, a, b, rng=rng(), draws=30).p_value)
    assert math.isnan(two_level_bootstrap("macro_auc_ovr", labels, [a, a], [b, b], rng=rng(), draws=30).p_value)
    assert math.isfinite(bootstrap_difference("macro_f1", labels, a, b, rng=rng(), draws=30).p_value)


def test_a_constant_predictor():
    labels, a, _ = draw(11, 200, 3)
    constant = np.full_like(a, 1 / 3)
    result = bootstrap_difference("macro_auc_ovr", labels, a, constant, rng=rng(), draws=500)
    assert result.value_b == 0.5 and result.p_value < 0.02 and 0.0 not in result.interval
    assert bootstrap_metric("macro_auc_ovr", labels, constant, rng=rng(), draws=50).standard_error == 0.0
    assert bootstrap_difference("mcc", labels, constant, constant[::-1], rng=rng(), draws=50).p_value == 1.0


def all_functions(generator):
    labels, a, b = draw(12, 50, 3)
    return [
        bootstrap_metric("macro_auc_ovr", labels, a, rng=generator, draws=64),
        bootstrap_difference("macro_f1", labels, a, b, rng=generator, draws=64),
        bootstrap_difference(metrics.brier, labels, a, b, rng=generator, draws=64),
        randomisation_difference("macro_auc_ovr", labels, a, b, rng=generator, draws=64),
        two_level_bootstrap("macro_f1", labels, [a, b], [b, b], rng=generator, draws=64),
        two_level_bootstrap("macro_f1", labels, [a, b], [b, b], rng=generator, draws=64, seeds="resampled"),
    ]


def test_only_the_generator_decides():
    np.random.seed(0)
    before = np.random.get_state()
    first = all_functions(rng(1))
    assert all(np.array_equal(x, y) for x, y in zip(before, np.random.get_state()))
    np.random.seed(12345)
    assert repr(all_functions(rng(1))) == repr(first)
    assert all(repr(one) != repr(other) for one, other in zip(all_functions(rng(2)), first))


def test_importing_it_is_light():
    code = "import sys, analysis.paired; print([m for m in ('torch', 'numba', 'statsmodels') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_what_images_do_to_each_seed_alone_is_in_the_spread_between_seeds(n_seeds):
    """Seeds that err on images independently of each other, equally often: nothing is left for images to add.

    Each right answer is a bit of the image's number, so that any two seeds agree on half of the images.
    """
    images = 512
    right = (np.arange(images) >> np.arange(n_seeds)[:, None]) & 1
    labels = np.ones(images, dtype=np.int64)
    result = two_level_bootstrap("accuracy", labels, right.astype(float), np.zeros(right.shape), rng=rng(), draws=4000)
    assert np.ptp(result.seed_differences) == 0.0
    alone = 0.25 / images / n_seeds
    assert (result.parts.seeds + result.parts.shared) / alone < 0.5 / n_seeds
    # Yet images drawn anew would move each seed, however alike seeds came out.
    assert result.standard_error**2 / alone == pytest.approx(1.0, rel=0.1)


def test_a_generator_must_be_given():
    labels, a, b = draw(13, 20, 3)
    for function in (bootstrap_difference, randomisation_difference):
        with pytest.raises(TypeError, match="rng"):
            function("macro_f1", labels, a, b)
        with pytest.raises(ValueError, match=r"^rng must be a numpy Generator such as .*, got int$"):
            function("macro_f1", labels, a, b, rng=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": [0.1, 0.2]}, "labels and probabilities must have the same length, got 3 and 2"),
        ({"labels": [0, 1]}, "labels and probabilities must have the same length, got 2 and 3"),
        ({"a": [0.1, math.nan, 0.3]}, "probabilities must be finite and between 0 and 1, got nan"),
        ({"b": np.full((3, 4), 0.25)}, r"a and b must have one shape, got \(3,\) and \(3, 4\)"),
        ({"metric": "f1"}, "metric must be a function or one of macro_f1, .*, got 'f1'"),
        ({"groups": [1, 2]}, r"groups must name one group for each of 3 images, got shape \(2,\)"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line(change, message):
    arguments = {"metric": "macro_f1", "labels": [0, 1, 1], "a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1]}
    arguments |= {"groups": None, "draws": 10} | change
    for function in (bootstrap_difference, randomisation_difference):
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            function(rng=rng(), **arguments)
        assert "\n" not in str(caught.value)
    seeds = {name: [value] if name in ("a", "b") else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=f"^{message}"):
        two_level_bootstrap(rng=rng(), **seeds)


def test_bad_levels_and_seeds_are_one_line():
    labels, a, b = draw(14, 20, 3)
    with pytest.raises(ValueError, match=r"^level must be between 0 and 1, got 95$"):
        bootstrap_difference("macro_f1", labels, a, b, rng=rng(), level=95)
    with pytest.raises(ValueError, match=r"^a and b must hold the same seeds, one at least, got 2 and 1$"):
        two_level_bootstrap("macro_f1", labels, [a, a], [b], rng=rng())
    with pytest.raises(ValueError, match=r"^a and b must hold the same seeds, one at least, got 0 and 0$"):
        two_level_bootstrap("macro_f1", labels, [], [], rng=rng())
    with pytest.raises(ValueError, match=r"^seeds must be student or resampled, got 'paired'$"):
        two_level_bootstrap("macro_f1", labels, [a], [b], rng=rng(), seeds="paired")
