"""Step of training: loss and gradients of a batch, at once or in parts that add up to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# How torch names a lack of memory where its error has no class of its own.
NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of this process."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in NO_MEMORY)


def add_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None,
    smoothing: float,
    cast: Callable[[], Any],
    micro_batch: int | None,
) -> Tensor:
    """The mean cross-entropy () of a batch, detached, after its gradients were added to those of the parameters.

    images: (batch, channels, height, width), normalised. weight: of each class, or None. With `micro_batch` the batch
    goes through in equal parts of at most that many images, whose gradients add up to those of the whole; norms over a
    batch then see the parts.
    """
    if micro_batch is None or micro_batch >= len(labels):
        with cast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, weight=weight, label_smoothing=smoothing)
        loss.backward()
        return loss.detach()
    parts = math.ceil(len(labels) / micro_batch)
    # torch divides by the weights of the labels, also where it smooths.
    share = 1 / (len(labels) if weight is None else weight[labels].sum())
    total = torch.zeros((), device=labels.device)
    for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
        with cast():
            logits = model(some)
        sums = F.cross_entropy(logits.float(), theirs, weight=weight, label_smoothing=smoothing, reduction="sum")
        loss = sums * share
        loss.backward()
        total += loss.detach()
    return total
