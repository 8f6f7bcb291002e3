"""Arrows run one way, between packages, folders and files, and heavy libraries stay in their one file.

A landing is a package's folder: its files and folders, each folder taken as one thing. Imports between the things of a
landing must make no circle, and none may reach up to the landing's own face.
"""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("medmamba_variants", "study", "analysis")
# What a package may not import, and the only files that may import a library.
FORBIDDEN = {
    "medmamba_variants": {"study", "analysis", "ray", "optuna", "mlflow", "pandas", "scipy", "statsmodels"},
    "analysis": {"study", "medmamba_variants", "torch", "torchmetrics", "timm", "ray", "optuna", "mlflow"},
}
ONLY_IN = {
    "ray": {"study/executors/ray_tune.py"},
    "optuna": {f"study/strategies/{name}.py" for name in ("importance", "samplers", "search", "trials")},
    "mlflow": {"study/store/tracking.py"},
}
LIMIT_LINES = 400
LIMIT_NAMES = 20
REFUSED_NAMES = {"utils.py", "common.py", "base.py", "helpers.py"}


def sources() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


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
        ("medmamba_variants/model.py", "from study.declaration.cells import Cell"),
        ("study/training/cell.py", "def f():\n    import ray.tune"),
        ("study/launch.py", "from mlflow import log_metric"),
    ],
)
def test_a_wrong_arrow_is_seen(path, source):
    assert wrong_arrows(path, source)


def module_name(relative: str) -> str:
    return relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def arrows(files: dict[str, str]) -> list[tuple[str, str]]:
    """(importing module, imported module) of every import among these files, path → source, also inside functions."""
    modules = {module_name(path) for path in files}
    found = []
    for path, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, f"{path}: imports must be absolute"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in modules else node.module for name in whole]
            else:
                continue
            found += [(module_name(path), target) for target in targets if target in modules]
    return found


def circles(files: dict[str, str]) -> list[str]:
    """Every landing whose files and folders import each other in a circle, and every import of a landing's own face."""
    found = arrows(files)
    faces = {module_name(path) for path in files if path.endswith("/__init__.py")}
    problems = [f"{source} imports the face above it, {target}" for source, target in found if target in above(source)]
    for landing in sorted(faces):
        needs: dict[str, set[str]] = {}
        for source, target in found:
            if source.startswith(f"{landing}.") and target.startswith(f"{landing}."):
                here, there = (name.removeprefix(f"{landing}.").split(".")[0] for name in (source, target))
                if here != there:
                    needs.setdefault(here, set()).add(there)
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            problems.append(f"{landing}: {' → '.join(error.args[1])}")
    return problems


def above(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:n]) for n in range(1, len(parts))}


def read() -> dict[str, str]:
    return {str(p.relative_to(ROOT)): p.read_text() for p in sources()}


def test_no_circle_among_the_files_and_folders_of_any_landing():
    files = read()
    assert len(arrows(files)) > 300
    assert circles(files) == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"study/a/x.py": "import study.a.y", "study/a/y.py": "from study.a import x"}, "study.a: "),
        ({"study/a/x.py": "def f():\n    from study.b.x import g", "study/b/x.py": "import study.a.y"}, "study: "),
        ({"study/a/x.py": "from study import c"}, "study.a.x imports the face above it"),
        ({"study/c.py": "from study.a.x import y", "study/a/y.py": "import study.c"}, "study: "),
    ],
)
def test_a_circle_is_seen(extra, problem):
    clean = {f"study/{name}.py": "" for name in ("__init__", "a/__init__", "a/x", "a/y", "b/__init__", "b/x")}
    assert circles(clean) == []
    assert [found for found in circles(clean | extra) if found.startswith(problem)]


def test_no_landing_has_more_names_than_one_can_take_in():
    folders = {p.parent for p in sources()} | {p.parent for p in (ROOT / "tests").rglob("*.py")}
    counts = {}
    for folder in folders:
        names = [p.name for p in folder.iterdir() if p.name not in ("__pycache__", "__init__.py", "__init__.pyi")]
        counts[str(folder.relative_to(ROOT))] = len(names)
    assert len(counts) > 30
    assert {folder: count for folder, count in counts.items() if count > LIMIT_NAMES} == {}


def test_files_of_tests_have_names_of_their_own():
    """Pytest imports them by that name alone, and takes the second of two for the first."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert {name: count for name, count in names.items() if count > 1} == {}


def test_files_keep_their_size_and_names():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources()}
    assert {path: n for path, n in lengths.items() if n > LIMIT_LINES} == {}
    assert not {p.name for p in sources()} & REFUSED_NAMES


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("medmamba_variants.config", ["torch"]),
        ("medmamba_variants.scan.paths", ["study", "analysis"]),
        ("analysis.records.ledger", ["torch", "ray", "mlflow"]),
        ("analysis.across.summaries", ["torch", "ray", "mlflow"]),
        ("analysis.across.rank_tests", ["networkx", "sklearn"]),
        ("analysis.explanations.features", ["networkx", "sklearn"]),
        ("study.launch", ["torch", "ray", "mlflow", "optuna", "pandas"]),
        ("analysis.records.schema", ["pandas", "scipy"]),
        ("study.store.ledger", ["torch", "pandas", "scipy"]),
        ("study.training.cell", ["ray", "mlflow", "optuna", "pandas"]),
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
