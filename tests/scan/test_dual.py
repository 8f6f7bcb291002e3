"""The dual scan: kernels and products are the recurrence, whatever directions and heads share."""

import pytest
import torch

from medmamba_variants.scan.dual.launch import supports
from medmamba_variants.scan.dual.op import dual_scan
from medmamba_variants.scan.dual.products import scan_by_products
from medmamba_variants.scan.paths import scan_path

DIRECTIONS = ("rows", "columns_reverse", "diagonals")
NAMES = ("y", "x", "scale", "log_decay", "B", "C")


def recurrence(x, scale, log_decay, B, C, path, merged):
    """Step after step and head after head: the state (batch, N, P) decays, is written to, and is read."""
    batch, length, K, heads = scale.shape
    y = [[[None] * heads for _ in range(K)] for _ in range(length)]
    for k, order in enumerate(path.table.tolist()):
        for head in range(heads):
            kx, kb, g = min(k, x.shape[2] - 1), min(k, B.shape[2] - 1), min(head, B.shape[3] - 1)
            h = x.new_zeros(batch, B.shape[4], x.shape[4])
            for p in order:
                drive = scale[:, p, k, head, None] * x[:, p, kx, head]
                h = log_decay[:, p, k, head, None, None].exp() * h + B[:, p, kb, g, :, None] * drive[:, None]
                y[p][k][head] = (C[:, p, kb, g, :, None] * h).sum(1)
    y = torch.stack([torch.stack([torch.stack(heads, 1) for heads in of_p], 1) for of_p in y], 1)
    return y.sum(2, keepdim=True) if merged else y


def inputs(batch, size, K, heads, each, groups, states, own_x, own_B, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(batch, size[0] * size[1], *shape, generator=generator, dtype=dtype).requires_grad_()

    keys = (K if own_B else 1, groups, states)
    x, scale, log_decay = normal(K if own_x else 1, heads, each), normal(K, heads), normal(K, heads)
    return [x, scale, (-log_decay.detach().exp()).requires_grad_(), normal(*keys), normal(*keys)]


def with_gradients(function, leaves, *rest):
    y = function(*leaves, *rest)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y, *torch.autograd.grad(y, leaves, dy)]


SHAPES = [
    # batch, map, K, heads, channels of a head, groups of B and C, states
    (2, (5, 7), 2, 3, 5, 1, 4),
    (2, (5, 7), 3, 3, 5, 3, 13),
    (1, (1, 1), 1, 1, 1, 1, 1),
    (1, (1, 33), 2, 2, 9, 2, 2),
    (2, (7, 5), 1, 2, 24, 1, 8),
]


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("own", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_recurrence(shape, own, merged):
    batch, size, K, heads, each, groups, states = shape
    path = scan_path(DIRECTIONS[:K], *size)
    leaves = inputs(batch, size, K, heads, each, groups, states, *own)
    assert supports(leaves[0])
    expected = with_gradients(recurrence, leaves, path, merged)
    by_kernel = with_gradients(dual_scan, leaves, path, 8, merged)
    by_products = with_gradients(scan_by_products, leaves, path, merged, 8)
    for name, one, other, wanted in zip(NAMES, by_kernel, by_products, expected):
        torch.testing.assert_close(one, wanted, rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"kernel, {n}: {m}")
        torch.testing.assert_close(other, wanted, rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"products, {n}: {m}")


def test_single_precision_is_the_double_one_rounded():
    path = scan_path("cross4", 9, 11)
    leaves = inputs(3, (9, 11), 4, 4, 12, 1, 64, False, True)
    dy = torch.randn(leaves[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for dtype in (torch.float32, torch.float64):
        rounded = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
        y = dual_scan(*rounded, path, 64)
        results.append([y, *torch.autograd.grad(y, rounded, dy.to(dtype))])
    for name, one, other in zip(NAMES, *results):
        assert (one - other).norm() / other.norm() < 1e-6, name


def test_threads_do_not_change_a_bit():
    path = scan_path("cross4", 12, 13)
    leaves = inputs(5, (12, 13), 4, 4, 12, 1, 32, False, True, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(with_gradients(dual_scan, leaves, path, 64))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results))


def test_no_image_at_all():
    path = scan_path(("rows",), 2, 3)
    leaves = inputs(0, (2, 3), 1, 2, 3, 1, 4, True, True)
    y, *gradients = with_gradients(dual_scan, leaves, path, 64)
    assert y.shape == (0, 6, 1, 2, 3) and [g.shape for g in gradients] == [leaf.shape for leaf in leaves]
