"""Evaluation of a network on a split: its outputs, and the metrics by which an epoch is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from study.training.images import EVALUATION_BATCH, Images, Normalise


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _logits(
    model: nn.Module, images: Images, normalise: Normalise, cast: Callable[[], Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, labels in zip(
        images.pixels.split(EVALUATION_BATCH), images.labels.split(EVALUATION_BATCH), strict=True
    ):
        with cast():
            logits = model(normalise(pixels))
        yield logits.float(), labels


def validate(
    model: nn.Module, images: Images, normalise: Normalise, num_classes: int, cast: Callable[[], Any]
) -> tuple[float, dict[str, float]]:
    """The mean cross-entropy and the running metrics on the validation split."""
    metrics = _validation_metrics(num_classes, images.labels.device)
    metrics.reset()
    total = 0.0
    with _evaluating(model):
        for logits, labels in _logits(model, images, normalise, cast):
            total += float(F.cross_entropy(logits, labels, reduction="sum"))
            metrics.update(logits.softmax(dim=1), labels)
        values = {name: float(value) for name, value in metrics.compute().items()}
    return total / len(images), values


@lru_cache(maxsize=8)
def _validation_metrics(num_classes: int, device: torch.device) -> MetricCollection:
    return MetricCollection(
        {
            "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            "macro_auc_ovr": MulticlassAUROC(num_classes, average="macro", validate_args=False),
            "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro", validate_args=False),
        },
        compute_groups=False,
    ).to(device)


def predict(model: nn.Module, images: Images, normalise: Normalise, cast: Callable[[], Any]) -> Tensor:
    with _evaluating(model):
        return torch.cat([logits.softmax(dim=1) for logits, _ in _logits(model, images, normalise, cast)])
