"""Arrows run one way: study → medmamba_variants, study → analysis, and heavy libraries stay in their one file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What a package may not import, and the only files that may import a library.
FORBIDDEN = {
    "medmamba_variants": {"study", "analysis", "ray", "optuna", "mlflow", "pandas", "scipy", "statsmodels"},
    "analysis": {"study", "medmamba_variants", "torch", "torchmetrics", "timm", "ray", "optuna", "mlflow"},
}
ONLY_IN = {
    "ray": {"study/executors.py"},
    "optuna": {"study/strategies.py"},
    "mlflow": {"study/tracking.py"},
}
LIMIT_LINES = 400
REFUSED_NAMES = {"utils.py", "common.py", "base.py", "helpers.py"}


def sources() -> list[Path]:
    return [p for package in ("medmamba_variants", "study", "analysis") for p in sorted((ROOT / package).rglob("*.py"))]


def imported(source: str) -> set[str]:
    """Top-level names of every module imported anywhere in a source text, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def wrong_arrows(relative: str, source: str) -> list[str]:
    names = imported(source)
    wrong = sorted(names & FORBIDDEN.get(relative.split("/")[0], set()))
    wrong += sorted(name for name, homes in ONLY_IN.items() if name in names and relative not in homes)
    return wrong


def test_arrows_point_one_way():
    found = {str(p.relative_to(ROOT)): wrong_arrows(str(p.relative_to(ROOT)), p.read_text()) for p in sources()}
    assert len(found) > 10
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("analysis/metrics.py", "import torch"),
        ("medmamba_variants/model.py", "from study.cells import Cell"),
        ("study/train.py", "def f():\n    import ray.tune"),
        ("study/launch.py", "from mlflow import log_metric"),
    ],
)
def test_a_wrong_arrow_is_seen(path, source):
    assert wrong_arrows(path, source)


def test_files_keep_their_size_and_names():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources()}
    assert {path: n for path, n in lengths.items() if n > LIMIT_LINES} == {}
    assert not {p.name for p in sources()} & REFUSED_NAMES


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("medmamba_variants.config", ["torch"]),
        ("medmamba_variants.scan.paths", ["study", "analysis"]),
        ("analysis.records", ["torch", "ray", "mlflow"]),
        ("analysis.across", ["torch", "ray", "mlflow"]),
        ("study.launch", ["torch", "ray", "mlflow", "optuna", "pandas"]),
        ("study.train", ["ray", "mlflow", "optuna"]),
    ],
)
def test_imports_stay_light(module, absent):
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_the_light_import_check_can_fail():
    code = "import sys, torch; print([m for m in ['torch'] if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['torch']"
