import numpy as np
import pytest

from analysis.metrics import METRICS
from analysis.paired.false_claim import _of_f1, _of_sums
from analysis.paired.kernels import row_means
from analysis.paired.models import Matched, Model, rank, ranked_classes, ranking


def models_of(seed, images, classes, count, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    found = []
    for _ in range(count):
        scores = rng.random((images, classes)) + np.eye(classes)[labels]
        scores = np.round(scores, 1) if ties else scores
        found.append(Model(labels, scores / scores.sum(axis=1, keepdims=True)))
    return found


@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 16, 19, 128])
def test_row_means_are_those_of_numpy_to_the_last_bit(columns):
    values, means = np.random.default_rng(columns).random((200, columns)), np.empty(200)
    row_means(values, means)
    np.testing.assert_array_equal(means, values.mean(axis=1))
    values[np.random.default_rng(0).random(values.shape) < 0.3] = np.nan
    row_means(values, means)
    for row, mean in zip(values, means):
        defined = row[~np.isnan(row)]
        np.testing.assert_array_equal(mean, defined.mean() if len(defined) else np.nan)


@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("ties", [False, True])
def test_models_ranked_together_are_ranked_as_one_by_one(classes, ties):
    models = models_of(1, 80, classes, 4, ties)
    rank(models)
    for model in models:
        assert model.value("macro_auc_ovr") == METRICS["macro_auc_ovr"](model.labels, model.probabilities)
        present = ranked_classes(model.labels, classes)
        assert len(model.rankings) == len(present)
        for found, k in zip(model.rankings, present):
            alone = ranking(model.probabilities[:, k], model.labels == k)
            for part in ("order", "positives", "below", "upto"):
                np.testing.assert_array_equal(getattr(found, part), getattr(alone, part))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("classes", [2, 5])
def test_compiled_draws_of_f1_are_those_of_weighted_sums(seeds, classes):
    models = models_of(2, 60, classes, 2 * seeds)
    images = Matched(models[:seeds], models[seeds:])
    observed, drawn = _of_f1(images, np.random.default_rng(3), 50)
    expected, draws = _of_sums("macro_f1", images, np.random.default_rng(3), 50)
    assert observed == pytest.approx(expected, abs=1e-14)
    np.testing.assert_allclose(drawn, draws, rtol=0, atol=1e-13)
