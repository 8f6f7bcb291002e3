"""What the tests share: the folders of real data and golden values, and the switch for slow tests."""

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
