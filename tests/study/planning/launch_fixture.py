"""A small study file in a folder of its own, and launches of it in this process."""

import pytest

from study.launch import main

CONTRAST = (
    "{name: all scan, baseline: {split_ratio: 0.5}, against: {split_ratio: 1}, metric: macro_auc_ovr, margin: 0.01}"
)
FILE = f"""\
question: Does the share of the scan matter?
base: nano
variant: {{depths: [1, 1], dims: [8, 16], d_state: 2}}
axes: {{split_ratio: [0.5, 1]}}
seeds: [0, 1]
datasets: [phantom_ct]
recipe: {{epochs: 1, batch_size: 50}}
contrasts:
  - {CONTRAST}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with study.yaml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    return tmp_path


def launch(*arguments):
    """The exit status of a launch in this process without tracking, and without the seconds that a report takes."""
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", *arguments])
