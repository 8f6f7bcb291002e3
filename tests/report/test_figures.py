"""Figures show the numbers that they say they show: calibration bands, counts over seeds, declared margins."""

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger
from matplotlib.patches import Polygon
from scipy import stats
from tables_fixture import ABOVE, contrast, table_of

from analysis.records.ledger import load_ledger, load_manifest
from analysis.records.places import predictions_path
from analysis.records.predictions import load_probabilities
from analysis.rendering.canvas import marks
from analysis.report.figures.claims import forest
from analysis.report.figures.datasets import FEWEST_IN_BIN, confusion_matrices, reliability
from analysis.report.tallies import CONFIDENCE_BINS, tally_cells
from analysis.verdicts.decisions import decide, decide_all

DESIGN = Design(datasets=("alpha", "beta"), seeds=(0, 1, 2), images=200, against=("split_ratio=0",))
BASELINE = DESIGN.variant_id("baseline")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_ledger(tmp_path_factory.mktemp("store"), DESIGN)


@pytest.fixture(scope="module")
def tally(store):
    tallies, problems = tally_cells(store, load_ledger(store), [BASELINE], ["alpha"])
    assert problems == {}
    return tallies[BASELINE, "alpha"]


def test_a_tally_adds_up_its_seeds(store, tally):
    counts, hits, confidence = np.zeros((3, CONFIDENCE_BINS))
    confusion = np.zeros((3, 3))
    for seed in DESIGN.seeds:
        kept = load_probabilities(store, DESIGN.cell_id("baseline", "alpha", seed))
        for label, row in zip(kept.labels, kept.probabilities):
            place = min(int(row.max() * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
            counts[place] += 1
            hits[place] += row.argmax() == label
            confidence[place] += row.max()
            confusion[label, row.argmax()] += 1
    assert (tally.n_seeds, tally.n_images) == (3, 200)
    assert tally.counts.tolist() == counts.tolist() and tally.counts.sum() == 600
    assert tally.hits.tolist() == hits.tolist()
    assert tally.confidence == pytest.approx(confidence, rel=1e-5)
    assert tally.confusion.tolist() == confusion.tolist()


def test_predictions_of_another_cell_are_in_no_tally(tmp_path):
    design = Design(datasets=("alpha",), seeds=(0, 1), images=60, against=("split_ratio=0",))
    folder = write_ledger(tmp_path, design)
    cell_id = design.cell_id("baseline", "alpha", 1)
    other = design.cell_id("split_ratio=0", "alpha", 1)
    path = predictions_path(folder, cell_id)
    path.write_bytes(predictions_path(folder, other).read_bytes())
    tallies, problems = tally_cells(folder, load_ledger(folder), [BASELINE], ["alpha"])
    assert list(problems) == [cell_id] and problems[cell_id].startswith(f"{path}: test probabilities must give ")
    assert tallies[BASELINE, "alpha"].n_seeds == 1


def test_the_calibration_band_holds_95_percent_of_an_average_seeds_images(tally):
    labels = {BASELINE: "baseline"}
    drawing = reliability("alpha", {BASELINE: tally}, labels, marks([BASELINE], BASELINE), BASELINE)
    corners = drawing.figure.axes[0].collections[0].get_paths()[0].vertices
    full = tally.counts >= FEWEST_IN_BIN * 3
    # A test image is one image, however many seeds saw it.
    images, chances = np.rint(tally.counts[full] / 3), tally.confidence[full] / tally.counts[full]
    assert full.sum() > 3
    for n, p in zip(images, chances):
        here = corners[np.isclose(corners[:, 0], p), 1]
        low, high = stats.binom.interval(0.95, n, p)
        assert (here.min(), here.max()) == pytest.approx((low / n, high / n))


def test_a_class_has_the_images_of_one_seed(tally):
    drawing = confusion_matrices("alpha", ["normal", "benign", "malignant"], {BASELINE: tally}, {BASELINE: "baseline"})
    sizes = tally.confusion.sum(axis=1) // 3
    assert sizes.sum() == 200
    assert drawing.caption == (
        f"3 seeds. Test images a class: normal {sizes[0]}, benign {sizes[1]}, malignant {sizes[2]}."
    )


def test_the_margin_is_drawn_as_declared_on_both_sides(store):
    found = load_manifest(store, DESIGN.name)
    verdict = decide_all(load_ledger(store), found, store, rng=np.random.default_rng(0), draws=50)[0]
    axes = forest(verdict, "difference_01").figure.axes[0]
    (band,) = axes.patches[:1]
    left, right = band.get_x(), band.get_x() + band.get_width()
    assert (left, right) == pytest.approx((-DESIGN.margin, DESIGN.margin))
    edges = sorted(line.get_xdata()[0] for line in axes.lines[:2])
    assert edges == pytest.approx([-DESIGN.margin, DESIGN.margin])


@pytest.mark.parametrize("n_datasets", [5, 8])
def test_the_estimate_that_a_sentence_states_is_drawn_beside_the_mean(n_datasets):
    """With five data sets the signed-rank test accepts every difference, so that there is no interval to draw."""
    verdict = decide(table_of(ABOVE[:n_datasets]), contrast())
    drawing = forest(verdict, "difference_01")
    axes = drawing.figure.axes[0]
    diamonds = [patch.get_xy()[:3, 0] for patch in axes.patches if isinstance(patch, Polygon)]
    names = [text.get_text() for text in axes.get_yticklabels()][n_datasets:]
    expected = {"mean over data sets": (verdict.estimate, verdict.interval)}
    if n_datasets == 8:
        expected["median of averages"] = (verdict.location.estimate, verdict.location.interval)
    assert names == list(expected)
    for corners, (estimate, interval) in zip(diamonds, expected.values(), strict=True):
        assert corners == pytest.approx([interval.low, estimate, interval.high])
    assert ("Diamond, median of averages: the signed-rank test's 95 % over data sets, n = 8." in drawing.caption) == (
        n_datasets == 8
    )
