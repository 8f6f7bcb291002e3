"""Two studies on one page: verdicts of each as on its own, variants side by side, and what cannot be compared named."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, write_ledger

from analysis.across.standings import standings
from analysis.report.__main__ import main
from analysis.report.evidence import load_evidence
from analysis.report.together import combined, difference_between, write_together
from analysis.report.write import write_report

ROOT = Path(__file__).resolve().parents[2]
FIRST = Design(name="ratios", datasets=("a", "b", "c"), seeds=(0, 1), images=30, metrics=("macro_f1",))
# Shares its baseline with the first, whose cells it takes over, and has a variant of its own.
OTHERS = {"fusion=attention": ({"fusion": "attention"}, 1.2, 1.6), "wide": ({"dims": [64, 128]}, 1.5, 4.0)}
SECOND = replace(
    FIRST,
    name="fusions",
    variants={**FIRST.variants, **OTHERS},
    datasets=("a", "b", "c", "d"),
    against=("fusion=attention", "wide"),
    metrics=("macro_auc_ovr",),
    question="Does attention help?",
)


def write_both(store, second=SECOND, change=None):
    """A store of both studies, whose shared cells have one record, as a driver leaves it."""
    write_ledger(store, FIRST)
    ledger = store / "ledger"
    first = (ledger / "records.jsonl").read_text()
    write_ledger(store, second)
    lines = (ledger / "records.jsonl").read_text()[len(first) :].splitlines()
    kept = first
    for line in lines:
        record = json.loads(line)
        label, dataset = record["variant_label"], record["dataset"]
        if label in FIRST.variants and dataset not in FIRST.datasets and label != "baseline":
            continue
        if change is not None:
            change(record)
        if label not in FIRST.variants or dataset not in FIRST.datasets:
            kept += json.dumps(record) + "\n"
    (ledger / "records.jsonl").write_text(kept)
    path = ledger / "studies" / f"{second.study_hash}.json"
    manifest = json.loads(path.read_text())
    own = [label for label in second.variants if label == "baseline" or label in OTHERS]
    manifest["variants"] = {second.variant_id(label): label for label in own}
    manifest["cell_ids"] = [second.cell_id(v, d, s) for v in own for d in second.datasets for s in second.seeds]
    path.write_text(json.dumps(manifest))
    return store


def nothing(*_):
    """Draws nothing: for what is not about figures."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def report(store):
    return write_together(store, ["ratios", "fusions"])


@pytest.fixture(scope="module")
def html(report):
    return report.page.read_text(encoding="utf-8")


def test_verdicts_are_those_of_each_studys_own_page(store, report, tmp_path):
    alone = [write_report(store, name, tmp_path / name, draw=nothing).verdicts for name in ("ratios", "fusions")]
    assert [verdict.sentence for verdict in report.verdicts] == [v.sentence for verdicts in alone for v in verdicts]
    assert len(report.verdicts) == 4 and report.page == store / "reports" / "ratios_and_fusions" / "report.html"


def test_a_cell_of_both_counts_once(store):
    found = [load_evidence(store, name) for name in ("ratios", "fusions")]
    both = combined(found)
    assert not both.table["cell_id"].duplicated().any()
    assert set(both.table["cell_id"]) == {cell for one in found for cell in one.table["cell_id"]}
    assert list(both.variants.values()) == [*FIRST.variants, *OTHERS]
    place = standings(both.table, "macro_f1", list(both.variants))
    # On the data sets that all variants finished: the fourth is the second study's alone.
    assert place.datasets == ("a", "b", "c") and len(place.means) == 5
    for one in found:
        own = standings(one.table, "macro_f1", list(one.variants))
        for variant in own.means:
            values = one.table.query("variant_id == @variant and dataset in ('a', 'b', 'c')")
            assert place.means[variant] == pytest.approx(values.groupby("dataset")["test.macro_f1"].mean().mean())


def test_every_section_and_file_has_a_name_of_its_own(report, html):
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for name in ("question-1", "question-2", "verdicts-1", "verdicts-2", "results", "cost", "ranks", "decisions"):
        assert f'<section id="{name}"' in html
    linked = set(re.findall(r'href="((?:tables|figures)/[^"]+)"', html))
    written = {
        str(path.relative_to(report.folder)) for path in report.folder.rglob("*.*") if path.parent != report.folder
    }
    assert linked == written
    assert "Does attention help?" in html and "exploratory" in html[html.index('<section id="results"') :]
    rows = pd.read_csv(report.folder / "tables" / "results_macro_f1.csv")
    assert rows["variant"].tolist() == [*FIRST.variants, *OTHERS] and np.isnan(rows["d_mean"]).sum() == 2
    # Cells that neither study asked for are not missing.
    assert html.count("None: every cell of the study has finished.") == 2


def test_the_command_takes_several(store, report, tmp_path):
    command = [sys.executable, "-m", "analysis.report", "ratios", "fusions", "--store", str(store)]
    run = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == f"report  {tmp_path / 'report.html'}"
    for path in report.folder.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(report.folder)).read_bytes()


def test_what_cannot_be_compared_is_named(store, tmp_path, capsys):
    assert main(["ratios", "ratios", "--store", str(store), "--out", str(tmp_path)]) == 2
    assert "studies must differ from each other, got ratios " in capsys.readouterr().err
    one, other = (load_evidence(store, name) for name in ("ratios", "fusions"))
    assert difference_between(one, other) == ""
    cases = {
        "recipe.epochs 6 in ratios, 9 in fusions": {"recipe": {**one.manifest["recipe"], "epochs": 9}},
        "recipe.mixup None in ratios, 0.2 in fusions": {"recipe": {**one.manifest["recipe"], "mixup": 0.2}},
    }
    for said, change in cases.items():
        assert difference_between(one, replace(other, manifest={**other.manifest, **change})) == said
    newer = replace(other, table=other.table.assign(numerics_version=2))
    assert difference_between(one, newer) == "numerics version 1 in ratios, 2 in fusions"
    content = replace(other, table=other.table.assign(fingerprint="f-new"))
    assert difference_between(one, content) == "a with the content f-a in ratios, f-new in fusions"
    with pytest.raises(
        ValueError, match="studies on one page must share recipe, data and numerics version, got a with"
    ):
        combined([one, content])


def test_labels_of_different_variants_are_told_apart(store):
    one, other = (load_evidence(store, name) for name in ("ratios", "fusions"))
    wide = next(v for v, label in other.variants.items() if label == "wide")
    renamed = replace(other, variants={**other.variants, wide: "split_ratio=1"})
    labels = list(combined([one, renamed]).variants.values())
    assert "split_ratio=1 (ratios)" in labels and "split_ratio=1 (fusions)" in labels and "baseline" in labels


def test_studies_of_one_name_are_told_apart(tmp_path):
    twins = [FIRST, replace(FIRST, seeds=(2,))]
    write_ledger(tmp_path, twins[0])
    path = tmp_path / "ledger" / "studies" / f"{FIRST.study_hash}.json"
    kept = path.read_bytes()
    write_ledger(tmp_path, twins[1])
    path.rename(path.with_name("beef000000000000.json"))
    path.write_bytes(kept)
    page = write_together(tmp_path, [FIRST.study_hash, "beef000000000000"], draw=nothing).page.read_text()
    assert f"Verdicts: ratios {FIRST.study_hash[:6]}" in page and "Verdicts: ratios beef00" in page


def test_other_seeds_are_told(tmp_path):
    page = write_together(
        write_both(tmp_path, replace(SECOND, seeds=(0, 1, 2))), ["ratios", "fusions"], draw=nothing
    ).page
    assert "The studies have different seeds (ratios: 0, 1; fusions: 0, 1, 2)" in page.read_text()
