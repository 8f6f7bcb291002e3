"""What the tests share: real data and golden values, the scan's backends, and the switch for slow tests."""

import os
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
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
