"""What the tests share: real data and golden values, the scan's backends, and the switch for slow tests."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch is loaded: its threads sleep when they wait for each other. To spin, as they would, takes a processor
# from the other worker, and on a busy machine more time than the work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if sys.dont_write_bytecode:
    # Dozens of sub-processes import torch, MLflow or Ray, which takes thrice as long without bytecode. They share it in
    # a folder of the tests where none shall lie beside the sources.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")


# The files that take longest, from the longest on: they begin first, so that no worker ends long after the others.
# The scans of the CPU are neighbours that one worker takes while the other is at the GPU's, for they compile alike.
FIRST = [
    "scan/test_scan_triton",
    "scan/test_scan_cpu",
    "study/test_launch",
    "scan/test_scan",
    "study/test_executors",
    "verdicts/test_verdicts",
    "report/test_report",
    "report/test_paper",
    "report/test_together",
    "report/test_notebooks",
    "scan/test_scan_factored",
    "house/test_randomness",
    "scan/test_scan_check",
    "analysis/test_selftest",
    "study/test_tracking",
    "house/test_layers",
    "paired/test_paired",
    "house/test_benchmarks",
    "builder/test_model",
    "across/test_pareto",
    "builder/test_cost",
    "mixers/test_ss2d",
    "builder/test_checkpoints",
    "analysis/test_metrics",
    "study/test_strategies",
]


def pytest_collection_modifyitems(config, items):
    here = Path(__file__).parent
    places = {here / f"{name}.py": place for place, name in enumerate(FIRST)}
    assert all(path.is_file() for path in places)
    items.sort(key=lambda item: places.get(item.path, len(places)))
    if config.getoption("--run-slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with --run-slow"))


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names a folder that is not part of this project")
    return Path(value)


# On a busy machine an example may take any time to make or to try.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real medical images in the MedMNIST layout."""
    return _folder("MEDMAMBA_DATA")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder of golden values made by the public implementations."""
    return _folder("MEDMAMBA_GOLDEN")


@pytest.fixture
def one_thread():
    """Torch computes with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["portable", "cpu", "reference"])
def backend(request):
    """Every scan of the test goes through this backend; its name."""
    # Here, so that tests without a scan do not wait for torch.
    import torch

    from medmamba_variants.scan import backends, use_backend

    if request.param == "cpu" and not backends._works("cpu", "cpu", torch.float64):
        pytest.skip("the cpu backend does not work here: " + str(backends.load_backend("cpu").UNAVAILABLE))
    with use_backend(request.param):
        yield request.param
