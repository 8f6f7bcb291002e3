"""Tasks: what the labels of a data set mean, and the loss, probabilities and metrics that follow; one declaration each.

Free of torch: `study.training.tasks` has the functions that a task names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

# A label is predicted above this probability, as MedMNIST's evaluator has it.
THRESHOLD = 0.5
# A metric that needs classes in an order.
QUADRATIC_KAPPA = "quadratic_kappa"


@dataclass(frozen=True)
class Task:
    """A task.

    labels: "one", integers (images,), or "many", 0 or 1 for each label, (images, labels). activation: what makes
    probabilities of the network's outputs. metrics: those that are defined, None for all that are declared; absent:
    those that a record of the task does not name at all. spellings: what catalogues call it.
    """

    name: str
    words: str
    labels: Literal["one", "many"]
    loss: Literal["cross_entropy", "binary_cross_entropy"]
    activation: Literal["softmax", "sigmoid"]
    metrics: tuple[str, ...] | None = None
    absent: tuple[str, ...] = ()
    spellings: tuple[str, ...] = ()

    @property
    def has_many(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels == "many"

    def defines(self, metric: str) -> bool:
        """Whether a metric is defined for the task."""
        return metric not in self.absent and (self.metrics is None or metric in self.metrics)


# Classes without an order, one of them an image's; what a data set is that declares nothing.
CLASSIFICATION = Task(
    "classification",
    "one class an image",
    "one",
    "cross_entropy",
    "softmax",
    absent=(QUADRATIC_KAPPA,),
    spellings=("multiclass", "multi-class", "binary", "binary-class"),
)
# Classes in an order, such as the grades of a disease.
ORDINAL = Task(
    "ordinal", "ordered classes", "one", "cross_entropy", "softmax", spellings=("ordinal-regression", "ordered")
)
# Findings of which an image may have several, or none.
MULTILABEL = Task(
    "multilabel",
    "several labels an image",
    "many",
    "binary_cross_entropy",
    "sigmoid",
    metrics=("macro_f1", "macro_auc_ovr", "balanced_accuracy", "accuracy", "auprc_macro", "brier"),
    absent=(QUADRATIC_KAPPA,),
    spellings=("multi-label", "multi-label, binary-class"),
)
TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, ORDINAL, MULTILABEL)}


def task_named(name: str, where: str = "task") -> Task:
    """The task of a name or another spelling of it. Raises ValueError that begins with `where`."""
    for task in TASKS.values():
        if name in (task.name, *task.spellings):
            return task
    raise ValueError(f"{where} must be {', '.join(TASKS)}, got {name!r}")


def task_of(labels: np.ndarray) -> Task:
    """The task by the shape of labels alone: several an image, or one (in no order)."""
    return MULTILABEL if labels.ndim == 2 else CLASSIFICATION


def members(labels: np.ndarray, label: int) -> np.ndarray:
    """Which images have a class, or a label, (images,) booleans; labels as in a split of any task."""
    return labels == label if labels.ndim == 1 else labels[:, label] == 1


def supports(labels: np.ndarray, classes: int) -> np.ndarray:
    """How many images have each class or label, (classes,)."""
    return np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(axis=0)


def chosen(probabilities: np.ndarray, has_many: bool) -> list[int]:
    """The classes that are decided on for one image, from its probabilities (classes,), by number."""
    found = decided(probabilities[None], has_many)[0]
    return [int(k) for k in (np.flatnonzero(found) if has_many else [found])]


def decided(probabilities: np.ndarray, has_many: bool) -> np.ndarray:
    """The class of the largest probability of each image, (images,); of many labels, which are above the threshold."""
    return probabilities > THRESHOLD if has_many else probabilities.argmax(axis=1)
