"""A published study: small, without places of the machine, and made again from its own ledger, byte by byte."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger

from analysis.report.__main__ import main
from analysis.report.published import publish as module

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = sorted(path.parent.parent for path in (ROOT / "docs" / "studies").glob("*/ledger/studies"))
DESIGN = Design(images=40, epochs=3)


def made_of(folder):
    """Texts and figure that are made of a ledger, by name."""
    names = [folder / "README.md", folder / "report.html", folder / "contrasts.png", *sorted(folder.glob("tables/*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names if path.exists()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    store = write_ledger(tmp_path_factory.mktemp("store"), DESIGN)
    manifest = store / "ledger" / "studies" / f"{DESIGN.study_hash}.json"
    values = json.loads(manifest.read_text())
    values |= {"file": f"{store}/search_spaces/real/split_ratio.yaml", "source": {"root": str(store)}}
    manifest.write_text(json.dumps(values))
    home = tmp_path_factory.mktemp("docs")
    assert main(["split_ratio", "--store", str(store), "--publish", str(home)]) == 0
    return home / "split_ratio"


def test_its_ledger_has_all_that_numbers_need_and_no_place_of_the_machine(folder):
    lines = (folder / "ledger" / "records.jsonl").read_text().splitlines()
    assert len(lines) == 54 and all("curves" not in json.loads(line) for line in lines)
    arrays = np.load(next((folder / "ledger" / "probabilities").glob("*.npz")))
    assert sorted(arrays.files) == ["test_ids", "test_labels", "test_probabilities"]
    texts = [
        path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".md", ".csv", ".html")
    ]
    assert not any("/tmp" in text or str(Path.home()) in text for text in texts)
    assert "search_spaces/real/split_ratio.yaml" in (folder / "README.md").read_text()


def test_its_page_links_nothing_that_is_not_there(folder):
    links = re.findall(r'href="([^"#]+)"', (folder / "report.html").read_text())
    files = [link for link in links if "tables/" in link or "figures/" in link]
    assert len(files) > 5 and all((folder / link).exists() for link in files)


def test_the_numbers_are_those_of_the_store(folder, tmp_path):
    store = write_ledger(tmp_path / "store", DESIGN)
    assert main(["split_ratio", "--store", str(store)]) == 0
    for path in sorted((store / "reports" / "split_ratio" / "tables").glob("*.csv")):
        assert (folder / "tables" / path.name).read_text() == path.read_text(), path.name


def test_it_is_made_again_from_its_ledger_and_keeps_what_was_written_by_hand(folder, tmp_path):
    before = made_of(folder)
    assert {"README.md", "report.html", "contrasts.png", "tables/verdicts.csv"} <= set(before)
    assert main([str(folder), "--out", str(tmp_path / "again")]) == 0
    assert made_of(tmp_path / "again") == before
    (folder / "deviations.md").write_text("Seed 2 ran on another machine.\n")
    assert main([str(folder)]) == 0
    after = made_of(folder)
    assert "Seed 2 ran on another machine." in after["README.md"].decode()
    (folder / "deviations.md").unlink()
    assert main([str(folder)]) == 0 and made_of(folder) == before


def test_the_answer_says_what_differs_what_is_equal_and_what_stays_open(folder):
    answer = (folder / "README.md").read_text().split("\n\n")[2]
    assert answer.startswith("In macro-AUC, ") and "Open remain split_ratio=0 (−0." in answer
    assert "of 2 contrasts in macro-F1" in answer


def test_one_that_a_repository_should_not_hold_is_refused(tmp_path, monkeypatch, capsys):
    store = write_ledger(tmp_path / "store", DESIGN)
    monkeypatch.setattr(module, "LIMIT", 1000)
    assert main(["split_ratio", "--store", str(store), "--publish", str(tmp_path / "docs")]) == 2
    assert "must be at most 0 MB, got" in capsys.readouterr().err


@pytest.mark.parametrize("study", PUBLISHED[:1], ids=lambda path: path.name)
def test_a_published_study_is_what_its_ledger_gives(study, tmp_path):
    assert main([str(study), "--out", str(tmp_path / "again")]) == 0
    assert made_of(tmp_path / "again") == made_of(study)


def test_the_table_of_the_pilot_is_what_its_ledger_gives(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs/studies/pilot_budget/README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), {})
    assert capsys.readouterr().out in text
