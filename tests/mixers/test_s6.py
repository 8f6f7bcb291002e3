"""Inside the scan layer: what is selective, how steps are made, and how directions share weights and meet."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_model
from medmamba_variants.design import scan_mixer as design
from medmamba_variants.parts.mixers.ss2d import SS2D
from medmamba_variants.scan.paths import scan_path


def layer(channels=6, **axes):
    """A layer in double precision, its parameters away from their first values, its steps long enough to matter."""
    torch.manual_seed(0)
    module = SS2D(channels, design.SS2D(**{"d_state": 4, **axes})).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise + (2 if name == "dt_projs_bias" else 0))
    return module


def bare(**axes):
    """A layer with nothing before or after its scan but a projection and SiLU: linear in what its directions give."""
    module = layer(inner_conv="none", gate="none", **axes)
    module.out_norm, module.out_proj = nn.Identity(), nn.Identity()
    return module


def tokens_of(module, x):
    return F.silu(x @ module.in_proj.weight.T).flatten(1, 2)


def image(height=5, width=7, channels=6):
    return torch.randn(2, height, width, channels, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


DIRECTIONS = ("rows", "columns_reverse", "diagonals")


def test_without_selection_it_is_s4ds_convolution():
    """Its kernel written out: k_j = Σ_n C_n exp(jΔA_n) Δ B_n, along each direction."""
    module, x = bare(selective="none", scan_directions=DIRECTIONS), image()
    tokens = tokens_of(module, x)
    length, inner = tokens.shape[1:]
    A = -module.A_logs.exp().view(3, inner, 4)
    steps = torch.arange(length, dtype=torch.float64)
    lag = (steps[:, None] - steps).long()
    expected = torch.zeros_like(tokens)
    for k, order in enumerate(scan_path(DIRECTIONS, 5, 7).table.tolist()):
        step = torch.log1p(module.dt_projs_bias[k].exp())
        decays = torch.exp(steps[:, None, None] * step[:, None] * A[k])
        kernel = (decays * module.Bs[k] * module.Cs[k]).sum(2) * step  # (length, inner)
        matrix = kernel[lag.clamp(min=0)] * (lag >= 0)[:, :, None]
        along = torch.einsum("tsd,bsd->btd", matrix, tokens[:, order])
        expected = expected.index_add(1, torch.tensor(order), along + module.Ds.view(3, inner)[k] * tokens[:, order])
    torch.testing.assert_close(module(x).flatten(1, 2), expected, rtol=1e-10, atol=1e-12)
    assert not hasattr(module, "x_proj_weight") and not hasattr(module, "dt_projs_weight")


def recurrence(module, tokens, k, order):
    """Output of direction k of a layer, along an order of positions, step by step, by the rule of its name."""
    component = module.component
    selected, R, N = component.selected, module.dt_rank, module.d_state
    s = component.set_of[k]
    inner = module.d_inner
    sizes = [R] * ("delta" in selected) + [N] * len(selected & {"b", "c"})
    rows = iter((tokens @ module.x_proj_weight[s].T).split(sizes, -1) if selected else ())
    delta = next(rows) @ module.dt_projs_weight[s].T if "delta" in selected else torch.zeros_like(tokens)
    B = next(rows) if "b" in selected else module.Bs[s].expand(*tokens.shape[:2], N)
    C = next(rows) if "c" in selected else module.Cs[s].expand(*tokens.shape[:2], N)
    if component.direction_embedding:
        B = B + module.direction_embedding[k]
    step = torch.log1p((delta + module.dt_projs_bias[s]).exp())
    A, D = -module.A_logs.exp().view(-1, inner, N)[s], module.Ds.view(-1, inner)[s]
    h = before = torch.zeros(len(tokens), inner, N, dtype=torch.float64)
    y = torch.zeros_like(tokens)
    for p in order:
        Δ, u = step[:, p, :, None], B[:, p, None] * tokens[:, p, :, None]
        z = Δ * A
        # The integrals of an input that is constant, or runs straight, written with neither series nor recursion.
        constant = (z.exp() - 1) / A
        straight = (z.exp() - 1 - z) / (Δ * A**2)
        if component.discretisation == "bilinear":
            h = ((1 + z / 2) * h + Δ * u) / (1 - z / 2)
        elif component.discretisation == "foh":
            h = z.exp() * h + straight * u + (constant - straight) * before
        else:
            h = z.exp() * h + (constant if component.discretisation == "zoh" else Δ) * u
        before = u
        y[:, p] = (h * C[:, p, None]).sum(2) + D * tokens[:, p]
    return y


def told_again(module, x):
    """The outputs of the directions of a bare layer, one by one."""
    tokens = tokens_of(module, x)
    orders = scan_path(module.directions, *x.shape[1:3]).table.tolist()
    return [recurrence(module, tokens, k, order) for k, order in enumerate(orders)]


def assert_told(module, x, merge=sum):
    ours, theirs = module(x).flatten(1, 2), merge(told_again(module, x))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    parameters = [p for name, p in module.named_parameters()]
    dout = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad(out, parameters, dout) for out in (ours, theirs))):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
        assert one.count_nonzero() > 0


@pytest.mark.parametrize("selective", design.SELECTED)
def test_each_of_the_eight_cells_is_its_retelling(selective):
    assert_told(bare(selective=selective, scan_directions=DIRECTIONS), image())


@pytest.mark.parametrize("rule", ["mamba", "zoh", "bilinear", "foh"])
@pytest.mark.parametrize("selective", ["all", "none"])
def test_each_rule_is_its_retelling(rule, selective):
    assert_told(
        bare(selective=selective, scan_directions=("rows_reverse", "columns"), discretisation=rule), image(3, 5)
    )


def test_a_constant_is_that_of_a_projection_that_ignores_its_input():
    """All selective with no weight on the input but that of a channel of ones is none selective."""
    fixed, free = bare(selective="none"), bare()
    N, R = 4, free.dt_rank
    with torch.no_grad():
        free.in_proj.weight[0] = 0
        free.x_proj_weight.zero_()
        for name in ("A_logs", "Ds", "dt_projs_bias"):
            getattr(free, name).copy_(getattr(fixed, name))
        fixed.in_proj.weight.copy_(free.in_proj.weight)
        free.x_proj_weight[:, R : R + N, 0], free.x_proj_weight[:, R + N :, 0] = fixed.Bs, fixed.Cs
    x = image()
    tokens = tokens_of(free, x)
    tokens[..., 0] = 1
    factors, constants = free.factors(tokens), fixed.factors(tokens)
    y = free.together(tokens, factors, free.path(5, 7))
    torch.testing.assert_close(y, fixed.together(tokens, constants, fixed.path(5, 7)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", ["own", "shared", "pairs"])
@pytest.mark.parametrize("embedding", [False, True])
def test_shared_sets_and_embeddings_are_their_retelling(weights, embedding):
    directions = ("rows", "rows_reverse", "columns_reverse", "diagonals", "diagonals_reverse")
    module = bare(scan_directions=directions, direction_weights=weights, direction_embedding=embedding)
    assert module.A_logs.shape[0] == {"own": 5, "shared": 1, "pairs": 3}[weights] * module.d_inner
    assert_told(module, image(3, 5))


def test_pairs_follow_the_orders():
    assert design.SS2D(direction_weights="pairs").set_of in {(0, 1, 0, 1), (0, 0, 1, 1)}
    assert design.SS2D(scan_directions="corner4", direction_weights="own").set_of == (0, 1, 2, 3)


@pytest.mark.parametrize("merge", ["concat", "squeeze_excite"])
def test_a_merge_of_outputs_apart_is_its_retelling(merge):
    module = bare(merge=merge, scan_directions=DIRECTIONS)

    def merged(outputs):
        if merge == "concat":
            return torch.cat(outputs, -1) @ module.merge_proj.weight.T
        means = torch.cat([y.mean(1) for y in outputs], -1)
        hidden = F.silu(means @ module.squeeze.weight.T + module.squeeze.bias)
        gates = 2 * torch.sigmoid(hidden @ module.excite.weight.T + module.excite.bias)
        return (torch.stack(outputs, 2) * gates.view(2, 1, 3, -1)).sum(2)

    assert_told(module, image(), merged)


def test_a_gate_of_one_and_a_projection_of_ones_are_the_sum():
    plain = bare()
    x, expected = image(), None
    for merge in ("sum", "squeeze_excite", "concat"):
        module = bare(merge=merge)
        module.load_state_dict(plain.state_dict(), strict=False)
        with torch.no_grad():
            if merge == "squeeze_excite":
                module.excite.weight.zero_(), module.excite.bias.zero_()
            elif merge == "concat":
                module.merge_proj.weight.copy_(torch.eye(module.d_inner).repeat(1, 4))
        expected = module(x) if expected is None else expected
        torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)
    mean = bare(merge="mean")
    mean.load_state_dict(plain.state_dict())
    torch.testing.assert_close(mean(x), expected / 4, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 6)])
def test_there_and_back_with_shared_weights_is_symmetric(size):
    """Both passes of one order with one set of weights commute with turning the map round, and one pass does not."""
    x = image(*size)
    for directions, weights, symmetric in (
        (("rows", "rows_reverse"), "shared", True),
        ("cross4", "pairs", True),
        (("rows", "rows_reverse"), "own", False),
        (("rows",), "own", False),
    ):
        module = bare(scan_directions=directions, direction_weights=weights)
        turned = module(x.flip(1, 2)).flip(1, 2)
        same = torch.allclose(turned, module(x), rtol=1e-10, atol=1e-12)
        assert same == (symmetric or size == (1, 1)), (directions, weights)


def test_first_values():
    def fresh(**axes):
        torch.manual_seed(0)
        return SS2D(40, design.SS2D(**axes))

    N = torch.arange(1.0, 17)
    for choice, holds in {
        "s4d_real": lambda a: torch.allclose(a, N.expand_as(a)),
        "s4d_lin": lambda a: torch.allclose(a, torch.tensor(0.5)),
        "random": lambda a: abs(a.log().mean()) < 0.1 and abs(a.log().std() - 1) < 0.1,
        "uniform": lambda a: a.min() >= 1 and a.max() <= 16 and abs(a.mean() - 8.5) < 0.3,
    }.items():
        assert holds(fresh(a_init=choice).A_logs.detach().exp()), choice
    # HiPPO-LegS, whose diagonal is S4D-real.
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    hippo = -torch.where(
        row > column, ((2 * row + 1) * (2 * column + 1)).sqrt(), torch.where(row == column, row + 1, 0)
    )
    torch.testing.assert_close(-fresh().A_logs.detach().exp()[0], hippo.diagonal())
    steps = F.softplus(fresh(dt_min=0.02, dt_max=0.5).dt_projs_bias.detach())
    assert 0.02 * 0.999 < steps.min() < 0.03 and 0.4 < steps.max() < 0.5 * 1.001
    assert abs(steps.log().mean() - torch.tensor(0.1).log()) < 0.1
    rank = fresh().dt_rank
    assert fresh(dt_init="constant").dt_projs_weight.unique().tolist() == pytest.approx([rank**-0.5])
    constants = fresh(selective="none", d_state=64)
    assert (constants.Bs == 1).all() and abs(constants.Cs.std() - 1) < 0.1


PAIRS = [
    {"selective": "delta", "gate": "none", "inner_conv": "none"},
    {"selective": "b_c", "direction_weights": "pairs", "merge": "concat", "discretisation": "foh"},
    {"selective": "c", "direction_weights": "shared", "direction_embedding": True, "merge": "squeeze_excite"},
    {"gate": "concat", "inner_conv": "partial", "d_conv": 5, "dt_rank": 3},
    {"gate": "concat", "inner_conv": "causal1d", "merge": "softmax", "scan_window": 2},
    {"gate": "linear", "inner_conv": "same1d", "d_conv": 5, "discretisation": "bilinear"},
]


@pytest.mark.parametrize("axes", PAIRS, ids=str)
def test_choices_combine_in_cost_graphs_and_half_precision(axes):
    torch.manual_seed(0)
    component = design.SS2D(d_state=4, **axes)
    module, x = SS2D(7, component), torch.randn(2, 5, 3, 7)
    torch._dynamo.reset()
    y = module(x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, y, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module(x).float(), y, rtol=0.1, atol=0.02)
    y.square().sum().backward()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in module.parameters())

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, images):
            return self.module(images.permute(0, 2, 3, 1))

    assert count_model(Alone(), image_size=(5, 3), in_channels=7).macs == component.macs(7, 5, 3)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"dt_min": 0.2}, "^dt_min must be below dt_max=0.1, got 0.2 in stage 0"),
        ({"selective": "b_c", "dt_rank": 3}, "^dt_rank must be left out .*selective leaves delta out; got dt_rank=3"),
        ({"selective": "none", "dt_init": "constant"}, "^dt_init must be left out .*selective leaves delta out; got"),
        ({"selective": "c", "direction_embedding": True}, "^direction_embedding must be false where .*constant B of"),
        (
            {"direction_weights": "pairs", "scan_directions": ["rows", "columns"]},
            "^direction_weights must be own where",
        ),
        ({"direction_weights": "pairs", "scan_directions": "bidirectional"}, "^direction_weights must be shared"),
        ({"direction_embedding": True, "direction_schedule": "alternate"}, "^direction_embedding must be left out"),
        ({"merge": "concat", "scan_directions": ["rows"]}, "^merge must be sum where there is a single direction"),
    ],
)
def test_choices_without_effect_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        VariantConfig.from_dict(axes)
