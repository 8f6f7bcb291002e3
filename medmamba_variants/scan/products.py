"""Low-rank product of step sizes, for backends whose kernels take it as a tensor."""

import torch
from torch import Tensor


def product(delta: Tensor, delta_weight: Tensor) -> Tensor:
    """Product of delta (batch, length, K, rank) and delta_weight (K, channels, rank): (batch, length, K, channels)."""
    # Not an einsum: with rank one that is not a matrix product, and FLOP counters miss it.
    made = torch.bmm(delta.flatten(0, 1).transpose(0, 1), delta_weight.transpose(1, 2))
    return made.transpose(0, 1).unflatten(0, delta.shape[:2])


def product_in_order(delta: Tensor, delta_weight: Tensor) -> Tensor:
    """The product of delta and delta_weight, contiguous without a copy; not differentiable."""
    made = delta.new_empty(*delta.shape[:3], delta_weight.shape[1])
    torch.bmm(delta.flatten(0, 1).transpose(0, 1), delta_weight.transpose(1, 2), out=made.flatten(0, 1).transpose(0, 1))
    return made


def product_gradients(dmade: Tensor, delta: Tensor, delta_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `product`'s arguments from the gradient of its result."""
    by_direction = dmade.flatten(0, 1).transpose(0, 1)
    ddelta = torch.bmm(by_direction, delta_weight).transpose(0, 1).unflatten(0, delta.shape[:2])
    return ddelta.contiguous(), torch.bmm(by_direction.transpose(1, 2), delta.flatten(0, 1).transpose(0, 1))
