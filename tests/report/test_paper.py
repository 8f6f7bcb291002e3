"""What goes into a paper: PDFs as wide as a column, legible, names that cover nothing, honest ticks."""

import re
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger
from matplotlib.collections import PathCollection
from matplotlib.text import Annotation, Text

from analysis.across.rank_tests import critical_difference
from analysis.across.standings import Standings, standings
from analysis.interval import Interval
from analysis.rendering.canvas import COLUMN, Drawing, as_wide_as, lay_out, marks, render, render_pdf
from analysis.report.__main__ import main
from analysis.report.cost import outlook, sentences
from analysis.report.drawing import Drawer, draw_here
from analysis.report.evidence import load_evidence
from analysis.report.figures import claims, datasets
from analysis.report.tallies import tally_cells
from analysis.report.write import write_report
from analysis.verdicts.decisions import decide_all

LONG = "branches=[[0.5, conv], [0.5, ss2d]], fusion=attention"
DESIGN = Design(
    datasets=("a_data_set_with_a_long_name", "beta"),
    seeds=(0, 1),
    images=40,
    variants={
        LONG: ({"branches": [[1.0, "conv"]]}, 0.8, 1.0),
        "baseline": ({}, 1.3, 1.25),
        "split_ratio=1": ({"branches": [[1.0, "ss2d"]]}, 1.35, 1.9),
    },
)
TEX = next((name for name in ("pdflatex", "lualatex", "xelatex", "tectonic") if shutil.which(name)), None)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_ledger(tmp_path_factory.mktemp("store"), DESIGN)


@pytest.fixture(scope="module")
def evidence(store):
    return load_evidence(store, DESIGN.name)


@pytest.fixture(scope="module")
def plain(store, tmp_path_factory):
    """The report without PDFs."""
    return write_report(store, DESIGN.name, tmp_path_factory.mktemp("plain"))


def drawn(evidence):
    """Every kind of figure of a page, by name, as a function of nothing."""
    labels, ids = evidence.variants, list(evidence.variants)
    styles = marks(ids, evidence.baseline)
    place = standings(evidence.table, "macro_f1", ids)
    costs = {v: (1e7 * (1 + k), 1e5 * (1 + k)) for k, v in enumerate(ids)}
    verdict = decide_all(evidence.table, evidence.manifest, evidence.folder, rng=np.random.default_rng(0), draws=50)[0]
    ranks = critical_difference(evidence.table, metric="macro_f1")
    dataset = evidence.datasets[0]
    tallies, _ = tally_cells(evidence.folder, evidence.table, ids, [dataset])
    here = {v: tallies[v, dataset] for v in ids}
    cells = {v: [r for r in evidence.records.values() if (r["variant_id"], r["dataset"]) == (v, dataset)] for v in ids}
    return {
        "cost": partial(claims.metric_against_cost, place, costs, ids, labels, evidence.baseline),
        "forest": partial(claims.forest, verdict, "difference_01"),
        "ranks": partial(claims.critical_difference, ranks, labels, "macro_f1"),
        "curves": partial(datasets.learning_curves, dataset, cells, "macro_f1", labels, styles),
        "calibration": partial(datasets.reliability, dataset, here, labels, styles, evidence.baseline),
        "confusion": partial(datasets.confusion_matrices, dataset, ["n", "b", "m"], here, labels),
    }


def texts(figure):
    # Ticks beyond the ends of an axis are made, and not drawn.
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {id(tick.label1) for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in shown if id(text) not in beyond]


@pytest.mark.parametrize("name", ["cost", "forest", "ranks", "curves", "calibration", "confusion"])
def test_a_figure_fits_a_column_and_can_be_read(evidence, name):
    with as_wide_as(COLUMN):
        drawing = drawn(evidence)[name]()
        pdf = render_pdf(drawing)
    figure = drawing.figure
    width, height = (72 * inches for inches in figure.get_size_inches())
    assert width == pytest.approx(72 * 3.4) and f"/MediaBox [ 0 0 {width:.6g} {height:.6g} ]".encode() in pdf
    assert min(text.get_fontsize() for text in texts(figure)) >= 7
    frame = figure.bbox
    for text in texts(figure):
        box = text.get_window_extent()
        # A point and a half: what a letter may stick out of its own box, or a constrained layout misses.
        slack = 1.5 * figure.dpi / 72
        assert box.x0 > frame.x0 - slack and box.x1 < frame.x1 + slack, text.get_text()
        assert box.y0 > frame.y0 - slack and box.y1 < frame.y1 + slack, text.get_text()
    # The page's own figures are as wide as before.
    assert drawn(evidence)[name]().figure.get_size_inches()[0] == pytest.approx(4.2)


@pytest.mark.slow
def test_pdfs_are_written_where_they_are_wanted(store, plain, tmp_path, capsys):
    assert not list((plain.folder / "figures").glob("*.pdf")) and ">PDF<" not in plain.page.read_text()
    assert main([DESIGN.name, "--store", str(store), "--out", str(tmp_path / "one"), "--pdf"]) == 0
    pdfs = {path.stem for path in (tmp_path / "one" / "figures").glob("*.pdf")}
    assert pdfs == {path.stem for path in (plain.folder / "figures").glob("*.png")} and len(pdfs) > 8
    page = (tmp_path / "one" / "report.html").read_text()
    assert all(f'<a href="figures/{name}.pdf">PDF</a>' in page for name in pdfs)
    # The other files are the same with and without.
    for path in (plain.folder / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "one" / "figures" / path.name).read_bytes()
    ranks = (
        "claims.critical_difference",
        critical_difference(load_evidence(store, DESIGN.name).table, metric="macro_f1"),
    )
    labels = load_evidence(store, DESIGN.name).variants
    with Drawer(pdf=True) as drawer:
        apart = drawer.draw(*ranks, labels, "macro_f1").result()
    assert apart.pdf == (tmp_path / "one" / "figures" / "ranks_macro_f1.pdf").read_bytes()
    assert draw_here("datasets.confusion_matrices", "x", [], {}, {}, pdf=True) is None


def crowd(count, spread, rng):
    """Standings and costs of variants that stand close together."""
    ids = [f"v{k}" for k in range(count)]
    means = {v: float(0.85 + spread * rng.normal()) for v in ids}
    intervals = {v: Interval(mean - 0.01, mean + 0.01, 0.95, "data sets", 5) for v, mean in means.items()}
    place = Standings("macro_f1", "test", means, intervals, ("a", "b"), (3, 3), (), ())
    return place, {v: (float(2e7 * (1 + spread * rng.normal())), float(rng.uniform(1e5, 6e5))) for v in ids}


def boxes_of(drawing):
    """Names with their boxes, and bubbles with centre and radius, in pixels."""
    figure, axes = drawing.figure, drawing.figure.axes[0]
    lay_out(figure)
    scale = figure.dpi / 72
    names = {
        text.get_text(): (text.get_window_extent(), text.xy) for text in axes.texts if isinstance(text, Annotation)
    }
    bubbles = [
        (axes.transData.transform(points.get_offsets()[0]), np.sqrt(points.get_sizes()[0] / np.pi) * scale)
        for points in axes.collections
        if isinstance(points, PathCollection) and len(points.get_offsets())
    ]
    return names, bubbles, axes


@pytest.mark.parametrize("width", [4.2, COLUMN])
@pytest.mark.parametrize(("count", "spread"), [(3, 0.1), (8, 0.02), (10, 0.002), (30, 0.02)])
def test_no_name_lies_over_anothers_bubble_or_name(count, spread, width):
    place, costs = crowd(count, spread, np.random.default_rng(count))
    labels = {v: f"scan_directions={v}" for v in costs}
    with as_wide_as(width):
        drawing = claims.metric_against_cost(place, costs, list(costs)[:4], labels, "v0")
    names, bubbles, axes = boxes_of(drawing)
    # Something is named, whatever the crowd; the caption counts the rest.
    assert names
    unnamed = count - len(names)
    assert ("not named" in drawing.caption) == (unnamed > 0) and (
        unnamed == 0 or f"{unnamed} variant" in drawing.caption
    )
    shown = list(names.items())
    for place_of, (name, (box, own)) in enumerate(shown):
        for (x, y), radius in bubbles:
            if np.allclose((x, y), axes.transData.transform(own)):
                continue
            nearest = np.clip((x, y), (box.x0, box.y0), (box.x1, box.y1))
            assert np.hypot(*(nearest - (x, y))) > radius - 1, name
        for other, (their_box, _) in shown[place_of + 1 :]:
            assert not box.overlaps(their_box), (name, other)


NUMBER = re.compile(r"[+−]?\d+(?:\.\d+)?")


def number(text):
    """The number that a tick's label says, its unit included."""
    size = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text.split()[-1], 1.0)
    return float(NUMBER.match(text)[0].replace("−", "-")) * size


@pytest.mark.parametrize("low", [1.7e7, 17.1e6, 9.99e8, 4.4e4])
@pytest.mark.parametrize("share", [0.004, 0.03, 0.4, 2.0, 9.0])
def test_a_tick_stands_at_the_number_that_it_bears(low, share):
    ids = ["a", "b", "c"]
    means = dict(zip(ids, (0.7, 0.7004, 0.7008)))
    intervals = {v: Interval(mean - 0.0002, mean + 0.0002, 0.95, "seeds", 3) for v, mean in means.items()}
    place = Standings("macro_f1", "test", means, intervals, ("x",), (3, 3), (), ())
    costs = {v: (low * (1 + share * k / 2), 1e5) for k, v in enumerate(ids)}
    drawing = claims.metric_against_cost(place, costs, ids, {v: v for v in ids}, "a")
    lay_out(drawing.figure)
    axes = drawing.figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_text()]
        within = [
            tick for tick in ticks if axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]
        ]
        assert len(within) >= 2
        labels = [tick.label1.get_text() for tick in within]
        assert len(set(labels)) == len(labels)
        for tick, label in zip(within, labels):
            assert number(label) == pytest.approx(tick.get_loc(), rel=1e-6), label
        assert axis.get_offset_text().get_text() == ""


@pytest.mark.parametrize(("most", "said"), [(2.1, True), (1.9, False), (1.0, False)])
def test_a_doubling_is_spoken_of_where_there_is_one(store, tmp_path, most, said):
    costs = dict(zip(DESIGN.variants, (1.0, (1 + most) / 2, most)))
    variants = {label: (difference, skill, costs[label]) for label, (difference, skill, _) in DESIGN.variants.items()}
    design = Design(name="costs", variants=variants, datasets=("a", "b"), seeds=(0,), images=20)
    evidence = load_evidence(write_ledger(tmp_path, design), "costs")
    place = standings(evidence.table, "macro_f1", list(evidence.variants))
    found = outlook(evidence.table, place, evidence.baseline, np.random.default_rng(0), draws=20)
    words = sentences(found, evidence.baseline)
    assert ("As MACs double" in words) == said == (found.gain is not None)
    if not said:
        reason = "All variants take the same MACs" if most == 1 else "takes 1.90 × the MACs of the cheapest: too close"
        assert reason in words


def test_the_results_stand_on_the_page_and_beside_it(plain):
    assert '<section id="results"' in plain.page.read_text()
    for metric in ("macro_auc_ovr", "macro_f1"):
        for ending in ("csv", "md", "tex"):
            assert (plain.folder / "tables" / f"results_{metric}.{ending}").is_file()
    text = (plain.folder / "tables" / "results_macro_f1.tex").read_text()
    # All that a table says can be set with the letters of any font; names here are ASCII.
    assert text.isascii() and r"$\pm$" in text and r"split\_ratio=1" in text


@pytest.mark.skipif(TEX is None, reason="no TeX is installed: pdflatex, lualatex, xelatex or tectonic")
def test_tables_compile(plain, tmp_path):
    folder = plain.folder / "tables"
    body = "\n".join(rf"\input{{{path}}}" for path in sorted(folder.glob("*.tex")))
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    options = ["all.tex"] if TEX == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    run = subprocess.run([TEX, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_a_drawing_is_the_same_bytes_each_time(evidence):
    with as_wide_as(COLUMN):
        one, two = (render_pdf(drawn(evidence)["ranks"]()) for _ in range(2))
    assert one == two and b"/FontFile2" in one
    assert isinstance(drawn(evidence)["ranks"](), Drawing) and render(drawn(evidence)["ranks"]()).pdf == b""
