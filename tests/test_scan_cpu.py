"""The numba scan against the loop in float64, and what must hold around it: threads, forks, caches, NaN, tails, resets."""

import pytest
import torch
from torch import Tensor

from medmamba_variants.scan import cpu, reference

pytestmark = pytest.mark.skipif(cpu.UNAVAILABLE is not None, reason=str(cpu.UNAVAILABLE))

NAMES = ("dx", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias")


def make_inputs(batch: int, channels: int, length: int, states: int, directions: int) -> list[Tensor]:
    """x, delta, A, B, C, D, delta_bias in float64."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    spread = 1 + 0.1 * torch.rand(directions, channels, states, generator=g, dtype=torch.float64)
    return [
        normal(batch, length, channels),
        normal(batch, length, directions, channels),
        -torch.arange(1.0, states + 1, dtype=torch.float64) * spread,
        normal(batch, length, directions, states),
        normal(batch, length, directions, states),
        normal(directions, channels),
        normal(directions, channels) - 3,
    ]


def make_path(directions: int, length: int, holes: bool) -> tuple[Tensor, Tensor]:
    """A random table and its marks; with holes, positions are missing and the state starts anew now and then."""
    g = torch.Generator().manual_seed(1)
    table = torch.stack([torch.randperm(length, generator=g) for _ in range(directions)]).int()
    resets = torch.zeros(directions, length, dtype=torch.uint8)
    if holes:
        table[torch.rand(directions, length, generator=g) < 0.2] = -1
        resets = ((torch.rand(directions, length, generator=g) < 0.15) & (table >= 0)).to(torch.uint8)
    return table, resets


def relative_error(result: Tensor, truth: Tensor) -> float:
    return float((result.double() - truth).norm() / truth.norm().clamp_min(1e-300))


CASES = [
    # batch, channels, length, states, directions, holes
    (3, 48, 35, 16, 4, False),
    (2, 20, 70, 4, 3, True),
    (2, 16, 40, 3, 2, True),
    (2, 7, 33, 1, 2, False),
    (1, 40, 5, 6, 2, True),
    (33, 5, 3, 2, 1, False),
    (2, 9, 1, 64, 4, False),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_equal_the_loop(case: tuple, dtype: torch.dtype) -> None:
    batch, channels, length, states, directions, holes = case
    inputs = make_inputs(batch, channels, length, states, directions)
    table, resets = make_path(directions, length, holes)
    true_inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    true_y = reference.scan(*true_inputs, table, resets)
    dy = torch.randn(true_y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    true_gradients = torch.autograd.grad(true_y, true_inputs, dy)
    given = [tensor.to(dtype) for tensor in inputs]
    y, checkpoints = cpu.forward(*given, table, resets, True)
    gradients = cpu.backward(dy.to(dtype), *given, table, resets, checkpoints)
    bound = 1e-6 if dtype == torch.float32 else 1e-12
    assert relative_error(y, true_y.detach()) < bound
    for name, gradient, true_gradient in zip(NAMES, gradients, true_gradients):
        assert gradient.shape == true_gradient.shape
        assert relative_error(gradient, true_gradient) < bound, name
