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

from analysis.metrics import DECLARED, Scored
from study.training.images import EVALUATION_BATCH, Images, MappedImages, Normalise

RUNNING = ("macro_f1", "macro_auc_ovr", "balanced_accuracy")


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
    model: nn.Module, images: Images | MappedImages, normalise: Normalise, cast: Callable[[], Any], at_once: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, labels in zip(images.blocks(at_once), images.labels.split(at_once), strict=True):
        with cast():
            logits = model(normalise(pixels))
        yield logits.float(), labels


def validate(
    model: nn.Module,
    images: Images | MappedImages,
    normalise: Normalise,
    num_classes: int,
    cast: Callable[[], Any],
    at_once: int = EVALUATION_BATCH,
) -> tuple[float, dict[str, float]]:
    """The mean cross-entropy and the running metrics on the validation split, as a record defines them.

    A class without an image takes no part in any of them. torchmetrics would count it as 0 in the AUC, and as 0 in the
    balanced accuracy once it is predicted, so that its values serve only where every class has an image. There they are
    the same to 1e-6, and are kept for their last bits, which decide between epochs that tie.
    """
    total, scores = 0.0, []
    with _evaluating(model):
        for logits, labels in _logits(model, images, normalise, cast, at_once):
            total += float(F.cross_entropy(logits, labels, reduction="sum"))
            scores.append(logits.softmax(dim=1))
        values = _running_metrics(torch.cat(scores), images.labels, num_classes)
    return total / len(images), values


def _running_metrics(scores: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    if len(labels.unique()) < num_classes:
        scored = Scored(labels.cpu().numpy(), scores.cpu().numpy())
        return {name: float(DECLARED[name].value(scored)) for name in RUNNING}
    metrics = _complete_metrics(num_classes, labels.device)
    metrics.reset()
    metrics.update(scores, labels)
    return {name: float(value) for name, value in metrics.compute().items()}


@lru_cache(maxsize=8)
def _complete_metrics(num_classes: int, device: torch.device) -> MetricCollection:
    return MetricCollection(
        {
            "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            "macro_auc_ovr": MulticlassAUROC(num_classes, average="macro", validate_args=False),
            "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro", validate_args=False),
        },
        compute_groups=False,
    ).to(device)


def predict(
    model: nn.Module,
    images: Images | MappedImages,
    normalise: Normalise,
    cast: Callable[[], Any],
    at_once: int = EVALUATION_BATCH,
) -> Tensor:
    """Probabilities (n, classes) of a split's images, of which `at_once` go through the network at a time."""
    with _evaluating(model):
        return torch.cat([logits.softmax(dim=1) for logits, _ in _logits(model, images, normalise, cast, at_once)])
