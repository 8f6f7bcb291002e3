"""Orders made while the network runs, and routers: permutations, told again image by image in double precision."""

import copy

import pytest
import torch
from test_layer_paths import inner, layer, twin
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost, count_model
from medmamba_variants.model import build_model
from medmamba_variants.parts.mixers.scan_order import KNOTS, LearnedOrder, RandomStep
from medmamba_variants.parts.mixers.scan_router import Router
from medmamba_variants.parts.mixers.ss2d import SET_BY_SET

SIZES = [(1, 1), (1, 5), (5, 7), (6, 4)]


@pytest.mark.parametrize("length", [1, 2, 35, 500])
def test_a_random_step_is_a_permutation_another_in_each_step(length):
    torch.manual_seed(0)
    order = RandomStep()
    drawn = [order.permutation(length) for _ in range(4)]
    assert all(torch.equal(each.sort().values, torch.arange(length)) for each in drawn)
    assert length < 3 or len({tuple(each.tolist()) for each in drawn}) == 4
    order.eval()
    assert torch.equal(order.permutation(length), order.permutation(length))
    # In evaluation it does not even depend on the seed.
    assert torch.equal(RandomStep().eval().permutation(length), order.permutation(length))


def test_random_steps_depend_on_the_seed_and_go_on_from_a_checkpoint():
    torch.manual_seed(0)
    first, other = RandomStep(), RandomStep()
    torch.manual_seed(0)
    again = RandomStep()
    assert torch.equal(first.permutation(50), again.permutation(50))
    assert not torch.equal(first.permutation(50), other.permutation(50))
    resumed = RandomStep()
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [first.permutation(50).tolist() for _ in range(3)] == [resumed.permutation(50).tolist() for _ in range(3)]


@pytest.mark.parametrize("size", SIZES)
def test_laid_out_positions_go_back_to_their_places(size):
    x = inner(*size)
    for order in (RandomStep(), LearnedOrder(12, False).double(), LearnedOrder(12, True).double()):
        tokens = order(x, lambda y: y)
        added = (
            0 if isinstance(order, RandomStep) else order.scores(x.flatten(1, 2)).view(2, *size, 1) * order.direction
        )
        torch.testing.assert_close(tokens, x + added)


@pytest.mark.parametrize("kind", ["random_step", "learned", "learned_shuffled"])
def test_the_scan_follows_the_order(kind):
    """Each image's tokens in the order, along the fixed directions, and back."""
    module = layer(scan_order=kind).eval()
    plain = layer()
    plain.load_state_dict({name: module.state_dict()[name] for name in plain.state_dict()})
    x, tokens = inner(), inner().flatten(1, 2)
    if kind == "random_step":
        orders = [module.order.permutation(35)] * 2
    else:
        scores = slow_scores(module.order, tokens)
        torch.testing.assert_close(module.order.scores(tokens), scores)
        tokens = tokens + scores[..., None] * module.order.direction
        ranked = scores if kind == "learned" else scores[:, RandomStep().eval().permutation(35)]
        orders = [torch.tensor(sorted(range(35), key=lambda position, s=each: s[position].item())) for each in ranked]
    expected = torch.zeros_like(tokens)
    for image, order in enumerate(orders):
        y = plain.mapped(tokens[image][order].view(1, 5, 7, -1)).view(35, -1)
        expected[image][order] = y
    torch.testing.assert_close(module.mapped(x).flatten(1, 2), expected)


def slow_scores(order, tokens):
    """σ of a curve, linear between knots, plus σ of a linear map, place by place."""
    length = tokens.shape[1]
    curve = F.interpolate(order.curve[None, None], size=length, mode="linear", align_corners=True)[0, 0]
    return torch.sigmoid(curve) + torch.sigmoid(order.score(tokens)).squeeze(-1)


def test_scores_learn_only_through_what_is_added():
    module = layer(scan_order="learned")
    with torch.no_grad():
        module.order.direction.zero_()
    module.mapped(inner()).square().sum().backward()
    assert module.order.curve.grad.count_nonzero() == module.order.score.weight.grad.count_nonzero() == 0
    assert module.order.direction.grad.count_nonzero() == 12 and len(module.order.curve) == KNOTS


def test_images_keep_their_own_order():
    """An image's output does not depend on the others of its batch."""
    for axes in ({"scan_order": "learned"}, {"routing": "top_k"}):
        module, x = layer(**axes).eval(), inner()
        torch.testing.assert_close(module.mapped(x)[1:], module.mapped(x[1:]))


def test_a_router_with_one_expert_is_that_expert():
    router = Router(12, 1, 1)
    torch.testing.assert_close(router.double()(inner(), lambda index, x: x.cos() * (index + 1)), inner().cos())


def test_equal_scores_over_all_directions_are_the_mean():
    module = layer(routing="top_k", routed_directions=4).eval()
    plain = layer(merge="mean")
    plain.load_state_dict({name: module.state_dict()[name] for name in plain.state_dict()})
    with torch.no_grad():
        module.router.gate.weight.zero_()
    torch.testing.assert_close(module.mapped(inner()), plain.mapped(inner()))


@pytest.mark.parametrize("weights", ["own", "shared"])
@pytest.mark.parametrize("kept", [2, 3])
def test_each_image_gets_its_best_directions(weights, kept):
    module = layer(routing="top_k", routed_directions=kept, direction_weights=weights).eval()
    with torch.no_grad():
        module.router.gate.weight.normal_(std=20)
    x = torch.cat([inner(), inner().flip(1, 3), inner().roll(1, 3)])
    scores = x.mean((1, 2)) @ module.router.gate.weight.T
    expected = torch.zeros_like(x)
    chosen = set()
    for image, row in enumerate(scores.tolist()):
        best = sorted(range(4), key=lambda index: -row[index])[:kept]
        gates = torch.tensor([row[index] for index in best], dtype=torch.float64).softmax(0)
        for index, gate in zip(best, gates):
            sets = slice(index, index + 1) if weights == "own" else slice(None)
            alone = {"scan_directions": (module.directions[index],)}
            bare = layer(**alone)
            state = {name: module.state_dict()[name] for name in bare.state_dict()}
            for name in state.keys() & set(SET_BY_SET):
                state[name] = state[name].unflatten(0, (module.sets, -1))[sets].flatten(0, 1)
            bare.load_state_dict(state)
            expected[image] += gate * bare.mapped(x[image : image + 1])[0]
        chosen.add(tuple(sorted(best)))
    assert len(chosen) > 1
    torch.testing.assert_close(module.mapped(x), expected, rtol=1e-5, atol=1e-6)


def test_noise_explores_in_training_alone():
    torch.manual_seed(0)
    router, means = Router(12, 4, 2), torch.randn(6, 12)
    kept = [(router.weights(means) > 0).tolist() for _ in range(6)]
    assert any(each != kept[0] for each in kept)
    router.eval()
    assert torch.equal(router.weights(means), router.weights(means))
    assert ((router.weights(means) > 0).sum(1) == 2).all()
    torch.testing.assert_close(router.weights(means).sum(1), torch.ones(6))


@pytest.mark.parametrize(
    "axes", [{"routing": "top_k"}, {"scan_order": "learned_shuffled"}, {"token_reduction": "random_drop"}], ids=str
)
def test_costs_are_those_of_a_real_image(axes):
    config = VariantConfig.from_dict(axes, base="nano")
    counted = count_cost(config, image_size=(28, 36), num_classes=3)
    assert count_model(build_model(config, num_classes=3, seed=0), image_size=(28, 36)) == counted


def test_a_router_and_a_reduction_save_what_they_leave_out():
    def macs(**axes):
        return count_cost(VariantConfig.from_dict(axes, base="nano"), image_size=28, num_classes=2).macs

    assert macs(scan_directions="rows") < macs(routing="top_k") < macs(routing="top_k", routed_directions=3) < macs()
    assert macs(token_reduction="quarter") == macs(token_reduction="random_drop") < macs(routing="top_k")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"routing": "top_k", "routed_directions": 5}, "routed_directions must be at most the directions, got 5 of 4"),
        ({"routing": "top_k", "merge": "mean"}, "merge must be left out where it has no effect: routing is top_k"),
        ({"routed_directions": 3}, "routed_directions must be left out where it has no effect: routing is none"),
        (
            {"routing": "top_k", "scan_directions": "rows"},
            "routing must be left out .* scan_directions are a single one",
        ),
        (
            {"routing": "top_k", "scan_atrous": 2, "atrous_weights": "own"},
            "atrous_weights must be shared where routing is top_k, got own in stage 0",
        ),
        ({"routing": "top_k", "token_reduction": "quarter"}, "routing must be none where token_reduction is quarter"),
        (
            {"scan_order": "learned", "token_reduction": "random_drop"},
            "scan_order must be fixed where token_reduction is",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_in_one_line(axes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        VariantConfig(**axes)


def test_a_quarter_may_be_laid_out_anew():
    module = layer(scan_order="random_step", token_reduction="quarter").eval()
    plain = twin(module, scan_order="random_step").eval()
    x = inner()[:, ::2, ::2]
    expected = plain.mapped(x) - x * plain.skip()
    y = module.mapped(inner()) - inner() * module.skip()
    torch.testing.assert_close(y[:, ::2, ::2], expected)
