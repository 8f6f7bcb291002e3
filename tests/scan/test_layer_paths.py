"""Paths of the scan layer: what each choice scans, told again grid by grid and line by line in double precision."""

import pytest
import torch

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design.mixers import SS2D
from medmamba_variants.parts.mixers import ss2d

SIZE = (5, 7)
# Parameters of sets and of directions that the published layer has not.
INSIDE = {"selective": "delta_c", "direction_embedding": True, "merge": "squeeze_excite"}


def layer(channels=6, **axes):
    """A layer in double precision, its parameters away from their first values."""
    torch.manual_seed(0)
    module = ss2d.SS2D(channels, SS2D(d_state=3, **axes)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def twin(module, sets=None, **axes):
    """A layer of other axes with a layer's parameters, or with some of its sets of them."""
    other = layer(**axes)
    state = module.state_dict()
    for name in state.keys() & set(ss2d.SET_BY_SET) if sets is not None else ():
        state[name] = state[name].unflatten(0, (module.sets, -1))[sets].flatten(0, 1)
    other.load_state_dict(state)
    return other


def inner(*size, channels=12):
    return torch.randn(2, *(size or SIZE), channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(x, step, scan_of):
    expected = torch.zeros_like(x)
    for index in range(step**2):
        row, column = divmod(index, step)
        part = (slice(None), slice(row, None, step), slice(column, None, step))
        if x[part].numel():
            expected[part] = scan_of(index)(x[part])
    return expected


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 4), (6, 3)])
@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("window", [0, 2])
def test_atrous_grids_are_maps_of_their_own(step, window, size):
    module = layer(scan_atrous=step, scan_window=window)
    plain = twin(module, scan_window=window)
    torch.testing.assert_close(module.mapped(inner(*size)), by_hand(inner(*size), step, lambda _: plain.mapped))


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 4), (6, 3)])
@pytest.mark.parametrize("directions", ["own", "shared", "pairs"])
@pytest.mark.parametrize("more", [{}, {"merge": "softmax"}, {"merge": "concat"}, INSIDE], ids=str)
def test_grids_may_have_parameters_of_their_own(size, directions, more):
    common = {"direction_weights": directions, **more}
    module = layer(scan_atrous=2, atrous_weights="own", **common)
    count = {"own": 4, "shared": 1, "pairs": 2}[directions]
    assert module.sets == 4 * count
    plain = [twin(module, slice(n * count, (n + 1) * count), **common) for n in range(4)]
    y = module.mapped(inner(*size))
    torch.testing.assert_close(y, by_hand(inner(*size), 2, lambda index: plain[index].mapped))
    if more.get("merge") == "squeeze_excite":
        # Its gates come from the mean of what is merged: of a grid here, of the map where grids share parameters.
        return
    # The same sets in all grids are shared ones.
    with torch.no_grad():
        for name in module.state_dict().keys() & set(ss2d.SET_BY_SET):
            parameter = getattr(module, name).unflatten(0, (4, -1))
            parameter.copy_(parameter[:1].expand_as(parameter))
    shared = twin(module, slice(count), scan_atrous=2, **common)
    torch.testing.assert_close(module.mapped(inner(*size)), shared.mapped(inner(*size)))


@pytest.mark.parametrize("weights", ["own", "shared"])
def test_disjoint_grids_have_one_direction_each(weights):
    """EfficientVMamba's efficient scan where each grid has its own parameters: rows, columns, rows, columns."""
    axes = {"scan_atrous": 2, "atrous_scans": "disjoint", "scan_directions": ("rows", "columns")}
    module = layer(atrous_weights=weights, **axes)
    assert module.sets == (4 if weights == "own" else 2)

    def scan_of(index):
        place = index if weights == "own" else index % 2
        directions = (("rows", "columns")[index % 2],)
        return twin(module, slice(place, place + 1), scan_directions=directions).mapped

    torch.testing.assert_close(module.mapped(inner()), by_hand(inner(), 2, scan_of))


def test_lines_apart_are_maps_of_one_line():
    module = layer(scan_lines="apart", scan_directions=("rows", "rows_reverse"))
    plain = twin(module, scan_directions=("rows", "rows_reverse"))
    rows = [plain.mapped(inner()[:, row : row + 1]) for row in range(SIZE[0])]
    torch.testing.assert_close(module.mapped(inner()), torch.cat(rows, 1))


@pytest.mark.parametrize("axes", [{}, {"scan_window": 3}, {"scan_lines": "apart"}], ids=str)
def test_an_atrous_step_of_one_is_none(axes):
    assert torch.equal(layer(scan_atrous=1, **axes).mapped(inner()), layer(**axes).mapped(inner()))
    over = layer(scan_atrous=1, atrous_over="sequence")
    assert torch.equal(over.mapped(inner()), layer().mapped(inner()))


def test_atrous_sequences_are_every_other_step_of_a_direction():
    """Along rows of an even width, every second step of the sequence is every second column."""
    module = layer(scan_atrous=2, atrous_over="sequence", scan_directions=("rows",))
    plain = twin(module, scan_directions=("rows",))
    x = inner(3, 4)
    expected = torch.stack([plain.mapped(x[:, :, start::2]) for start in range(2)], 3).flatten(2, 3)
    torch.testing.assert_close(module.mapped(x), expected)


def test_disjoint_scans_cost_a_direction():
    """Nine multiply-adds for each state where a position is scanned once, a quarter of cross-scan's."""

    def macs(**axes):
        return count_cost(VariantConfig.from_dict(axes, base="nano"), image_size=28, num_classes=2).macs

    single = macs(scan_directions="rows")
    assert macs(scan_atrous=2, atrous_scans="disjoint") == single < macs() == macs(scan_atrous=2, atrous_weights="own")


def test_what_leaves_parameters_without_use_is_refused():
    disjoint = {"scan_atrous": 2, "atrous_scans": "disjoint"}
    with pytest.raises(ValueError, match=r"^scan_atrous must make a grid for each direction .*got 8 directions and 4"):
        VariantConfig(**disjoint, scan_directions="eight")
    with pytest.raises(ValueError, match=r"^direction_weights must be own where each grid has one direction"):
        VariantConfig(**disjoint, atrous_weights="own", direction_weights="shared")
    with pytest.raises(ValueError, match=r"^merge must be left out .*: atrous_scans is disjoint; got merge=mean"):
        VariantConfig(**disjoint, merge="mean")
    with pytest.raises(ValueError, match=r"^scan_lines must be left out .*: scan_directions have no lines"):
        VariantConfig(scan_lines="apart", scan_directions="hilbert4")


def test_a_quarter_of_the_map_is_scanned_and_the_skip_sees_all():
    """y = up(scan(down(x))) + D·x, with nearest neighbours, on odd maps, too."""
    for size in ((5, 7), (4, 6), (1, 1), (1, 5)):
        for axes in ({}, {"merge": "mean"}, {"merge": "softmax"}, {"direction_weights": "shared"}):
            module = layer(token_reduction="quarter", **axes)
            plain, x = twin(module, **axes), inner(*size)
            skip = x * module.skip()
            down = x[:, ::2, ::2]
            scanned = plain.mapped(down) - down * module.skip()
            rows, columns = torch.arange(size[0]) // 2, torch.arange(size[1]) // 2
            torch.testing.assert_close(module.mapped(x), scanned[:, rows][:, :, columns] + skip)


def test_token_reduction_needs_no_training():
    """The gate stays at full resolution, and so do all parameters what they are."""
    module = layer(token_reduction="quarter")
    plain = twin(module)
    x = torch.randn(2, *SIZE, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gate = torch.nn.functional.silu(module.halves(x)[1])
    for each in (module, plain):
        y = each.out_norm(each.mapped(each.convolved(each.halves(x)[0])))
        torch.testing.assert_close(each(x), each.out_proj(y * gate))
    assert not torch.allclose(module(x), plain(x))
    assert [*module.state_dict()] == [*plain.state_dict()]


def test_similar_positions_are_merged_before_the_scan_and_parted_after_it():
    """Step by step, token by token: each other position goes into the most similar first one of any patch."""
    for size in ((5, 7), (4, 6), (1, 1), (1, 5)):
        module = layer(token_reduction="merge_similar")
        plain, x = twin(module), inner(*size)
        firsts = [(row, column) for row in range(0, size[0], 2) for column in range(0, size[1], 2)]
        others = [(row, column) for row in range(size[0]) for column in range(size[1]) if row % 2 or column % 2]
        for image, y in zip(x, module.mapped(x)):
            groups = {place: [image[place]] for place in firsts}
            into = {place: place for place in firsts}
            for place in others:
                cosines = [torch.cosine_similarity(image[place], image[first], 0) for first in firsts]
                into[place] = firsts[int(torch.stack(cosines).argmax())]
                groups[into[place]].append(image[place])
            means = torch.stack([torch.stack(groups[place]).mean(0) for place in firsts])
            means = means.view(-(-size[0] // 2), -(-size[1] // 2), -1)[None]
            scanned = (plain.mapped(means) - means * module.skip())[0]
            expected = torch.stack([scanned[first[0] // 2, first[1] // 2] for _, first in sorted(into.items())])
            torch.testing.assert_close(y, expected.view(image.shape) + image * module.skip())


@pytest.mark.parametrize(
    "axes", [{}, {"scan_window": 2}, {"scan_lines": "apart", "scan_directions": ("rows",)}], ids=str
)
def test_dropped_positions_take_the_output_of_the_nearest(axes):
    module = layer(token_reduction="random_drop", **axes)
    x = inner().requires_grad_()
    y = module.mapped(x) - x * module.skip()
    # A position's output is that of one that is kept; the others have no influence.
    (gradient,) = torch.autograd.grad((y * inner()).sum(), x)
    kept = gradient.abs().sum((0, 3)).nonzero()
    assert len(kept) == 3 * 4
    distances = (torch.cartesian_prod(torch.arange(5), torch.arange(7))[:, None] - kept).square().sum(-1)
    nearest = distances.argmin(1)
    flat = y.flatten(1, 2)
    at_kept = flat[:, kept[:, 0] * 7 + kept[:, 1]]
    torch.testing.assert_close(flat, at_kept[:, nearest])
    if axes.get("scan_lines"):
        rows = [kept[kept[:, 0] == row] for row in range(5)]
        bare = twin(module, scan_directions=("rows",))
        expected = [bare.mapped(x[:, row[:, 0], row[:, 1]][:, None])[:, 0] for row in rows if len(row)]
        at = x[:, kept[:, 0], kept[:, 1]]
        torch.testing.assert_close(at_kept, torch.cat(expected, 1) - at * module.skip())
