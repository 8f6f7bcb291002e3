"""What records and manifests say of places: nothing of a user's home, the current folder or where libraries lie."""

import json
import os
import sysconfig
from pathlib import Path

import pytest
from command_fixture import folder, lines_of
from test_cells_under_way import make_cell

import study
from study.launch import main
from study.store.ledger import Ledger
from study.store.paths import without_places
from study.training import cell as cells
from study.training.cell import run_cell

__all__ = ["folder"]
SUITE = Path(study.__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("{cwd}/data/busi.npz: must hold", "data/busi.npz: must hold"),
        ('  File "{suite}/study/training/loop.py", line 3', '  File "study/training/loop.py", line 3'),
        ('  File "{library}/torch/nn/functional.py"', '  File "torch/nn/functional.py"'),
        ("{home}/pictures, {home}/more", "~/pictures, ~/more"),
        ("sqlite:///{cwd}/x and file://{home}/y", "sqlite:///{cwd}/x and file://{home}/y"),
        ("{cwd}er/data", "{cwd}er/data"),
        ("1/2 of a/b and /usr/share/x", "1/2 of a/b and /usr/share/x"),
    ],
)
def test_paths_begin_where_everybody_has_the_same(text, kept, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "somebody"))
    places = {
        "cwd": os.getcwd(),
        "suite": SUITE,
        "library": sysconfig.get_path("purelib"),
        "home": tmp_path / "somebody",
    }
    assert without_places({"a": [text.format(**places)]}) == {"a": [kept.format(**places)]}


def test_a_failed_record_and_its_manifest_name_no_place(folder, monkeypatch, capsys):
    def lost(spec, name):
        raise OSError(2, "No such file or directory", str(folder / "data" / "x.npz"))

    monkeypatch.setattr(cells, "load_dataset", lost)
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-of-mine")
    monkeypatch.setenv("HOME", str(folder.parent))
    arguments = ["--executor", "inline", "--no-report", "--seeds", "0", "--set", "axes.split_ratio=[0.5]"]
    assert main([str(folder / "study.yaml"), "--tracking-uri", "none", *arguments]) == 1
    (record,) = lines_of(folder)
    assert "x.npz" in record["error"]["message"] and 'File "study/training/cell.py"' in record["error"]["traceback"]
    (manifest,) = (folder / "mlruns" / "ledger" / "studies").glob("*.json")
    asked = json.loads(manifest.read_text())
    assert asked["file"] == "study.yaml"
    for text in (json.dumps(record), json.dumps({**asked, "file_text": ""})):
        assert str(folder) not in text and str(SUITE) not in text and "hunter2" not in text


def test_a_study_s_hash_and_what_it_asked_stay(tmp_path):
    ledger = Ledger(tmp_path)
    text = f"source: {{root: {Path.home()}/data}}"
    path = ledger.write_manifest("ab", {"file_text": text, "source": {"root": f"{Path.home()}/data"}})
    assert json.loads(path.read_text()) == {"file_text": text, "source": {"root": "~/data"}}


def test_an_old_record_with_a_path_is_read(tmp_path):
    record, _ = run_cell(make_cell(), device="cpu")
    kept = Ledger(tmp_path).append(record)
    line = json.dumps({**kept, "error": {"type": "E", "message": "/home/me/x", "traceback": ""}, "status": "failed"})
    (tmp_path / "records.jsonl").write_text(line + "\n")
    assert Ledger(tmp_path).reading()
    assert next(iter(Ledger(tmp_path).records().values()))["error"]["message"] == "/home/me/x"
