"""A page that is understood alone: what the baseline is, what decides, one estimate a claim, and the answer first."""

import json
import re
from dataclasses import replace

import pytest
from ledger_fixture import Design, write_ledger

from analysis.report.evidence import load_evidence
from analysis.report.sections.baseline import baselines, in_words
from analysis.report.write import write_report
from medmamba_variants.config import PRESETS
from medmamba_variants.design.axes import AXES

DESIGN = Design(images=40, against=("split_ratio=0",), seeds=(0, 1))


def words_of(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def nothing(*_):
    """Draws nothing: these tests read words."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = write_ledger(tmp_path_factory.mktemp("store"), DESIGN)
    path = next((folder / "ledger" / "studies").glob("*.json"))
    manifest = json.loads(path.read_text())
    manifest["meanings"] = {name: AXES[name].meaning for name in manifest["base"]}
    path.write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def report(store):
    return write_report(store, DESIGN.name, draw=nothing)


@pytest.fixture(scope="module")
def html(report):
    return report.page.read_text(encoding="utf-8")


def test_the_baseline_is_told_by_its_settings(store, html):
    section = words_of(html[html.index('<section id="question"') : html.index('<section id="verdicts"')])
    assert "baseline is what other variants are compared with: the preset nano: MedMamba-T as published" in section
    assert "but for 4 settings. All else is as published. It has 625 k parameters and takes 21.2 M MACs" in section
    assert "depths 1, 2, 1 – blocks in each stage" in section
    assert "dims 32, 64, 128 – channels in each stage" in section
    assert "d_state 8 – " in section and "patch_size 2 – " in section


def test_a_manifest_without_meanings_names_the_settings_alone(tmp_path):
    evidence = load_evidence(write_ledger(tmp_path, DESIGN), DESIGN.name)
    said = words_of("".join(baselines(evidence)))
    assert "depths 1, 2, 1 dims 32, 64, 128 patch_size 2" in said and "–" not in said


def test_a_study_without_contrasts_has_no_baseline(tmp_path):
    evidence = load_evidence(write_ledger(tmp_path, Design(contrasts=False)), DESIGN.name)
    assert baselines(evidence) == []


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (
            {"timm": "resnet18", "stem": "small", "timm_major": 1},
            "the classifier resnet18 of timm 1 with 1 setting of its own.",
        ),
        ({"module": "my.net:Net", "source": "abc"}, "the module my.net:Net as it comes."),
        ({}, "MedMamba-T as published (arXiv:2403.03849)."),
    ],
)
def test_a_baseline_may_be_any_network(store, variant, words):
    evidence = load_evidence(store, DESIGN.name)
    contrasts = [{**evidence.contrasts[0], "baseline_variant": variant}]
    said = words_of("".join(baselines(replace(evidence, manifest={**evidence.manifest, "contrasts": contrasts}))))
    assert words in said and "abc" not in said and "timm_major" not in said


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[0.5, "conv"], [0.5, "ss2d"]], "0.5 of the channels through conv, 0.5 of the channels through ss2d"),
        ([[1.0, {"ss2d": {"d_state": 4}}]], "all channels through ss2d d_state 4"),
        ([[[1.0, "conv"]], [[1.0, "ss2d"]]], "all channels through conv; all channels through ss2d"),
        ([1, 2, 1], "1, 2, 1"),
        (True, "yes"),
        (None, "none"),
        (0.25, "0.25"),
        ("shuffle", "shuffle"),
    ],
)
def test_values_are_put_in_words(value, words):
    assert in_words(value) == words


def test_every_setting_of_every_preset_can_be_put_in_words():
    for preset in PRESETS.values():
        for value in preset.diff().values():
            assert in_words(value) and not set("[]{}'") & set(in_words(value))


def test_the_answer_stands_first(report, html):
    head = words_of(html[html.index("<header>") : html.index("</header>")])
    question, answer = head.index("What share"), head.index("split_ratio=0 is worse than baseline in macro-AUC")
    assert question < answer < head.index("cells finished")
    assert "on data sets like these; split_ratio=0 takes 0.80 × the MACs." in head
    assert "without a conclusion" not in head


def test_what_is_undecided_is_counted_and_what_is_exploratory_is_no_answer(tmp_path):
    undecided = write_report(write_ledger(tmp_path / "a", Design(images=40, seeds=(0,))), DESIGN.name, draw=nothing)
    head = words_of(undecided.page.read_text().partition("</header>")[0])
    n_open = sum(v.outcome == "inconclusive" or v.exploratory for v in undecided.verdicts)
    if n_open < len(undecided.verdicts):
        assert f"{n_open} contrast{'' if n_open == 1 else 's'} without a conclusion that is a claim." in head
    few = write_report(write_ledger(tmp_path / "b", Design(datasets=("a", "b"), seeds=(0,))), DESIGN.name, draw=nothing)
    assert "No declared contrast has come to a conclusion" in words_of(few.page.read_text().partition("</header>")[0])


def test_what_decides_is_told_and_that_the_margin_does_not(html):
    section = words_of(html[html.index('<section id="verdicts"') :])
    assert "the p value of a difference, after correction, is at most α" in section
    assert "The margin does not: a superior variant need not be better by more than the margin" in section
    assert "= equivalent: this is what the margin decides, and it comes first." in section


def test_one_estimate_stands_beside_a_claim_and_the_others_behind_a_click(report, html):
    section = html[html.index('<section id="verdicts"') : html.index('<section id="results"')]
    items = re.findall(r"<li>(.*?)</li>", section, re.DOTALL)
    assert len(items) == len(report.verdicts) == 2
    for item, verdict in zip(items, report.verdicts):
        shown, folded = item.split("<details>")
        # One interval in the open; mixed model, mean and equivalence only behind the click.
        assert len(re.findall(r"\[[+−]\d\.\d+, [+−]\d\.\d+\]", shown)) == 1
        assert f"{verdict.location.estimate:+.4f}".replace("-", "−") in shown
        assert f"p = {verdict.adjusted_p:.3f}" in words_of(shown).replace("\u00a0", " ") and "× the MACs" in shown
        for told in ("mixed model", "Student's interval", "equivalence within", "false with probability"):
            assert told not in shown and told in folded.replace("&#x27;", "'"), told
    # The table of all numbers is behind a click, too.
    assert section.index("<summary>Verdicts, in numbers</summary>") < section.index('id="table-verdicts"')
