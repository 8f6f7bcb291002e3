"""Classifiers of timm as networks of a study: checked settings, ids, sizes, costs, the small stem."""

import pytest
import timm
import torch

from medmamba_variants.cost import UncountedError, count_model
from medmamba_variants.design.kinds import SettingError
from medmamba_variants.networks import build_network, network_cost, read_network
from medmamba_variants.peers import timm_models


def cost(size=64, classes=3, channels=1, **values):
    return network_cost(read_network(values), image_size=(size, size), num_classes=classes, in_channels=channels)


def test_a_resnet_has_the_published_size_and_cost():
    # He et al. 2016, table 1: 1.8 × 10⁹ multiply-adds; torchvision prints 11,689,512 parameters and 1.814 G.
    found = cost(224, 1000, 3, timm="resnet18")
    assert found.params == 11_689_512
    assert found.macs == pytest.approx(1.814e9, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "mambaout_femto",
            "convnext_atto",
            "efficientnet_b0",
            "mobilenetv3_small_100",
            "densenet121",
            "poolformer_s12",
        ),
        *(
            "swin_tiny_patch4_window7_224",
            "vit_tiny_patch16_224",
            "maxvit_nano_rw_256",
            "cait_xxs24_224",
            "vgg11",
            "poolformer_s12",
        ),
    ],
)
def test_every_family_is_counted_and_runs(name):
    network = read_network({"timm": name})
    found = network_cost(network, image_size=(64, 64), num_classes=3, in_channels=1)
    assert found.macs > 1e6
    with torch.device("meta"):
        model = build_network(network, num_classes=3, in_channels=1, image_size=(64, 64))
        assert sum(parameter.numel() for parameter in model.parameters()) == found.params
        assert model.eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_settings_reach_the_network_as_they_would_in_timm():
    values = {"dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "drop_path_rate": 0.1}
    network = read_network({"timm": "mambaout_femto", **values})
    torch.manual_seed(3)
    ours = build_network(network, num_classes=4, in_channels=3, image_size=(64, 64)).eval()
    torch.manual_seed(3)
    theirs = timm.create_model("mambaout_femto", num_classes=4, **values).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_the_id_depends_on_name_settings_stem_and_major_version(monkeypatch):
    ids = {
        read_network(values).variant_id
        for values in (
            {"timm": "resnet18"},
            {"timm": "resnet34"},
            {"timm": "resnet18", "drop_path_rate": 0.1},
            {"timm": "resnet18", "stem": "small"},
        )
    }
    assert len(ids) == 4
    assert read_network({"timm": "resnet18", "stem": "timm"}) == read_network({"timm": "resnet18"})
    today = read_network({"timm": "resnet18", "layers": [1, 1, 1, 1]})
    assert read_network(today.diff()) == today and today.diff()["layers"] == [1, 1, 1, 1]
    monkeypatch.setattr(timm_models, "timm_major", lambda: 2)
    later = read_network({"timm": "resnet18", "layers": [1, 1, 1, 1]})
    assert later.variant_id != today.variant_id
    # A record names the version that it was made with.
    assert read_network(today.diff()) == today


def test_ids_are_pinned():
    assert read_network({"timm": "resnet18", "timm_major": 1}).variant_id == "e4aa6fee2ea5"
    assert read_network({"timm": "resnet18", "stem": "small", "timm_major": 1}).label() == "timm=resnet18 stem=small"


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"timm": "resnet19"}, "timm", "did you mean resnet18"),
        ({"timm": 18}, "timm", "must be the name of a classifier of timm, got 18"),
        ({"timm": "resnet18", "chanels": [8]}, "chanels", "did you mean channels?"),
        ({"timm": "resnet18", "num_classes": 3}, "num_classes", "must be left out, since the suite sets it, got 3"),
        ({"timm": "resnet18", "pretrained": True}, "pretrained", "must be left out"),
        ({"timm": "resnet18", "stem": "tiny"}, "stem", "must be one of timm, small"),
        ({"timm": "mambaout_femto", "stem": "small"}, "", "stem: small must go with a ResNet of timm"),
        ({"timm": "resnet18", "stem": "small", "stem_width": 8}, "", "stem_width must be left out with stem: small"),
        ({"timm": "resnet18", "stem": "small", "channels": [7, 8, 9, 10]}, "", "must begin with an even number"),
        ({"timm": "vit_tiny_patch16_224", "embed_dim": 100}, "", "must be settings that timm's vit_tiny_patch16_224"),
        ({"timm": "resnet18", "block_args": {"a": 1}}, "block_args", "must be a number, a text"),
        ({"timm": "resnet18", "module": "a:B"}, "", "must have timm or module, got both"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(values, key, words):
    with pytest.raises(SettingError) as caught:
        read_network(values, ("variants", "x"))
    assert "\n" not in str(caught.value) and words in str(caught.value)
    assert caught.value.path == ("variants", "x", *([key] if key else []))


@pytest.mark.parametrize(
    ("values", "size", "words"),
    [
        ({"timm": "convnext_atto"}, 28, "images of 32×32 will do"),
        ({"timm": "vit_tiny_patch16_224"}, 28, "multiples of its patch of 16×16 pixels, got 28×28 (set patch_size"),
        ({"timm": "dla34"}, 28, "images of 32×32 will do"),
        ({"timm": "resnet18", "stem": "small"}, 128, "images of at most 64 pixels a side, got 128×128"),
    ],
)
def test_images_that_a_network_cannot_take_are_refused_with_what_it_needs(values, size, words):
    with pytest.raises(ValueError) as caught:
        cost(size, **values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_small_stem_keeps_the_map_and_starts_as_narrow_as_the_first_stage():
    network = read_network({"timm": "resnet18", "stem": "small", "channels": [16, 32, 64, 128]})
    model = build_network(network, num_classes=2, in_channels=1, image_size=(28, 28))
    assert model.conv1.weight.shape == (16, 1, 3, 3)
    assert model.act1(model.bn1(model.conv1(torch.zeros(1, 1, 28, 28)))).shape == (1, 16, 28, 28)
    assert model.layer1(torch.zeros(1, 16, 28, 28)).shape == (1, 16, 28, 28)
    # Kaiming, fan-out: variance 2 over (16 × 9).
    assert float(model.conv1.weight.detach().std()) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.25)


def test_an_operation_without_a_formula_is_named_whatever_the_network():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4, 4, device="meta"))

        def forward(self, x):
            return torch.linalg.qr(self.weight)[0] + x.sum()

    with pytest.raises(UncountedError, match="linalg_qr"):
        count_model(Odd(), image_size=8)
