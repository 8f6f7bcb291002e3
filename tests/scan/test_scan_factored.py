"""The scan with delta as a product of low rank, and delta, B and C as parts of one projection."""

import pytest
import torch
from test_scan import PATHS, loop, make, relative
from torch.utils.flop_counter import FlopCounterMode

from medmamba_variants.scan import op, ss2d_scan, use_backend
from medmamba_variants.scan.backends import row_stride
from medmamba_variants.scan.dispatch import scan_macs
from medmamba_variants.scan.paths import scan_path
from medmamba_variants.scan.products import product, product_in_order


def make_projected(path, batch=2, channels=3, d_state=2, rank=2, dtype=torch.float64):
    """The leaves x, projection (batch, length, K, rank + 2 · d_state), A, D, delta_bias and delta_weight."""
    x, _, A, _, _, D, delta_bias = make(path, batch, channels, d_state, dtype, grad=False)
    rng = torch.Generator().manual_seed(5)
    K, length = path.directions, path.length
    projection = torch.randn(batch, length, K, rank + 2 * d_state, generator=rng, dtype=torch.float64).to(dtype)
    delta_weight = torch.randn(K, channels, rank, generator=rng, dtype=torch.float64) * rank**-0.5
    return [tensor.requires_grad_() for tensor in (x, projection, A, D, delta_bias, delta_weight.to(dtype))]


def arguments_of(leaves):
    """The scan's arguments before the path, and delta_weight."""
    x, projection, A, D, delta_bias, delta_weight = leaves
    d_state = A.shape[2]
    delta, B, C = projection.split((projection.shape[3] - 2 * d_state, d_state, d_state), dim=-1)
    return (x, delta, A, B, C, D, delta_bias), delta_weight


def scan(leaves, path):
    inputs, delta_weight = arguments_of(leaves)
    return ss2d_scan(*inputs, path, delta_weight)


def true_scan(leaves, path):
    (x, delta, *rest), delta_weight = arguments_of(leaves)
    return loop((x, torch.einsum("blkr,kdr->blkd", delta, delta_weight), *rest), path)


def assert_same(leaves, y, expected, truth_leaves, tolerance):
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    gradients = torch.autograd.grad(y, leaves, dy.to(y.dtype))
    truth = torch.autograd.grad(expected, truth_leaves, dy)
    assert relative(y, expected) < tolerance
    for index, (gradient, true_gradient) in enumerate(zip(gradients, truth)):
        assert gradient.shape == true_gradient.shape
        assert relative(gradient, true_gradient) < tolerance, index


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("channels", "d_state", "rank"), [(1, 2, 1), (17, 6, 7), (32, 4, 24)])
def test_equals_the_loop_over_the_product(backend, name, channels, d_state, rank):
    path = PATHS[name]()
    leaves = make_projected(path, channels=channels, d_state=d_state, rank=rank)
    assert_same(leaves, scan(leaves, path), true_scan(leaves, path), leaves, 1e-12)


def test_float32_keeps_its_digits(backend):
    path = scan_path("cross4", 7, 9)
    exact = make_projected(path, batch=3, channels=21, d_state=16, rank=3)
    leaves = [tensor.detach().float().requires_grad_() for tensor in exact]
    assert_same(leaves, scan(leaves, path), true_scan(exact, path), exact, 2e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_product_comes_in_order(rank):
    (_, delta, *_), weight = arguments_of(make_projected(scan_path("cross4", 3, 4), channels=5, rank=rank))
    with torch.no_grad():
        made = product_in_order(delta, weight)
        assert made.is_contiguous() and torch.equal(made, product(delta, weight))


def test_parts_of_a_projection_are_read_where_they_lie_and_the_product_is_not_kept():
    path = scan_path("cross4", 5, 5)
    leaves = make_projected(path, channels=24, d_state=4, rank=2)
    whole_product = 2 * 25 * 4 * 24
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with use_backend("cpu"), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = scan(leaves, path)
    projection = leaves[1].untyped_storage()
    assert kept.pop(projection.data_ptr()) == leaves[1].numel()
    # Nothing of the projection's rows or the product's has been copied: the rest is x, parameters and checkpoints.
    assert max(kept.values()) == leaves[0].numel() < whole_product
    assert y.requires_grad


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads):
    path = scan_path("cross4", 9, 8)
    leaves = make_projected(path, batch=40, channels=19, d_state=4, rank=3, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            with use_backend("cpu"):
                y = scan(leaves, path)
                results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results))


def test_rows():
    whole = torch.zeros(2, 6, 3, 8)
    assert row_stride(whole) == 8
    assert [row_stride(part) for part in whole.split((1, 3, 4), dim=-1)] == [8, 8, 8]
    assert row_stride(whole[:, :, :, ::2]) == 0
    assert row_stride(whole[:, :, ::2, :4]) == 0
    assert row_stride(whole[:, ::2, :, :4]) == 0
    assert row_stride(whole[:, :, 1:2, :4]) == 24
    assert row_stride(whole[:, 2:3, 1:2, :4]) == 144
    assert row_stride(whole[1:, 2:3, 1:2, 4:]) == 4
    assert row_stride(whole.transpose(1, 2)) == 0
    assert row_stride(whole[:, :, :1, :1].expand(2, 6, 3, 4)) == 0
    assert row_stride(torch.zeros(0, 6, 3, 8)) == 8


@pytest.mark.parametrize("cut", ["one direction", "one position", "one item", "every second", "expanded"])
def test_any_strides(backend, cut):
    path = {"one direction": scan_path(("rows",), 2, 3), "one position": scan_path("cross4", 1, 1)}.get(
        cut, scan_path("cross4", 2, 3)
    )
    leaves = make_projected(path, batch=1 if cut == "one item" else 2)
    inputs, delta_weight = arguments_of(leaves)
    x, delta, A, B, C, *rest = (tensor.detach() for tensor in inputs)

    def lay_out(tensor):
        if cut == "expanded":
            return tensor[:, :1].expand_as(tensor)
        wide = torch.zeros(*tensor.shape[:3], 3 * tensor.shape[3], dtype=tensor.dtype)
        step = 2 if cut == "every second" else 1
        part = wide[..., : step * tensor.shape[3] : step]
        part.copy_(tensor)
        return part

    strided = [x, lay_out(delta), A, lay_out(B), lay_out(C), *rest, delta_weight.detach()]
    plain = [tensor.contiguous() for tensor in strided]
    results = []
    for tensors in (strided, plain):
        tensors = [tensor.requires_grad_() for tensor in tensors]
        y = ss2d_scan(*tensors[:7], path, tensors[7])
        results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    assert all(torch.equal(one, other) for one, other in zip(*results))


def test_gradients_only_where_asked_for(backend):
    path = scan_path("cross4", 2, 3)
    leaves = make_projected(path)
    everything = torch.autograd.grad(scan(leaves, path).square().sum(), leaves)
    for wanted in range(len(leaves)):
        leaves = [tensor.detach() for tensor in make_projected(path)]
        leaves[wanted].requires_grad_()
        scan(leaves, path).square().sum().backward()
        assert torch.equal(leaves[wanted].grad, everything[wanted])
        assert all(tensor.grad is None for index, tensor in enumerate(leaves) if index != wanted)


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"channels": 0}])
def test_no_batch_and_no_channels(backend, sizes):
    path = scan_path("cross4", 2, 3)
    leaves = make_projected(path, **sizes)
    y = scan(leaves, path)
    assert y.shape == leaves[0].shape
    for gradient, tensor in zip(torch.autograd.grad(y.sum(), leaves), leaves):
        assert gradient.shape == tensor.shape and not gradient.any()


def test_nan_and_infinity_pass_as_through_the_product(backend):
    path = scan_path("cross4", 3, 4)
    for value in (float("nan"), float("inf")):
        leaves = make_projected(path, channels=18)
        with torch.no_grad():
            leaves[1][0, 5, 1, 0] = value
        y, expected = scan(leaves, path), true_scan(leaves, path)
        assert torch.equal(y.isnan(), expected.isnan()) and y.isnan().any()
        assert not y[1].isnan().any()


def test_double_backward_is_refused(backend):
    path = scan_path("cross4", 2, 3)
    leaves = make_projected(path)
    (dx,) = torch.autograd.grad(scan(leaves, path).sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="ss2d_scan can be differentiated once only"):
        dx.sum().backward()


def test_autocast_and_mixed_dtypes(backend):
    path = scan_path("cross4", 3, 4)
    leaves = make_projected(path, d_state=4, dtype=torch.float32)
    truth = scan(leaves, path)
    x, projection, *parameters = leaves
    narrow = [x.bfloat16(), projection.bfloat16(), *parameters]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = scan(narrow, path)
    assert y.dtype == torch.bfloat16
    assert relative(y, truth) < 0.02
    gradients = torch.autograd.grad(y.float().sum(), leaves)
    for gradient, true_gradient in zip(gradients, torch.autograd.grad(truth.sum(), leaves)):
        assert gradient.dtype == torch.float32 and relative(gradient, true_gradient) < 0.05
    wide = scan([*leaves[:5], leaves[5].double()], path)
    assert wide.dtype == torch.float32 and relative(wide, truth) < 1e-6


def test_autocast_leaves_the_product_alone(backend):
    path = scan_path("cross4", 3, 4)
    leaves = make_projected(path, d_state=4, dtype=torch.float32)
    truth = scan([leaf.double() for leaf in leaves], path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative(scan(leaves, path), truth) < 1e-6
    # Narrow factors are widened, not their product.
    x, projection, *parameters = leaves
    narrow = [x, projection.bfloat16(), *parameters]
    truth = scan([leaf.double() for leaf in narrow], path)
    assert relative(scan(narrow, path), truth) < 1e-6


# opcheck itself looks at .grad of tensors it has cloned.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_opcheck():
    path = PATHS["pauses"]()
    table, resets = op.path_tensors(path, torch.device("cpu"))
    inputs, delta_weight = arguments_of([tensor.detach() for tensor in make_projected(path)])
    inputs = [tensor.requires_grad_() for tensor in (*inputs, delta_weight)]
    arguments = (*inputs, table, resets, path.visited, True, "cpu")
    torch.library.opcheck(torch.ops.medmamba.ss2d_scan.default, arguments)
    with torch.no_grad():
        y, checkpoints = torch.ops.medmamba.ss2d_scan(*arguments)
    inputs = [tensor.detach() for tensor in inputs]
    arguments = (torch.ones_like(y), *inputs, table, resets, checkpoints, path.visited, "cpu")
    torch.library.opcheck(torch.ops.medmamba.ss2d_scan_backward.default, arguments)


def test_traces_as_one_graph(backend):
    torch._dynamo.reset()
    path = scan_path("cross4", 3, 4)
    compiled = torch.compile(lambda *leaves: scan(leaves, path).sin(), fullgraph=True, backend="aot_eager")
    leaves = make_projected(path)
    assert_same(leaves, compiled(*leaves), true_scan(leaves, path).sin(), leaves, 1e-12)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_product_is_counted(backend, device):
    path = scan_path("cross4", 3, 5)
    leaves = [tensor.detach().to(device).requires_grad_() for tensor in make_projected(path, channels=7)]
    with FlopCounterMode(display=False) as counter:
        scan(leaves, path).sum().backward()
    macs = scan_macs(2, path.visited, 7, 2) + 2 * 15 * 4 * 7 * 2
    assert counter.get_total_flops() == 6 * macs


@pytest.mark.parametrize(
    ("delta", "weight", "message"),
    [
        ((2, 12, 4, 3), (4, 3, 2), r"delta_weight must be \(K, channels, rank\) = \(4, 3, 3\), got \(4, 3, 2\)"),
        ((2, 12, 4, 2), (3, 4, 2), r"delta_weight must be \(K, channels, rank\) = \(4, 3, 2\), got \(3, 4, 2\)"),
        ((2, 12, 3, 2), (4, 3, 2), r"delta must be \(batch, length, K, rank\) = \(2, 12, 4, 2\), got \(2, 12, 3, 2\)"),
        ((2, 12, 4, 0), (4, 3, 0), r"delta must be .* beside delta_weight, rank at least 1, got \(2, 12, 4, 0\)"),
        ((2, 12, 8), (4, 3, 2), r"delta must be .* beside delta_weight, rank at least 1, got \(2, 12, 8\)"),
        ((2, 12, 4, 2), (), r"delta_weight must be \(K, channels, rank\) = \(4, 3, 2\), got \(\)"),
    ],
)
def test_wrong_shapes_are_refused(delta, weight, message):
    path = scan_path("cross4", 3, 4)
    x, _, *rest = make(path, grad=False)
    with pytest.raises(ValueError, match=message):
        ss2d_scan(x, torch.zeros(delta), *rest, path, torch.zeros(weight))


def test_another_device_is_refused():
    path = scan_path("cross4", 3, 4)
    inputs, delta_weight = arguments_of(make_projected(path))
    with pytest.raises(ValueError, match="delta_weight must be on x's device cpu, got meta"):
        ss2d_scan(*inputs, path, delta_weight.to("meta"))
