"""Manifests as a ledger keeps them: refused where they are torn, or their declaration was changed afterwards."""

import json
from pathlib import Path

import pytest
from ledger_fixture import Design, write_ledger

from analysis.hashes import declaration_hash
from analysis.records.manifests import load_manifest
from analysis.report.evidence import load_evidence
from analysis.verdicts.declared import stored_declaration
from study.file.reading import load_study

DESIGN = Design(images=12, datasets=("alpha", "beta"), seeds=(0,))


@pytest.fixture
def path(tmp_path):
    """The one manifest of a ledger."""
    return write_ledger(tmp_path, DESIGN) / "ledger" / "studies" / f"{DESIGN.study_hash}.json"


def test_a_study_hashes_what_a_manifest_is_held_against():
    files = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
    assert files
    for file in files:
        kept = json.loads(json.dumps(load_study(file).manifest()))
        assert kept["contrasts_hash"] == declaration_hash(kept["contrasts"], kept["alpha"], kept["correction"])


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest["contrasts"][0].update(margin=0.5),
        lambda manifest: manifest["contrasts"][0].update(margin=float("nan")),
        lambda manifest: manifest["contrasts"][1].update(family="its own"),
        lambda manifest: manifest["contrasts"].pop(),
        lambda manifest: manifest.update(contrasts=7),
        lambda manifest: manifest.update(alpha=0.2),
        lambda manifest: manifest.update(correction="none"),
        lambda manifest: manifest.pop("correction"),
        lambda manifest: manifest.update(contrasts_hash="0123456789abcdef"),
    ],
)
def test_a_declaration_that_was_changed_afterwards_is_refused(path, edit):
    """By hand, after the cells ran: the hash that their records carry tells."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    edit(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    store = path.parent.parent.parent
    for read in (load_manifest, load_evidence):
        for study in (DESIGN.name, DESIGN.study_hash):
            with pytest.raises(ValueError, match="must be those that were declared before the study ran") as caught:
                read(store, study)
            assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    if manifest["contrasts_hash"] == DESIGN.contrasts_hash:
        with pytest.raises(ValueError, match="was changed afterwards"):
            stored_declaration(store, DESIGN.contrasts_hash)


def test_what_no_declaration_holds_may_change(path):
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"question": "Another wording?"}), encoding="utf-8")
    assert load_manifest(path.parent.parent, DESIGN.name)["question"] == "Another wording?"


@pytest.mark.parametrize("text", ['{"name": "split', "[]", "", "\x00"])
def test_a_half_written_manifest_is_one_line_naming_its_file(path, text):
    path.write_text(text, encoding="utf-8")
    for study in (DESIGN.name, DESIGN.study_hash):
        with pytest.raises(ValueError, match="must be a study's manifest") as caught:
            load_manifest(path.parent.parent, study)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
