"""Tasks in torch: the loss, the probabilities and the class weights that `analysis.tasks` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from analysis.tasks import Task

Reduction = Literal["mean", "sum"]
# Of logits (batch, classes), labels, weights or None, label smoothing and a reduction over images.
Loss = Callable[[Tensor, Tensor, Tensor | None, float, Reduction], Tensor]


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, over: Reduction) -> Tensor:
    return F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction=over)


def _binary_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, over: Reduction
) -> Tensor:
    """The mean over labels of each one's cross-entropy, so that its size does not grow with the number of labels."""
    # The two answers to a label are its classes: a share of the target is spread over both.
    targets = labels.float() * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none").mean(dim=1)
    return each.mean() if over == "mean" else each.sum()


LOSSES: dict[str, Loss] = {"cross_entropy": _cross_entropy, "binary_cross_entropy": _binary_cross_entropy}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=1),
    "sigmoid": lambda logits: logits.sigmoid(),
}


def loss_of(task: Task) -> Loss:
    """The loss of a task."""
    return LOSSES[task.loss]


def probabilities_of(task: Task, logits: Tensor) -> Tensor:
    """Probabilities (batch, classes) of a network's outputs (batch, classes)."""
    return ACTIVATIONS[task.activation](logits)


def class_weights(task: Task, labels: Tensor, num_classes: int) -> Tensor:
    """Weights (classes,) inverse to class frequency, with mean one over the images.

    Of many labels: what a label counts where it is there, images without it for each with it.
    """
    if task.has_many:
        there = labels.sum(dim=0).float()
        return (len(labels) - there) / there.clamp_min(1)
    counts = labels.bincount(minlength=num_classes).clamp_min(1).float()
    return len(labels) / (num_classes * counts)
