"""Adding to the project is what README and CONTRIBUTING say: done in a copy, whole, and with each step forgotten."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from additions import FINGERPRINTS, TO_THE_MODEL, TO_THE_REST, UNKNOWN, replaced

ROOT = Path(__file__).resolve().parents[2]
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
COPIED = ("medmamba_variants", "study", "analysis", "search_spaces", "tests", "docs", "README.md", "pyproject.toml")
ADDITIONS = TO_THE_MODEL | TO_THE_REST
STEPS = {f"{name}: {step}": edit for name, addition in ADDITIONS.items() for step, edit in addition.steps.items()}

# What the uses are written with: a program, whose arguments are a folder to work in, the uses by name, and what it then
# hands to pytest, so that torch is imported once.
WORDS = """
import json, sys, traceback
from pathlib import Path
import jsonschema, pytest, torch, yaml
from medmamba_variants.axis_table import axis_table
from medmamba_variants.config import VariantConfig
from medmamba_variants.model import build_model
from medmamba_variants.scan import use_backend
from study.file.keys import study_schema
from study.file.reading import load_study

HERE = Path(sys.argv[1])
GRID = {"question": "?", "base": "nano", "axes": {"fusion": ["shuffle", "concat"]}, "seeds": [0], "datasets": ["a"]}
SEARCH = {"name": "tpe", "trials": 3, "objectives": ["macro_f1"]}
SMALL = VariantConfig(depths=(1, 1), dims=(8, 16), d_state=2)
HERE.mkdir()
torch.set_num_threads(1)
schema = jsonschema.Draft202012Validator(study_schema())

def in_table(axis, words):
    (line,) = [line for line in axis_table().splitlines() if line.startswith(f"| `{axis}` |")]
    assert words in line.split(" | ")[2], line

def trains(step):
    config = VariantConfig.from_dict(step, base=SMALL)
    images = torch.randn(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    models = [build_model(each, num_classes=2, seed=0).train() for each in (SMALL, config)]
    # Drop path draws from the global generator: without a seed, one run in a hundred drops a branch of both images.
    torch.manual_seed(0)
    # The scan of the copy would compile its kernels for half a minute.
    with use_backend("portable"):
        logits = [model(images) for model in models]
    assert not torch.allclose(*logits), logits
    logits[1].square().sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in models[1].parameters())

def written(changes):
    (HERE / "x.yaml").write_text(yaml.safe_dump({**GRID, **changes}))
    return HERE / "x.yaml"

def study(changes):
    schema.validate({**GRID, **changes})
    return load_study(written(changes))

def fails(function, words):
    try:
        function()
    except ValueError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"must fail: {words}")

def refuses(changes, words):
    assert not schema.is_valid({**GRID, **changes})
    fails(lambda: load_study(written(changes)), words)

for name, use in json.loads(sys.argv[2]).items():
    print("== use of", name)
    try:
        exec(use, globals().copy())
        print("works")
    except Exception:
        traceback.print_exc(file=sys.stdout)
print("== tests")
sys.exit(pytest.main(sys.argv[3:]))
"""
PRINT_FINGERPRINT = """
from study.data import load_dataset
print(load_dataset({"kind": "phantom"}, "phantom_hollow").info.fingerprint)
"""

WHOLE = "tests/builder/test_config.py::test_every_component_is_declared_whole"
ALIVE = "tests/builder/test_model.py::test_one_step_along_every_axis_is_alive"
# A step that can be forgotten → the test that holds it, and a word with which this test then fails.
HELD = {
    "fusion: class": (f"{WHOLE}[subtract]", "Subtraction"),
    "mixer: macs": ("tests/builder/test_cost.py::test_every_component_has_its_closed_form[pointwise]", "pointwise"),
    "scan order: hand": ("tests/scan/test_paths.py::test_every_direction_is_written_by_hand", "snake"),
    "mixer: pin": ("tests/builder/test_config.py::test_defaults_never_change", "repeats"),
    "axis: pin": ("tests/builder/test_config.py::test_defaults_never_change", "pin the default of a new axis here"),
    "metric: oracle": (
        "tests/paired/test_paired.py::test_bootstrap_is_the_scikit_learn_loop_on_the_same_draws[lowest_recall-80-2-False]",
        "KeyError: 'lowest_recall'",
    ),
    "phantom: pin": ("tests/data/test_phantoms.py::test_all_are_registered_and_pinned", "phantom_hollow"),
    "page of axes": (
        "tests/house/test_readme.py::test_the_axis_table_is_the_one_the_code_prints",
        "python -m medmamba_variants.axis_table",
    ),
    "make schema": ("tests/study/test_space.py::test_the_schema_file_is_current", "run: make schema"),
}
# Without one of these others cannot be made or found: each in a copy of its own.
ALONE = {
    "mixer: module": (f"{WHOLE}[pointwise]", "pointwise"),
    "axis: call": (f"{ALIVE}[published-head_dropout-0.5]", "allclose"),
    "metric: table": (
        "tests/paired/test_claims.py::test_it_is_near_the_bootstraps_share_on_the_other_side[lowest_recall]",
        "nan",
    ),
}


def copied(root: Path, without: Collection[str] = ()) -> Path:
    """A copy of the project in which all edits are made but those without which it shall be."""
    root.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(ROOT / name, root / name)
    for step, edit in STEPS.items():
        if step not in without:
            edit(root)
    return root


def run(root: Path, *arguments: str) -> str:
    """What Python prints on these arguments, in the copy and with its packages."""
    # A copy has no compiled kernels: to compile them takes longer than to do without.
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def asked(root: Path, tests: Sequence[str]) -> list[str]:
    """Pytest's arguments for some tests of a copy, which leave a report beside it."""
    return ["-q", "-p", "no:cacheprovider", f"--junit-xml={root}.xml", *dict.fromkeys(tests)]


def outcomes(root: Path, tests: Sequence[str], printed: str) -> dict[str, str]:
    """For each of these tests how it failed, or nothing where it passed; what was printed, where it was not found."""
    assert Path(f"{root}.xml").exists(), printed
    cases = {}
    for case in ET.parse(f"{root}.xml").iter("testcase"):
        problems = [f"{part.get('message')}\n{part.text}" for part in case if part.tag != "system-out"]
        cases[case.get("name")] = "\n".join(problems)
    return {test: cases.get(test.split("::")[1], printed) for test in tests}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict[str, str], dict[str, str]]:
    """Of a copy in which everything is done as told: what the use of each addition printed, and how tests failed."""
    root = copied(tmp_path_factory.mktemp("whole") / "copy")
    replaced(FINGERPRINTS, UNKNOWN, run(root, "-c", PRINT_FINGERPRINT).strip())(root)
    # As the Makefile does for `make schema`.
    run(root, "-m", "study.schema", "search_spaces/schema.json")
    run(root, "-m", "medmamba_variants.axis_table", "docs")
    uses = json.dumps({name: addition.use for name, addition in ADDITIONS.items()})
    tests = [test for test, _ in (*HELD.values(), *ALONE.values())]
    printed = run(root, "-c", WORDS, str(root / "work"), uses, "--assert=plain", *asked(root, tests))
    parts = printed.partition("== tests")[0].split("== use of ")
    return {part.splitlines()[0]: part for part in parts[1:]}, outcomes(root, tests, printed)


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory) -> dict[str, str]:
    """How the tests that hold a step fail where all these steps were forgotten."""
    root = copied(tmp_path_factory.mktemp("forgetful") / "copy", without=HELD)
    tests = [test for test, _ in HELD.values()]
    return outcomes(root, tests, run(root, "-m", "pytest", *asked(root, tests)))


@pytest.mark.parametrize("name", ADDITIONS)
def test_an_addition_works_as_told(whole, name):
    assert whole[0][name].endswith("works\n"), whole[0][name]


def test_nothing_is_missed_where_every_step_is_taken(whole):
    assert len(whole[1]) > 5
    assert {test: problem for test, problem in whole[1].items() if problem} == {}


@pytest.mark.parametrize("step", HELD)
def test_the_test_of_a_forgotten_step_names_it(forgetful, step):
    test, word = HELD[step]
    assert word in forgetful[test]


@pytest.mark.parametrize("step", ALONE)
def test_the_test_of_a_step_forgotten_alone_names_it(tmp_path, step):
    test, word = ALONE[step]
    root = copied(tmp_path / "copy", without=[step])
    assert word in outcomes(root, [test], run(root, "-m", "pytest", *asked(root, [test])))[test]


@pytest.mark.parametrize("name", ADDITIONS)
def test_the_documents_tell_every_step(name):
    document, title = (README, "Add a choice or an axis") if name in TO_THE_MODEL else (CONTRIBUTING, "Adding to it")
    told = re.search(rf"^##+ {title}\n(.*?)^## ", document, re.DOTALL | re.MULTILINE)
    assert told and [word for word in ADDITIONS[name].told if word not in told.group(1)] == []
