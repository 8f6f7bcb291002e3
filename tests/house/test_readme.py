"""The README keeps its promises: its table is the code's, its files and commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_fixture import write_ledger

from medmamba_variants.axis_table import drawings, page
from medmamba_variants.config import PRESETS
from study.file.reading import load_study
from study.telling import index

ROOT = Path(__file__).resolve().parents[2]
HERE = {**os.environ, "PYTHONPATH": str(ROOT)}
README = (ROOT / "README.md").read_text()


def test_the_axis_table_is_the_one_the_code_prints():
    remedy = "run: python -m medmamba_variants.axis_table docs"
    assert (ROOT / "docs/axes.md").read_text() == page(), remedy
    assert (ROOT / "docs/orders.svg").read_text() == drawings(), remedy


def test_the_index_of_studies_is_the_one_the_files_give():
    written = (ROOT / "docs/studies.md").read_text()
    assert written == index.page(), "run: python -m study.telling.index docs/studies.md"
    files = sorted((ROOT / "search_spaces").rglob("*.yaml"))
    assert len(files) >= 29
    for path in files:
        study = load_study(path)
        row = next(line for line in written.splitlines() if f"(../{path.relative_to(ROOT)})" in line)
        assert study.question in row and study.name.replace("_", " ") in row
    assert {path.parent.name for path in files} == {*index.GROUPS, "search_spaces"} - {""}


def test_every_file_it_names_exists():
    names = set(re.findall(r"(?:search_spaces|benchmarks|medmamba_variants|study|analysis|tests)/[\w./-]*\w", README))
    assert len(names) >= 3
    assert sorted(name for name in names if not (ROOT / name).exists()) == []


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README))
    makefile = (ROOT / "Makefile").read_text()
    assert {"study", "test", "ui"} <= targets
    assert sorted(name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)) == []


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", README))))
def test_every_module_it_runs_can_be_run(module):
    path = ROOT / module.replace(".", "/")
    source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert 'if __name__ == "__main__"' in source.read_text() or source.name == "__main__.py"


@pytest.mark.parametrize(
    "module",
    [
        "medmamba_variants.scan",
        "medmamba_variants.axis_table",
        "medmamba_variants.systems",
        "study.schema",
    ],
)
def test_a_command_that_prints_ends_quietly_when_its_reader_has_gone(module):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    finally:
        os.close(writer)
    assert done.stderr == ""


def test_every_preset_is_named():
    assert sorted(name for name in PRESETS if name not in README) == []


def test_its_study_can_be_read(tmp_path):
    yaml_text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert yaml_text
    phantoms = "[phantom_ct, phantom_mri, phantom_xray]"
    file = tmp_path / "readme.yaml"
    file.write_text(yaml_text.group(1).replace("[breastmnist, busi, pneumoniamnist]", phantoms))
    study = load_study(file)
    assert [label for label, _ in study.variants()] == ["baseline", "fusion=attention"]


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["pieces", "statistics"])
def test_its_python_runs(code, tmp_path):
    write_ledger(tmp_path / "mlruns")
    command = [sys.executable, "-W", "error", "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=HERE, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout == ""


def test_the_environment_is_entered_before_the_first_command_that_needs_it():
    assert README.index("source .venv/bin/activate") < README.index("python -m")
