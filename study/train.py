"""run_cell: a cell in, a record and per-image probabilities out. One loop, no callbacks."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from analysis.metrics import all_metrics
from analysis.records import SCHEMA
from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import Cost, count_cost
from medmamba_variants.model import build_model
from study.augment import augment
from study.cells import NUMERICS_VERSION, Cell, Recipe
from study.data.protocol import Dataset
from study.data.sources import load_dataset
from study.devices import device_name, resolved_device
from study.memory import PeakMemory
from study.provenance import commit, machine, versions

EVALUATION_BATCH = 256

Record = dict[str, Any]
Probabilities = dict[str, np.ndarray]
Normalise = Callable[[Tensor], Tensor]


class NotFiniteError(ArithmeticError):
    """The training loss left the finite numbers."""


def run_cell(
    cell: Cell,
    *,
    device: str = "auto",
    threads: int = 1,
    should_stop: Callable[[int, float], bool] | None = None,
    keep_model: Callable[[nn.Module, Normalise], None] | None = None,
) -> tuple[Record, Probabilities]:
    """Train one cell and return its record and the probabilities of its validation and test images.

    A fault of any kind becomes a record with status "failed", the message and the traceback; only a keyboard interrupt
    passes. `should_stop(epoch, value)` is asked after each epoch with the selection metric; True ends the cell with
    status "stopped" and without touching the test split. `threads` sets torch's CPU threads: the last bits of a result
    depend on it, so every executor passes the same number. `keep_model` gets the network that the test metrics are of,
    and what turns its uint8 images into inputs: a record keeps no weights.
    """
    torch.set_num_threads(threads)
    record = _identity(cell)
    started = time.perf_counter()
    probabilities: Probabilities = {}
    try:
        where = resolved_device(device)
        record["machine"] = {**machine(), "threads": threads, "device": device_name(where)}
        data = load_dataset(dict(cell.data.source), cell.data.name)
        record |= _describe(data, cell)
        # Weights, dropped paths and whatever a layer draws come from torch's global generator: fork it, so that neither
        # does the caller's state reach the cell nor the cell change the caller's.
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), PeakMemory(where) as memory:
            torch.manual_seed(_stream(cell.seed, 0))
            outcome = _train(cell, data, where, should_stop, keep_model)
        probabilities = outcome.probabilities
        record |= outcome.fields | {"peak_bytes": memory.peak_bytes}
    except Exception as error:
        record |= {
            "status": "failed",
            "error": {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()},
        }
    record["seconds"] = time.perf_counter() - started
    record["finished"] = _now()
    return record, probabilities


def failed_record(cell: Cell, error: BaseException) -> Record:
    """The record of a cell whose worker was lost before it could write its own."""
    text = "".join(traceback.format_exception(error))
    fault = {"type": type(error).__name__, "message": str(error), "traceback": text}
    return _identity(cell) | {"status": "failed", "error": fault, "finished": _now()}


@dataclass
class _Outcome:
    fields: Record
    probabilities: Probabilities


@dataclass(frozen=True)
class Images:
    """One split on the training device: uint8 (n, height, width, channels) and labels (n,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def _train(
    cell: Cell,
    data: Dataset,
    device: torch.device,
    should_stop: Callable[[int, float], bool] | None,
    keep_model: Callable[[nn.Module, Normalise], None] | None,
) -> _Outcome:
    recipe, info = cell.recipe, data.info
    splits = {name: on_device(split.images, split.labels, recipe, device) for name, split in data.splits.items()}
    train = splits["train"]
    height, width = train.pixels.shape[1:3]
    normalise = _Normaliser(train.pixels)
    num_classes = len(info.classes)

    cost = _cost(cell.variant, (height, width), num_classes, info.channels)
    model = build_model(cell.variant, num_classes=num_classes, in_channels=info.channels).to(device)
    epochs = recipe.epochs_for(len(train))
    steps = math.ceil(len(train) / recipe.batch_size)
    # A span in steps would average over all of a short run and nothing of a long one.
    span = recipe.ema_span * epochs * steps
    ema = ModelEmaV3(model, decay=math.exp(-1 / span)) if span else None
    evaluated = ema.module if ema else model
    optimizer = _optimizer(model, recipe)
    schedule = _schedule(optimizer, recipe, epochs * steps, steps)
    weights = _class_weights(train.labels, num_classes) if recipe.class_weights else None
    order = torch.Generator().manual_seed(_stream(cell.seed, 1))
    changes = torch.Generator().manual_seed(_stream(cell.seed, 2))
    cast = _autocast(recipe, device)

    curves: list[Record] = []
    best: tuple[float, float] | None = None
    best_state: dict[str, Tensor] = {}
    best_epoch = -1
    train_seconds = 0.0
    for epoch in range(epochs):
        begun = time.perf_counter()
        model.train()
        total = torch.zeros((), device=device)
        for step, index in enumerate(torch.randperm(len(train), generator=order).split(recipe.batch_size)):
            learning_rate = optimizer.param_groups[0]["lr"]
            index = index.to(device)
            images = augment(normalise(train.pixels[index]), recipe, changes)
            with cast():
                logits = model(images)
            loss = F.cross_entropy(
                logits.float(), train.labels[index], weight=weights, label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad_norm)
            optimizer.step()
            update = epoch * steps + step + 1
            schedule.step_update(update)
            if ema:
                ema.update(model, step=update)
            total += loss.detach() * len(index)
        train_loss = float(total) / len(train)
        train_seconds += time.perf_counter() - begun
        if not math.isfinite(train_loss):
            raise NotFiniteError(f"the training loss must stay finite, got {train_loss} in epoch {epoch}")

        validation_loss, metrics = _validate(evaluated, splits["val"], normalise, num_classes, cast)
        curves.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": validation_loss}
            | {f"val_{name}": value for name, value in metrics.items()}
            | {"learning_rate": learning_rate}
        )
        value = -validation_loss if recipe.select_on == "loss" else metrics.get(recipe.select_on, float(epoch))
        # A small validation split often ties at its best AUC; then the lower loss decides, then the earlier epoch.
        candidate = (value, 0.0 if recipe.select_on == "last" else -validation_loss)
        if best is None or candidate > best:
            best, best_epoch = candidate, epoch
            best_state = {name: tensor.detach().clone() for name, tensor in evaluated.state_dict().items()}
        if should_stop is not None and epoch + 1 < epochs and should_stop(epoch, value):
            fields = {"status": "stopped", "best_epoch": best_epoch, "curves": curves, "cost": cost}
            return _Outcome(fields, {})

    evaluated.load_state_dict(best_state)
    if keep_model is not None:
        keep_model(evaluated, normalise)
    probabilities: Probabilities = {}
    results: Record = {}
    for split_name, long_name in (("val", "validation"), ("test", "test")):
        split = data.splits[split_name]
        scores = _probabilities(evaluated, splits[split_name], normalise, cast).cpu().numpy()
        results[long_name] = all_metrics(split.labels, scores, classes=info.classes)
        probabilities[f"{long_name}_probabilities"] = scores
        probabilities[f"{long_name}_labels"] = np.asarray(split.labels)
        probabilities[f"{long_name}_ids"] = np.asarray(split.ids)
        if split.groups is not None:
            probabilities[f"{long_name}_groups"] = np.asarray(split.groups)
    fields = {
        "status": "done",
        "best_epoch": best_epoch,
        "curves": curves,
        "cost": cost,
        "train_seconds": train_seconds,
        "images_per_second": epochs * len(train) / train_seconds,
        **results,
    }
    return _Outcome(fields, probabilities)


class _Normaliser:
    """uint8 (batch, height, width, channels) → float (batch, channels, height, width), channels-last in memory."""

    def __init__(self, pixels: Tensor) -> None:
        values = pixels.double().flatten(0, 2)
        mean, deviation = values.mean(0), values.std(0).clamp_min(1.0)
        self.scale = (1 / deviation).float()
        self.offset = (-mean / deviation).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        return torch.addcmul(self.offset, pixels.float(), self.scale).permute(0, 3, 1, 2)


def on_device(images: np.ndarray, labels: np.ndarray, recipe: Recipe, device: torch.device) -> Images:
    """A split as cells train on it: at the recipe's size, on the device."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    size = recipe.size_for((pixels.shape[1], pixels.shape[2]))
    if size != tuple(pixels.shape[1:3]):
        parts = []
        for part in pixels.split(EVALUATION_BATCH):
            resized = F.interpolate(part.permute(0, 3, 1, 2).float(), size=size, mode="bilinear", antialias=True)
            parts.append(resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous())
        pixels = torch.cat(parts)
    return Images(pixels, torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    make = partial(
        create_optimizer_v2, model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    # One fused call for all parameters: for small variants the loop over them costs more than the arithmetic.
    return make(fused=True) if recipe.optimizer in ("adamw", "adam", "sgd") else make()


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int, steps: int) -> CosineLRScheduler:
    """Linear warm-up, then a cosine to zero, in updates; the warm-up never takes more than a third of the run."""
    warmup = min(round(recipe.warmup_epochs * steps), updates // 3)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(1, updates - warmup),
        warmup_t=warmup,
        warmup_lr_init=recipe.learning_rate * 0.01 if warmup else 0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    schedule.step_update(0)
    return schedule


def _class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weights (classes,) inverse to class frequency, their mean over the images one."""
    counts = torch.bincount(labels, minlength=num_classes).clamp_min(1).float()
    return len(labels) / (num_classes * counts)


def _autocast(recipe: Recipe, device: torch.device) -> Callable[[], Any]:
    enabled = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


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


def _validate(
    model: nn.Module, images: Images, normalise: Normalise, num_classes: int, cast: Callable[[], Any]
) -> tuple[float, dict[str, float]]:
    """Mean cross-entropy and the running metrics of the validation split."""
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


def _probabilities(model: nn.Module, images: Images, normalise: Normalise, cast: Callable[[], Any]) -> Tensor:
    with _evaluating(model):
        return torch.cat([logits.softmax(dim=1) for logits, _ in _logits(model, images, normalise, cast)])


@lru_cache(maxsize=256)
def _cost(variant: VariantConfig, size: tuple[int, int], num_classes: int, channels: int) -> dict[str, int]:
    cost: Cost = count_cost(variant, image_size=size, num_classes=num_classes, in_channels=channels)
    return {"params": cost.params, "macs": cost.macs, "flops": cost.flops}


def _stream(seed: int, purpose: int) -> int:
    """An independent 63-bit seed for one purpose (0 weights, 1 order, 2 augmentation) of a cell's seed."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _identity(cell: Cell) -> Record:
    return {
        "schema": SCHEMA,
        "cell_id": cell.cell_id,
        "variant_id": cell.variant.variant_id,
        "recipe_id": cell.recipe.recipe_id,
        "variant": cell.variant.diff(),
        "recipe": cell.recipe.to_dict(),
        "dataset": cell.data.name,
        "data_fingerprint": cell.data.fingerprint,
        "seed": cell.seed,
        "numerics_version": NUMERICS_VERSION,
        "status": "failed",
        "error": None,
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "started": _now(),
        "probabilities": None,
    }


def _describe(data: Dataset, cell: Cell) -> Record:
    info = data.info
    if info.fingerprint != cell.data.fingerprint:
        raise ValueError(
            f"{info.name}: the data must have the fingerprint {cell.data.fingerprint}, got {info.fingerprint}: "
            "its content changed since the study was read"
        )
    return {
        "modality": info.modality,
        "classes": list(info.classes),
        "channels": info.channels,
        "image_size": _side(cell.recipe, info.image_size),
        "n_train": info.n_train,
        "n_val": info.n_val,
        "n_test": info.n_test,
    }


def _side(recipe: Recipe, stored: int | tuple[int, int]) -> int | list[int]:
    """Pixels a side that the cell trains at, or [height, width]."""
    height, width = recipe.size_for(stored)
    return height if height == width else [height, width]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
