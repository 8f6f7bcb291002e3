"""Clipping of the whole gradient's norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Scales all gradients together so that their norm is at most `largest`, and returns the norm they had.

    Bit for bit as torch's `clip_grad_norm_`, which on a CPU calls an operation for each gradient twice.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients or any(gradient.device.type != "cpu" or gradient.is_sparse for gradient in gradients):
        return nn.utils.clip_grad_norm_(parameters, largest)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    factor = float(torch.clamp(largest / (norm + 1e-6), max=1.0))
    # Not "less than one": a norm that is not a number must spoil every gradient, as it does in torch.
    if factor != 1.0:
        torch._foreach_mul_(gradients, factor)
    return norm
