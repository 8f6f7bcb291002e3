"""A launch reads its store once: a record is parsed once, probabilities are opened twice at most, an id hashed once."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

import study.declaration.cells
from study.launch import main

# Every variant is a side of two contrasts, so that whoever reads for each of them anew reads everything twice.
FILE = """\
question: Does the share of the scan matter?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
axes: {split_ratio: [0.25, 0.5, 1]}
seeds: [0, 1]
datasets: [phantom_ct]
recipe: {epochs: 1, batch_size: 50}
contrasts:
  - {name: more, baseline: {split_ratio: 0.5}, against: {split_ratio: 1}, metric: macro_f1, margin: 0.01}
  - {name: less, baseline: {split_ratio: 0.5}, against: {split_ratio: 0.25}, metric: macro_f1, margin: 0.01}
  - {name: ends, baseline: {split_ratio: 0.25}, against: {split_ratio: 1}, metric: macro_f1, margin: 0.01}
"""
CELLS = 6
# The files that this process opened for reading while somebody listens: an audit hook can never be taken away again.
listeners: list[Counter[str]] = []


def hear(event: str, arguments: tuple) -> None:
    if event == "open" and listeners and isinstance(arguments[0], str) and arguments[1] in ("r", "rb"):
        for opened in listeners:
            opened[Path(arguments[0]).name] += 1


@pytest.fixture(scope="module", autouse=True)
def hook():
    sys.addaudithook(hear)


class Watched:
    """What a launch read: files opened, records parsed and cells' ids hashed, each with how many times."""

    def __init__(self, monkeypatch):
        self.opened: Counter[str] = Counter()
        self.parsed: Counter[str] = Counter()
        self.hashed: Counter[str] = Counter()
        loads, content_hash = json.loads, study.declaration.cells.content_hash

        def counted_loads(text, **options):
            found = loads(text, **options)
            if isinstance(found, dict) and "cell_id" in found:
                self.parsed[found["cell_id"]] += 1
            return found

        def counted_hash(value):
            found = content_hash(value)
            self.hashed[found] += "numerics" in value
            return found

        monkeypatch.setattr(json, "loads", counted_loads)
        monkeypatch.setattr(study.declaration.cells, "content_hash", counted_hash)

    def launch(self, *arguments):
        for counter in (self.opened, self.parsed, self.hashed):
            counter.clear()
        listeners.append(self.opened)
        try:
            return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", *arguments])
        finally:
            listeners.remove(self.opened)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    return Watched(monkeypatch)


def test_a_launch_reads_its_store_once(watched, capsys):
    assert watched.launch() == 0
    out = capsys.readouterr().out
    assert "report  " in out and "warning" not in out
    cells = set(watched.hashed)
    assert len(cells) == CELLS and set(watched.hashed.values()) == {1}
    assert watched.parsed == watched.hashed
    files = {f"{cell_id}.npz" for cell_id in cells}
    assert files <= set(watched.opened), "the listener must hear what is read"
    assert max(watched.opened[name] for name in files) <= 2

    # Half of it again: verdicts then look through the whole ledger for what was left out.
    assert watched.launch("--seeds", "0", "--no-report") == 0
    out = capsys.readouterr().out
    assert "3 cells, 3 done already" in out and "seed 1 was left out" in out
    assert set(watched.parsed) == cells and set(watched.parsed.values()) == {1}
    assert len(watched.hashed) == CELLS // 2 and set(watched.hashed.values()) == {1}
    assert len(files & set(watched.opened)) == CELLS // 2
    assert max(watched.opened[name] for name in files) <= 2

    with_spread = [
        "--set",
        "alpha=0.45",
        "--set",
        "correction=none",
        "--datasets",
        "phantom_ct,phantom_mri,phantom_xray",
    ]
    assert watched.launch("--dry-run", *with_spread) == 0
    assert f"{CELLS} done already" in capsys.readouterr().out
    assert set(watched.parsed) == cells and set(watched.parsed.values()) == {1}
    assert len(watched.hashed) == 3 * CELLS and set(watched.hashed.values()) == {1}
