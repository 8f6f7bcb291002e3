"""Networks of one's own by dotted path: what is imported, checked and hashed."""

import importlib
import sys

import pytest
import torch

from medmamba_variants.design.kinds import SettingError
from medmamba_variants.networks import build_network, network_cost, read_network

NET = """
from torch import nn
from .parts import norm

class Net(nn.Module):
    def __init__(self, n_classes, in_chans=3, width=16):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, 2, 1), norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, n_classes),
        )

    def forward(self, x):
        return self.body(x)

class Grey(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, x):
        return self.head(x.flatten(1))

def number(num_classes):
    return 3
"""
PARTS = "from torch import nn\n\ndef norm(width):\n    return nn.BatchNorm2d(width)\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one's own in a folder that Python looks in; forgotten afterwards."""
    folder = tmp_path / "own_package"
    folder.mkdir()
    for name, text in (("__init__", ""), ("net", NET), ("parts", PARTS), ("unused", "x = 1\n")):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "own_package"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_a_network_of_ones_own_is_built_and_counted(package):
    network = read_network({"module": "own_package.net:Net", "width": 8})
    found = network_cost(network, image_size=(28, 28), num_classes=3, in_channels=1)
    assert found.params == (9 * 8 + 8) + 2 * 8 + (8 * 3 + 3)
    assert found.macs == 14 * 14 * 9 * 8 + 8 * 3
    model = build_network(network, num_classes=3, in_channels=1, image_size=(28, 28))
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    assert read_network(network.diff()) == network


@pytest.mark.parametrize(("name", "moves"), [("net", True), ("parts", True), ("unused", False)])
def test_the_id_follows_the_source_that_the_network_imports(package, name, moves):
    values = {"module": "own_package.net:Net"}
    before = read_network(values)
    path = package / f"{name}.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert (read_network(values).variant_id != before.variant_id) == moves
    if moves:
        with pytest.raises(ValueError, match="it changed since the study was read"):
            build_network(before, num_classes=2, in_channels=1, image_size=(8, 8))


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"module": "own_package.net"}, "module", "must be package.file:Class, got the string 'own_package.net'"),
        ({"module": "own_package.nett:Net"}, "module", "must be importable"),
        ({"module": "own_package.net:Nett"}, "module", "must be importable"),
        ({"module": "own_package.net:norm"}, "module", "must take one of num_classes, n_classes, classes"),
        ({"module": "own_package.net:number"}, "module", "must make a torch.nn.Module, got int"),
        ({"module": "own_package.net:Net", "widht": 3}, "widht", "must be one of width; got 'widht'"),
        ({"module": "own_package.net:Net", "width": "3"}, "", "must be settings that own_package.net:Net takes, got"),
    ],
)
def test_a_wrong_module_is_named_in_one_line(package, values, key, words):
    with pytest.raises(SettingError) as caught:
        read_network(values, ("variants", "x"))
    assert "\n" not in str(caught.value) and words in str(caught.value)
    assert caught.value.path == ("variants", "x", *([key] if key else []))


def test_images_that_do_not_fit_are_refused(package):
    network = read_network({"module": "own_package.net:Grey"})
    with pytest.raises(ValueError, match="must take one of in_channels, in_chans, in_ch, got 1 channels"):
        network_cost(network, image_size=(8, 8), num_classes=2, in_channels=1)
    with pytest.raises(ValueError, match="must take images of 3×16×16, got RuntimeError"):
        network_cost(network, image_size=(16, 16), num_classes=2, in_channels=3)
    assert network_cost(network, image_size=(8, 8), num_classes=2, in_channels=3).macs == 2 * 192
