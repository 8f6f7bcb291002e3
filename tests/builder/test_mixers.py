"""What every mixer must stand: no image at all, half precision, copies, compilation, and one count on every device."""

import copy

import pytest
import torch

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost, count_model
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.model import build_model
from medmamba_variants.scan import use_backend

pytestmark = pytest.mark.usefixtures("one_thread")


def built(word):
    """A small network of this mixer alone, and images whose maps are 7×9 and, odd rows and columns dropped, 3×4."""
    axes = {"branches": [[1, word]], "depths": [1, 1], "dims": [8, 16]}
    config = VariantConfig.from_dict(axes)
    images = torch.randn(2, 3, 28, 36, generator=torch.Generator().manual_seed(0))
    return build_model(config, num_classes=2, seed=0), images


@pytest.mark.parametrize("word", MIXERS)
def test_it_stands_no_image_half_precision_and_copies(word):
    model, x = built(word)
    expected = model.eval()(x)
    assert model(x[:0]).shape == (0, 2)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    torch.testing.assert_close(copy.deepcopy(model).double()(x.double()).float(), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x)
    torch.testing.assert_close(rounded.float(), expected, rtol=0.05, atol=0.02)
    rounded.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("word", MIXERS)
def test_it_traces_as_one_graph(word):
    torch._dynamo.reset()
    model, x = built(word)
    with use_backend("portable"):
        compiled = torch.compile(model.eval(), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("word", MIXERS)
def test_it_costs_the_same_wherever_it_is_counted(word):
    model, _ = built(word)
    counted = count_cost(model.config, image_size=(37, 50), num_classes=2)
    assert count_model(model, image_size=(37, 50)) == counted
