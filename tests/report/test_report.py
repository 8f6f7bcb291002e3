"""The report: every part from the records, the same bytes each time, a page that a browser opens without complaint."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, write_ledger
from matplotlib.image import imread
from patience import HANG

from analysis.across.standings import standings
from analysis.metrics import all_metrics
from analysis.records.ledger import load_ledger
from analysis.rendering.canvas import Drawing, new_figure, render, style
from analysis.rendering.tables import Table, to_latex
from analysis.report.__main__ import main
from analysis.report.cost import outlook, sentences
from analysis.report.evidence import load_evidence
from analysis.report.sections import claims as claim_sections
from analysis.report.tables.study import SHOWN_METRICS, variant_standings
from analysis.report.write import default_folder, write_report
from analysis.words import bounds

ROOT = Path(__file__).resolve().parents[2]
PARTS = [
    "question", "verdicts", "results", "cost", "differences", "ranks", "curves", "classes", "calibration", "confusion",
    "decisions", "data", "cells", "provenance", "limits",
]  # fmt: skip
# Six data sets reach .031, so one contrast a family can end in a verdict.
DESIGN = Design(
    images=40,
    against=("split_ratio=0",),
    seeds=(0, 1),
    failed=[("split_ratio=1", "beta", 1)],
    stopped=[("split_ratio=1", "gamma", 1)],
    missing=[("split_ratio=1", "delta", 0)],
    without_probabilities=[("baseline", "alpha", 1)],
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 1280)
# What a page looks like from inside a frame of each width, written where --dump-dom shows it.
HARNESS = """<!DOCTYPE html><body>{frames}<pre id="seen"></pre><script>
onload = () => {{
  document.getElementById("seen").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, box = element => element.getBoundingClientRect();
    return {{
      width: frame.clientWidth,
      content: page.documentElement.scrollWidth,
      figures: [...page.querySelectorAll("figure")].map(figure => ({{
        id: figure.id, marks: figure.querySelectorAll("svg path, svg use").length,
        width: box(figure.querySelector("svg")).width, height: box(figure.querySelector("svg")).height,
      }})),
      images: [...page.images].map(image => image.naturalWidth),
      fetched: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    }};
  }}));
}};
</script></body>"""


@dataclass
class Page:
    """What a report's HTML says, read without a browser."""

    text: str
    bold: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    headings: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    tables: dict[str, tuple[str, str]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)


class Reader(HTMLParser):
    """Collects the words of each section, figure caption and table, what is bold, and every address."""

    def __init__(self):
        super().__init__()
        self.page = Page("")
        self.open = []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.page.tags.add(tag)
        for key in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            if key in named:
                self.page.addresses.append(named[key])
        if tag not in ("meta", "link", "br", "use", "path", "rect", "image"):
            self.open.append((tag, named.get("id", ""), []))

    def handle_startendtag(self, tag, attributes):
        named = dict(attributes)
        self.page.addresses += [named[key] for key in ("href", "xlink:href") if key in named]

    def handle_data(self, data):
        for _, _, words in self.open:
            words.append(data)

    def handle_endtag(self, tag):
        while self.open:
            name, identity, parts = self.open.pop()
            words = " ".join("".join(parts).split())
            if name == tag:
                break
        if tag in ("td", "th"):
            self.handle_data(" ")
        if tag in ("strong", "b"):
            self.page.bold.append(words)
        elif tag == "section":
            self.page.sections[identity] = words
        elif tag == "h2":
            self.page.headings.append(words)
        elif tag == "caption":
            self.caption = words
        elif tag == "table":
            self.page.tables[self.open[-1][1].removeprefix("table-")] = (self.caption, words)
        elif tag == "figcaption":
            self.page.figures[self.open[-1][1].removeprefix("figure-")] = words
        elif tag == "style":
            self.page.addresses += re.findall(r"url\(([^)]*)\)|@import", "".join(parts))


def read(path):
    """A report's page as a Page."""
    reader = Reader()
    text = path.read_text(encoding="utf-8")
    reader.feed(text)
    reader.close()
    reader.page.text = text
    return reader.page


def change_manifest(store, change):
    """Rewrites a store's only manifest."""
    path = next((store / "ledger" / "studies").glob("*.json"))
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def change_test_predictions(store, change):
    """Rewrites test predictions, and the metrics in the records beside them, by change(record, labels, values)."""
    path = store / "ledger" / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        file = store / "ledger" / record["probabilities"]
        with np.load(file) as kept:
            arrays = dict(kept)
        labels, values = change(record, arrays["test_labels"], arrays["test_probabilities"])
        arrays |= {"test_labels": labels, "test_probabilities": values}
        np.savez(file, **arrays)
        record["test"] = all_metrics(labels, values, record["classes"])
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A study with two contrasts, each alone in its family, some cells gone, and names that HTML and LaTeX escape."""
    folder = write_ledger(tmp_path_factory.mktemp("store"), DESIGN)

    def ask(manifest):
        manifest["question"] = "Is a < b & <script>alert(1)</script> worth $5?"

    change_manifest(folder, ask)
    return folder


@pytest.fixture(scope="module")
def report(store):
    return write_report(store, "split_ratio")


@pytest.fixture(scope="module")
def page(report):
    return read(report.page)


def test_every_part_is_there(report, page):
    assert list(page.sections) == PARTS and len(page.headings) == len(PARTS)
    # Not a heading alone.
    assert {name: len(words) > 80 for name, words in page.sections.items()} == dict.fromkeys(PARTS, True)
    kinds = {re.sub(r"_.*", "", name) for name in page.figures}
    assert kinds == {"cost", "difference", "ranks", "curves", "calibration", "confusion"}
    for dataset in DESIGN.datasets:
        assert {f"curves_{dataset}", f"calibration_{dataset}", f"confusion_{dataset}"} <= set(page.figures)
    assert {
        "contrasts",
        "verdicts",
        "variants",
        "differences",
        "per_class",
        "calibration",
        "absent",
        "provenance",
    } <= set(page.tables)


def test_the_question_stands_first_and_is_text(page):
    assert "<script" not in page.text and "script" not in page.tags
    assert "Is a &lt; b &amp; &lt;script&gt;" in page.text
    assert "every record carries their hash" in page.sections["question"]
    # What the file leaves out is not on the page, nor what manifests had not yet.
    assert "<dt>hypothesis</dt><dd>None of them &lt; another.</dd>" in page.text
    assert "<dt>controls</dt>" not in page.text and "<dt>caveat</dt>" not in page.text
    assert DESIGN.contrasts_hash in page.tables["contrasts"][0] and "±0.02" in page.tables["contrasts"][1]
    assert "corrected by Holm" in page.tables["contrasts"][0] and "corrected by Holm" in page.tables["verdicts"][0]


def test_verdicts_are_those_of_the_records(report, page):
    assert [v.contrast.name for v in report.verdicts] == ["split_ratio=0 (macro_auc_ovr)", "split_ratio=0 (macro_f1)"]
    assert [v.outcome for v in report.verdicts] == ["inferior", "inferior"]
    assert "<dt>verdicts</dt><dd>2 inferior</dd>" in page.text
    for verdict in report.verdicts:
        claim, _, numbers = verdict.sentence.partition(": ")
        assert claim in page.sections["verdicts"] and numbers[:40] in page.sections["verdicts"]
        # The sentence, the line below it and the table state one estimate, that of the test that decided.
        stated = f"{verdict.location.estimate:+.4f}".replace("-", "−")
        assert stated in page.tables["verdicts"][1] and numbers.startswith(stated)
        assert bounds(verdict.location.interval, 4, sign=True) in page.tables["verdicts"][1]


def test_nothing_is_bold_without_a_verdict(report, page):
    # Once in the sentence, once in the table; nothing else, and no style makes it so.
    assert page.bold == ["inferior"] * 4
    assert "font-weight: bold" not in page.text and not re.search(r"font-weight: ?[5-9]00", page.text)
    assert not {"b", "em", "mark"} & page.tags
    for file in (report.folder / "tables").glob("*.md"):
        assert file.read_text().count("**") == (4 if file.stem == "verdicts" else 0)
    for file in (report.folder / "tables").glob("*.tex"):
        assert file.read_text().count(r"\textbf") == (2 if file.stem == "verdicts" else 0)


def test_every_interval_says_what_it_is_and_its_n(report, page):
    brackets = re.compile(r"\[[+−]?\d+\.\d+, [+−]?\d+\.\d+\]")
    with_intervals = [name for name, (_, words) in page.tables.items() if brackets.search(words)]
    assert {"variants", "verdicts", "differences", "per_class", "calibration"} <= set(with_intervals)
    for name in with_intervals:
        caption = page.tables[name][0]
        assert "95 %" in caption or "a range and no interval" in caption, name
        assert re.search(r"\bn\b", caption), name
    for name, caption in page.figures.items():
        assert re.search(r"n = \d|\d seed|over \d+ data sets", caption), name
        if name.startswith(("cost", "difference")):
            assert "95 %" in caption, name
    for sentence in re.findall(r"[^.]*\d\] \([^)]*\)", page.sections["verdicts"]):
        assert "95 %" in sentence
    assert "each on its own" in page.tables["verdicts"][0]
    for name in (name for name in page.figures if name.startswith("difference")):
        svg = (report.folder / "figures" / f"{name}.svg").read_text()
        assert "seeds × images" in svg and "2 × 40" in svg
    assert "Chance: 0.5." in page.figures["cost_macro_auc_ovr"]


def test_a_recipe_that_ended_too_early_is_told(page, bare):
    words = "the last epoch was the best on validation"
    assert f"In 33 of 33 finished cells {words}" in page.sections["curves"]
    assert len(bare.sections["curves"]) > 80 and words not in bare.sections["curves"]


def test_cells_without_a_result_say_why(page):
    words = page.tables["absent"][1]
    for why in ("FloatingPointError: loss is NaN in epoch 3", "stopped before it ended", "not run yet"):
        assert why in words
    assert "3 cells" in page.tables["absent"][0]
    assert "33 of 36" in page.text
    assert "1 cell without usable predictions is not in the figures" in page.sections["calibration"]
    assert "1 cell without usable predictions is not in the figures" in page.sections["confusion"]


def test_versions_and_recipe_are_told(page):
    assert "d9a6eb0192ee" in page.sections["provenance"] and "torch 2.14.1" in page.sections["provenance"]
    assert '"learning_rate": 0.002' in page.sections["provenance"]
    # What a reader wants first is not behind pages of settings.
    assert "learning_rate" not in page.sections["question"]


def test_numbers_in_tables_are_the_ledgers(report, store):
    lines = (store / "ledger" / "records.jsonl").read_text().splitlines()
    done = [r for r in map(json.loads, lines) if r["status"] == "done" and r["dataset"] == "alpha"]
    expected = np.mean([r["test"]["per_class"][0]["f1"] for r in done if r["variant_label"] == "baseline"])
    rows = [line.split(",") for line in (report.folder / "tables" / "per_class.csv").read_text().splitlines()]
    column = rows[0].index("f1")
    values = [float(row[column]) for row in rows if row[:2] == ["alpha", "normal"] and "baseline" in row]
    assert values == [pytest.approx(expected)]
    found = [r["test"]["per_class"][0]["f1"] for r in done if r["variant_label"] == "split_ratio=0"]
    (row,) = (row for row in rows if row[:2] == ["alpha", "normal"] and "split_ratio=0" in row)
    ends = [float(row[rows[0].index(name)]) for name in ("f1_lowest", "f1_highest")]
    assert ends == [pytest.approx(min(found)), pytest.approx(max(found))] and ends[0] < ends[1]


def test_figures_and_tables_are_files_too(report, page):
    pictures = {path.stem for path in (report.folder / "figures").glob("*.svg")}
    assert pictures == set(page.figures) == {path.stem for path in (report.folder / "figures").glob("*.png")}
    for path in (report.folder / "figures").glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000
    for kind in ("csv", "md", "tex"):
        assert {path.stem for path in (report.folder / "tables").glob(f"*.{kind}")} == set(page.tables)
    for path in (report.folder / "tables").glob("*.tex"):
        text = path.read_text()
        order = [text.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{table}")]
        assert order == sorted(order) and r"\hline" not in text
        columns = len(re.search(r"\{@\{\}([lr]+)@\{\}\}", text)[1])
        body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].strip().splitlines()[1:]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body} == {columns}
        assert all(line.endswith(r"\\") for line in body)


def test_a_row_that_starts_with_a_bracket_is_no_option_of_the_line_above():
    names = ("plain", "[0.5, conv]", "*best*")
    table = Table("t", "Title", "Caption", ["variant", "n"], [[name, "1"] for name in names], pd.DataFrame())
    body = to_latex(table).split("\\midrule\n")[1].splitlines()[:3]
    assert body == [r"plain & 1 \\", r"{}[0.5, conv] & 1 \\", r"{}*best* & 1 \\"]


def test_a_label_in_a_figure_is_printed_as_it_stands():
    with style():
        figure, (axes,) = new_figure(2.0)
        axes.plot([0.111111, 0.222222], [0.333333, 0.444444])
        axes.set_title("0.12345 $5 <b> μ")
    picture = render(Drawing("one", figure, "a", "b", "c & d"))
    for svg in (picture.svg, picture.inline):
        assert ">0.12345 $5 &lt;b&gt; μ</text>" in svg and 'aria-label="c &amp; d"' in svg
        # Marks lie on hundredths of a point: what else there is would be noise.
        assert not re.search(r' d="[^"]*\d\.\d{3}', svg)
    assert 'width="' in picture.svg.split(">")[1] and 'width="' not in picture.inline.split(">")[0]


def test_nothing_is_cut_off_at_the_edge_of_a_figure():
    with style():
        figure, (axes,) = new_figure(2.0)
        axes.set_yticks([0, 1], ["phantom_dermatoscopy", "energy in lesion,\nstage 2"])
        axes.annotate("3 × 120", (1, 0.5), xycoords="axes fraction", annotation_clip=False)
    seen = imread(BytesIO(render(Drawing("one", figure, "a", "b", "c")).png))[..., :3]
    assert seen.min() < 0.2, "nothing was drawn"
    edges = [seen[:2], seen[-2:], seen[:, :2], seen[:, -2:]]
    assert min(edge.min() for edge in edges) == 1


def test_the_page_loads_nothing(report, page):
    wanted = [a for a in page.addresses if a and not a.startswith(("#", "data:"))]
    # What is left are links to the files beside it.
    assert wanted and all(re.fullmatch(r"(figures|tables)/[\w.-]+", address) for address in wanted)
    assert [a for a in wanted if not (report.folder / a).is_file()] == []
    assert "default-src 'none'" in page.text
    assert set(re.findall(r"https?://[^\"' <)]*", page.text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def browser():
    found = next((name for name in BROWSERS if shutil.which(name)), None)
    if found is None:
        pytest.skip(f"no browser on the PATH ({', '.join(BROWSERS)}): the page is not opened")
    return found


def opened(path, folder):
    """What a headless browser sees of a page at each width, and what it has to say about it."""
    frames = [f'<iframe src="{path.as_uri()}" style="border:0;width:{w}px;height:900px"></iframe>' for w in WIDTHS]
    harness = folder / "harness.html"
    harness.write_text(HARNESS.format(frames="".join(frames)))
    command = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--window-size=1400,1000", "--dump-dom",
        harness.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', run.stdout, flags=re.DOTALL)
    assert seen and seen[1], run.stderr[-2000:]
    return json.loads(seen[1]), [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_opens_the_page(report, page, tmp_path):
    seen, complaints = opened(report.page, tmp_path)
    assert complaints == []
    assert [view["width"] for view in seen] == list(WIDTHS)
    for view in seen:
        assert view["content"] <= view["width"], "the page must not scroll sideways"
        assert {figure["id"].removeprefix("figure-") for figure in view["figures"]} == set(page.figures)
        assert [f for f in view["figures"] if f["marks"] < 5 or f["width"] < 250 or f["height"] < 60] == []
        assert all(width > 0 for width in view["images"])
        assert [name for name in view["fetched"] if not name.startswith("data:")] == []


def test_the_browser_test_can_fail(tmp_path):
    wide = tmp_path / "wide.html"
    wide.write_text(
        '<p style="width:500px">a</p><figure id="figure-x"><svg width="0"></svg></figure><script>gone()</script>'
    )
    (narrow, _), complaints = opened(wide, tmp_path)
    assert narrow["content"] > narrow["width"] and narrow["figures"][0]["marks"] == 0
    assert len(complaints) == len(WIDTHS) and "gone is not defined" in complaints[0]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A study with two identical variants, one that predicts a constant, and a class without images on a data set."""
    variants = {"baseline": ({}, 1.2, 1.0), "twin": ({"d_state": 16}, 1.2, 1.0), "constant": ({"d_state": 4}, 1.0, 0.5)}
    design = Design(name="odd", variants=variants, datasets=("whole", "gap"), seeds=(0, 1), images=40, epochs=3)
    store = write_ledger(tmp_path_factory.mktemp("odd"), design)
    kept = {}

    def change(record, labels, values):
        key = record["dataset"], record["seed"]
        kept.setdefault(key, values)
        values = {"twin": kept[key], "constant": np.full_like(values, 1 / 3)}.get(record["variant_label"], values)
        return np.where((labels == 2) & (key[0] == "gap"), 0, labels), values

    change_test_predictions(store, change)
    return store


@pytest.fixture(scope="module")
def odd_report(odd):
    return write_report(odd, "odd")


def test_odd_predictors_have_defined_answers(odd_report):
    page = read(odd_report.page)
    # Two data sets carry no claim in general: the head of the page counts no outcomes.
    assert "<dt>verdicts</dt><dd>4 exploratory</dd>" in page.text
    twin, constant = (v for v in odd_report.verdicts if v.contrast.metric == "macro_auc_ovr")
    assert (twin.estimate, twin.p_value, twin.false_claim_probability) == (0.0, 1.0, 1.0)
    assert constant.estimate < -0.1 and constant.outcome == "inconclusive"
    assert page.bold == []
    # A class without images scores 0 where it is predicted, and has no score where it is not.
    assert re.search(r"gap malignant 0 0\.000 \S+ \S+ 0\.000 \S+ \S+ –", page.tables["per_class"][1])
    assert "malignant 0" in page.tables["datasets"][1]
    assert not re.search(r"\b(nan|None|inf)\b", " ".join(page.sections.values()))
    for name in ("baseline", "twin", "constant"):
        assert name in page.tables["variants"][1]


def test_data_sets_without_any_result_are_counted_as_left_out_of_ranks(store):
    evidence = load_evidence(store, "split_ratio")
    gone = evidence.table.assign(status=evidence.table["status"].where(evidence.table["dataset"] != "zeta", "failed"))
    pictures = claim_sections.ranks(replace(evidence, table=gone)).pictures
    assert len(pictures) == 2
    for picture in pictures:
        assert "over 5 data sets" in picture.caption and "Left out: 1 data set without a seed" in picture.caption


def test_names_with_colons_and_stops_leave_a_claim_whole(odd, odd_report):
    evidence = load_evidence(odd, "odd")
    for verdict in odd_report.verdicts:
        named = replace(verdict, contrast=replace(verdict.contrast, against_label="scan: none. At all"))
        nothing = replace(named, level="", estimate=math.nan, per_dataset=())
        for shown, numbers in ((named, r"[+−]0\.\d{4} "), (nothing, "no seed of any data set")):
            html = claim_sections.verdict_section(evidence, [shown], None).html
            claim = re.search('<span class="claim">(.*?)</span>', html)[1]
            assert "scan: none. At all" in claim and claim.endswith(("remains open. ", "±0.02. ", "compared. "))
            assert re.search(f'<span class="numbers">{numbers}', html)
            assert re.sub(r"\. $", ": ", claim) in shown.sentence


def test_cells_with_one_answer_are_counted(odd_report, page):
    words = "finished cells gave every test image the same class"
    assert f"4 of 12 {words} (constant 4)" in read(odd_report.page).sections["classes"]
    assert words not in page.sections["classes"]


def test_the_same_records_give_the_same_bytes(odd, odd_report, tmp_path):
    command = [sys.executable, "-m", "analysis.report", "odd", "--store", str(odd), "--out", str(tmp_path / "again")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        *(v.sentence for v in odd_report.verdicts), f"report  {tmp_path / 'again' / 'report.html'}",
    ]  # fmt: skip
    first, again = files_of(odd_report.folder), files_of(tmp_path / "again")
    assert list(first) == list(again) and len(first) > 40
    assert [name for name in first if first[name] != again[name]] == []


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The page of a study with one cell a variant, best amid its epochs, of which no probabilities are kept."""
    labels = list(Design().variants)
    design = Design(
        datasets=("only",), seeds=(0,), images=30, contrasts=False,
        without_probabilities=[(label, "only", 0) for label in labels],
    )  # fmt: skip
    store = write_ledger(tmp_path_factory.mktemp("bare"), design)
    path = store / "ledger" / "records.jsonl"
    records = [json.loads(line) | {"best_epoch": 2} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read(write_report(store, "split_ratio").page)


def test_one_cell_a_variant_without_probabilities(bare):
    page = bare
    assert page.bold == [] and list(page.sections) == PARTS
    assert "so it makes no claims: everything on this page is exploratory" in page.sections["verdicts"]
    assert "the study declared no contrasts" in page.sections["differences"]
    assert "there are 3 variants on 1 data set" in page.sections["ranks"]
    assert "one seed on one data set carries no interval" in page.sections["cost"]
    assert "no finished cell has kept its per-image probabilities" in page.sections["calibration"]
    assert "no finished cell has kept its per-image probabilities" in page.sections["confusion"]
    assert {name.split("_")[0] for name in page.figures} == {"cost", "curves"}


@pytest.fixture
def unfinished(tmp_path):
    """The store of a study of which nothing finished."""
    design = Design(datasets=("a", "b"), seeds=(0,))
    failed = [(label, dataset, 0) for label in design.variants for dataset in design.datasets]
    return write_ledger(tmp_path / "unfinished", replace(design, failed=failed[:-1], missing=failed[-1:]))


def test_a_study_of_which_nothing_finished(unfinished):
    store = unfinished
    with (store / "ledger" / "records.jsonl").open("a") as file:
        file.write('{"schema": 1, "cell_id": "00')
    assert main(["split_ratio", "--store", str(store)]) == 0
    page = read(store / "reports" / "split_ratio" / "report.html")
    assert list(page.sections) == PARTS and page.figures == {} and page.bold == []
    assert "last line is half-written" in page.sections["cells"]
    assert all(len(words) > 40 for words in page.sections.values())
    assert "0 of 6" in page.text and "5 failed, 1 not run" in page.text
    assert "cannot be compared" in page.sections["verdicts"]


def test_an_undefined_metric_is_no_unfinished_cell(tmp_path):
    design = Design(images=30, seeds=(0,), failed=[("baseline", "beta", 0)])
    evidence = load_evidence(write_ledger(tmp_path, design), design.name)
    evidence.table.loc[evidence.table["dataset"] == "zeta", "test.macro_auc_ovr"] = math.nan
    metrics = dict.fromkeys([*evidence.metrics, *SHOWN_METRICS])
    places = {metric: standings(evidence.table, metric, list(evidence.variants)) for metric in metrics}
    caption = variant_standings(evidence, places, "test").caption
    assert "Left out, since no seed was finished there by every variant: beta." in caption
    assert "Left out, since macro-AUC is undefined on them (one class in test): zeta." in caption


def test_a_search_shows_validation_and_claims_nothing(tmp_path):
    design = Design(name="hunt", datasets=("a",), seeds=(0,), images=30, contrasts=False, strategy="nsga2", epochs=1)
    page = read(write_report(write_ledger(tmp_path, design), "hunt").page)
    assert "The search chose its variants by these validation results" in page.sections["cost"]
    assert "(validation)" in page.tables["variants"][1] and "(test)" not in page.tables["variants"][1]
    assert page.bold == [] and "none of them is claimed to be better" in page.sections["limits"]


def test_studies_of_one_name_have_folders_of_their_own(store, report, tmp_path):
    evidence = load_evidence(store, "split_ratio")
    assert report.folder == default_folder(store, evidence) == store / "reports" / "split_ratio"
    shutil.copytree(store / "ledger" / "studies", tmp_path / "ledger" / "studies")
    (tmp_path / "ledger" / "records.jsonl").write_text("")
    twin = evidence.manifest | {"study_hash": "f" * 16}
    (tmp_path / "ledger" / "studies" / f"{'f' * 16}.json").write_text(json.dumps(twin))
    home = default_folder(tmp_path, evidence)
    assert home == tmp_path / "reports" / f"split_ratio-{evidence.manifest['study_hash']}"
    torn = tmp_path / "ledger" / "studies" / f"{'e' * 16}.json"
    torn.write_text("{")
    with pytest.raises(ValueError, match=f"{torn}: must be a study's manifest"):
        default_folder(tmp_path, evidence)


def test_bad_input_is_one_line(store, unfinished, tmp_path, capsys):
    assert main(["split_rato", "--store", str(store)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "split_ratio" in error
    (tmp_path / "ledger" / "studies").mkdir(parents=True)
    (tmp_path / "ledger" / "records.jsonl").write_text("")
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["split_ratio", "--store", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    (tmp_path / "taken").write_text("")
    assert main(["split_ratio", "--store", str(unfinished), "--out", str(tmp_path / "taken")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(tmp_path / "taken") in error
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2


def test_the_cost_section_says_how_sure_the_front_is(store, page):
    table, evidence = load_ledger(store), load_evidence(store, "split_ratio")
    # By hand: the data sets and seeds that all variants finished, seeds averaged, then data sets.
    cells = table[table["status"] == "done"].pivot_table(
        index=["dataset", "seed"], columns="variant_label", values="test.macro_auc_ovr"
    )
    means = cells.dropna().groupby("dataset").mean().mean()
    macs = table.groupby("variant_label")["cost.macs"].mean().sort_values()
    on_front = [name for name in macs.index if (means[macs <= macs[name]] <= means[name]).all()]
    sentence = re.search(r"macro-AUC: on the front (.*?)\. (?=\D)", page.sections["cost"])[1]
    assert [name for name in macs.index if name in sentence] == on_front and len(on_front) > 1
    logs = np.log2(macs) - np.log2(macs).mean()
    slope = float((means[macs.index] * logs).sum() / (logs**2).sum())
    assert f"it changes by {slope:+.4f} [".replace("-", "−") in page.sections["cost"]
    assert re.search(
        r"hypervolume is \d\.\d{4} \[\S+ \S+ \(95 % interval over data sets and seeds, n = 6, less the bias",
        page.sections["cost"],
    )
    caption, words = page.tables["front"]
    assert "2,000 draws" in caption and "n = 6 data sets" in caption and "Exploratory" in caption
    # The cheapest variant is always on the front, and alone within its own budget.
    cheapest = macs.index[0]
    assert re.search(rf"{cheapest} \S+ M yes · 100 % {cheapest} · 100 %", words)
    assert {"gains", "front"} <= set(page.tables)
    assert evidence.variants[evidence.baseline] == "baseline"


def test_an_outlook_follows_the_split_and_the_sign(store):
    evidence = load_evidence(store, "split_ratio")
    ids = list(evidence.variants)
    rng = np.random.default_rng
    seen = {}
    for split in ("validation", "test"):
        place = standings(evidence.table, "brier", ids, split=split)
        seen[split] = outlook(evidence.table, place, evidence.baseline, rng(0), draws=50)
        best = min(place.means, key=place.means.__getitem__)
        assert seen[split].within[seen[split].front.points[-1].variant_id].variant_id == best
    assert seen["validation"].front.points[0].value != seen["test"].front.points[0].value
    place = standings(evidence.table, "brier", ids)
    assert outlook(evidence.table, place, None, rng(0), draws=50).front == seen["test"].front
    apart = evidence.table[
        (evidence.table["seed"] == 0) == (evidence.table["variant_id"] == evidence.baseline)
    ].reset_index(drop=True)
    with pytest.raises(ValueError, match="must share a finished seed"):
        outlook(apart, standings(apart, "brier", ids), None, rng(0), draws=5)


def test_the_variants_drawn_are_the_best_whichever_way_the_metric_points(store):
    evidence = load_evidence(store, "split_ratio")
    alone = replace(evidence, baseline=None, manifest={**evidence.manifest, "contrasts": []})
    for metric, best in (("brier", min), ("macro_f1", max)):
        means = evidence.done().groupby("variant_id")[f"validation.{metric}"].mean().to_dict()
        assert replace(alone, metrics=(metric,)).chosen(1) == [best(means, key=means.__getitem__)]


def test_the_dearest_variant_as_baseline_is_said_once(store):
    evidence = load_evidence(store, "split_ratio")
    for ids in ([evidence.baseline], list(evidence.variants)):
        place = standings(evidence.table, "macro_f1", ids)
        found = outlook(evidence.table, place, evidence.baseline, np.random.default_rng(0), draws=20)
        dearest = found.front.points[-1].variant_id
        said = sentences(found, dearest).split(". ")
        assert sum(what.startswith(("Within the MACs", "At any cost", "No other variant")) for what in said) == 1
