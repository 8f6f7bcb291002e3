"""A small study in a folder of its own, launched by the real command in a process of its own, which a test may kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import until

ROOT = Path(__file__).resolve().parents[3]
FILE = """\
question: Does the share of the scan matter?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
axes: {split_ratio: [0.5, 1]}
seeds: [0, 1]
datasets: ['phantom_ct?size=16x20&n_train=48&n_val=24&n_test=24']
recipe: {epochs: 2, batch_size: 16}
contrasts: []
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with study.yaml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    return tmp_path


def start(folder, *arguments, program=("-m", "study.launch"), tracking="none", **environment):
    """The command in a process of its own; its output goes to out.txt."""
    command = [sys.executable, *program, "study.yaml", "--tracking-uri", tracking, "--no-report", *arguments]
    marked = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(command, cwd=folder, env=marked, stdout=out, stderr=subprocess.STDOUT)


def told(folder):
    """What the commands have said."""
    return (folder / "out.txt").read_text()


def wait_while(process, folder, condition):
    """Returns once the condition holds; fails where the command has ended before."""

    def there():
        assert process.poll() is None, told(folder)
        return condition()

    until(there, lambda: told(folder))


def lines_of(folder, store="mlruns"):
    """The records of a store, in order."""
    path = folder / store / "ledger" / "records.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
