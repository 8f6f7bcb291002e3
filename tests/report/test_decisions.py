"""What single images say: flips between seeds, the worst class and rare classes, against counting by hand."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, write_ledger
from statsmodels.stats.proportion import proportion_confint

from analysis.records.predictions import Predictions, load_probabilities
from analysis.report.decisions import BINS, Decisions
from analysis.report.write import write_report

DESIGN = Design(datasets=("alpha", "beta"), seeds=(0, 1, 2), images=90, classes=4)


def one_hot(predicted, classes):
    """Predictions that are sure of a class each."""
    return np.eye(classes)[predicted]


def decisions(labels, predicted, classes, groups=None):
    """Decisions of several seeds (seeds, images) that are sure of what they say."""
    ids = np.arange(len(labels)).astype(str)
    cells = [Predictions(one_hot(row, classes), np.asarray(labels), ids, groups) for row in predicted]
    found = Decisions.of(cells[0])
    for cell in cells:
        found.add(cell)
    return found


def test_flips_are_pairs_of_seeds_that_disagree():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50))
    found = decisions(labels, predicted, 3).instability()
    each = np.array([np.mean([a != b for a, b in combinations(column, 2)]) for column in predicted.T])
    assert found.share == pytest.approx(each.mean())
    assert found.unsettled == np.mean([len(set(column)) > 1 for column in predicted.T])
    half = 2.0095752 * each.std(ddof=1) / math.sqrt(50)
    assert (found.interval.low, found.interval.high) == pytest.approx((each.mean() - half, each.mean() + half))
    assert (found.n_seeds, found.interval.n, found.interval.over) == (4, 50, "test images")
    assert decisions(labels, predicted[:1], 3).instability() is None
    settled = decisions(labels, np.stack([labels, labels]), 3).instability()
    assert (settled.share, settled.unsettled) == (0, 0)


def test_images_of_a_group_are_one():
    # Each image twice: twice the images, and no more certain than one of each.
    rng = np.random.default_rng(1)
    labels, one_seed = rng.integers(0, 3, (2, 40))
    # Seeds agree on most images, as seeds do: a single image is worth little more than one draw.
    predicted = np.where(rng.random((3, 40)) < 0.2, rng.integers(0, 3, (3, 40)), one_seed)
    once = decisions(labels, predicted, 3)
    twice = decisions(np.repeat(labels, 2), np.repeat(predicted, 2, axis=1), 3, np.repeat(np.arange(40), 2))
    for name in ("instability", "worst_class"):
        one, other = getattr(once, name)(), getattr(twice, name)()
        assert other.interval.over == "groups of test images"
        assert (one.interval.low, one.interval.high) == pytest.approx(
            (other.interval.low, other.interval.high), rel=0.02
        )


def test_the_worst_class_of_one_seed_has_wilsons_interval_by_bonferroni():
    labels = np.repeat([0, 1, 2, 3], [30, 20, 10, 0])
    predicted = labels.copy()
    predicted[[0, 1, 2, 30, 31, 50, 51, 52]] = 3
    found = decisions(labels, predicted[None], 4).worst_class()
    assert (found.label, found.recall, found.n_images) == (2, 0.7, 10)
    # Three classes have images: each interval is one of 1 − .05/3, and the lowest recall lies between the lowest ends.
    ends = [proportion_confint(hits, n, 0.05 / 3, "wilson") for hits, n in ((27, 30), (18, 20), (7, 10))]
    # Linearised over n − 1, as of any sample.
    assert found.interval.low == pytest.approx(min(low for low, _ in ends), abs=0.02)
    assert found.interval.high == pytest.approx(min(high for _, high in ends), abs=0.02)


def test_perfect_and_hopeless_classes_have_an_interval():
    labels = np.repeat([0, 1], [10, 10])
    perfect = decisions(labels, np.stack([labels, labels]), 2).worst_class()
    assert perfect.recall == 1 and perfect.interval.high == 1
    assert perfect.interval.low == pytest.approx(proportion_confint(10, 10, 0.025, "wilson")[0])
    none = decisions(labels, np.zeros((2, 20), int), 2).worst_class()
    assert (none.label, none.recall, none.interval.low) == (1, 0, 0)
    # Seeds that disagree on every image: half the recall, and no certainty beyond that of a draw for each seed.
    halves = decisions(labels, np.stack([labels, 1 - labels]), 2).worst_class()
    assert halves.recall == 0.5 and 0 < halves.interval.low < 0.5 < halves.interval.high < 1


def test_the_interval_of_the_worst_class_holds_the_lowest_recall():
    """Coverage for three seeds on the same images, drawn anew 400 times: at least 95 %, less its own error."""
    rng = np.random.default_rng(5)
    chances, sizes = np.array([0.7, 0.72, 0.8, 0.9]), [25, 40, 60, 80]
    labels = np.repeat(np.arange(4), sizes)
    covered = 0
    for _ in range(400):
        # What an image is like is shared by the seeds; how each seed decides on it is not.
        ease = rng.beta(chances[labels] * 3, (1 - chances[labels]) * 3)
        hits = rng.random((3, len(labels))) < ease
        found = decisions(labels, np.where(hits, labels, (labels + 1) % 4), 4).worst_class()
        covered += 0.7 in found.interval
    assert covered / 400 > 0.95 - 2 * math.sqrt(0.95 * 0.05 / 400)


def test_calibration_by_class_by_hand():
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(3), 200)
    labels = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    found = Decisions.of(Predictions(probabilities, labels, np.arange(200).astype(str), None))
    found.add(Predictions(probabilities, labels, np.arange(200).astype(str), None))
    seen = found.by_class()
    for k in range(3):
        truth, p = labels == k, probabilities[:, k]
        assert seen.frequency[k] == truth.mean() and seen.bias[k] == pytest.approx(p.mean() - truth.mean())
        places = np.minimum(np.floor(p * BINS), BINS - 1)
        gaps = [np.mean(places == b) * abs(np.mean(p[places == b]) - np.mean(truth[places == b])) for b in set(places)]
        assert seen.error[k] == pytest.approx(sum(gaps))


def test_images_are_paired_by_their_ids():
    labels, ids = np.array([0, 1, 1, 0]), np.array(["d", "a", "c", "b"])
    first = Predictions(one_hot(labels, 2), labels, ids, None)
    order = np.array([2, 0, 3, 1])
    found = Decisions.of(first)
    found.add(first)
    found.add(Predictions(first.probabilities[order], labels[order], ids[order], None))
    assert found.instability().share == 0
    # Other images are paired with nothing.
    found.add(Predictions(first.probabilities, labels, np.array(["d", "a", "c", "x"]), None))
    assert found.instability().n_seeds == 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_ledger(tmp_path_factory.mktemp("store"), DESIGN)


@pytest.fixture(scope="module")
def report(store):
    return write_report(store, DESIGN.name, draw=lambda *_: None)


def test_the_tables_are_the_ledgers(store, report):
    folder = report.folder / "tables"
    flips, worst, rare = (pd.read_csv(folder / f"{n}.csv") for n in ("instability", "worst_class", "class_calibration"))
    kept = [load_probabilities(store, DESIGN.cell_id("baseline", "beta", seed)) for seed in DESIGN.seeds]
    decided = [cell.probabilities.argmax(axis=1) for cell in kept]
    pairs = [np.mean(a != b) for a, b in combinations(decided, 2)]
    row = flips.query("variant == 'baseline' and dataset == 'beta'").iloc[0]
    assert row["disagreement"] == pytest.approx(np.mean(pairs)) and row["seeds"] == 3
    recalls = [np.mean([np.mean(d[kept[0].labels == k] == k) for d in decided]) for k in range(4)]
    row = worst.query("variant == 'baseline' and dataset == 'beta'").iloc[0]
    assert row["recall"] == pytest.approx(min(recalls)) and row["low"] < row["recall"] < row["high"]
    assert row["class"] == ["normal", "benign", "malignant", "other"][int(np.argmin(recalls))]
    assert len(flips) == len(worst) == 3 * 2 and len(rare) == 3 * 2 * 4
    for _, here in rare.groupby(["variant", "dataset"]):
        assert here["frequency"].is_monotonic_decreasing and here["frequency"].sum() == pytest.approx(1)
        assert here["bias"].sum() == pytest.approx(0, abs=1e-6)


def test_long_tables_are_folded_and_nothing_is_claimed(report):
    text = report.page.read_text(encoding="utf-8")
    section = text[text.index('<section id="decisions"') : text.index('<section id="data"')]
    assert "none of them declared, so nothing here is a claim" in section and "<strong>" not in section
    assert "<summary>Calibration by class frequency, in numbers</summary>" in section
    assert (
        section.index('id="table-instability"') < section.index('id="table-worst_class"') < section.index("<details>")
    )


def test_one_seed_flips_nothing(tmp_path):
    page = write_report(
        write_ledger(tmp_path, Design(datasets=("a",), seeds=(0,), images=30)), "split_ratio", draw=lambda *_: None
    ).page
    text = page.read_text()
    assert "No instability: no variant has two seeds" in text and 'id="table-worst_class"' in text
